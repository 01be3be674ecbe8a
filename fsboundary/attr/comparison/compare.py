"""How far attributions of the same images agree, and how they behave."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

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
from fsboundary.attr.comparison.curves import (
    Margins,
    deletion_curves,
    reach_curves,
    unit_directions,
)
from fsboundary.attr.comparison.metrics import METRICS, all_pairs, bootstrap, metric
from fsboundary.core.results import Comparison, FlipImages
from fsboundary.core.status import Status
from fsboundary.pixels import flip_images
from fsboundary.space import FeatureSpace

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
        low=low,
        high=high,
        per_image=values,
        moved=grid,
        travelled=FARTHEST * grid,
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
