"""Margins of changed images, as a share of what the images themselves had.

How fast the margin falls when pixels are moved in the order of an attribution.

How far along the direction of an attribution the boundary lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from fsboundary.core.status import Status
from fsboundary.space import FeatureSpace


@final
class Margins:
    """The margin of each image's own class over the best other one, in logit units.

    Parameters
    ----------
    space : FeatureSpace
    images : Tensor (B, C, H, W)
    batch_size : int
        Images at once.
    bar : tqdm
        Told of every change of the images that was measured.

    Attributes
    ----------
    status : Tensor (B,)
        CONVERGED; NOT_FINITE; or DEGENERATE where the margin is not above 0.
    usable : Tensor (B,), bool
        Where it is CONVERGED; other rows are NaN.
    """

    def __init__(
        self, space: FeatureSpace, images: Tensor, batch_size: int, bar: tqdm[Any]
    ) -> None:
        batch = space.extract(images, batch_size=batch_size)
        self._space, self.images, self._size, self._bar = space, images, batch_size, bar
        self._source = batch.predicted.clamp_min(0)
        self._start = _over_others(batch.logits.double(), self._source)
        flat = (batch.status == Status.CONVERGED) & ~(self._start > 0)
        self.status = torch.where(flat, int(Status.DEGENERATE), batch.status)
        self.usable = self.status == Status.CONVERGED

    def shares(self, changed: Tensor) -> Tensor:
        """Return the margins (B,) of `changed` images, divided by the images' own."""
        parts = []
        with torch.no_grad():
            for part in torch.arange(len(changed)).split(self._size):
                logits = self._space.logits(changed[part]).to(self._start)
                parts.append(_over_others(logits, self._source[part]))
        self._bar.update()
        return torch.where(self.usable, torch.cat(parts) / self._start, torch.nan)


def _over_others(logits: Tensor, source: Tensor) -> Tensor:
    """Return logit `source` minus the largest other one, (B,)."""
    own = torch.nn.functional.one_hot(source, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return logits.gather(1, source[:, None])[:, 0] - others


def deletion_curves(
    margins: Margins, attributions: Tensor, baselines: Tensor, moved: Tensor
) -> Tensor:
    """Return the margins (M,B,T) as shares of the images' own.

    Parameters
    ----------
    margins : Margins
        Of images (B,C,H,W).
    attributions : Tensor (M, B, C, H, W)
        A pixel's place in the order is by the sum of the sizes of its entries, largest first;
        equal ones go by their place in the image.
    baselines : Tensor (B, C, H, W)
        What the pixels are moved to.
    moved : Tensor (T,)
        Shares of the pixels.
    """
    images = margins.images
    size = attributions.abs().sum(dim=2).flatten(2)
    rank = size.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    rank = rank.unflatten(2, images.shape[2:])[:, :, None]
    counts = (moved * size.shape[2]).round().tolist()
    curves = [
        torch.stack(
            [margins.shares(torch.where(places < count, baselines, images)) for count in counts],
            dim=1,
        )
        for places in rank
    ]
    return torch.stack(curves)


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
