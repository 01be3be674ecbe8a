"""Search for boundary points of a non-linear head: its linearisations, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import crossing
from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import flip_start
from fsboundary.geometry.flips.solve import FarkasCache, solve_with_certificates

_OUTWARD_FACTORS = (1.0, 1.0001, 1.01, 1.1, 1.5, 2.5)
"""A point short of the boundary is moved outwards along its ray by these factors."""

_TOLERANCE_FRACTION = 0.1
"""Points are brought nearer to the tie than the core needs, to this fraction of the tolerance."""

_RTOL, _STEPS = 1e-11, 60
"""Tolerance and steps of the dual Newton method; far below the accuracy of boundary points."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearisation:
    """A head linearised at some points: the tie and third classes as planes per row.

    ``normal.x + offset`` (R,d), (R,) is source minus target; ``others.x + levels`` (R,M,d), (R,M)
    is target minus third class.
    """

    normal: Tensor
    offset: Tensor
    others: Tensor
    levels: Tensor


@final
class TieSearch:
    """P problems on the way to the boundary, each with a row, its source and a target.

    Parameters
    ----------
    head : NonlinearHead
    clean : Tensor (P, d), float64
    source, target : Tensor (P,)
    tolerance : float
        Fraction of the range of the logits within which logits tie.

    Attributes
    ----------
    best : Tensor (P, d)
        The nearest boundary point so far; NaN where none was found.
    distance : Tensor (P,)
        Distance of ``best``; +inf where none was found.
    """

    def __init__(
        self, head: NonlinearHead, clean: Tensor, source: Tensor, target: Tensor, tolerance: float
    ) -> None:
        self.head, self.clean = head, clean
        self._pair = torch.stack([source, target], dim=1)
        self._tolerance = _TOLERANCE_FRACTION * tolerance
        at_rows = self.logits(target, clean)
        self._clean_range = at_rows.amax(dim=1) - at_rows.amin(dim=1)
        self.best = torch.full_like(clean, torch.nan)
        self.distance = torch.full_like(clean[:, 0], torch.inf)

    def logits(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return logits (R,K) of `x` (R,d), without a graph."""
        with torch.no_grad():
            return self.head.logits(x)

    def gaps(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return source minus target and the slack to third classes, tolerance added, (R,)."""
        pair = logits.gather(1, self._pair[rows])
        third = logits.scatter(1, self._pair[rows], -torch.inf).amax(dim=1)
        slack = pair.amax(dim=1) - third + self._tolerance * self.logit_range(rows, logits)
        return pair[:, 0] - pair[:, 1], slack

    def logit_range(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits, or that at the row if it is larger.

        With two classes the range is 0 at a tie.
        """
        span = logits.amax(dim=1) - logits.amin(dim=1)
        return torch.maximum(self._clean_range[rows], span)

    def linearise(self, rows: Tensor, x: Tensor, thirds: int) -> Linearisation:
        """Return the head linearised at `x` (R,d), with the `thirds` largest third classes."""
        pair = self._pair[rows]
        rest = self.logits(rows, x).scatter(1, pair, -torch.inf)
        chosen = rest.topk(min(thirds, rest.shape[1] - 2), dim=1).indices
        classes = torch.cat([pair, chosen], dim=1)
        logits, gradients = self.head.gradients(x, classes)
        values = logits.gather(1, classes)
        constants = values - torch.einsum("rmd,rd->rm", gradients, x)
        return Linearisation(
            normal=gradients[:, 0] - gradients[:, 1],
            offset=constants[:, 0] - constants[:, 1],
            others=gradients[:, 1:2] - gradients[:, 2:],
            levels=constants[:, 1:2] - constants[:, 2:],
        )

    def project_along_ray(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move `x` (R,d) onto the boundary along the rays from the clean rows; store the nearest.

        Returns
        -------
        (Tensor (R, d), Tensor (R,), Tensor (R,))
            The points; their distances, +inf where a point is not on the boundary; the excess of
            third classes, logit units.
        """
        points, residual = x.clone(), self._boundary_residual(rows, x)
        off = (residual > 0).nonzero()[:, 0]
        moved = self._move_across(rows[off], x[off])
        tied, valid = crossing(self, rows[off], moved, self._tolerance)
        # a third class may be above on the whole ray and not at its end
        points[off[valid]] = tied[valid]
        residual[off] = self._boundary_residual(rows[off], points[off])
        distance: Tensor = torch.linalg.vector_norm(points - self.clean[rows], dim=1)
        distance = torch.where(residual <= 0, distance, torch.inf)
        # rows may occur several times
        before = self.distance.clone()
        self.distance.scatter_reduce_(0, rows, distance, "amin")
        nearer = (distance < before[rows]) & (distance == self.distance[rows])
        self.best[rows[nearer]] = points[nearer]
        _, slack = self.gaps(rows, self.logits(rows, points))
        return points, distance, (-slack).clamp_min(0.0)

    def _boundary_residual(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return the violation (R,) of being a boundary point, at most 0 where `x` (R,d) is one."""
        logits = self.logits(rows, x)
        gap, slack = self.gaps(rows, logits)
        span = self.logit_range(rows, logits)
        residual = torch.maximum(gap.abs() - self._tolerance * span, -slack)
        return torch.where(span > 0, residual, torch.inf)

    def _move_across(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return `x` (R,d), moved outwards along the rays until the target is above the source."""
        clean, ends = self.clean[rows], x.clone()
        short = torch.arange(len(rows), device=rows.device)
        for factor in _OUTWARD_FACTORS:
            if len(short) == 0:
                break
            moved = clean[short] + factor * (x[short] - clean[short])
            ends[short] = self.head.domain.clip(moved)
            gap, _ = self.gaps(rows[short], self.logits(rows[short], ends[short]))
            short = short[gap > 0]
        return ends


def nearest_on_linearisation(
    z: Tensor, domain: Domain, planes: Linearisation, fallback: Tensor
) -> Tensor:
    """Return the point (R,d) of the domain nearest to `z` on the tie, with others at least 0.

    Where the projection on the tie satisfies everything else it is the solution; the other rows
    are solved one by one. Where there is no such point, a step from `fallback` to the tie only.

    Parameters
    ----------
    z, fallback : Tensor (R, d), float64
    planes : Linearisation
        Tie ``normal.x + offset = 0``, and ``others.x + levels >= 0``; zero rows impose nothing.
    """
    goal = _project_onto_plane(z, planes.normal, planes.offset)
    slack = torch.einsum("rmd,rd->rm", planes.others, goal) + planes.levels
    # not(>=) so that rows with NaN do not count as solved
    hard = ~((slack >= 0).all(dim=1) & domain.contains(goal))
    for row in hard.nonzero()[:, 0].tolist():
        normal, offset = planes.normal[row, None], planes.offset[row, None]
        used = (planes.others[row] != 0).any(dim=1)
        weight = torch.cat([normal, torch.zeros_like(z[:1]), -planes.others[row, used]])
        bias = torch.cat([offset, torch.zeros_like(offset), -planes.levels[row, used]])
        solved = None
        if bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
            solved = _flip_point(LinearHead(weight, bias, domain), z[row, None])
        if solved is None:
            solved = domain.clip(_project_onto_plane(fallback[row, None], normal, offset))
        goal[row] = solved[0]
    return goal


def _project_onto_plane(x: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Return `x` (R,d) projected on the planes; NaN where they have no normal."""
    value = torch.linalg.vecdot(normal, x) + offset
    square = torch.linalg.vecdot(normal, normal)
    out: Tensor = x - (value / square)[:, None] * normal
    return out


def _flip_point(head: LinearHead, z: Tensor) -> Tensor | None:
    """Return the flip point (1,d) of class 0 and target 1; None where there is none."""
    first = torch.zeros(1, dtype=torch.int64, device=z.device)
    problems = FlipProblems(head=head, z=z, source=first, target=first + 1)
    result = solve_with_certificates(
        problems, flip_start(problems), FarkasCache(head, 0), _RTOL, _STEPS
    )
    valid = bool(result.solved.all()) and bool(torch.isfinite(result.points).all())
    return result.points if valid else None
