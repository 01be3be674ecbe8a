"""Sections on distances: to the boundary by class, and from class to class."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from fsboundary.plot.distances import bin_counts, bin_edges, draw_bars
from fsboundary.plot.matrices import class_medians
from fsboundary.plot.style import REPORT
from fsboundary.plot.values import median, quantile
from fsboundary.report.figures import new_figure, svg_uri
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section

Size = tuple[float, float]
"""Width and height of a figure, inches."""

PANEL: Size = (2.0, 1.25)


@final
class Distances(Section):
    """A histogram of the distance to the nearest other class, for each predicted class."""

    name = "distances"
    title = "Distance to the boundary, by class"
    menu = "Distances"

    def compute(self, measured: Measurements) -> Content:
        """Return shared bin edges, and counts and quantiles per class."""
        edges = shared_edges(measured)
        numbers = {
            "edges": edges,
            "classes": [_of_class(measured, k, edges) for k in measured.shown],
            "omitted": measured.head.num_classes - len(measured.shown),
        }
        return Content(numbers=plain(numbers))

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw one small histogram per class, all on the same axes."""
        tallest = tallest_bar(numbers["classes"])
        return {
            str(entry["class"]): histogram(entry, numbers["edges"], tallest, PANEL)
            for entry in numbers["classes"]
        }


def _of_class(m: Measurements, k: int, edges: Tensor) -> dict[str, Any]:
    distance = m.nearest.distance[:, 0]
    in_class = (m.batch.predicted == k) & ~distance.isnan()
    wrong = in_class & m.misclassified
    values = distance[in_class]
    return {
        "class": k,
        "images": len(values),
        "infinite": int(values.isinf().sum()),
        "misclassified": int(wrong.sum()) if bool(m.labelled.any()) else None,
        "right": bin_counts(distance[in_class & ~wrong], edges),
        "wrong": bin_counts(distance[wrong], edges),
        "smallest": quantile(values, 0.0),
        "lower_quartile": quantile(values, 0.25),
        "median": median(values),
        "upper_quartile": quantile(values, 0.75),
        "largest": quantile(values, 1.0),
    }


def histogram(entry: dict[str, Any], edges: list[float], tallest: int, size: Size) -> str:
    """Draw counts ``right`` and ``wrong``, stacked, and the ``median``; return a data URI."""
    figure, axes = new_figure(*size)
    stack = [(entry["right"], REPORT.right, None), (entry["wrong"], REPORT.wrong, None)]
    draw_bars(axes, edges, stack, entry["median"], REPORT)
    axes.set_ylim(0, max(tallest, 1) * 1.05)
    axes.locator_params(axis="y", nbins=2, integer=True)
    axes.locator_params(axis="x", nbins=max(3, round(1.5 * size[0])))
    return svg_uri(figure)


def shared_edges(m: Measurements) -> Tensor:
    """Return bin edges from 0 to the largest finite distance."""
    return bin_edges(m.nearest.distance[:, 0])


def tallest_bar(entries: list[dict[str, Any]]) -> int:
    """Return the largest count of any bin of any histogram."""
    bars = (map(sum, zip(entry["right"], entry["wrong"], strict=True)) for entry in entries)
    return max((max(heights) for heights in bars), default=1)


@final
class Pairs(Section):
    """A matrix of median flip distances, source by target."""

    name = "pairs"
    title = "Distances from class to class"
    menu = "Class to class"

    def compute(self, measured: Measurements) -> Content:
        """Return one cell per ordered pair of the classes shown."""
        cells = pair_cells(measured)
        predicted = measured.batch.predicted
        finite = [cell["median"] for cell in cells if cell["median"] is not None]
        numbers = {
            "classes": measured.shown,
            "images": [int((predicted == k).sum()) for k in measured.shown],
            "never_predicted": [k for k in measured.shown if not bool((predicted == k).any())],
            "omitted": measured.head.num_classes - len(measured.shown),
            "cells": cells,
            "smallest": min(finite, default=None),
            "largest": max(finite, default=None),
        }
        return Content(numbers=plain(numbers))


def pair_cells(m: Measurements) -> list[dict[str, Any]]:
    """Return the median distance from class to class over the images predicted as the source.

    If more than half of the images cannot reach the target, the median is None and ``unreachable``
    is more than half of ``images``.
    """
    source, flips = m.batch.predicted, m.flips
    cells = class_medians(source, flips.target, flips.distance, flips.ok, m.shown)
    return [cell | {"median": plain(cell["median"])} for cell in cells]
