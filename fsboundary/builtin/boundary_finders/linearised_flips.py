"""The flip problem of a linearised head, another one for each row, solved exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import flip_start
from fsboundary.geometry.flips.solve import Proofs, search

_RTOL, _STEPS = 1e-11, 60
"""Of the dual Newton method; far below what the boundary is met with."""


def nearest_on_planes(
    z: Tensor,
    domain: Domain,
    normal: Tensor,
    offset: Tensor,
    others: Tensor,
    levels: Tensor,
    fallback: Tensor,
) -> Tensor:
    """Return the point (R,d) of the domain nearest to `z` on the first plane, above the others.

    Where the tie's projection meets everything else it is the answer; the other rows are solved
    one by one. Where there is no such point, a step from `fallback` to the plane alone.

    Parameters
    ----------
    z, fallback : Tensor (R, d), float64
    normal, offset : Tensor (R, d), Tensor (R,)
        ``normal.x + offset = 0``.
    others, levels : Tensor (R, M, d), Tensor (R, M)
        ``others.x + levels >= 0``; zero rows ask for nothing.
    """
    goal = _onto(z, normal, offset)
    slack = torch.einsum("rmd,rd->rm", others, goal) + levels
    # not(>=) so that rows with NaN are not taken for solved
    hard = ~((slack >= 0).all(dim=1) & domain.contains(goal))
    for row in hard.nonzero()[:, 0].tolist():
        used = (others[row] != 0).any(dim=1)
        weight = torch.cat([normal[row, None], torch.zeros_like(z[:1]), -others[row, used]])
        bias = torch.cat([offset[row, None], torch.zeros_like(offset[:1]), -levels[row, used]])
        solved = None
        if bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
            solved = _solve(LinearHead(weight, bias, domain), z[row, None])
        if solved is None:
            near = fallback[row, None]
            solved = domain.clip(_onto(near, normal[row, None], offset[row, None]))
        goal[row] = solved[0]
    return goal


def _onto(x: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Return `x` (R,d) projected on the planes; NaN where they have no normal."""
    value = torch.linalg.vecdot(normal, x) + offset
    square = torch.linalg.vecdot(normal, normal)
    out: Tensor = x - (value / square)[:, None] * normal
    return out


def _solve(head: LinearHead, z: Tensor) -> Tensor | None:
    """Return the flip point (1,d) of class 0 and target 1; None where there is none."""
    first = torch.zeros(1, dtype=torch.int64, device=z.device)
    problems = FlipProblems(head=head, z=z, source=first, target=first + 1)
    found = search(problems, flip_start(problems), Proofs(head, 0), _RTOL, _STEPS)
    fine = bool(found.solved.all()) and bool(torch.isfinite(found.points).all())
    return found.points if fine else None
