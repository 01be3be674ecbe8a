"""What the slots of a problem's multipliers stand for."""

from __future__ import annotations

import pytest
import torch

from fsboundary.geometry.flips.dual_problems import DualProblems, FlipProblems
from fsboundary.geometry.flips.tie_problems import tie_problems
from support.flips.oracles import make_problem


def problems(kind: str) -> DualProblems:
    head, z = make_problem(7, 4, "nonnegative", rows=6, seed=1)
    pairs = torch.tensor([[0, 1], [3, 2], [6, 0], [2, 5], [4, 6], [5, 1]])
    if kind == "flips":
        return FlipProblems(head=head, z=z, source=pairs[:, 0], target=pairs[:, 1])
    return tie_problems(head, z, pairs if kind == "ties" else pairs[:, :1])


@pytest.mark.parametrize("kind", ["flips", "ties", "regions"])
def test_values_of_both_classes_are_those_of_the_table_of_pairs(kind: str) -> None:
    found = problems(kind)
    values = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = found.of_both_classes(values)
    for sign in (1, -1):
        table = (values[:, None] + sign * values).abs()
        assert torch.equal((first + sign * second).abs(), found.per_slot(table))
