"""Boundary points of a non-linear head: the head seen from the rows, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import crossing
from fsboundary.core.heads import NonlinearHead

_OUTWARDS = (1.0, 1.0001, 1.01, 1.1, 1.5, 2.5)
"""A point that falls short of the boundary is moved out along its ray by these factors."""

_SHARE = 0.1
"""Points are brought this much nearer to the tie than the core asks."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planes:
    """A head linearised at some points: the tie and third classes as planes of their rows.

    ``normal.x + offset`` (R,d), (R,) is source minus target; ``others.x + levels`` (R,M,d), (R,M)
    is target minus third class.
    """

    normal: Tensor
    offset: Tensor
    others: Tensor
    levels: Tensor


@final
class TieSearch:
    """P problems, a row, its source and a target each, on the way to the boundary.

    Parameters
    ----------
    head : NonlinearHead
    clean : Tensor (P, d), float64
    source, target : Tensor (P,)
    tolerance : float
        Share of the range of the logits within which logits tie.

    Attributes
    ----------
    best : Tensor (P, d)
        The nearest boundary point so far; NaN where none was found.
    distance : Tensor (P,)
        Of ``best``; +inf where none was found.
    """

    def __init__(
        self, head: NonlinearHead, clean: Tensor, source: Tensor, target: Tensor, tolerance: float
    ) -> None:
        self.head, self.clean = head, clean
        self._pair = torch.stack([source, target], dim=1)
        self._close = _SHARE * tolerance
        at_rows = self.logits(target, clean)
        self._range = at_rows.amax(dim=1) - at_rows.amin(dim=1)
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
        slack = pair.amax(dim=1) - third + self._close * self.scale(rows, logits)
        return pair[:, 0] - pair[:, 1], slack

    def scale(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the range (R,) of the logits, or that at the row if it is larger.

        With two classes there is no range left at a tie.
        """
        return torch.maximum(self._range[rows], logits.amax(dim=1) - logits.amin(dim=1))

    def planes(self, rows: Tensor, x: Tensor, thirds: int) -> Planes:
        """Return the head linearised at `x` (R,d), with the `thirds` largest third classes."""
        pair = self._pair[rows]
        rest = self.logits(rows, x).scatter(1, pair, -torch.inf)
        chosen = rest.topk(min(thirds, rest.shape[1] - 2), dim=1).indices
        classes = torch.cat([pair, chosen], dim=1)
        logits, gradients = self.head.gradients(x, classes)
        values = logits.gather(1, classes)
        constants = values - torch.einsum("rmd,rd->rm", gradients, x)
        return Planes(
            normal=gradients[:, 0] - gradients[:, 1],
            offset=constants[:, 0] - constants[:, 1],
            others=gradients[:, 1:2] - gradients[:, 2:],
            levels=constants[:, 1:2] - constants[:, 2:],
        )

    def land(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bring `x` (R,d) onto the boundary along the rays from the clean rows.

        The nearest is remembered.

        Returns
        -------
        (Tensor (R, d), Tensor (R,), Tensor (R,))
            Where it got to; its distance, +inf where that is no boundary point; by how much third
            classes are above, logit units.
        """
        points, behind = x.clone(), self._behind(rows, x)
        off = (behind > 0).nonzero()[:, 0]
        moved = self._across(rows[off], x[off])
        met, found = crossing(self, rows[off], moved, self._close)
        # a third class may be above on the whole ray and not at its end
        points[off[found]] = met[found]
        behind[off] = self._behind(rows[off], points[off])
        distance: Tensor = torch.linalg.vector_norm(points - self.clean[rows], dim=1)
        distance = torch.where(behind <= 0, distance, torch.inf)
        # rows may come several times
        before = self.distance.clone()
        self.distance.scatter_reduce_(0, rows, distance, "amin")
        nearer = (distance < before[rows]) & (distance == self.distance[rows])
        self.best[rows[nearer]] = points[nearer]
        _, slack = self.gaps(rows, self.logits(rows, points))
        return points, distance, (-slack).clamp_min(0.0)

    def _behind(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return by how much `x` (R,d) miss being boundary points, at most 0 if none, (R,)."""
        logits = self.logits(rows, x)
        gap, slack = self.gaps(rows, logits)
        span = self.scale(rows, logits)
        missed = torch.maximum(gap.abs() - self._close * span, -slack)
        return torch.where(span > 0, missed, torch.inf)

    def _across(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return `x` (R,d), moved out along their rays until the target is above the source."""
        clean, ends = self.clean[rows], x.clone()
        short = torch.arange(len(rows), device=rows.device)
        for factor in _OUTWARDS:
            if len(short) == 0:
                break
            moved = clean[short] + factor * (x[short] - clean[short])
            ends[short] = self.head.domain.clip(moved)
            gap, _ = self.gaps(rows[short], self.logits(rows[short], ends[short]))
            short = short[gap > 0]
        return ends
