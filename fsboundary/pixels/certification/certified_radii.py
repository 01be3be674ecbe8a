"""Certified pixels: radii around images within which the predicted class cannot change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsboundary.builtin.body_bounds.forward_rounding import ForwardRounding
from fsboundary.builtin.body_bounds.interval import Interval
from fsboundary.core.checks import check_choice, check_integer, check_number
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import CertifiedPixels, FlipImages
from fsboundary.core.rows import TensorOrArray, write_rows
from fsboundary.core.status import Status
from fsboundary.geometry.bounds.rounding import above, below
from fsboundary.modes import in_standard_modes
from fsboundary.pixels.certification.journal import check_resume, open_journal
from fsboundary.pixels.certification.lipschitz import radii_by_lipschitz
from fsboundary.pixels.certification.noise import image_digest
from fsboundary.pixels.certification.radius_search import Bounder, largest_radii
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.pixels.flip_images import flip_images
from fsboundary.pixels.model_calls import first_logits
from fsboundary.plugins import create
from fsboundary.plugins.grading.bounds import (
    KnownImages,
    bound_and_grade,
    refuted_rows,
    report_refuted,
)
from fsboundary.plugins.grading.images import pixel_distance
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of

MAX_STEPS = 40
"""Default limit of radii that are tried per image."""

_BEYOND = (1.0, 1.0001, 1.002, 1.02, 1.2)
"""Where images of another class are looked for, as multiples of the way to the flip image, which
itself is a tie within a tolerance and may have the class of the row."""


@in_standard_modes
@torch.no_grad()
def certify(
    model: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "B C H W"],
    *,
    norm: Literal["linf", "l2"] = "linf",
    bounds: tuple[float, float] = (0, 1),
    method: str | BodyBounds = "linear_bounds",
    arithmetic: Literal["exact", "floating_point"] = "exact",
    lipschitz: float | None = None,
    upper: FlipImages | Float[TensorOrArray, "B C H W"] | None = None,
    tolerance: float = 1e-3,
    max_steps: int | None = None,
    batch_size: int = 16,
    resume: str | os.PathLike[str] | None = None,
    show_progress: bool = False,
) -> CertifiedPixels:
    """Return radii in pixels within which no image has another predicted class.

    The radius is a theorem about the model in exact arithmetic: about the real function that its
    operations and its parameters, as they are stored, define. It includes the rounding of its own
    computation, but that of the model's forward pass, which may decide an image within float32
    rounding of a boundary either way, only with ``arithmetic="floating_point"``. The largest radius
    is found by bisection; each is certified by lower bounds of the margins of the predicted class
    over all others.

    Parameters
    ----------
    model : nn.Module or FeatureSpace
        Model in eval mode. With ``preprocess=`` of a space, images and radii are in the user's own
        pixels.
    images : Tensor or array (B, C, H, W)
        Floating-point images within `bounds`.
    norm : {"linf", "l2"}
        Norm of the radius.
    bounds : (float, float)
        Smallest and largest pixel value; images beyond them do not count.
    method : str or BodyBounds
        Name of a plugin ("linear_bounds", "interval") or an instance.
    arithmetic : {"exact", "floating_point"}
        "floating_point": the claim is also about the logits that passes of the model on this CPU
        compute, in their float32 or float64, with any batch size and number of threads, for images
        in the dtype of `images`. Each margin must exceed a bound of the rounding errors of the two
        logits. The radius is at most that of "exact".
    lipschitz : float, optional
        Lipschitz constant from pixels, in `norm`, to features, in the Euclidean norm, for which the
        caller vouches. The radius is then that of the guaranteed ball divided by it, whatever the
        operations of the body are, and `method` is not used. It is compared with the changes at
        known images and at random ones.
    upper : FlipImages or Tensor (B, C, H, W), optional
        Images of another class, NaN where none is known; their class is checked. By default
        :func:`flip_images` looks for them.
    tolerance : float
        Relative difference, between a radius that is certified and one that is not, at which the
        search ends.
    max_steps : int, optional
        Limit of radii that are tried per image, default 40; "floating_point" tries as many again,
        within the radius of "exact".
    batch_size : int
        Number of images per batch.
    resume : path, optional
        A file for the radii of finished images. A run with the same model, options and `upper`
        resumes from it; a last line that was not finished is removed. The radii in it are proved
        again, with one bound each; `upper` is taken as the file states it.
    show_progress : bool

    Returns
    -------
    CertifiedPixels
        On the device of `images`.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, pixels out of bounds, a Lipschitz constant that a known image
        refutes, or one together with "floating_point"; or `resume` is a file of another model or
        run.
    HeadError
        The model has no linear head, or the method has no rule for an operation of its body; the
        message names the operation. With "floating_point" also: the model is not on the CPU, or
        an operation has no bound of its rounding.
    PluginError
        The method raised, or returned another type or shape.
    DataError
        The file `resume` is damaged, or cannot be read or written.

    Warns
    -----
    PluginWarning
        A bound of the method exceeds a value that the model takes; the rows are INACCURATE.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import pixels
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> found = pixels.certify(model, torch.rand(2, 1, 2, 2))
    >>> bool((found.radius <= found.upper).all())
    True
    """
    space = space_of(model)
    limits = check_bounds(bounds)
    pixels = check_pixels(images, limits)
    check_choice("norm", norm, ("linf", "l2"))
    check_choice("arithmetic", arithmetic, ("exact", "floating_point"))
    check_integer("batch_size", batch_size)
    check_number("tolerance", tolerance, 0, 1, fix="pass 1e-3")
    steps = check_integer("max_steps", MAX_STEPS if max_steps is None else max_steps)
    check_resume(resume)
    if lipschitz is not None:
        check_number("lipschitz", lipschitz, 0, fix="pass a positive number, or leave it out")
        if arithmetic == "floating_point":
            raise ArgumentError(
                "arithmetic",
                "'floating_point' with lipschitz=",
                "'exact', because a Lipschitz constant says nothing of rounding",
                "leave one of them out",
            )
    known = None
    if isinstance(upper, FlipImages):
        known = check_pixels(upper.images, limits, "upper", like=pixels)
    elif upper is not None:
        known = check_pixels(upper, limits, "upper", like=pixels)
    if space.surrogate:
        raise ArgumentError(
            "model",
            "a FeatureSpace with a fitted head, whose class may differ from the model's",
            "a space with the model's own head",
            "leave extractor= out, so that the head is found in the model",
        )
    plugin = create("body_bound", method)
    logits = first_logits(space, pixels, batch_size)
    finite = torch.isfinite(logits).all(dim=1)
    fields = _initial_fields(logits, finite)
    rows = finite.nonzero()[:, 0]
    cover = arithmetic == "floating_point"
    fields["covers_rounding"] = torch.full_like(finite, cover)
    rounding = ForwardRounding(space, pixels[rows[:1]]) if cover and len(rows) else None
    options = {
        "norm": norm,
        "bounds": limits,
        "method": repr(plugin),
        "arithmetic": arithmetic,
        "lipschitz": lipschitz,
        "tolerance": tolerance,
        "steps": steps,
    }
    bar = tqdm(total=len(rows), unit="image", disable=not show_progress)
    with open_journal(resume, "radii", space.model, options, _read) as journal, bar:
        names = [("", 0.0)] * len(rows)
        if resume is not None:  # digests and largest logits, by which the file knows images
            sets = [pixels] if known is None else [pixels, known]
            digests = [" ".join(image_digest(one[row]) for one in sets) for row in rows.tolist()]
            names = list(zip(digests, logits[rows].amax(dim=1).tolist(), strict=True))
        found = [journal.find(*name) for name in names]
        left = torch.ones_like(rows, dtype=torch.bool)
        kept = [number for number, entry in enumerate(found) if entry is not None]
        for part in torch.tensor(kept, device=rows.device).split(batch_size) if kept else ():
            at = rows[part]
            entries = [entry for number in part.tolist() if (entry := found[number]) is not None]
            stated = {
                name: fields[name].new_tensor([entry[name] for entry in entries]) for name in _KEPT
            }
            shown = torch.full_like(pixels[at], torch.nan) if known is None else known[at]
            batch = _Batch.of(space, pixels[at], fields["source"][at], shown, norm, limits)
            holds = _is_certified(plugin, space, batch, rounding, lipschitz, stated)
            write_rows(fields, at[holds], {name: value[holds] for name, value in stated.items()})
            left[part[holds]] = False
            bar.update(int(holds.sum()))
        for numbers in left.nonzero()[:, 0].split(batch_size) if bool(left.any()) else ():
            part = rows[numbers]
            if known is None:
                flips = flip_images(space, pixels[part], norm=norm, bounds=limits).images
            else:
                flips = known[part]
            batch = _Batch.of(space, pixels[part], fields["source"][part], flips, norm, limits)
            if lipschitz is None:
                solved = _solve(plugin, space, batch, rounding, tolerance, steps)
            else:
                solved = radii_by_lipschitz(
                    space, batch.images, batch.known.distance, batch.features, lipschitz, norm
                )
            solved |= {"upper": batch.upper, "source": batch.source}
            write_rows(fields, part, solved)
            for place, number in enumerate(numbers.tolist()):
                entry = {key: _text(solved[key][place].item()) for key in _KEPT}
                digest, largest = names[number]
                journal.add(digest, largest, entry)
            bar.update(len(part))
    return CertifiedPixels(**fields)


_KEPT = {
    **dict.fromkeys(("radius", "upper"), float),
    **dict.fromkeys(("source", "limit", "steps", "status"), int),
}
"""Fields of an image in a file, and their types."""


def _is_certified(
    plugin: BodyBounds,
    space: FeatureSpace,
    batch: _Batch,
    rounding: ForwardRounding | None,
    lipschitz: float | None,
    stated: dict[str, Tensor],
) -> Tensor:
    """Return in which rows (R,) what a file states of the images is certified here too.

    The radius is bounded once more, because a file proves nothing. The distance of the image of
    another class is taken from it, but no radius reaches it.
    """
    radius = stated["radius"]
    if lipschitz is None:
        claimed = torch.minimum(radius.nan_to_num(0.0), batch.reach)
        rows = torch.arange(len(radius), device=radius.device)
        lower, refuted = _bounder(plugin, space, batch, rounding)(rows, claimed)
        certified = (lower > 0).all(dim=1) & ~refuted
    else:
        again = radii_by_lipschitz(
            space, batch.images, batch.known.distance, batch.features, lipschitz, batch.norm
        )
        certified = radius <= again["radius"]
    same = (stated["source"] == batch.source) & ~(radius >= stated["upper"])
    return same & (certified | ~(radius > 0))  # nothing is claimed of a radius of 0


def _read(fields: dict[str, Any]) -> dict[str, float]:
    """Return the fields of one image from a line; floats are hexadecimal."""
    found = {
        name: float.fromhex(fields[name]) if kind is float else int(fields[name])
        for name, kind in _KEPT.items()
    }
    if found["radius"] < 0 or found["status"] not in {int(s) for s in Status}:
        raise ValueError(f"it states the radius {found['radius']:g}")
    return found


def _text(value: float) -> str | int:
    return value.hex() if isinstance(value, float) else value


def _initial_fields(logits: Tensor, finite: Tensor) -> dict[str, Tensor]:
    nan = torch.full((len(logits),), torch.nan, dtype=torch.float64, device=logits.device)
    source = torch.where(finite, logits.nan_to_num().argmax(dim=1), -1)
    return {
        "radius": nan,
        "upper": nan.clone(),
        "source": source,
        "limit": torch.full_like(source, -1),
        "steps": torch.zeros_like(source),
        "status": torch.where(finite, int(Status.UNDECIDED), int(Status.NOT_FINITE)),
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    """Some of the images, with what is known of them.

    Attributes
    ----------
    images : Tensor (R, C, H, W)
    shown : Tensor (R, 1 + P, C, H, W)
        The images, and P images around each.
    features : Tensor (R, 1 + P, d)
        Of these.
    source : Tensor (R,)
        Predicted classes.
    rivals : Tensor (R, K - 1)
        All classes but the predicted one.
    functions : LinearFunctions
        Margins of the predicted class over these.
    known : KnownImages
    upper : Tensor (R,), float64
        Distance of the nearest known image of another class.
    reach : Tensor (R,), float64
        Radius that contains all images within the bounds.
    norm : {"linf", "l2"}
    bounds : (float, float)
    """

    images: Tensor
    shown: Tensor
    features: Tensor
    source: Tensor
    rivals: Tensor
    functions: LinearFunctions
    known: KnownImages
    upper: Tensor
    reach: Tensor
    norm: Literal["linf", "l2"]
    bounds: tuple[float, float]

    @staticmethod
    def of(
        space: FeatureSpace,
        images: Tensor,
        source: Tensor,
        flips: Tensor,
        norm: Literal["linf", "l2"],
        bounds: tuple[float, float],
    ) -> _Batch:
        """Return the batch of `images` with class `source` (R,) and images of other classes."""
        rows, count = len(images), len(_BEYOND)
        usable = torch.isfinite(flips).flatten(1).all(dim=1)
        way = torch.where(usable[:, None, None, None], flips - images, 0.0)
        others = torch.stack([(images + t * way).clamp(*bounds) for t in _BEYOND], dim=1)
        shown = torch.cat([images[:, None], others], dim=1)
        seen = space.extract(shown.flatten(0, 1))
        features = seen.features.reshape(rows, 1 + count, -1)
        crossed = seen.predicted.reshape(rows, 1 + count) != source[:, None]
        distance = torch.stack(
            [pixel_distance(images, shown[:, p], norm) for p in range(1 + count)], dim=1
        )
        head = space.head.to(images.device)
        rivals = _rivals(source, head.num_classes)
        functions = margins(head, source, rivals)
        edge = torch.tensor(bounds, dtype=torch.float64, device=images.device)
        far = torch.maximum((images - edge[0]).abs(), (edge[1] - images).abs()).flatten(1)
        return _Batch(
            images=images,
            shown=shown,
            features=features,
            source=source,
            rivals=rivals,
            functions=functions,
            known=KnownImages.of(functions, features, distance),
            upper=torch.where(crossed, distance, torch.inf)[:, 1:].amin(dim=1),
            # more than the exact one by far more than its rounding
            reach=(1 + 1e-9)
            * torch.linalg.vector_norm(far, ord=2 if norm == "l2" else torch.inf, dim=1),
            norm=norm,
            bounds=bounds,
        )


def _rivals(source: Tensor, num_classes: int) -> Tensor:
    """Return all classes but `source` (R,), in order, (R,K-1)."""
    others = torch.arange(num_classes - 1, device=source.device)[None]
    return others + (others >= source[:, None])


def margins(head: LinearHead, source: Tensor, rivals: Tensor) -> LinearFunctions:
    """Return the margins of `source` (R,) over `rivals` (R,F) as functions of the features."""
    first, second = head.weight[source][:, None], head.weight[rivals]
    weight = first - second
    # the exact rounding error of a difference (Knuth's two-sum)
    back = weight - first
    error = (first - (weight - back)) - (second + back)
    offset = below(head.bias[source][:, None] - head.bias[rivals])
    return LinearFunctions(weight=weight, offset=offset, weight_error=error.abs())


def _is_proved(
    space: FeatureSpace, batch: _Batch, rows: Tensor, lower: Tensor, radius: Tensor
) -> Tensor:
    """Return in which rows (R,) a bound is above a value of exact arithmetic at a known image.

    What the model computes there is off by more than expected where numbers cancel. Values of a
    body without rules stay as it computes them, and all rows are refuted.
    """
    shown, given = batch.shown[rows], batch.functions.take(rows)
    count = shown.shape[1]
    negative = LinearFunctions(
        weight=-given.weight.repeat_interleave(count, 0),
        offset=-given.offset.repeat_interleave(count, 0),
        weight_error=given.weight_error.repeat_interleave(count, 0),
    )
    points = shown.flatten(0, 1)
    nowhere = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    try:
        found = Interval().bound(
            space, points, nowhere, norm="linf", bounds=batch.bounds, functions=negative
        )
    except HeadError:
        return torch.ones_like(rows, dtype=torch.bool)
    highest = -found.reshape(len(rows), count, -1)
    return refuted_rows(lower, radius, batch.known.distance[rows], highest)


def _bounder(
    plugin: BodyBounds, space: FeatureSpace, batch: _Batch, rounding: ForwardRounding | None
) -> Bounder:
    """Return lower bounds of the margins, less what `rounding` may change them by."""

    def bound(rows: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        lower, refuted = bound_and_grade(
            plugin,
            space,
            batch.images[rows],
            radius,
            norm=batch.norm,
            bounds=batch.bounds,
            functions=batch.functions.take(rows),
            known=batch.known.take(rows),
        )
        some = refuted.nonzero()[:, 0]
        if len(some):
            refuted[some] = _is_proved(space, batch, rows[some], lower[some], radius[some])
        if rounding is None:
            return lower, refuted
        errors = rounding.logit_errors(batch.images[rows], radius, batch.norm, batch.bounds)
        own = errors.gather(1, batch.source[rows][:, None])
        lower = below(lower - above(own + errors.gather(1, batch.rivals[rows])))
        # no known image has another class in floating point either
        wrong = (lower > 0).all(dim=1) & (batch.upper[rows] <= radius)
        return lower, refuted | wrong

    return bound


def _solve(
    plugin: BodyBounds,
    space: FeatureSpace,
    batch: _Batch,
    rounding: ForwardRounding | None,
    tolerance: float,
    max_steps: int,
) -> dict[str, Tensor]:
    """Return the fields of the largest radii that `plugin` certifies."""
    start = torch.minimum(batch.upper, batch.reach)
    bound = _bounder(plugin, space, batch, None)
    found = largest_radii(bound, start, batch.reach, tolerance, max_steps)
    if rounding is not None:
        limit = torch.minimum(found.radius.nan_to_num(0.0), batch.reach)
        bound = _bounder(plugin, space, batch, rounding)
        found = found.shorten(largest_radii(bound, limit, limit, tolerance, max_steps))
    wrong = int((found.status == Status.INACCURATE).sum())
    if wrong:
        report_refuted(plugin, wrong)
    place = batch.rivals.gather(1, found.place.clamp_min(0)[:, None])[:, 0]
    return {
        "radius": found.radius,
        "limit": torch.where(found.place < 0, -1, place),
        "steps": found.steps,
        "status": found.status,
    }
