"""Proofs about cells, offered wrong points and wrong multipliers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

import fsboundary as fsb
from fsboundary import Status
from fsboundary.geometry.regions.redundancy import Cell, probe


def cell_of(rows: list[list[float]], offset: list[float], low: float, high: float) -> Cell:
    """Return a cell with the same limits for each feature."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    limit = torch.ones_like(matrix[0])
    right = torch.tensor(offset, dtype=torch.float64)
    return Cell(rows=matrix, offset=right, lower=low * limit, upper=high * limit)


small = st.integers(-3, 3).map(float)


@given(
    rows=st.lists(st.lists(small, min_size=2, max_size=2), min_size=1, max_size=5),
    offset=st.lists(small, min_size=5, max_size=5),
    low=st.sampled_from([-torch.inf, 0.0, -1.0]),
    high=st.sampled_from([torch.inf, 1.0]),
    lies=st.lists(st.floats(0, 1e3), min_size=5, max_size=5),
)
@settings(max_examples=60, derandomize=True)
def test_answers_agree_with_a_linear_program_and_lies_prove_nothing(
    rows: list[list[float]], offset: list[float], low: float, high: float, lies: list[float]
) -> None:
    cell = cell_of(rows, offset[: len(rows)], low, high)
    found = probe(cell, torch.zeros(2).double(), 1.0, 1.0)
    # how far all constraints can be met at once
    eye = np.eye(2)
    a = np.vstack([cell.rows.numpy(), eye, -eye])
    c = np.concatenate([cell.offset.numpy(), [-low] * 2, [high] * 2])
    a, c = a[np.isfinite(c)], c[np.isfinite(c)]
    best = linprog(
        [0, 0, -1],
        A_ub=np.column_stack([-a, np.ones(len(a))]),
        b_ub=c,
        bounds=[(None, None)] * 2 + [(None, 1)],
    )
    if isinstance(found, Tensor):
        assert (cell.rows @ found + cell.offset > 0).all()
        assert ((cell.lower < found) & (found < cell.upper)).all()
    assert isinstance(found, Tensor) == (-best.fun > 1e-9)
    # touching sets are neither
    assert (found is False) == (-best.fun < -1e-9)
    multipliers = torch.tensor(lies[: len(rows)]).double()
    claimed = cell.lacks_points(multipliers, torch.zeros(2).double(), 1.0)
    assert not claimed or found is False


def test_points_on_the_border_do_not_hold() -> None:
    cell = cell_of([[1.0, 1.0]], [-1.0], 0.0, 2.0)
    for point, inside in (([0.5, 0.5], 0), ([0.5, 0.51], 1), ([0.0, 1.5], 0), ([1.0, 2.0], 0)):
        assert cell.holds(torch.tensor(point).double()) == bool(inside)
    assert not cell.holds(torch.tensor([torch.nan, 1.0]).double())
    assert not cell.holds(torch.tensor([torch.inf, 1.0]).double())


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_cells_at_any_scale(scale: float) -> None:
    rows, offset = [[1.0, 2.0], [-1.0, -2.0]], [-1.0, 1.5]
    for by, on in product((1.0, scale), (1.0, scale)):
        # either sliver is half as wide as far from 0: 1 < x + 2 y < 1.5
        cell = cell_of(rows, offset, -torch.inf, torch.inf)
        scaled = Cell(
            rows=cell.rows * by, offset=cell.offset * by * on, lower=cell.lower, upper=cell.upper
        )
        if not 1e-290 < by * on < 1e290:
            continue
        start = torch.zeros(2).double()
        found = probe(scaled, start, scaled.scale(start), scaled.scale(start))
        assert isinstance(found, Tensor)
        assert 1 < float(found @ torch.tensor([1.0, 2.0]).double()) / on < 1.5
        apart = Cell(rows=scaled.rows, offset=-scaled.offset, lower=cell.lower, upper=cell.upper)
        assert probe(apart, start, apart.scale(start), apart.scale(start)) is False


def test_constant_features_and_rows() -> None:
    cell = Cell(
        rows=torch.tensor([[0.0, 1.0], [1.0, 1.0]]).double(),
        offset=torch.tensor([-0.5, -1.5]).double(),
        lower=torch.tensor([0.0, 1.0]).double(),
        upper=torch.tensor([2.0, 1.0]).double(),
    )
    # y = 1, so 1/2 < x < 2
    found = probe(cell, torch.tensor([0.0, 1.0]).double(), 1.0, 1.0)
    assert isinstance(found, Tensor)
    assert 0.5 < float(found[0]) < 2
    assert float(found[1]) == 1
    never = Cell(rows=cell.rows, offset=cell.offset - 0.6, lower=cell.lower, upper=cell.upper)
    assert probe(never, torch.tensor([0.0, 1.0]).double(), 1.0, 1.0) is False


def test_all_classes_with_equal_weights() -> None:
    head = fsb.LinearHead(torch.ones(3, 2), torch.tensor([0.0, 1.0, 1.0]))
    assert [fsb.region_faces(head, i).region for i in range(3)] == [
        Status.INFEASIBLE,
        Status.CONVERGED,
        Status.CONVERGED,
    ]
    whole = fsb.region_faces(head, 1)
    assert len(whole.classes) == 0
    assert whole.redundant_classes == (0, 2)
