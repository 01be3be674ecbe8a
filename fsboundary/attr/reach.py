"""How far along the direction of an attribution the boundary lies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsboundary.attr.margins import Margins

HALVINGS = 12
"""Of the step in which a curve meets the boundary: a crossing is right to 1/4,096 of a step."""


def falling_directions(attributions: Tensor, gradient: Tensor) -> Tensor:
    """Return unit directions (..., B,C,H,W) along `attributions`, the margin falling at first.

    An attribution says for each entry how much it counts, and counts may be for the class or
    against it: of the two senses of its line, the one in which the margin falls is taken; where
    the margin does neither, the one against the attribution. NaN for a zero attribution.
    """
    dims = (-3, -2, -1)
    scaled = attributions / attributions.abs().amax(dim=dims, keepdim=True)
    unit = scaled / scaled.square().sum(dim=dims, keepdim=True).sqrt()
    rise = (unit * gradient).sum(dim=dims, keepdim=True)
    return torch.where(rise < 0, unit, -unit)


def reach_curves(
    margins: Margins, directions: Tensor, unit: Tensor, travelled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the margins (M,B,T) along unit `directions` (M,B,C,H,W), and the crossings (M,B).

    `travelled` (T,) counts distances in `unit` (B,), pixel units; so do the crossings, +inf where
    the class does not change by the last of them.
    """
    curves, crossings = [], []
    for direction in directions:
        # what is measured within this turn of the loop is along this turn's direction
        def at(t: Tensor, direction: Tensor = direction) -> Tensor:
            return margins.shares(_along(margins.images, direction, t * unit))

        curve = torch.stack([at(t) for t in travelled], dim=1)
        first, met = _first_crossing(curve)
        found = _halve(at, travelled[(first - 1).clamp_min(0)], travelled[first])
        known = torch.isfinite(curve).all(dim=1)
        found = torch.where(met, found, torch.inf)
        curves.append(curve)
        crossings.append(torch.where(known, found, torch.nan))
    return torch.stack(curves), torch.stack(crossings)


def _along(images: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Return `images` moved by `t` (B,) along `direction` (B,C,H,W), in their own dtype."""
    return (images.double() + t.reshape(-1, 1, 1, 1) * direction).to(images.dtype)


def _first_crossing(curve: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each row of `curve` (B,T) is first at or below 0, and whether it ever is."""
    below = curve <= 0
    return below.to(torch.int64).argmax(dim=1), below.any(dim=1)


def _halve(at: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return the end (B,) beyond the boundary of the brackets `low` to `high`, halved often."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = at(middle) <= 0
        low, high = torch.where(below, low, middle), torch.where(below, middle, high)
    return high
