"""Comparison of attributions of the same images: their agreement, and the margins along them.

Deletion curves replace pixels in the order of an attribution; reach curves move the image along
its direction until it crosses the boundary. Margins are fractions of those of the original images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.attr.comparison.arguments import (
    AttributionStack,
    ComparisonOptions,
    comparison_options,
    stack_attributions,
)
from fsboundary.attr.comparison.metrics import METRICS, all_pairs, bootstrap, metric
from fsboundary.core.results import Comparison, FlipImages
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.pixels import flip_images
from fsboundary.pixels.checks import check_pixels
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace


@final
class Margins:
    """Margins of each image's class over the best other class, in logit units.

    Parameters
    ----------
    space : FeatureSpace
    images : Tensor or array (B, C, H, W)
    batch_size : int
        Number of images per batch.
    bar : tqdm
        Progress bar; advances with every set of changed images that is measured.

    Attributes
    ----------
    status : Tensor (B,)
        CONVERGED; NOT_FINITE; or DEGENERATE where the margin is not above 0.
    usable : Tensor (B,), bool
        Whether the status is CONVERGED; other rows are NaN.
    """

    def __init__(
        self, space: FeatureSpace, images: Tensor, batch_size: int, bar: tqdm[Any]
    ) -> None:
        batch = space.extract(images, batch_size=batch_size)
        self._space, self.images, self._batch_size, self._bar = space, images, batch_size, bar
        self._source = batch.predicted.clamp_min(0)
        self._initial = _margin(batch.logits.double(), self._source)
        degenerate = (batch.status == Status.CONVERGED) & ~(self._initial > 0)
        self.status = torch.where(degenerate, int(Status.DEGENERATE), batch.status)
        self.usable = self.status == Status.CONVERGED

    def fractions(self, changed: Tensor) -> Tensor:
        """Return the margins (B,) of `changed` images, divided by those of the original images."""
        parts = []
        with torch.no_grad():
            for part in torch.arange(len(changed)).split(self._batch_size):
                logits = self._space.logits(changed[part]).to(self._initial)
                parts.append(_margin(logits, self._source[part]))
        self._bar.update()
        return torch.where(self.usable, torch.cat(parts) / self._initial, torch.nan)


def _margin(logits: Tensor, source: Tensor) -> Tensor:
    """Return logit `source` minus the largest other one, (B,)."""
    is_source = torch.nn.functional.one_hot(source, logits.shape[1]).bool()
    others = logits.masked_fill(is_source, -torch.inf).amax(dim=1)
    return logits.gather(1, source[:, None])[:, 0] - others


def _deletion_curves(
    margins: Margins, attributions: Tensor, baselines: Tensor, fractions: Tensor
) -> Tensor:
    """Return the margins (M,B,T) as fractions of those of the original images.

    Parameters
    ----------
    margins : Margins
        Margins of images (B,C,H,W).
    attributions : Tensor (M, B, C, H, W)
        Attributions. Pixels are ordered by the sum of the absolute values of their entries,
        largest first; ties are ordered by position in the image.
    baselines : Tensor (B, C, H, W)
        Values that replace the pixels.
    fractions : Tensor (T,)
        Fractions of the pixels to replace.
    """
    images = margins.images
    size = attributions.abs().sum(dim=2).flatten(2)
    rank = size.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    rank = rank.unflatten(2, images.shape[2:])[:, :, None]
    counts = (fractions * size.shape[2]).round().tolist()
    curves = [
        torch.stack(
            [margins.fractions(torch.where(order < count, baselines, images)) for count in counts],
            dim=1,
        )
        for order in rank
    ]
    return torch.stack(curves)


NUM_BISECTIONS = 12
"""Bisections of the step in which a curve crosses the boundary: accuracy 1/4,096 of a step."""


def _unit_directions(attributions: Tensor) -> Tensor:
    """Return `attributions` (..., B,C,H,W) over their lengths; NaN for a zero attribution."""
    dims = (-3, -2, -1)
    scaled = attributions / attributions.abs().amax(dim=dims, keepdim=True)
    unit: Tensor = scaled / scaled.square().sum(dim=dims, keepdim=True).sqrt()
    return unit


def reach_curves(
    margins: Margins, directions: Tensor, unit: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the margins (M,B,T) along unit `directions` (M,B,C,H,W), and the crossings (M,B).

    An attribution scores each entry, and scores may be for the class or against it: of the two
    senses of its line, the one that reaches the boundary first is used, or, if neither does, the
    one that ends with the smaller margin. `positions` (T,) are distances in units of `unit` (B,),
    which is in pixel units; crossings are in the same units, +inf where the class does not change
    by the last position.
    """
    curves, crossings = [], []
    for direction in directions:
        (curve, crossing), (back, back_crossing) = (
            _trace_direction(margins, sense * direction, unit, positions) for sense in (1, -1)
        )
        nearer = (back_crossing < crossing) | (
            (back_crossing == crossing) & (back[:, -1] < curve[:, -1])
        )
        # if one sense has no result, the result of the line is unknown
        nearer = nearer | (torch.isnan(back_crossing) & ~torch.isnan(crossing))
        curves.append(torch.where(nearer[:, None], back, curve))
        crossings.append(torch.where(nearer, back_crossing, crossing))
    return torch.stack(curves), torch.stack(crossings)


