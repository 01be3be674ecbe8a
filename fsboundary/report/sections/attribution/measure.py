"""What attribution methods say of a sample of images, and of a few chosen ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.attr import compare
from fsboundary.core.results import Comparison
from fsboundary.report.measurements import SEED, Measurements, certified_nearest_first
from fsboundary.report.sections.attribution.methods import (
    REFERENCE,
    Method,
    attempt,
    background_of,
    methods_of,
    run_method,
)
from fsboundary.report.sections.hull.measure import sample

MOST_IMAGES = 16
"""So many images are compared at most; the curves alone are some 200 forward passes of each."""

FEWEST_IMAGES = 6

MOST_ENTRIES = 100_000
"""Pixels times channels of all compared images together, unless they are FEWEST_IMAGES."""

STEPS = 11
"""Of each curve."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attributions:
    """Attributions and their comparison.

    Attributes
    ----------
    methods : list of Method
        All that were run.
    errors : dict of str to str
        What went wrong, by name of the method.
    chosen : dict of str to int
        Title and row of the images with heat maps.
    maps : dict of str to Tensor (N, C, H, W)
        Of the chosen images, in their order.
    near : Comparison or None
        Of the chosen images, by "spearman" only; None where there is nothing to compare.
    sample : Tensor (B,)
        Rows of the images compared.
    background : int
        Images that were baselines of GradientShap.
    compared : Comparison or None
        Of the sample, by all metrics.
    curves_error : str or None
        Why there are no curves.
    """

    methods: list[Method]
    errors: dict[str, str]
    chosen: dict[str, int]
    maps: dict[str, Tensor]
    near: Comparison | None
    sample: Tensor
    background: int
    compared: Comparison | None
    curves_error: str | None


def choose_images(m: Measurements) -> dict[str, int]:
    """Return the rows of at most four images by title, none twice."""
    rows = certified_nearest_first(m)
    labels = m.subject.labels
    right = rows if labels is None else rows[m.batch.predicted[rows] == labels[rows]]
    wrong = rows[:0] if labels is None else rows[m.batch.predicted[rows] != labels[rows]]
    least = "The least robust image" + ("" if labels is None else " that is named correctly")
    wanted = [
        (least, right[:1]),
        ("The mistake farthest from the boundary", wrong[-1:]),
        ("An image in the middle", rows[len(rows) // 2 :][:1]),
        ("The most robust image", rows[-1:]),
    ]
    chosen: dict[str, int] = {}
    for title, row in wanted:
        if len(row) and int(row) not in chosen.values():
            chosen[title] = int(row)
    return chosen


def sample_images(m: Measurements) -> Tensor:
    """Return rows with usable features, drawn at random, in ascending order."""
    rows = m.batch.ok.nonzero()[:, 0]
    entries = m.subject.images[0].numel()
    most = min(MOST_IMAGES, max(FEWEST_IMAGES, MOST_ENTRIES // max(1, entries)))
    return sample(rows, most, torch.Generator().manual_seed(SEED))


def measure_attributions(m: Measurements) -> Attributions | None:
    """Run the methods and compare them; None without an image with usable features."""
    subject, sample = m.subject, sample_images(m)
    if not len(sample):
        return None
    chosen = choose_images(m)
    rows = torch.cat([torch.tensor(list(chosen.values()), dtype=torch.int64), sample])
    images = subject.images[rows.to(subject.images.device)]
    background = background_of(subject, SEED)
    methods = methods_of(subject, background)
    found: dict[str, Tensor] = {}
    errors: dict[str, str] = {}
    with m.clock.stage("attributions"):
        for method in methods:
            out = run_method(subject, method, images, SEED)
            if isinstance(out, str):
                errors[method.name] = out
            else:
                found[method.name] = out
    maps = {name: value[: len(chosen)] for name, value in found.items()}
    others = {name: value[len(chosen) :] for name, value in found.items()}
    near, compared, trouble = None, None, None
    with m.clock.stage("comparison of the attributions"):
        if maps and chosen:
            near = compare(images[: len(chosen)], maps, metrics=("spearman",))
        if others:
            compared, trouble = _compare(m, images[len(chosen) :], others)
    return Attributions(
        methods=methods,
        errors=errors,
        chosen=chosen,
        maps=maps,
        near=near,
        sample=sample,
        background=len(background),
        compared=compared,
        curves_error=trouble,
    )


def _compare(
    m: Measurements, images: Tensor, found: dict[str, Tensor]
) -> tuple[Comparison, str | None]:
    """Compare attributions; without the curves where the model does not let them be drawn."""
    reference = REFERENCE if REFERENCE in found else next(iter(found))
    size = m.subject.batch_size

    def run() -> Comparison:
        space = m.subject.space
        return compare(
            images,
            found,
            reference=reference,
            space=space,
            steps=STEPS,
            batch_size=size,
            seed=SEED,
        )

    with_curves = attempt(run)
    if isinstance(with_curves, Comparison):
        return with_curves, None
    return compare(images, found, reference=reference, seed=SEED), with_curves
