"""Attributions of a sample of images and of a few examples, and their comparison."""

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
    make_methods,
    run_method,
    shap_baselines,
    try_run,
)
from fsboundary.report.sections.hull.measure import sample

MAX_IMAGES = 16
"""Largest number of compared images; the curves take about 200 forward passes of each."""

MIN_IMAGES = 6
"""Smallest number of compared images, however large they are."""

MAX_ENTRIES = 100_000
"""Largest number of pixels times channels of all compared images."""

STEPS = 11
"""Number of points of each curve."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attributions:
    """Attributions and their comparison.

    Attributes
    ----------
    methods : list of Method
        All methods that were run.
    errors : dict of str to str
        Errors by name of the method.
    examples : dict of str to int
        Rows of the images with heat maps, by title.
    maps : dict of str to Tensor (N, C, H, W)
        Attributions of the examples, in their order.
    example_comparison : Comparison or None
        Comparison on the examples by "spearman"; None if there is nothing to compare.
    sample : Tensor (B,)
        Rows of the compared images.
    background : int
        Number of images that were baselines of GradientShap.
    comparison : Comparison or None
        Comparison on the sample by all metrics.
    curves_error : str or None
        Reason why there are no curves.
    """

    methods: list[Method]
    errors: dict[str, str]
    examples: dict[str, int]
    maps: dict[str, Tensor]
    example_comparison: Comparison | None
    sample: Tensor
    background: int
    comparison: Comparison | None
    curves_error: str | None


def choose_images(m: Measurements) -> dict[str, int]:
    """Return the rows of at most four distinct images by title."""
    rows = certified_nearest_first(m)
    some = bool(m.labelled.any())
    right = rows[m.labelled[rows] & ~m.misclassified[rows]] if some else rows
    wrong = rows[m.misclassified[rows]]
    correctly = " that is classified correctly" if some else ""
    candidates = [
        (f"The least robust image{correctly}", right[:1]),
        ("The misclassified image farthest from the boundary", wrong[-1:]),
        ("An image with median robustness", rows[len(rows) // 2 :][:1]),
        ("The most robust image", rows[-1:]),
    ]
    examples: dict[str, int] = {}
    for title, row in candidates:
        if len(row) and int(row) not in examples.values():
            examples[title] = int(row)
    return examples


def sample_images(m: Measurements) -> Tensor:
    """Return random rows with usable features, in ascending order."""
    rows = m.batch.ok.nonzero()[:, 0]
    entries = m.subject.images[0].numel()
    max_rows = min(MAX_IMAGES, max(MIN_IMAGES, MAX_ENTRIES // max(1, entries)))
    return sample(rows, max_rows, torch.Generator().manual_seed(SEED))


def measure_attributions(m: Measurements) -> Attributions | None:
    """Run the methods and compare them; return None if no image has usable features."""
    subject, sample = m.subject, sample_images(m)
    if not len(sample):
        return None
    examples = choose_images(m)
    rows = torch.cat([torch.tensor(list(examples.values()), dtype=torch.int64), sample])
    images = subject.images[rows.to(subject.images.device)]
    background = shap_baselines(subject, SEED)
    methods = make_methods(subject, background)
    attributions: dict[str, Tensor] = {}
    errors: dict[str, str] = {}
    with m.clock.stage("attributions"):
        for method in methods:
            out = run_method(subject, method, images, SEED)
            if isinstance(out, str):
                errors[method.name] = out
            else:
                attributions[method.name] = out
    maps = {name: value[: len(examples)] for name, value in attributions.items()}
    of_sample = {name: value[len(examples) :] for name, value in attributions.items()}
    example_comparison, comparison, curves_error = None, None, None
    with m.clock.stage("comparison of the attributions"):
        if maps and examples:
            example_comparison = compare(images[: len(examples)], maps, metrics=("spearman",))
        if of_sample:
            comparison, curves_error = _compare(m, images[len(examples) :], of_sample)
    return Attributions(
        methods=methods,
        errors=errors,
        examples=examples,
        maps=maps,
        example_comparison=example_comparison,
        sample=sample,
        background=len(background),
        comparison=comparison,
        curves_error=curves_error,
    )


def _compare(
    m: Measurements, images: Tensor, attributions: dict[str, Tensor]
) -> tuple[Comparison, str | None]:
    """Compare attributions; if the model raises, without the curves and with its error."""
    reference = REFERENCE if REFERENCE in attributions else next(iter(attributions))
    size = m.subject.batch_size

    def run() -> Comparison:
        space = m.subject.space
        return compare(
            images,
            attributions,
            reference=reference,
            space=space,
            steps=STEPS,
            batch_size=size,
            seed=SEED,
        )

    with_curves = try_run(run)
    if isinstance(with_curves, Comparison):
        return with_curves, None
    return compare(images, attributions, reference=reference, seed=SEED), with_curves
