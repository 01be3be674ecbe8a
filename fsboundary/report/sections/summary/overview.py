"""Section with the summary in words."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from fsboundary.core.status import Status
from fsboundary.plot.distances import bin_counts
from fsboundary.plot.values import median, quantile
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.distances import (
    histogram,
    pair_cells,
    shared_edges,
    tallest_bar,
)

MAX_ROWS_SHOWN = 5
"""Largest number of rows listed per failed status."""

WIDE, NARROW = (5.2, 1.5), (3.0, 1.5)
"""Sizes of the histogram on wide and on narrow screens, inches."""

MIN_PAIR_IMAGES = 5
"""Number of images that a pair of classes needs to be the most fragile one, because the median of
fewer says little about the pair."""


@final
class Overview(Section):
    """Counts, distances, the most fragile pair, accuracy, the domain and the certificates."""

    name = "overview"
    title = "Summary"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers of the summary."""
        m, notes = measured, measured.subject.space.notes()
        distance = m.nearest.distance[:, 0]
        known = distance[~distance.isnan()]
        numbers = {
            "title": m.subject.title,
            "images": len(distance),
            "with_distance": len(known),
            "classes": m.head.num_classes,
            "features": m.head.num_features,
            "shown": len(m.shown),
            "distance": {
                "median": median(known),
                "smallest": known.min() if len(known) else None,
                "largest": known.max() if len(known) else None,
                "infinite": int(known.isinf().sum()),
            },
            "feature_spread": _spread(m),
            "labels": _labels(m, distance),
            "fragile_pair": most_fragile_pair(m),
            "certificates": _certificates(m),
            "domain": {"kind": m.head.domain.kind, "basis": notes.get("domain")},
            "disagreements": int(m.batch.disagrees.sum()),
            "failed_images": _failure_entries(m.batch.status, ~m.batch.ok),
            "failed_nearest": _failure_entries(
                m.nearest.status[:, 0], m.batch.ok & ~m.nearest.ok[:, 0]
            ),
            "histogram": _histogram(m, known),
        }
        return Content(numbers=plain(numbers))

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the distances of all images, in two widths."""
        entry = numbers["histogram"]
        tallest = tallest_bar([entry])
        return {
            "all": histogram(entry, entry["edges"], tallest, WIDE),
            "narrow": histogram(entry, entry["edges"], tallest, NARROW),
        }


def _histogram(m: Measurements, known: Tensor) -> dict[str, Any]:
    distance, wrong, edges = m.nearest.distance[:, 0], m.misclassified, shared_edges(m)
    return {
        "edges": edges,
        "right": bin_counts(distance[~wrong], edges),
        "wrong": bin_counts(distance[wrong], edges),
        "median": median(known),
    }


def _spread(m: Measurements) -> float:
    """Return the median distance of a feature from the mean of its class, as a reference."""
    ok = m.batch.ok
    difference = m.batch.features[ok].to(torch.float64) - m.means[m.batch.predicted[ok]]
    lengths = torch.linalg.vector_norm(difference, dim=1)
    return median(lengths[~lengths.isnan()])


def _labels(m: Measurements, distance: Tensor) -> dict[str, Any] | None:
    evaluated = m.labelled & m.batch.ok
    if not bool(m.labelled.any()):
        return None
    known = ~distance.isnan()
    nearest_tenth = known & (distance <= quantile(distance[known], 0.1))
    wrong, right = evaluated & m.misclassified, evaluated & ~m.misclassified
    return {
        "correct": int(right.sum()),
        "evaluated": int(evaluated.sum()),
        "accuracy": float(right.sum()) / max(1, int(evaluated.sum())),
        "median_if_right": median(distance[right & known]),
        "median_if_wrong": median(distance[wrong & known]),
        "wrong": int(wrong.sum()),
        "wrong_in_nearest_tenth": int((wrong & nearest_tenth).sum()),
    }


def most_fragile_pair(m: Measurements) -> dict[str, Any] | None:
    """Return the ordered pair with the smallest median distance, and the pairs compared with it.

    None if no pair of the classes shown has MIN_PAIR_IMAGES images and a finite median.
    """
    cells = [c for c in pair_cells(m) if c["images"] >= MIN_PAIR_IMAGES]
    finite = [c for c in cells if c["median"] is not None]
    if not finite:
        return None
    smallest = min(finite, key=lambda cell: cell["median"])
    classes = m.head.num_classes
    return {
        **smallest,
        "compared": len(cells),
        "all_pairs": classes * (classes - 1),
        "min_images": MIN_PAIR_IMAGES,
    }


def _certificates(m: Measurements) -> dict[str, Any]:
    requested = (m.flips.status != int(Status.TARGET_IS_SOURCE)) & m.batch.ok[:, None]
    ok = m.flips.ok & requested
    gaps = m.flips.relative_gap[ok]
    gaps = gaps[~gaps.isnan()]
    return {
        "requested": int(requested.sum()),
        "certified": int(ok.sum()),
        "unreachable": int((ok & m.flips.distance.isinf()).sum()),
        "largest_relative_gap": gaps.max() if len(gaps) else None,
        "failed": _failure_entries(m.flips.status, requested & ~m.flips.ok),
    }


def _failure_entries(status: Tensor, failed: Tensor) -> list[dict[str, Any]]:
    """Return one entry per status of the failed elements, where `failed` is true."""
    entries = []
    for code in status[failed].unique().tolist():
        indices = ((status == code) & failed).nonzero()
        entries.append(
            {
                "status": Status(code).name,
                "count": len(indices),
                "first_rows": indices[:, 0].unique()[:MAX_ROWS_SHOWN],
                "advice": Status(code).advice,
            }
        )
    return entries
