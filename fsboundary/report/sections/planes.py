"""Section with exact two-dimensional slices of the feature space, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Circle, PathPatch, Polygon
from matplotlib.path import Path
from torch import Tensor

from fsboundary.boundaries import flip_points
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
from fsboundary.report.figures import INK, MUTED, PALETTE, class_colour, new_figure, svg_uri
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements, certified_nearest_first
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts

Box = tuple[float, float, float, float]
"""Left, right, bottom and top, as fractions of the window."""

LETTER = 0.026
"""Width of a letter, as a fraction of the window."""

HEIGHT = 0.05
"""Height of a line of text, as a fraction of the window."""

MARK = 0.035
"""Half the width of a marker, as a fraction of the window."""

SHIFTS = (0.0, 0.08, -0.08, 0.16, -0.16, 0.24, -0.24)
"""Upward shifts of a name, in the order in which they are tried."""


def shorten(name: str, max_length: int) -> str:
    """Return `name`, cut to at most `max_length` letters."""
    return name if len(name) <= max_length else name[: max_length - 1].rstrip() + "…"


def place_label(centre: Sequence[float], letters: int, view: dict[str, Any]) -> tuple[float, float]:
    """Return the position of the centre of a name, in the window's coordinates.

    Parameters
    ----------
    centre : pair of float
        Centre of the region.
    letters : int
        Length of the name.
    view : dict
        View with ``window`` and ``points``; the name is shifted, if a small shift is enough, so
        that it does not cover the markers or the line from image to flip point.
    """
    left, right, bottom, top = view["window"]
    wide, high = right - left, top - bottom
    half = min(letters * LETTER / 2, 0.5)
    x = min(max((centre[0] - left) / wide, half), 1 - half)
    y = (centre[1] - bottom) / high
    marks = [((u - left) / wide, (v - bottom) / high) for u, v in view["points"].values()]
    (first, level), (last, _) = marks[:2]  # the image and its flip point, at the same height
    occupied = [(u - MARK, u + MARK, v - MARK, v + MARK) for u, v in marks]
    occupied.append((first, last, level - MARK / 2, level + MARK / 2))
    for shift in SHIFTS:
        box = (x - half, x + half, y + shift - HEIGHT / 2, y + shift + HEIGHT / 2)
        if box[2] >= 0 and box[3] <= 1 and not any(_overlap(box, other) for other in occupied):
            return left + x * wide, bottom + (y + shift) * high
    return left + x * wide, bottom + y * high


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


MIN_NAMED = 0.03
"""Regions that cover a smaller fraction of the window are coloured but not named."""

WHOLE = 1 - 1e-9
"""A domain that covers this fraction of the window has no edge in it."""

MAX_NAME_LENGTH = 16
"""Largest number of letters of a name in a figure."""

FLIP = "#c62828"


def _draw_plane(
    view: dict[str, Any], radius: float | None, names: list[str], colours: dict[int, str]
) -> str:
    """Return the figure of one view of a slice as an SVG data URI.

    Parameters
    ----------
    view : dict
        One of the ``views`` that :class:`fsboundary.report.sections.planes.Planes` computes.
    radius : float or None
        Radius of the guaranteed ball around the image's feature.
    names : list of str
        The class names.
    colours : dict of int to str
        Colour of each class.
    """
    figure, axes = new_figure(3.5, 3.25, rectangle=(0.16, 0.09, 0.83, 0.89))
    left, right, bottom, top = view["window"]
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.spines[["left", "bottom"]].set_visible(False)
    for region in view["regions"]:
        colour = colours[region["class"]]
        axes.add_patch(Polygon(region["polygon"], fc=colour, alpha=0.45, ec="none", zorder=1))
        axes.add_patch(Polygon(region["polygon"], fill=False, ec="white", lw=1.6, zorder=2))
    _grey_outside(axes, view)
    if radius is not None:
        axes.add_patch(Circle((0, 0), radius, fc="white", alpha=0.3, ec="none", zorder=4))
        axes.add_patch(Circle((0, 0), radius, fill=False, ec=INK, lw=1.1, ls=(0, (3, 2)), zorder=4))
    _name_regions(axes, view, names)
    _marks(axes, view["points"])
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    return svg_uri(figure)


def _grey_outside(axes: Axes, view: dict[str, Any]) -> None:
    """Shade the part of the window outside the domain, which no image can reach."""
    left, right, bottom, top = view["window"]
    # clockwise, so that the counterclockwise polygon of the domain is a hole
    frame = [(left, bottom), (left, top), (right, top), (right, bottom)]
    paths = [_closed(frame)]
    if view["domain"]:
        paths.append(_closed(view["domain"]))
    outside = Path.make_compound_path(*paths)
    axes.add_patch(PathPatch(outside, fc="#eef0f3", alpha=0.72, ec="none", zorder=3))
    axes.add_patch(PathPatch(outside, fill=False, hatch="////", ec="#c9d0d8", lw=0, zorder=3))
    if (
        view["domain"]
        and sum(region["window_fraction_in_domain"] for region in view["regions"]) < WHOLE
    ):
        axes.add_patch(Polygon(view["domain"], fill=False, ec=MUTED, lw=1.0, zorder=3.5))


def _closed(corners: list[Any]) -> Path:
    return Path([tuple(corner) for corner in [*corners, corners[0]]], closed=True)


def _name_regions(axes: Axes, view: dict[str, Any], names: list[str]) -> None:
    """Name each region in its part inside the domain or, in a muted colour, outside."""
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    for region in view["regions"]:
        if region["window_fraction_in_domain"] >= MIN_NAMED:
            centre, colour, size = region["centre_in_domain"], INK, 10
        elif region["window_fraction"] >= MIN_NAMED:
            centre, colour, size = region["centre"], MUTED, 9
        else:
            continue
        name = shorten(names[region["class"]], MAX_NAME_LENGTH)
        x, y = place_label(centre, len(name), view)
        text = axes.text(x, y, name, color=colour, fontsize=size, zorder=5)
        text.set(ha="center", va="center", path_effects=halo, parse_math=False, clip_on=True)


def _marks(axes: Axes, points: dict[str, Any]) -> None:
    image, flip, mean = points["image"], points["flip"], points.get("mean")
    axes.plot(*zip(image, flip, strict=True), color=INK, lw=1.3, zorder=6)
    marks = [(image, "o", INK, 8), (flip, "D", FLIP, 7)]
    if mean is not None:
        marks.insert(0, (mean, "*", INK, 14))
    for (x, y), marker, colour, size in marks:
        axes.plot(x, y, marker=marker, color=colour, ms=size, mec="white", mew=1.2, zorder=7)


TITLES = ("The least robust image", "An image with median robustness", "The most robust image")

PADDING = 0.25
"""Padding of a wide window around the points, as a fraction of their extent."""

SMALL = 0.25
"""Flip distances below this fraction of the first window get a close-up."""

BALL_SIDE = 1.35
"""Half the side of the close-up window, in flip distances."""


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
            f"{index}-{view['name']}": _draw_plane(view, entry["image"]["radius"], names, colours)
            for index, entry in enumerate(numbers["slices"])
            for view in entry["views"]
        }


def _colours(numbers: dict[str, Any], classes: int) -> dict[int, str]:
    """Return a colour per class; with many classes, those in the figures get the palette."""
    if classes <= len(PALETTE):
        return {k: class_colour(k) for k in range(classes)}
    views = [view for entry in numbers["slices"] for view in entry["views"]]
    seen = dict.fromkeys(region["class"] for view in views for region in view["regions"])
    return {k: class_colour(index) for index, k in enumerate(seen)}


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
        half = BALL_SIDE * distance
        views.append(_view(m, "ball", z[0], flip, across, (-half, half, -half, half)))
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
    half = float((high - low).max()) * (0.5 + PADDING) or 1.0
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def _region(k: int, polygon: Tensor, domain: Tensor, window_area: Tensor) -> dict[str, Any]:
    inside = clip_polygon(polygon, polygon_sides(domain)) if len(domain) else domain
    return {
        "class": k,
        "polygon": polygon,
        "window_fraction": polygon_area(polygon) / window_area,
        "centre": _centre(polygon),
        "window_fraction_in_domain": polygon_area(inside) / window_area,
        "centre_in_domain": _centre(inside),
    }


def _centre(polygon: Tensor) -> Tensor | None:
    return polygon_centre(polygon) if float(polygon_area(polygon)) > 0 else None
