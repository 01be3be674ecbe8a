"""Margins of changed images, as a share of what the images themselves had.

How fast the margin falls when pixels are moved in the order of an attribution.

How far along the direction of an attribution the boundary lies.

How far attributions of the same images agree, and how they behave.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from fsboundary.attr.comparison.arguments import (
    Compared,
    check_asked,
    check_attributions,
    check_image_batch,
)
from fsboundary.attr.comparison.metrics import METRICS, all_pairs, bootstrap, metric
from fsboundary.core.results import Comparison, FlipImages
from fsboundary.core.status import Status
from fsboundary.pixels import flip_images
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


FARTHEST = 10.0
"""Where the reach curves end, in units of the distance of the flip image."""

FLIP_STEPS = 60
"""Default limit of gradients for a flip image: on the demo's network they are found 2 % farther
away in the mean than with the default of :func:`fsboundary.pixels.flip_images`, at 0.4 of the
cost."""


def compare(
    images: Float[Tensor, "B C H W"],
    attributions: Mapping[str, Float[Tensor, "B C H W"]],
    *,
    reference: str = "boundary",
    metrics: Sequence[str] = METRICS,
    space: FeatureSpace | nn.Module | None = None,
    flips: FlipImages | Float[Tensor, "B C H W"] | None = None,
    baselines: float | FlipImages | Float[Tensor, "B C H W"] = 0.0,
    bounds: tuple[float, float] = (0, 1),
    max_steps: int = FLIP_STEPS,
    steps: int = 21,
    top_share: float = 0.1,
    resamples: int = 1000,
    confidence: float = 0.95,
    batch_size: int = 256,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare attributions of the same images: how far they agree, and what following them does.

    The metrics, of the entries of one image:

    - "cosine": of the angle between them.
    - "spearman", "kendall": rank correlations, ties sharing their ranks (tau-b).
    - "top_k": share that the largest `top_share` by size have in common; entries that tie with
      the last place share the places that are left.
    - "ssim": structural similarity, each attribution divided by the size of its largest entry;
      7 x 7 uniform window inside the image, mean over windows and channels
      (Wang et al. 2004, with K1 = 0.01, K2 = 0.03 and a range of 2).
    - "sign": share of equal signs among the entries that are not 0 in both.

    The curves say what the model does, and need `space`. ``deletion``: how the margin falls when
    pixels are moved to the baselines, those of the largest attribution by size first. ``reach``:
    how it falls along the line of the attribution, in the sense in which the boundary is nearer,
    up to 10 times as far as the flip image; nothing holds pixels within a range there.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
    attributions : dict of Tensor (B, C, H, W)
        By name: what Captum's ``attribute`` returns, or any other. A row with NaN is NaN in all
        that it takes part in, and nowhere else.
    reference : str
        Name of the attribution that the others are told against; "boundary" may be missing.
    metrics : sequence of str
        Default all.
    space : FeatureSpace or nn.Module, optional
        The model of the curves. Without it they are NaN.
    flips : FlipImages or Tensor (B, C, H, W), optional
        Images on the boundary, NaN where none is known; their distance is the unit of ``reach``.
        :func:`fsboundary.pixels.flip_images` for the nearest class if left out.
    baselines : float, FlipImages or Tensor (B, C, H, W)
        What pixels are moved to; with flip images the margin falls to 0.
    bounds : (float, float)
        What pixels lie between, in the search for flip images alone.
    max_steps : int
        Limit of gradients for each in that search; with more they come nearer.
    steps : int
        T, of each curve, both ends included.
    top_share : float
        In (0, 1].
    resamples, confidence, seed : int, float, int
        Of the bootstrap intervals: images are drawn with replacement.
    batch_size : int
        Images at once.
    show_progress : bool

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        Attributions of another shape, unknown names, numbers out of range, before any work; and
        images out of `bounds` where flip images are to be found.
    """
    images = check_image_batch(images)
    compared = check_attributions(images, attributions)
    asked = check_asked(
        images,
        compared.names,
        reference=reference,
        metrics=metrics,
        space=space,
        flips=flips,
        baselines=baselines,
        bounds=bounds,
        max_steps=max_steps,
        steps=steps,
        top_share=top_share,
        resamples=resamples,
        confidence=confidence,
        batch_size=batch_size,
    )
    grid = torch.linspace(0, 1, steps, dtype=torch.float64, device=images.device)
    with tqdm(unit="pass", desc="compare", disable=not show_progress) as bar:
        per_image = []
        for one in asked.metrics:
            bar.set_postfix_str(one)
            per_image.append(all_pairs(metric(one, top_share), compared.values))
        values = torch.stack(per_image)
        if asked.space is None:
            curves = _unknown(compared, steps)
        else:
            ends = asked.flips
            if ends is None:
                bar.set_postfix_str("flip images")
                ends = flip_images(
                    asked.space,
                    images,
                    bounds=asked.bounds,
                    max_steps=max_steps,
                    batch_size=batch_size,
                    seed=seed,
                ).images
            bar.set_postfix_str("curves")
            margins = Margins(asked.space, images, batch_size, bar)
            curves = _curves(margins, compared, asked.baselines, ends, grid)
    mean, low, high = bootstrap(values, resamples=resamples, confidence=confidence, seed=seed)
    return Comparison(
        methods=compared.names,
        metrics=asked.metrics,
        reference=asked.reference,
        mean=mean,
        ci_low=low,
        ci_high=high,
        per_image=values,
        fraction_perturbed=grid,
        path_position=FARTHEST * grid,
        **curves,
    )


def check_options(images: Tensor, names: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Raise what :func:`compare` would of its `options` and attributions with `names`."""
    given = inspect.signature(compare).bind(images, {}, **options)
    given.apply_defaults()
    unchecked = ("images", "attributions", "seed", "show_progress")
    check_asked(images, names, **{k: v for k, v in given.arguments.items() if k not in unchecked})


def _unknown(compared: Compared, steps: int) -> dict[str, Tensor]:
    """Return the fields that need a model, NaN."""
    nan = compared.values.new_full((*compared.status.shape, steps), torch.nan)
    return {
        "deletion": nan,
        "reach": nan.clone(),
        "crossing": nan[:, :, 0].clone(),
        "flip_distance": nan[0, :, 0].clone(),
        "status": compared.status,
    }


def _curves(
    margins: Margins,
    compared: Compared,
    baselines: Tensor,
    flips: Tensor,
    grid: Tensor,
) -> dict[str, Tensor]:
    """Return the fields that need a model."""
    status = torch.where(margins.status == Status.CONVERGED, compared.status, margins.status)
    images = margins.images
    unit = (flips.double() - images.double()).flatten(1).norm(dim=1)
    # an image that is its own flip image gives no unit
    unit = torch.where(unit > 0, unit, torch.nan)
    deletion = deletion_curves(margins, compared.values, baselines, grid)
    reach, crossing = reach_curves(margins, unit_directions(compared.values), unit, FARTHEST * grid)
    failed = status != Status.CONVERGED
    unit = torch.where(margins.usable, unit, torch.nan)
    lost = ~failed & ~torch.isfinite(unit)
    return {
        "deletion": torch.where(failed[..., None], torch.nan, deletion),
        "reach": torch.where(failed[..., None], torch.nan, reach),
        "crossing": torch.where(failed, torch.nan, crossing),
        "flip_distance": unit,
        "status": torch.where(lost, int(Status.INACCURATE), status),
    }
