"""Faces and partitions of heads whose features or rows differ much in size, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from fsboundary import Domain, LinearHead, Status, partition, region_faces


def head_of_scales(seed: int, classes: int, width: int, span: float) -> LinearHead:
    """Return a head whose columns have sizes from 10**-span to 10**span."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, width, generator=g).double()
    weight *= 10.0 ** ((torch.rand(width, generator=g) * 2 - 1) * span)
    return LinearHead(weight, torch.randn(classes, generator=g).double())


def holds(head: LinearHead, i: int, point: torch.Tensor, kept: list[int], broken: int) -> bool:
    """Return whether `point` has class i above all of `kept` and below `broken`, exactly."""
    x = [Fraction(v) for v in point.tolist()]
    logits = [
        sum((Fraction(w) * v for w, v in zip(row, x, strict=True)), Fraction(b))
        for row, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
    ]
    below = broken < 0 or logits[i] < logits[broken]
    return below and all(logits[i] > logits[k] for k in kept if k != broken)


def proposal(head: LinearHead, i: int, kept: list[int], broken: int) -> torch.Tensor | None:
    """Return a point of an open set of `holds` found by another program, in balanced features."""
    size = head.weight.abs().amax(dim=0).numpy()
    w, b = head.weight.numpy() / size, head.bias.numpy()
    rows = [(w[i] - w[k], b[i] - b[k]) for k in kept if k != broken]
    rows += [(w[broken] - w[i], b[broken] - b[i])] if broken >= 0 else []
    a, c = np.array([row for row, _ in rows]), np.array([value for _, value in rows])
    width = len(size)
    found = linprog(
        np.append(np.zeros(width), -1.0),
        A_ub=np.column_stack([-a, np.ones(len(a))]),
        b_ub=c,
        bounds=[(None, None)] * width + [(None, 1.0)],
    )
    if found.status != 0 or found.x[-1] <= 0:
        return None
    return torch.from_numpy(found.x[:-1] / size)


@pytest.mark.parametrize(("classes", "width"), [(4, 2), (8, 3), (7, 6)])
@pytest.mark.parametrize("seed", range(8))
def test_nothing_called_empty_or_redundant_holds_a_point(
    seed: int, classes: int, width: int
) -> None:
    head = head_of_scales(seed, classes, width, 6.0)
    for i in range(classes):
        faces = region_faces(head, i)
        others = [k for k in range(classes) if k != i]
        if faces.region == Status.INFEASIBLE:
            point = proposal(head, i, others, -1)
            assert point is None or not holds(head, i, point, others, -1)
        kept = [k for k in faces.classes.tolist() if k >= 0]
        for k in faces.redundant_classes if faces.region == Status.CONVERGED else ():
            point = proposal(head, i, kept, k)
            assert point is None or not holds(head, i, point, kept, k)
        for k, witness, status in zip(
            faces.classes.tolist(), faces.witnesses, faces.status.tolist(), strict=True
        ):
            if status == Status.CONVERGED:
                assert holds(head, i, witness, kept, k)


@pytest.mark.parametrize("seed", range(4))
def test_columns_times_powers_of_two_give_the_same_faces(seed: int) -> None:
    head = head_of_scales(seed, 7, 3, 0.0)
    power = torch.tensor([2.0**-20, 1.0, 2.0**20]).double()
    scaled = LinearHead(head.weight * power, head.bias)
    for i in range(7):
        one, other = region_faces(head, i), region_faces(scaled, i)
        assert one.region == other.region
        assert torch.equal(one.classes, other.classes)
        assert torch.equal(one.status, other.status)
        assert one.redundant_classes == other.redundant_classes
        assert torch.equal(one.witnesses.nan_to_num(), (other.witnesses * power).nan_to_num())


@pytest.mark.parametrize("tiny", [2e-313, 5e-324, 1e-200, 1e-120])
@pytest.mark.parametrize("bias", [1.0, 1e300, 0.0])
@pytest.mark.parametrize("boxed", [False, True])
def test_rows_at_the_end_of_the_range_warn_of_nothing(
    boxed: bool, bias: float, tiny: float
) -> None:
    """Warnings are errors here: no scaling of a row, an offset or an error may overflow aloud."""
    rows = [[1.0, 0.5], [0.0, tiny], [tiny, 0.0], [-1.0, 0.25]]
    weight = torch.tensor(rows, dtype=torch.float64)
    head = LinearHead(weight, torch.tensor([0.0, bias, 0.0, -bias], dtype=torch.float64))
    box = Domain.box(torch.zeros(2), torch.tensor([1.0, 2.0]))
    found = partition(head, box if boxed else None)
    assert found.status is not None
    for i in range(4):
        region_faces(head, i, box if boxed else None)
