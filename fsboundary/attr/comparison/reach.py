"""How far along the direction of an attribution the boundary lies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsboundary.attr.comparison.margins import Margins

HALVINGS = 12
"""Of the step in which a curve meets the boundary: a crossing is right to 1/4,096 of a step."""


def unit_directions(attributions: Tensor) -> Tensor:
    """Return `attributions` (..., B,C,H,W) over their lengths; NaN for a zero attribution."""
    dims = (-3, -2, -1)
    scaled = attributions / attributions.abs().amax(dim=dims, keepdim=True)
    unit: Tensor = scaled / scaled.square().sum(dim=dims, keepdim=True).sqrt()
    return unit


def reach_curves(
    margins: Margins, directions: Tensor, unit: Tensor, travelled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the margins (M,B,T) along unit `directions` (M,B,C,H,W), and the crossings (M,B).

    An attribution says for each entry how much it counts, and counts may be for the class or
    against it: of the two senses of its line, the one that meets the boundary first is taken, or
    where neither does, the one that ends with the smaller margin. `travelled` (T,) counts
    distances in `unit` (B,), pixel units; so do the crossings, +inf where the class does not
    change by the last of them.
    """
    curves, crossings = [], []
    for direction in directions:
        (curve, met), (back, met_back) = (
            _one_sense(margins, sense * direction, unit, travelled) for sense in (1, -1)
        )
        nearer = (met_back < met) | ((met_back == met) & (back[:, -1] < curve[:, -1]))
        # where one sense has no answer, nothing is known of the line
        nearer = nearer | (torch.isnan(met_back) & ~torch.isnan(met))
        curves.append(torch.where(nearer[:, None], back, curve))
        crossings.append(torch.where(nearer, met_back, met))
    return torch.stack(curves), torch.stack(crossings)


def _one_sense(
    margins: Margins, direction: Tensor, unit: Tensor, travelled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the margins (B,T) along one `direction` (B,C,H,W) and the crossings (B,)."""

    def at(t: Tensor) -> Tensor:
        return margins.shares(_along(margins.images, direction, t * unit))

    curve = torch.stack([at(t) for t in travelled], dim=1)
    first, met = _first_crossing(curve)
    found = _halve(at, travelled[(first - 1).clamp_min(0)], travelled[first])
    known = torch.isfinite(curve).all(dim=1)
    return curve, torch.where(known, torch.where(met, found, torch.inf), torch.nan)


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
