"""Certificates of polyhedra, for right and wrong points and multipliers."""

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
from fsboundary.geometry.regions.certify import Polyhedron
from fsboundary.geometry.regions.redundancy import find_interior_point


def box_polyhedron(
    rows: list[list[float]], offset: list[float], low: float, high: float
) -> Polyhedron:
    """Return a polyhedron with the same limits for each feature."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    limit = torch.ones_like(matrix[0])
    right = torch.tensor(offset, dtype=torch.float64)
    return Polyhedron(rows=matrix, offset=right, lower=low * limit, upper=high * limit)


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
    polyhedron = box_polyhedron(rows, offset[: len(rows)], low, high)
    result = find_interior_point(polyhedron, torch.zeros(2).double(), 1.0)
    # the largest slack that all constraints can have at once
    eye = np.eye(2)
    a = np.vstack([polyhedron.rows.numpy(), eye, -eye])
    c = np.concatenate([polyhedron.offset.numpy(), [-low] * 2, [high] * 2])
    a, c = a[np.isfinite(c)], c[np.isfinite(c)]
    best = linprog(
        [0, 0, -1],
        A_ub=np.column_stack([-a, np.ones(len(a))]),
        b_ub=c,
        bounds=[(None, None)] * 2 + [(None, 1)],
    )
    if isinstance(result, Tensor):
        assert (polyhedron.rows @ result + polyhedron.offset > 0).all()
        assert ((polyhedron.lower < result) & (result < polyhedron.upper)).all()
    assert isinstance(result, Tensor) == (-best.fun > 1e-9)
    # touching sets are neither
    assert (result is False) == (-best.fun < -1e-9)
    multipliers = torch.tensor(lies[: len(rows)]).double()
    claimed = polyhedron.certifies_empty(multipliers)
    assert not claimed or result is False


def test_points_on_the_border_are_not_inside() -> None:
    polyhedron = box_polyhedron([[1.0, 1.0]], [-1.0], 0.0, 2.0)
    for point, inside in (([0.5, 0.5], 0), ([0.5, 0.51], 1), ([0.0, 1.5], 0), ([1.0, 2.0], 0)):
        assert polyhedron.strictly_contains(torch.tensor(point).double()) == bool(inside)
    assert not polyhedron.strictly_contains(torch.tensor([torch.nan, 1.0]).double())
    assert not polyhedron.strictly_contains(torch.tensor([torch.inf, 1.0]).double())


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_polyhedra_at_any_scale(scale: float) -> None:
    rows, offset = [[1.0, 2.0], [-1.0, -2.0]], [-1.0, 1.5]
    for by, on in product((1.0, scale), (1.0, scale)):
        # each sliver is half as wide as its distance from 0: 1 < x + 2 y < 1.5
        polyhedron = box_polyhedron(rows, offset, -torch.inf, torch.inf)
        scaled = Polyhedron(
            rows=polyhedron.rows * by,
            offset=polyhedron.offset * by * on,
            lower=polyhedron.lower,
            upper=polyhedron.upper,
        )
        if not 1e-290 < by * on < 1e290:
            continue
        start = torch.zeros(2).double()
        result = find_interior_point(scaled, start, scaled.scale(start))
        assert isinstance(result, Tensor)
        assert 1 < float(result @ torch.tensor([1.0, 2.0]).double()) / on < 1.5
        apart = Polyhedron(
            rows=scaled.rows, offset=-scaled.offset, lower=polyhedron.lower, upper=polyhedron.upper
        )
        assert find_interior_point(apart, start, apart.scale(start)) is False


def test_constant_features_and_rows() -> None:
    polyhedron = Polyhedron(
        rows=torch.tensor([[0.0, 1.0], [1.0, 1.0]]).double(),
        offset=torch.tensor([-0.5, -1.5]).double(),
        lower=torch.tensor([0.0, 1.0]).double(),
        upper=torch.tensor([2.0, 1.0]).double(),
    )
    # y = 1, so 1/2 < x < 2
    result = find_interior_point(polyhedron, torch.tensor([0.0, 1.0]).double(), 1.0)
    assert isinstance(result, Tensor)
    assert 0.5 < float(result[0]) < 2
    assert float(result[1]) == 1
    empty = Polyhedron(
        rows=polyhedron.rows,
        offset=polyhedron.offset - 0.6,
        lower=polyhedron.lower,
        upper=polyhedron.upper,
    )
    assert find_interior_point(empty, torch.tensor([0.0, 1.0]).double(), 1.0) is False


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
