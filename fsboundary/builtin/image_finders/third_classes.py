"""Keeping third classes below the tie of source and target: their last linearisations."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.box_projection import onto_planes
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
