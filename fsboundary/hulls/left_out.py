"""Rows of a bank, each held against the hull of all others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from fsboundary.banks import FeatureBank
from fsboundary.core.checks import check_labelled
from fsboundary.core.status import Status
from fsboundary.hulls.copies import copies_of
from fsboundary.hulls.projection import project_on_hull
from fsboundary.plugins.interfaces import HullSolver

_ROWS = 4096
"""Rows that share a pass over all; what is kept of each is a few numbers."""

_COPIES = 2**17
"""Copies that are left out at once, over all rows of a block."""


def left_out(
    bank: FeatureBank,
    rows: Tensor,
    *,
    own_class: bool,
    solver: HullSolver,
    tolerance: float,
    max_steps: int,
    show_progress: bool,
) -> dict[str, Tensor]:
    """Return `distance`, `lower_bound`, `gap`, `membership`, `status` and `steps` of `rows` (B,).

    Where no other point is left, distances are +inf and the status is INFEASIBLE.

    Parameters
    ----------
    bank : FeatureBank
    rows : Tensor (B,), on the CPU
    own_class : bool
        Against the others of the row's own label only.
    """
    labels = check_labelled(bank).cpu() if own_class else None
    infinite = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    found = {
        "distance": infinite,
        "lower_bound": infinite.clone(),
        "gap": torch.zeros_like(infinite),
        "membership": torch.full_like(rows, -1),
        "status": torch.full_like(rows, int(Status.INFEASIBLE)),
        "steps": torch.zeros_like(rows),
    }
    others = _has_others(bank, labels)[rows].nonzero()[:, 0]
    with tqdm(total=len(others), unit="row", disable=not show_progress) as bar:
        for some in blocks(others, copies_of(bank).count[rows[others]]):
            answer = project_on_hull(
                bank,
                bank.take(rows[some]),
                labels=None if labels is None else labels[rows[some]],
                leave_out=rows[some],
                solver=solver,
                tolerance=tolerance,
                max_steps=max_steps,
            )
            for name, value in found.items():
                value[some] = getattr(answer, name)
            bar.update(len(some))
    return found


def _has_others(bank: FeatureBank, labels: Tensor | None) -> Tensor:
    """Return which rows (n,) have another point beside them, in their class if there are any."""
    first = copies_of(bank).first
    if labels is None:
        return (first != first[0]).any().expand(len(first))
    classes, place = labels.unique(return_inverse=True)
    lowest = torch.full_like(classes, len(first)).scatter_reduce(0, place, first, "amin")
    highest = torch.zeros_like(classes).scatter_reduce(0, place, first, "amax")
    return (lowest < highest)[place]


def blocks(rows: Tensor, count: Tensor) -> Iterator[Tensor]:
    """Yield `rows` (B,) in blocks of about equally many copies `count` (B,), few where many."""
    size = count.to(torch.float64).log2().ceil().long()
    for power in size.unique().tolist():
        yield from rows[size == power].split(max(1, min(_ROWS, _COPIES >> power)))
