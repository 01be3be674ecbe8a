"""The flip problem of a linearised head, another one for each row, solved exactly.

From one start to a boundary point that is nearest in its neighbourhood.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.linearised_state import Planes, TieSearch
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


_CUTS = 4
"""Linearisations from beyond kinks that are minded at once."""

_FREE = 8
"""Whole steps before the first boundary point; shorter ones afterwards."""

_GIVE_UP = 12
"""Steps in a row that get no nearer; each second one is shorter by _SHORTER."""

_SHORTER = 0.3

_GAIN = 1e-9
_SETTLED = 1e-5
"""Shares of the distance: a smaller gain is none, a smaller step is the end. What is left to gain
is of the order of the step's square."""


def descend(search: TieSearch, rows: Tensor, x: Tensor, steps: int, thirds: int) -> Tensor:
    """Move `x` (R,d) along the boundary to nearer points; the search keeps the best.

    A step goes from a point of the boundary towards the flip point of the head linearised there,
    and back onto the boundary. If that is no nearer, the linearisation from where it got to is
    minded too: at a kink that points towards the row the answer lies on both.

    Returns
    -------
    Tensor (R,)
        Linearisations spent.
    """
    count, width = x.shape
    spent = torch.zeros_like(rows)
    left = torch.arange(count, device=rows.device)
    # a start on the boundary is kept
    landed, here, _ = search.land(rows, x)
    x = torch.where(torch.isfinite(here)[:, None], landed, x)
    at = x.clone()
    size, room = torch.ones_like(here), torch.zeros_like(here)
    failed = torch.zeros_like(rows)
    planes: Planes | None = None
    cuts = x.new_zeros(count, _CUTS, width)
    levels = x.new_zeros(count, _CUTS)
    for step in range(steps):
        if len(left) == 0:
            break
        new = search.planes(rows[left], at[left], thirds)
        spent[left] += 1
        if planes is None:
            planes = new
        fresh = (failed[left] == 0) | torch.isinf(here[left])
        _store(planes, left[fresh], new, fresh)
        cuts[left[fresh]], levels[left[fresh]] = 0.0, 0.0
        slot = (failed[left[~fresh]] - 1) % _CUTS
        cuts[left[~fresh], slot] = -new.normal[~fresh]
        levels[left[~fresh], slot] = -new.offset[~fresh]
        # with the cuts a whole step, without them a shorter one
        shorter = ~fresh & (failed[left] % 2 == 0)
        size[left] = torch.where(shorter, size[left] * _SHORTER, size[left])
        minded = (~shorter).to(levels)
        goal = nearest_on_planes(
            search.clean[rows[left]],
            search.head.domain,
            planes.normal[left],
            planes.offset[left],
            torch.cat([planes.others[left], minded[:, None, None] * cuts[left]], dim=1),
            torch.cat(
                [planes.levels[left] - room[left, None], minded[:, None] * levels[left]], dim=1
            ),
            x[left],
        )
        part = torch.where(fresh | shorter, size[left], 1.0)
        trial = search.head.domain.clip(x[left] + part[:, None] * (goal - x[left]))
        landed, distance, over = search.land(rows[left], trial)
        before = here[left]
        nearer = distance < before * (1 - _GAIN)
        lost = torch.isinf(before) & ~nearer
        move = torch.linalg.vector_norm(goal - x[left], dim=1)
        scale = torch.linalg.vector_norm(goal - search.clean[rows[left]], dim=1)
        ends = ~(move > _SETTLED * scale) & ~lost
        ends |= ~torch.isfinite(goal).all(dim=1)
        # third classes are kept lower where they came above, and let up slowly
        room[left] = torch.where(
            (over > 0) & ~nearer, torch.maximum(2 * over, room[left]), 0.25 * room[left]
        )
        x[left[nearer]], here[left[nearer]] = landed[nearer], distance[nearer]
        x[left[lost]] = trial[lost]
        at[left] = torch.where(lost[:, None], trial, landed)
        failed[left] = torch.where(nearer, 0, failed[left] + 1)
        size[left] = torch.where(nearer, (2 * size[left]).clamp_max(1.0), size[left])
        if step >= _FREE:
            size[left[lost]] = 0.5
        left = left[~(ends | (failed[left] >= _GIVE_UP) & ~lost)]
    return spent


def _store(planes: Planes, index: Tensor, new: Planes, chosen: Tensor) -> None:
    for name in Planes.__slots__:
        getattr(planes, name)[index] = getattr(new, name)[chosen]
