"""Keeping third classes below the tie of source and target: their last linearisations.

Along the boundary: towards the clean image on successive linearisations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.box_projection import onto_plane, onto_planes
from fsboundary.builtin.image_finders.search_state import ImageSearch, Slope

_KEPT = 3
"""Classes remembered a row; more than two or three rarely meet at one place."""


@final
class ThirdClasses:
    """For each row the last linearisation of the latest classes that came above the tie.

    A step that makes way for one class may let another one up, so that none may be forgotten at
    once; gradients of some steps ago are near enough.
    """

    def __init__(self, search: ImageSearch) -> None:
        self._search = search
        count, width = search.clean.shape
        self._classes = torch.full((count, _KEPT), -1, device=search.clean.device)
        self._normals = search.clean.new_zeros(count, _KEPT, width)
        self._levels = search.clean.new_zeros(count, _KEPT)
        self._steps = search.clean.new_zeros(count, _KEPT + 1)

    def learn(self, rows: Tensor, x: Tensor, slope: Slope) -> None:
        """Remember the third class of `slope` where it is above the tie or nearly so."""
        if slope.third is None:
            return
        third = slope.third
        rows, x = rows[third.near], x[third.near]
        known = self._classes[rows] == third.name[:, None]
        # the same class, else the one that is longest there
        slot = torch.where(known.any(dim=1), known.long().argmax(dim=1), _KEPT - 1)
        # places 1 to `slot` take what stood before them, later ones keep their own
        place = torch.arange(_KEPT, device=rows.device)
        order = torch.where(place <= slot[:, None], (place - 1).clamp_min(0), place)
        at = torch.arange(len(rows), device=rows.device)[:, None]
        for kept in (self._classes, self._normals, self._levels):
            kept[rows] = kept[rows][at, order]
        self._classes[rows, 0] = third.name
        self._normals[rows, 0] = third.gradient
        # the third class minus the target, linearised, is 0 at this value of gradient.x
        self._levels[rows, 0] = torch.linalg.vecdot(third.gradient, x) - third.over

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
            How far below the tie third classes are to stay, logit units.
        """
        asked = self._classes[rows] >= 0
        levels = torch.where(asked, self._levels[rows] - room[:, None], torch.inf)
        above = torch.einsum("bmd,bd->bm", self._normals[rows], goal) > levels
        open_rows = above.any(dim=1).nonzero()[:, 0]
        if len(open_rows) == 0:
            return goal
        these, search = rows[open_rows], self._search
        normals = torch.cat([gradient[open_rows, None], self._normals[these]], dim=1)
        offsets = torch.cat([offset[open_rows, None], levels[open_rows]], dim=1)
        moved, self._steps[these] = onto_planes(
            search.clean[these], normals, offsets, search.box, search.norm, self._steps[these]
        )
        goal = goal.clone()
        goal[open_rows] = moved
        return goal


_SIDE = 1e-5
"""Images are put across by this share of the range of the logits, so that rounding keeps them."""

_ROOM = 1e-2, 1e-5
"""First and last share of the range by which third classes are to stay below."""

_ON_TIE = 1e-3
"""An image counts as put back onto the tie within this share of the range of the logits."""

_HOLDS = 0.01
"""A linearised gap is trusted where it is right within this share of the range of the logits."""

_MOMENTUM = 0.8
"""Each step begins ahead of the image by this share of the step before (Nesterov's rule)."""

_REMEMBERED = 0.3
"""Share that the directions of steps before have in the normal: boundaries of networks are creased
more finely than a step is long."""

_SETTLE = 3
"""Passes that put an image back on the curved boundary."""

_PATIENCE = 12
_GAIN = 1e-4
"""A row stops when so many steps together shortened its distance by less than this share."""


