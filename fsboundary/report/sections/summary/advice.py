"""Section on what to do now: warnings about the report's own basis, then the first steps."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fsboundary.pixels.checks import chance_levels
from fsboundary.plot.values import median
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements, certified_nearest_first
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.summary.input_statistics import input_statistics
from fsboundary.report.sections.summary.overview import most_fragile_pair

NUM_LISTED = 5
"""Largest number of images that a step names."""

RENAMED = 0.5
"""Accuracy after the best renaming of the classes from which their order is probably wrong."""

MIN_PER_CLASS = 5
"""Number of images per class that a renaming needs: with fewer, chance finds a good one."""


@final
class Advice(Section):
    """Warnings that put the whole report in doubt, and what to do first."""

    name = "advice"
    title = "What to do now"
    menu = "What to do"

    def compute(self, measured: Measurements) -> Content:
        """Return the warnings and, for each step, the images or classes that it is about."""
        m = measured
        statistics = input_statistics(m.subject.space, m.subject.images, m.subject.batch_size)
        wrong = m.misclassified & m.batch.ok
        numbers = {
            "near_chance": _near_chance(m),
            "pixels": None if statistics is None else dataclasses.asdict(statistics),
            "fragile": [
                image_facts(m, row) for row in certified_nearest_first(m)[:NUM_LISTED].tolist()
            ],
            "wrong": int(wrong.sum()) if bool(m.labelled.any()) else None,
            "doubtful_labels": _doubtful_labels(m, wrong),
            "pair": most_fragile_pair(m),
            "failed": int((~m.batch.ok | ~m.nearest.ok[:, 0]).sum()),
            "has_labels": bool(m.labelled.any()),
            "has_training": m.train is not None,
        }
        return Content(numbers=plain(numbers))


def _near_chance(m: Measurements) -> dict[str, Any] | None:
    """Return the accuracy and what is near chance if it is; None otherwise."""
    evaluated = m.labelled & m.batch.ok
    labels = m.subject.labels
    if labels is None or not bool(evaluated.any()):
        return None
    predicted, labels = m.batch.predicted[evaluated], labels[evaluated]
    accuracy = float((predicted == labels).double().mean())
    chance, threshold = chance_levels(m.head.num_classes)
    if accuracy >= threshold:
        return None
    renamed = _renamed_accuracy(predicted, labels, m.head.num_classes)
    return {
        "accuracy": accuracy,
        "evaluated": len(labels),
        "chance": chance,
        "renamed": renamed if renamed is not None and renamed >= RENAMED else None,
    }


def _renamed_accuracy(predicted: Tensor, labels: Tensor, classes: int) -> float | None:
    """Return the accuracy under the best one-to-one renaming of the classes of the labels."""
    if len(labels) < MIN_PER_CLASS * len(labels.unique()):
        return None
    pairs = torch.bincount(labels * classes + predicted, minlength=classes**2)
    counts = pairs.reshape(classes, classes).numpy()
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum()) / len(labels)


def _doubtful_labels(m: Measurements, wrong: Tensor) -> dict[str, Any]:
    """Return the misclassified images that are at least as far from a boundary as right ones are.

    The network is as sure of these as of others, so their labels may be the error.
    """
    distance = m.nearest.distance[:, 0]
    usual = median(distance[m.labelled & ~wrong & m.nearest.ok[:, 0]])
    rows = (wrong & m.nearest.ok[:, 0] & (distance >= usual)).nonzero()[:, 0]
    order = rows[distance[rows].argsort(descending=True, stable=True)].tolist()
    return {
        "count": len(order),
        "usual": usual,
        "images": [image_facts(m, row) for row in order[:NUM_LISTED]],
    }


def alerts(numbers: dict[str, Any]) -> list[str]:
    """Return the warnings of the section as sentences, for a terminal."""
    found = []
    chance = numbers["near_chance"]
    if chance is not None:
        advice = "Check the preprocessing, the weights and the order of the classes"
        if chance["renamed"] is not None:
            advice = (
                f"With the classes renamed, {100 * chance['renamed']:.0f} % would be right, so "
                "their order is probably not the model's: give it with --class-names"
            )
        found.append(
            f"only {100 * chance['accuracy']:.1f} % of {chance['evaluated']} labelled images are "
            f"classified correctly, near chance ({100 * chance['chance']:.1f} %). {advice}."
        )
    return found + pixel_alerts(numbers["pixels"])


def pixel_alerts(pixels: dict[str, Any] | None) -> list[str]:
    """Return the warning about :class:`InputStatistics`, given as a dict, if there is one."""
    if pixels is None or pixels["verdict"] == "as expected":
        return []
    return [
        f"at the layer {pixels['layer']}, the pixels do not have the statistics that it was "
        f"trained with (spread {pixels['spread']:.2f} times the expected one, mean off by "
        f"{pixels['shift']:.2f} standard deviations). Is the preprocessing left out? Put it into "
        "the model, or give it with --preprocess."
    ]
