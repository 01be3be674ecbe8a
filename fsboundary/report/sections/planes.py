"""Section with exact two-dimensional slices of the feature space, and their figures."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from fsboundary.boundaries import flip_points
from fsboundary.geometry.regions.slices import Window
from fsboundary.plot.planes import draw_view, plane_view, window_of_ball
from fsboundary.plot.style import REPORT
from fsboundary.report.figures import new_figure, svg_uri
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements, certified_nearest_first
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts

TITLES = ("The least robust image", "An image with median robustness", "The most robust image")

SMALL = 0.25
"""Flip distances below this fraction of the first window get a close-up."""


@final
class Planes(Section):
    """Planes through an image's feature, its flip point and the mean of a class."""

    name = "planes"
    title = "Slices of the feature space"
    menu = "Slices"

    def compute(self, measured: Measurements) -> Content:
        """Return polygons for the least robust, a median and the most robust image."""
        rows = _choose(measured)
        entries = [_slice(measured, title, row) for title, row in rows.items()]
        numbers = {"slices": entries, "means_of": _means_of(measured)}
        pictures = {str(row): measured.subject.images[row] for row in rows.values()}
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the windows of each slice."""
        views = [view for entry in numbers["slices"] for view in entry["views"]]
        seen = [region["class"] for view in views for region in view["regions"]]
        colours = REPORT.class_colours(seen, len(names))
        return {
            f"{index}-{view['name']}": _draw_plane(view, entry["image"]["radius"], names, colours)
            for index, entry in enumerate(numbers["slices"])
            for view in entry["views"]
        }


def _draw_plane(
    view: dict[str, Any], radius: float | None, names: list[str], colours: dict[int, str]
) -> str:
    """Return the figure of one view as an SVG data URI."""
    figure, axes = new_figure(3.5, 3.25, rectangle=(0.16, 0.09, 0.83, 0.89))
    draw_view(axes, view, radius, names, colours, REPORT)
    return svg_uri(figure)


def _choose(m: Measurements) -> dict[str, int]:
    """Return the rows with the smallest, the median and the largest distance."""
    rows = certified_nearest_first(m)
    if len(rows) == 0:
        return {}
    chosen: dict[str, int] = {}
    for title, index in zip(TITLES, (0, len(rows) // 2, len(rows) - 1), strict=True):
        if int(rows[index]) not in chosen.values():  # with fewer than three images, no repeats
            chosen[title] = int(rows[index])
    return chosen


def _means_of(m: Measurements) -> str:
    if m.train is not None:
        labelled = m.subject.train_labels is not None
        return "training images" if labelled else "training images predicted as that class"
    labelled = m.subject.labels is not None
    return "studied images" if labelled else "studied images predicted as that class"


def _slice(m: Measurements, title: str, row: int) -> dict[str, Any]:
    z = m.batch.features[row : row + 1].to(torch.float64)
    target = m.nearest.target[row : row + 1]
    flip = flip_points(m.head, z, target, finder=m.subject.finder).points[0, 0]
    across, second = int(target), _second_nearest(m, row)
    views = [_view(m, "across", z[0], flip, across)]
    if second is not None and _has_mean(m, second):
        views.append(_view(m, "next", z[0], flip, second))
    distance = float(m.nearest.distance[row])
    left, right, _, _ = views[0]["window"]
    if 0 < distance < SMALL * (right - left):
        views.append(_view(m, "ball", z[0], flip, across, window_of_ball(distance)))
    elif _has_mean(m, source := int(m.batch.predicted[row])):
        views.append(_view(m, "source", z[0], flip, source))
    return {"title": title, "image": image_facts(m, row), "views": views}


def _has_mean(m: Measurements, k: int) -> bool:
    """Return whether class `k` has a mean; without one, its slice would repeat the first."""
    return not bool(m.means[k].isnan().any())


def _second_nearest(m: Measurements, row: int) -> int | None:
    """Return the second nearest of all other classes, None if no other can be reached."""
    every = flip_points(m.head, m.batch.features[row : row + 1], "all", finder=m.subject.finder)
    usable = every.ok & every.distance.isfinite() & (every.target != int(m.nearest.target[row]))
    if not bool(usable.any()):
        return None
    return int(every.target[0, torch.where(usable, every.distance, torch.inf)[0].argmin()])


def _view(
    m: Measurements, name: str, z: Tensor, flip: Tensor, k: int, window: Window | None = None
) -> dict[str, Any]:
    """Cut the plane through a feature, its flip point and the mean of class `k`, if it has one."""
    points = {"image": z, "flip": flip}
    if _has_mean(m, k):
        points["mean"] = m.means[k]
    mean_of = k if "mean" in points else None
    return {"name": name, "mean_of": mean_of, **plane_view(m.head, points, window)}
