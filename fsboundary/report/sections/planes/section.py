"""Exact two-dimensional slices of the feature space."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from fsboundary.boundaries import find_flip_points
from fsboundary.geometry.regions.slices import (
    Window,
    clip_polygon,
    cut,
    plane_through,
    polygon_area,
    polygon_centre,
    polygon_sides,
    rectangle,
)
from fsboundary.report.figures import PALETTE, class_colour
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements, certified_nearest_first
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.planes.figure import draw_plane

TITLES = ("The least robust image", "An image in the middle", "The most robust image")

MARGIN = 0.25
"""A wide window leaves this share of its side free on each side of the points."""

SMALL = 0.25
"""Flip distances below this share of the first window get a close-up."""

BALL_SIDE = 1.35
"""The close window is this many flip distances to each side of the image's feature."""


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
        colours = _colours(numbers, len(names))
        return {
            f"{place}-{view['name']}": draw_plane(view, entry["image"]["radius"], names, colours)
            for place, entry in enumerate(numbers["slices"])
            for view in entry["views"]
        }


def _colours(numbers: dict[str, Any], classes: int) -> dict[int, str]:
    """Return a colour for each class; of many classes those in the pictures get the best ones."""
    if classes <= len(PALETTE):
        return {k: class_colour(k) for k in range(classes)}
    views = [view for entry in numbers["slices"] for view in entry["views"]]
    seen = dict.fromkeys(region["class"] for view in views for region in view["regions"])
    return {k: class_colour(place) for place, k in enumerate(seen)}


def _choose(m: Measurements) -> dict[str, int]:
    """Return the rows with the smallest, the median and the largest distance."""
    rows = certified_nearest_first(m)
    if len(rows) == 0:
        return {}
    chosen: dict[str, int] = {}
    for title, place in zip(TITLES, (0, len(rows) // 2, len(rows) - 1), strict=True):
        if int(rows[place]) not in chosen.values():  # fewer than three images: each once
            chosen[title] = int(rows[place])
    return chosen


def _means_of(m: Measurements) -> str:
    if m.train is not None:
        labelled = m.subject.train_labels is not None
        return "training images" if labelled else "training images predicted as that class"
    labelled = m.subject.labels is not None
    return "the images here" if labelled else "the images here that are predicted as that class"


def _slice(m: Measurements, title: str, row: int) -> dict[str, Any]:
    z = m.batch.features[row : row + 1].to(torch.float64)
    target = m.nearest.target[row : row + 1]
    flip = find_flip_points(m.head, z, target, finder=m.subject.finder).points[0, 0]
    across, after = int(target), _next_class(m, row)
    views = [_view(m, "across", z[0], flip, across)]
    if after is not None:
        views.append(_view(m, "next", z[0], flip, after))
    distance = float(m.nearest.distance[row])
    left, right, _, _ = views[0]["window"]
    if 0 < distance < SMALL * (right - left):
        half = BALL_SIDE * distance
        views.append(_view(m, "ball", z[0], flip, across, (-half, half, -half, half)))
    else:
        views.append(_view(m, "own", z[0], flip, int(m.batch.predicted[row])))
    return {"title": title, "image": image_facts(m, row), "views": views}


def _next_class(m: Measurements, row: int) -> int | None:
    """Return the second nearest class that has a mean."""
    target, distance = m.flips.target[row], m.flips.distance[row]
    usable = m.flips.ok[row] & distance.isfinite() & (target != int(m.nearest.target[row]))
    usable &= ~m.means[target].isnan().any(dim=1)
    if not bool(usable.any()):
        return None
    return int(target[torch.where(usable, distance, torch.inf).argmin()])


def _view(
    m: Measurements, name: str, z: Tensor, flip: Tensor, k: int, window: Window | None = None
) -> dict[str, Any]:
    """Cut the plane through a feature, its flip point and the mean of class `k`, if it has one."""
    points = {"image": z, "flip": flip}
    if not bool(m.means[k].isnan().any()):
        points["mean"] = m.means[k]
    plane = plane_through(z, flip, points.get("mean", flip))
    at = {name: plane.locate(point) for name, point in points.items()}
    window = _around(torch.stack(list(at.values()))) if window is None else window
    shown = cut(m.head, plane, window)
    regions = [
        _region(j, polygon, shown.domain, polygon_area(rectangle(window)))
        for j, polygon in enumerate(shown.regions)
        if len(polygon)
    ]
    return {
        "name": name,
        "mean_of": k if "mean" in at else None,
        "points": at,
        "window": window,
        "domain": shown.domain,
        "regions": regions,
    }


def _around(points: Tensor) -> Window:
    """Return a square window around points (N, 2)."""
    low, high = points.amin(dim=0), points.amax(dim=0)
    half = float((high - low).max()) * (0.5 + MARGIN) or 1.0
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def _region(k: int, polygon: Tensor, domain: Tensor, window_area: Tensor) -> dict[str, Any]:
    inside = clip_polygon(polygon, polygon_sides(domain)) if len(domain) else domain
    return {
        "class": k,
        "polygon": polygon,
        "share_of_window": polygon_area(polygon) / window_area,
        "centre": _centre(polygon),
        "share_in_domain": polygon_area(inside) / window_area,
        "centre_in_domain": _centre(inside),
    }


def _centre(polygon: Tensor) -> Tensor | None:
    return polygon_centre(polygon) if float(polygon_area(polygon)) > 0 else None