def _trace_direction(
    margins: Margins, direction: Tensor, unit: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the margins (B,T) along one `direction` (B,C,H,W) and the crossings (B,)."""

    def fraction_at(t: Tensor) -> Tensor:
        return margins.fractions(_move_along(margins.images, direction, t * unit))

    curve = torch.stack([fraction_at(t) for t in positions], dim=1)
    first, crosses = _first_crossing(curve)
    crossing = _bisect(fraction_at, positions[(first - 1).clamp_min(0)], positions[first])
    known = torch.isfinite(curve).all(dim=1)
    return curve, torch.where(known, torch.where(crosses, crossing, torch.inf), torch.nan)


def _move_along(images: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Return `images` moved by `t` (B,) along `direction` (B,C,H,W), in their original dtype."""
    return (images.double() + t.reshape(-1, 1, 1, 1) * direction).to(images.dtype)


def _first_crossing(curve: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index of each row of `curve` (B,T) at or below 0, and whether one exists."""
    below = curve <= 0
    return below.to(torch.int64).argmax(dim=1), below.any(dim=1)


def _bisect(fraction_at: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return the ends (B,) beyond the boundary of the brackets `low` to `high`, bisected."""
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        below = fraction_at(middle) <= 0
        low, high = torch.where(below, low, middle), torch.where(below, middle, high)
    return high


FARTHEST = 10.0
"""End of the reach curves, in units of the distance of the flip image."""

FLIP_STEPS = 60
"""Default limit of gradients per flip image. On the demo's network, flip images are 2 % farther
away on average than with the default of :func:`fsboundary.pixels.flip_images`, at 0.4 of the
cost."""


@in_standard_modes
def compare(
    images: Float[TensorOrArray, "B C H W"],
    attributions: Mapping[str, Float[TensorOrArray, "B C H W"]],
    *,
    reference: str = "boundary",
    metrics: Sequence[str] = METRICS,
    space: FeatureSpace | nn.Module | None = None,
    flips: FlipImages | Float[TensorOrArray, "B C H W"] | None = None,
    baselines: float | FlipImages | Float[TensorOrArray, "B C H W"] = 0.0,
    bounds: tuple[float, float] = (0, 1),
    max_steps: int = FLIP_STEPS,
    steps: int = 21,
    top_fraction: float = 0.1,
    resamples: int = 1000,
    confidence: float = 0.95,
    batch_size: int = 256,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare attributions of the same images: their agreement, and the effect of following them.

    The metrics, computed from the entries of one image:

    - "cosine": cosine of the angle between the two attributions.
    - "spearman", "kendall": rank correlations, with ties sharing their ranks (tau-b).
    - "top_k": overlap of the largest `top_fraction` of entries by absolute value; entries that
      tie for the last places share those places.
    - "ssim": structural similarity, each attribution divided by the size of its largest entry;
      7 x 7 uniform window inside the image, mean over windows and channels
      (Wang et al. 2004, with K1 = 0.01, K2 = 0.03 and a range of 2).
    - "sign": fraction of equal signs among the entries that are not 0 in both.

    The curves show the behaviour of the model, and need `space`. ``deletion``: the margin as
    pixels are replaced by the baselines, those with the largest absolute attribution first.
    ``reach``: the margin along the line of the attribution, in the sense in which the boundary is
    nearer, up to 10 times the distance of the flip image; pixels are not clamped to a range there.

    Parameters
    ----------
    images : Tensor or array (B, C, H, W)
    attributions : dict of Tensor (B, C, H, W)
        Attributions by name, from Captum's ``attribute`` or any other source. A row with NaN
        gives NaN in every result that uses it, and nowhere else.
    reference : str
        Name of the attribution with which the others are compared; "boundary" may be missing.
    metrics : sequence of str
        Names of metrics; default all.
    space : FeatureSpace or nn.Module, optional
        Model for the curves. Without it they are NaN.
    flips : FlipImages or Tensor (B, C, H, W), optional
        Images on the boundary, NaN where none is known; their distance is the unit of ``reach``.
        Default: :func:`fsboundary.pixels.flip_images` for the nearest class.
    baselines : float, FlipImages or Tensor (B, C, H, W)
        Values that replace the pixels; with flip images the margin falls to 0.
    bounds : (float, float)
        Range of the pixels, used only in the search for flip images.
    max_steps : int
        Limit of gradients per image in that search; more steps give nearer flip images.
    steps : int
        Number of points T of each curve, including both ends.
    top_fraction : float
        Fraction of the entries for "top_k", in (0, 1].
    resamples, confidence, seed : int, float, int
        Options of the bootstrap intervals: images are drawn with replacement.
    batch_size : int
        Number of images per batch.
    show_progress : bool

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        Attributions of another shape, unknown names or numbers out of range, all before any work;
        or images outside `bounds` when flip images must be computed.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> from captum.attr import InputXGradient, Saliency
    >>> methods = {"saliency": Saliency, "product": InputXGradient}
    >>> maps = fsb.attr.attribute_methods(space, images, methods)
    >>> found = fsb.attr.compare(images, maps, metrics=["cosine"], resamples=9)
    >>> found.methods, found.mean.shape
    (('boundary', 'saliency', 'product'), torch.Size([1, 3, 3]))
    """
    images = check_pixels(images, None, nonempty=True)
    stack = stack_attributions(images, attributions)
    options = comparison_options(
        images,
        stack.names,
        reference=reference,
        metrics=metrics,
        space=space,
        flips=flips,
        baselines=baselines,
        bounds=bounds,
        max_steps=max_steps,
        steps=steps,
        top_fraction=top_fraction,
        resamples=resamples,
        confidence=confidence,
        batch_size=batch_size,
    )
    grid = torch.linspace(0, 1, steps, dtype=torch.float64, device=images.device)
    with tqdm(unit="pass", desc="compare", disable=not show_progress) as bar:
        values = _metric_values(options.metrics, stack, top_fraction, bar)
        if options.space is None:
            curves = _undefined_curves(stack, steps)
        else:
            flip_ends = _boundary_images(
                options, options.space, images, bar, max_steps, batch_size, seed
            )
            bar.set_postfix_str("curves")
            margins = Margins(options.space, images, batch_size, bar)
            curves = _model_curves(margins, stack, options.baselines, flip_ends, grid)
    mean, low, high = bootstrap(values, resamples=resamples, confidence=confidence, seed=seed)
    return Comparison(
        methods=stack.names,
        metrics=options.metrics,
        reference=options.reference,
        mean=mean,
        ci_low=low,
        ci_high=high,
        per_image=values,
        fraction_perturbed=grid,
        path_position=FARTHEST * grid,
        **curves,
    )


def _metric_values(
    names: Sequence[str], stack: AttributionStack, top_fraction: float, bar: tqdm[Any]
) -> Tensor:
    """Return the values (Q,B,M,M) of the metrics `names` for all pairs of attributions."""
    per_image = []
    for name in names:
        bar.set_postfix_str(name)
        per_image.append(all_pairs(metric(name, top_fraction), stack.values))
    return torch.stack(per_image)


def _boundary_images(
    options: ComparisonOptions,
    space: FeatureSpace,
    images: Tensor,
    bar: tqdm[Any],
    max_steps: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """Return the flip images that the caller passed, or search for them."""
    if options.flips is not None:
        return options.flips
    bar.set_postfix_str("flip images")
    return flip_images(
        space,
        images,
        bounds=options.bounds,
        max_steps=max_steps,
        batch_size=batch_size,
        seed=seed,
    ).images


def _undefined_curves(stack: AttributionStack, steps: int) -> dict[str, Tensor]:
    """Return NaN for the fields that need a model."""
    nan = stack.values.new_full((*stack.status.shape, steps), torch.nan)
    return {
        "deletion": nan,
        "reach": nan.clone(),
        "crossing": nan[:, :, 0].clone(),
        "flip_distance": nan[0, :, 0].clone(),
        "status": stack.status,
    }


def _model_curves(
    margins: Margins,
    stack: AttributionStack,
    baselines: Tensor,
    flips: Tensor,
    grid: Tensor,
) -> dict[str, Tensor]:
    """Return the fields that need a model."""
    status = torch.where(margins.status == Status.CONVERGED, stack.status, margins.status)
    images = margins.images
    unit = (flips.double() - images.double()).flatten(1).norm(dim=1)
    # an image that equals its flip image defines no unit
    unit = torch.where(unit > 0, unit, torch.nan)
    deletion = _deletion_curves(margins, stack.values, baselines, grid)
    reach, crossing = reach_curves(margins, _unit_directions(stack.values), unit, FARTHEST * grid)
    failed = status != Status.CONVERGED
    unit = torch.where(margins.usable, unit, torch.nan)
    without_unit = ~failed & ~torch.isfinite(unit)
    return {
        "deletion": torch.where(failed[..., None], torch.nan, deletion),
        "reach": torch.where(failed[..., None], torch.nan, reach),
        "crossing": torch.where(failed, torch.nan, crossing),
        "flip_distance": unit,
        "status": torch.where(without_unit, int(Status.INACCURATE), status),
    }