def slide(
    search: ImageSearch, rows: Tensor, steps: int, *, damping: tuple[float, float] = (0.3, 0.05)
) -> None:
    """Move images on the boundary nearer to their clean images; the search keeps the best.

    Each step projects the clean image onto the linearised boundary within the box, goes a part
    of the way there, and back onto the boundary along the ray from the clean image. Where any
    class will do, it begins a little ahead in the direction of the step before, and takes the
    normal from the steps before as well.

    Parameters
    ----------
    rows : Tensor (R,)
        Rows for which the search has an image across.
    steps : int
        Gradients an image (with a chosen target and a third class near, twice that).
    damping : (float, float)
        First and last part of the way.
    """
    if len(rows) == 0 or steps == 0:
        return
    x = search.best[rows]
    if search.target is not None:
        # inside the target's region is not on the boundary with the source: only images that are
        # put back onto the tie count from here
        search.distance[rows[~search.tied[rows]]] = torch.inf
    thirds = None if search.target is None else ThirdClasses(search)
    mark = search.distance[rows].clone()
    before, normal = x, torch.zeros_like(x)
    for step in range(steps):
        if step and step % _PATIENCE == 0:
            now = search.distance[rows]
            # not(<) so that rows without any image across go on
            going = ~(mark - now < _GAIN * now)
            rows, x, mark = rows[going], x[going], now[going]
            before, normal = before[going], normal[going]
        if len(rows) == 0:
            break
        # a tie that third classes hem in is lost by a look ahead
        ahead = 0.0 if thirds else _MOMENTUM
        at = (x + ahead * (x - before)).clamp(*search.box)
        slope = search.slope(rows, at)
        if thirds is None:
            slope, normal = smoothed(slope, normal)
        goal, offset = linearised(search, rows, at, slope)
        if thirds is not None:
            thirds.learn(rows, at, slope)
            room = slope.span * _ROOM[0] * (_ROOM[1] / _ROOM[0]) ** (step / steps)
            goal = thirds.project(rows, goal, slope.gradient, offset, room)
        part = torch.full_like(slope.gap, damping[0] * (damping[1] / damping[0]) ** (step / steps))
        part[whole_way(search, rows, goal, slope)] = 1.0
        before, x = x, settle(search, rows, at + part[:, None] * (goal - at), slope)
        if search.target is not None:
            search.tied[rows] |= torch.isfinite(search.distance[rows])
            lost = rows[~search.tied[rows]]
            # where it got to; the next call goes on from here
            search.best[lost] = x[~search.tied[rows]]
        far = search.length(x - search.clean[rows]) > 1.05 * search.distance[rows]
        x = torch.where(far[:, None], search.best[rows], x)
        before = torch.where(far[:, None], x, before)
    if search.target is not None:
        lost = torch.isinf(search.distance) & (search.best != search.clean).any(dim=1)
        search.distance[lost] = search.length(search.best - search.clean)[lost]


def smoothed(slope: Slope, normal: Tensor) -> tuple[Slope, Tensor]:
    """Return `slope` with its gradient turned towards the mean `normal` (R,n), and the new mean.

    The mean is of unit vectors, 0 at first; the gradient keeps its size.
    """
    size = torch.linalg.vector_norm(slope.gradient, dim=1, keepdim=True)
    tiny = torch.finfo(size.dtype).tiny
    unit = slope.gradient / size.clamp_min(tiny)
    mean = torch.lerp(unit, normal, _REMEMBERED)
    length = torch.linalg.vector_norm(mean, dim=1, keepdim=True).clamp_min(tiny)
    return replace(slope, gradient=mean * (size / length)), mean


def linearised(
    search: ImageSearch, rows: Tensor, x: Tensor, slope: Slope, height: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the point nearest to the clean image where the linearised gap is `height`.

    Also the offset (R,) of that plane: ``gradient.x`` on it.
    """
    offset = torch.linalg.vecdot(slope.gradient, x) - slope.gap + height
    goal, _ = onto_plane(search.clean[rows], slope.gradient, offset, search.box, search.norm)
    return goal, offset


def whole_way(search: ImageSearch, rows: Tensor, goal: Tensor, slope: Slope) -> Tensor:
    """Whether the boundary at `goal` (R,n) seems nearer than the best so far, (R,), bool.

    So it is where the boundary is as flat as its linearisation; one pass.
    """
    ray = goal - search.clean[rows]
    logits = search.logits(rows, goal)
    gap, slack = search.gaps(rows, logits)
    if search.target is None:
        search.keep(rows, goal, gap, slack)
    rate: Tensor = torch.linalg.vecdot(slope.gradient, ray)
    estimate = search.length(ray) * (1 - gap / rate)
    best = search.distance[rows]
    # before anything was found, where the linearisation holds that far
    holds = gap.abs() <= _HOLDS * search.scale(rows, logits)
    return (
        (rate < 0)
        & (slack >= 0)
        & ((estimate < best) & torch.isfinite(best) | holds & best.isinf())
    )


def settle(search: ImageSearch, rows: Tensor, x: Tensor, slope: Slope) -> Tensor:
    """Return `x` (R,n) scaled from the clean images to just across, by secants."""
    clean = search.clean[rows]
    ray = x - clean
    scale = torch.ones_like(slope.gap)
    rate = torch.linalg.vecdot(slope.gradient, ray)
    before: tuple[Tensor, Tensor] | None = None
    nearest, closest = x, torch.full_like(scale, torch.inf)
    for _ in range(_SETTLE):
        at = (clean + scale[:, None] * ray).clamp(*search.box)
        logits = search.logits(rows, at)
        gap, slack = search.gaps(rows, logits)
        near = gap.abs() <= _ON_TIE * search.scale(rows, logits)
        # with a chosen target, far across is no tie: its third classes are others
        search.keep(rows, at, gap, slack if search.target is None else slack.where(near, -1.0))
        better = gap.abs() < closest
        closest = torch.where(better, gap.abs(), closest)
        nearest = torch.where(better[:, None], at, nearest)
        if before is not None:
            rate = torch.where(scale != before[0], (gap - before[1]) / (scale - before[0]), rate)
        before = scale, gap
        # a gap that does not fall along the ray has no root to aim at
        move = torch.where(rate < 0, -(gap + _SIDE * search.scale(rows, logits)) / rate, 0.05)
        scale = scale + move.clamp(-0.2, 0.2)
    return nearest
