"""Walk along the boundary towards the clean image on successive linearisations.

With a chosen target, third classes are kept below the tie of source and target by their last
linearisations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.box_projection import project_onto_plane, project_onto_planes
from fsboundary.builtin.image_finders.search_state import GapGradient, SearchState

_NUM_CLASSES = 3
"""Third classes remembered per row; more than two or three rarely meet at one point."""

_ACROSS = 1e-5
"""Images are put across by this fraction of the range of the logits, so that rounding keeps them
across."""

_ROOM = 1e-2, 1e-5
"""First and last fraction of the range of the logits by which third classes are to stay below."""

_ON_BOUNDARY = 1e-3
"""An image is back on the boundary if its gap is within this fraction of the range of the
logits."""

_LINEAR = 0.01
"""A linearised gap is trusted if it is right within this fraction of the range of the logits."""

_MOMENTUM = 0.8
"""Each step begins ahead of the image by this fraction of the previous step (Nesterov's rule)."""

_REMEMBERED = 0.3
"""Weight of the directions of previous steps in the normal: boundaries of networks are creased more
finely than a step is long."""

_SECANT_STEPS = 3
"""Forward passes that put an image back on the curved boundary."""

_PATIENCE = 12
_GAIN = 1e-4
"""A row stops when this many steps together shortened its distance by less than this fraction."""


def walk_boundary(
    search: SearchState, rows: Tensor, steps: int, *, damping: tuple[float, float] = (0.3, 0.05)
) -> None:
    """Move images along the boundary nearer to their clean images; `search` keeps the best.

    Each step projects the clean image onto the linearised boundary within the box, goes a
    fraction of the way there, and back onto the boundary along the ray from the clean image.
    Without a chosen target, it begins a little ahead in the direction of the previous step, and
    averages the normal over previous steps.

    Parameters
    ----------
    rows : Tensor (R,)
        Rows for which the search has an image across.
    steps : int
        Gradients per image (with a chosen target and a third class near, twice that).
    damping : (float, float)
        First and last fraction of the way.
    """
    if len(rows) == 0 or steps == 0:
        return
    search.discard_off_boundary(rows)
    walk = _Walk(search, rows)
    for step in range(steps):
        if step and step % _PATIENCE == 0:
            walk.drop_stalled_rows()
        if len(walk.rows) == 0:
            break
        walk.advance(step / steps, damping)
    search.restore_distances()


@final
class _Walk:
    """The rows that still walk, with their images, previous images and mean normals.

    Attributes
    ----------
    rows : Tensor (R,)
    """

    def __init__(self, search: SearchState, rows: Tensor) -> None:
        self.rows = rows
        self._search = search
        self._thirds = None if search.target is None else ThirdClasses(search)
        self._x = self._previous = search.best[rows]
        self._normal = torch.zeros_like(self._x)
        self._checkpoint = search.distance[rows]

    def drop_stalled_rows(self) -> None:
        """Drop rows that gained next to nothing since the previous call."""
        distance = self._search.distance[self.rows]
        # not(<) so that rows without any image across continue
        going = ~(self._checkpoint - distance < _GAIN * distance)
        self.rows, self._checkpoint = self.rows[going], distance[going]
        self._x, self._previous = self._x[going], self._previous[going]
        self._normal = self._normal[going]

    def advance(self, progress: float, damping: tuple[float, float]) -> None:
        """Take one step, at a fraction `progress` of all steps."""
        search, rows = self._search, self.rows
        # momentum would lose a tie that third classes confine
        momentum = 0.0 if self._thirds else _MOMENTUM
        at = (self._x + momentum * (self._x - self._previous)).clamp(*search.box)
        slope = search.gap_gradient(rows, at)
        if self._thirds is None:
            slope, self._normal = _average_normal(slope, self._normal)
        goal = self._goal(at, slope, progress)
        fraction = torch.full_like(slope.gap, damping[0] * (damping[1] / damping[0]) ** progress)
        fraction[_full_steps(search, rows, goal, slope)] = 1.0
        self._previous = self._x
        self._x = project_to_boundary(search, rows, at + fraction[:, None] * (goal - at), slope)
        search.record_walk(rows, self._x)
        self._return_to_best()

    def _goal(self, at: Tensor, slope: GapGradient, progress: float) -> Tensor:
        """Return the points (R,n) nearest to the clean images on the linearised boundary."""
        goal, offset = linearised_projection(self._search, self.rows, at, slope)
        if self._thirds is None:
            return goal
        self._thirds.update(self.rows, at, slope)
        room = slope.logit_range * _ROOM[0] * (_ROOM[1] / _ROOM[0]) ** progress
        return self._thirds.project(self.rows, goal, slope.gradient, offset, room)

    def _return_to_best(self) -> None:
        """Continue from the best image where a step went much farther."""
        search, rows = self._search, self.rows
        far = search.length(self._x - search.clean[rows]) > 1.05 * search.distance[rows]
        self._x = torch.where(far[:, None], search.best[rows], self._x)
        self._previous = torch.where(far[:, None], self._x, self._previous)


def _average_normal(slope: GapGradient, normal: Tensor) -> tuple[GapGradient, Tensor]:
    """Return `slope` with its gradient turned towards the mean `normal` (R,n), and the new mean.

    The mean is of unit vectors, 0 at first; the gradient keeps its size.
    """
    size = torch.linalg.vector_norm(slope.gradient, dim=1, keepdim=True)
    tiny = torch.finfo(size.dtype).tiny
    unit = slope.gradient / size.clamp_min(tiny)
    mean = torch.lerp(unit, normal, _REMEMBERED)
    length = torch.linalg.vector_norm(mean, dim=1, keepdim=True).clamp_min(tiny)
    return replace(slope, gradient=mean * (size / length)), mean


def linearised_projection(
    search: SearchState, rows: Tensor, x: Tensor, slope: GapGradient, height: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the point nearest to the clean image where the linearised gap is `height`.

    Also the offset (R,) of that plane: ``gradient.x`` on it.
    """
    offset = torch.linalg.vecdot(slope.gradient, x) - slope.gap + height
    box, norm = search.box, search.norm
    goal, _ = project_onto_plane(search.clean[rows], slope.gradient, offset, box, norm)
    return goal, offset


def _full_steps(search: SearchState, rows: Tensor, goal: Tensor, slope: GapGradient) -> Tensor:
    """Return whether the boundary near `goal` (R,n) is probably closer than the best so far.

    True (R,) where the linearisation is accurate. One forward pass.
    """
    ray = goal - search.clean[rows]
    logits = search.logits(rows, goal)
    gap, slack = search.gaps(rows, logits)
    if search.target is None:
        search.update_best(rows, goal, gap, slack)
    rate: Tensor = torch.linalg.vecdot(slope.gradient, ray)
    estimate = search.length(ray) * (1 - gap / rate)
    best = search.distance[rows]
    # without an image across so far: where the linearisation holds that far
    linear = gap.abs() <= _LINEAR * search.logit_range(rows, logits)
    return (
        (rate < 0)
        & (slack >= 0)
        & ((estimate < best) & torch.isfinite(best) | linear & best.isinf())
    )


def project_to_boundary(search: SearchState, rows: Tensor, x: Tensor, slope: GapGradient) -> Tensor:
    """Return `x` (R,n) scaled from the clean images to just across, by the secant method."""
    clean = search.clean[rows]
    ray = x - clean
    scale = torch.ones_like(slope.gap)
    rate = torch.linalg.vecdot(slope.gradient, ray)
    previous: tuple[Tensor, Tensor] | None = None
    nearest, smallest = x, torch.full_like(scale, torch.inf)
    for _ in range(_SECANT_STEPS):
        at = (clean + scale[:, None] * ray).clamp(*search.box)
        logits = search.logits(rows, at)
        gap, slack = search.gaps(rows, logits)
        near = gap.abs() <= _ON_BOUNDARY * search.logit_range(rows, logits)
        # with a chosen target, a point far across is no tie: it has other third classes
        valid_slack = slack if search.target is None else slack.where(near, -1.0)
        search.update_best(rows, at, gap, valid_slack)
        better = gap.abs() < smallest
        smallest = torch.where(better, gap.abs(), smallest)
        nearest = torch.where(better[:, None], at, nearest)
        if previous is not None:
            secant = (gap - previous[1]) / (scale - previous[0])
            rate = torch.where(scale != previous[0], secant, rate)
        previous = scale, gap
        # a gap that does not fall along the ray has no root to aim at
        drop = gap + _ACROSS * search.logit_range(rows, logits)
        move = torch.where(rate < 0, -drop / rate, 0.05)
        scale = scale + move.clamp(-0.2, 0.2)
    return nearest


@final
class ThirdClasses:
    """The last linearisations of the latest classes above the tie, for each row.

    A step that avoids one class may let another one up, so several are remembered; gradients of
    some steps ago are accurate enough.
    """

    def __init__(self, search: SearchState) -> None:
        self._search = search
        count, width = search.clean.shape
        self._classes = torch.full((count, _NUM_CLASSES), -1, device=search.clean.device)
        self._normals = search.clean.new_zeros(count, _NUM_CLASSES, width)
        self._levels = search.clean.new_zeros(count, _NUM_CLASSES)
        self._multipliers = search.clean.new_zeros(count, _NUM_CLASSES + 1)

    def update(self, rows: Tensor, x: Tensor, slope: GapGradient) -> None:
        """Remember the third class of `slope` where it is above the tie or nearly so."""
        if slope.third is None:
            return
        third = slope.third
        rows, x = rows[third.index], x[third.index]
        known = self._classes[rows] == third.name[:, None]
        # the slot of the same class, else of the oldest one
        slot = torch.where(known.any(dim=1), known.long().argmax(dim=1), _NUM_CLASSES - 1)
        # slots 1 to `slot` take their predecessors' entries, later ones stay
        index = torch.arange(_NUM_CLASSES, device=rows.device)
        order = torch.where(index <= slot[:, None], (index - 1).clamp_min(0), index)
        at = torch.arange(len(rows), device=rows.device)[:, None]
        for table in (self._classes, self._normals, self._levels):
            table[rows] = table[rows][at, order]
        self._classes[rows, 0] = third.name
        self._normals[rows, 0] = third.gradient
        # the third class minus the target, linearised, is 0 at this value of gradient.x
        self._levels[rows, 0] = torch.linalg.vecdot(third.gradient, x) - third.excess

    def project(
        self, rows: Tensor, goal: Tensor, gradient: Tensor, offset: Tensor, room: Tensor
    ) -> Tensor:
        """Return `goal` (R,n), moved where it lets a remembered class above the tie.

        Parameters
        ----------
        gradient : Tensor (R, n)
        offset : Tensor (R,)
            ``gradient.x <= offset`` is the target's side of the linearised tie.
        room : Tensor (R,)
            Distance that third classes are to keep below the tie, logit units.
        """
        known = self._classes[rows] >= 0
        levels = torch.where(known, self._levels[rows] - room[:, None], torch.inf)
        above = torch.einsum("bmd,bd->bm", self._normals[rows], goal) > levels
        index = above.any(dim=1).nonzero()[:, 0]
        if len(index) == 0:
            return goal
        rows, search = rows[index], self._search
        normals = torch.cat([gradient[index, None], self._normals[rows]], dim=1)
        offsets = torch.cat([offset[index, None], levels[index]], dim=1)
        moved, self._multipliers[rows] = project_onto_planes(
            search.clean[rows], normals, offsets, search.box, search.norm, self._multipliers[rows]
        )
        goal = goal.clone()
        goal[index] = moved
        return goal
