"""Exact planes through feature space: decision regions as polygons, points, ball and domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, PathPatch, Polygon
from matplotlib.path import Path
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.boundaries import flip_points
from fsboundary.core.checks import check_float_tensor, check_instance, check_integer, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.rows import TensorOrArray
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
from fsboundary.modes import in_standard_modes
from fsboundary.plot.arguments import MAX_NAME_LENGTH, check_names, head_of, shorten
from fsboundary.plot.style import Style, StyleName, check_place, legend_below, literal, place
from fsboundary.regions import guaranteed_balls
from fsboundary.space import FeatureSpace

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

MIN_NAMED = 0.03
"""Regions that cover a smaller fraction of the window are coloured but not named."""

WHOLE = 1 - 1e-9
"""A domain that covers this fraction of the window has no edge in it."""

PADDING = 0.25
"""Padding of a wide window around the points, as a fraction of their extent."""

BALL_SIDE = 1.35
"""Half the side of the close-up window, in flip distances."""


def plane_view(
    head: LinearHead, points: dict[str, Tensor], window: Window | None
) -> dict[str, Any]:
    """Return a view of the plane through three points, as plain numbers.

    Parameters
    ----------
    head : LinearHead
    points : dict of Tensor (d,)
        Two or three points by name. With "image" first and "flip" second, a line joins them.
    window : tuple of float or None
        Left, right, bottom and top; None for a square around the points. Feature units.

    Returns
    -------
    dict
        ``points`` by name, ``window``, the polygon of the ``domain``, and the ``regions``: class,
        polygon, the fractions of the window that it and its part in the domain cover, and the
        centres of both (None without an area).
    """
    corners = list(points.values())
    plane = plane_through(corners[0], corners[1], corners[-1])
    at = {name: plane.locate(point) for name, point in points.items()}
    window = window_around(torch.stack(list(at.values()))) if window is None else window
    shown = cut(head, plane, window)
    area = polygon_area(rectangle(window))
    return {
        "points": {name: point.tolist() for name, point in at.items()},
        "window": list(window),
        "domain": shown.domain.tolist(),
        "regions": [
            _region(k, polygon, shown.domain, area)
            for k, polygon in enumerate(shown.regions)
            if len(polygon)
        ],
    }


def window_around(points: Tensor) -> Window:
    """Return a square window around points (N, 2)."""
    low, high = points.amin(dim=0), points.amax(dim=0)
    half = float((high - low).max()) * (0.5 + PADDING) or 1.0
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def window_of_ball(distance: float) -> Window:
    """Return the close-up window around a flip distance."""
    half = BALL_SIDE * distance
    return (-half, half, -half, half)


def _region(k: int, polygon: Tensor, domain: Tensor, window_area: Tensor) -> dict[str, Any]:
    inside = clip_polygon(polygon, polygon_sides(domain)) if len(domain) else domain
    return {
        "class": k,
        "polygon": polygon.tolist(),
        "window_fraction": float(polygon_area(polygon) / window_area),
        "centre": _centre(polygon),
        "window_fraction_in_domain": float(polygon_area(inside) / window_area),
        "centre_in_domain": _centre(inside),
    }


def _centre(polygon: Tensor) -> list[float] | None:
    return polygon_centre(polygon).tolist() if float(polygon_area(polygon)) > 0 else None


def draw_view(
    axes: Axes,
    view: dict[str, Any],
    radius: float | None,
    names: Sequence[str],
    colours: dict[int, str],
    style: Style,
) -> None:
    """Draw a view on axes.

    Parameters
    ----------
    axes : Axes
    view : dict
        View of :func:`plane_view`.
    radius : float or None
        Radius of the guaranteed ball around the first point.
    names : sequence of str
        The class names.
    colours : dict of int to str
        Colour of each class in the view.
    style : Style
    """
    left, right, bottom, top = view["window"]
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.spines[["left", "bottom"]].set_visible(False)
    for region in view["regions"]:
        colour = colours[region["class"]]
        axes.add_patch(Polygon(region["polygon"], fc=colour, alpha=0.45, ec="none", zorder=1))
        axes.add_patch(Polygon(region["polygon"], fill=False, ec=style.paper, lw=1.6, zorder=2))
    grey_outside(axes, view, style)
    if radius is not None:
        edge: dict[str, Any] = {"ec": style.ink, "lw": 1.1, "ls": (0, (3, 2))}
        axes.add_patch(Circle((0, 0), radius, fc=style.paper, alpha=0.3, ec="none", zorder=4))
        axes.add_patch(Circle((0, 0), radius, fill=False, **edge, zorder=4))
    name_regions(axes, view, names, style)
    mark(axes, view["points"], style)
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")


def grey_outside(axes: Axes, view: dict[str, Any], style: Style) -> None:
    """Shade the part of the window outside the domain, which no image can reach."""
    left, right, bottom, top = view["window"]
    # clockwise, so that the counterclockwise polygon of the domain is a hole
    frame = [(left, bottom), (left, top), (right, top), (right, bottom)]
    paths = [_closed(frame)]
    if view["domain"]:
        paths.append(_closed(view["domain"]))
    outside = Path.make_compound_path(*paths)
    axes.add_patch(PathPatch(outside, fc=style.outside, alpha=0.72, ec="none", zorder=3))
    axes.add_patch(PathPatch(outside, fill=False, hatch="////", ec=style.hatch, lw=0, zorder=3))
    if view["domain"] and not _all_inside(view):
        axes.add_patch(Polygon(view["domain"], fill=False, ec=style.muted, lw=1.0, zorder=3.5))


def _all_inside(view: dict[str, Any]) -> bool:
    inside = sum(float(region["window_fraction_in_domain"]) for region in view["regions"])
    return inside >= WHOLE


def _closed(corners: list[Any]) -> Path:
    return Path([tuple(corner) for corner in [*corners, corners[0]]], closed=True)


def name_regions(axes: Axes, view: dict[str, Any], names: Sequence[str], style: Style) -> None:
    """Name each region in its part inside the domain or, in a muted colour, outside."""
    halo = [patheffects.withStroke(linewidth=2.5, foreground=style.paper, alpha=0.8)]
    for region in view["regions"]:
        if region["window_fraction_in_domain"] >= MIN_NAMED:
            centre, colour, size = region["centre_in_domain"], style.ink, 10
        elif region["window_fraction"] >= MIN_NAMED:
            centre, colour, size = region["centre"], style.muted, 9
        else:
            continue
        name = shorten(names[region["class"]], MAX_NAME_LENGTH)
        x, y = place_label(centre, len(name), view)
        text = literal(axes.text(x, y, name, color=colour, fontsize=size, zorder=5))
        text.set(ha="center", va="center", path_effects=halo, clip_on=True)


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
    marks = {name: ((u - left) / wide, (v - bottom) / high) for name, (u, v) in
             view["points"].items()}  # fmt: skip
    occupied = [(u - MARK, u + MARK, v - MARK, v + MARK) for u, v in marks.values()]
    if "flip" in marks:  # at the same height as the image
        (first, level), (last, _) = marks["image"], marks["flip"]
        occupied.append((first, last, level - MARK / 2, level + MARK / 2))
    for shift in SHIFTS:
        box = (x - half, x + half, y + shift - HEIGHT / 2, y + shift + HEIGHT / 2)
        if box[2] >= 0 and box[3] <= 1 and not any(_overlap(box, other) for other in occupied):
            return left + x * wide, bottom + (y + shift) * high
    return left + x * wide, bottom + y * high


def _overlap(one: Box, other: Box) -> bool:
    beside = one[1] <= other[0] or other[1] <= one[0]
    return not (beside or one[3] <= other[2] or other[3] <= one[2])


SIZES = {"third": 8, "second": 7, "other": 7, "mean": 14, "image": 8, "flip": 7}
"""Sizes of the markers, in the order in which they are drawn."""

MARKERS = {"third": "^", "second": "s", "other": "d", "mean": "*", "image": "o", "flip": "D"}


def mark(axes: Axes, points: dict[str, Any], style: Style) -> None:
    """Draw the markers of the points, and the line from an image to its flip point."""
    if "flip" in points:
        ends = zip(points["image"], points["flip"], strict=True)
        axes.plot(*ends, color=style.ink, lw=1.3, zorder=6)
    for name in (name for name in SIZES if name in points):
        axes.plot(*points[name], **_marker(name, style), zorder=7)


def _marker(name: str, style: Style) -> dict[str, Any]:
    colour = style.flip if name in ("flip", "other") else style.ink
    return {
        "marker": MARKERS[name],
        "color": colour,
        "ms": SIZES[name],
        "mec": style.paper,
        "mew": 1.2,
    }


@in_standard_modes
def plane(
    head: LinearHead | FeatureSpace,
    features: Float[TensorOrArray, "N d"],
    bank: FeatureBank | None = None,
    *,
    target: int | None = None,
    window: Window | str | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw an exact plane through feature space: decision regions, points, ball and domain.

    The regions are polygons whose corners are exact up to float64 rounding; nothing is sampled on a
    grid. The disc is the guaranteed ball around the first feature: within it the class cannot
    change, in the plane or out of it. Hatched is what lies outside the domain.

    Parameters
    ----------
    head : LinearHead or FeatureSpace
        Head with K classes and d features.
    features : Tensor or array (1, d) or (3, d)
        One feature: the plane contains it, its flip point, and a third point, see `bank`. Three
        features: the plane contains these.
    bank : FeatureBank, optional
        Labelled points, of one feature only: the third point is the mean of the class of the flip
        point. Without it, the third point is the flip point to the second nearest class.
    target : int, optional
        Class of the flip point; by default the nearest one.
    window : tuple of float or "ball", optional
        Left, right, bottom and top, in feature units from the first feature; "ball" for a close-up
        of the guaranteed ball; by default a square around the three points.
    class_names : sequence of str, optional
        K names; numbers by default.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.
    style : "light" or "dark", optional
        Colours; by default those that are legible on the paper of `ax` or, without it, of
        matplotlib's settings.

    Returns
    -------
    matplotlib.axes.Axes
        ``ax.figure.savefig("plane.pdf")`` writes the picture.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, features that are not finite, a class that cannot be reached or has
        no point in the bank.
    StatusError
        No flip point was certified.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> ax = fsb.plot.plane(head, torch.tensor([[3.0, 1.0, 0.0]]), class_names=["a", "b", "c"])
    >>> sorted(text.get_text() for text in ax.texts)
    ['a', 'b', 'c']
    """
    head = head_of(head)
    names = check_names(class_names, head.num_classes)
    check_place(ax, style)
    fix = "pass batch.features[row][None], or three features"
    z = check_float_tensor(
        "features",
        features,
        (1, head.num_features),
        (3, head.num_features),
        fix=fix,
        finite_fix="choose rows that are finite",
    )
    z = z.to("cpu", torch.float64)
    shown = None if window is None else check_window(window)
    if len(z) == 3:
        for name, value in (("bank", bank), ("target", target)):
            if value is not None:
                got, wanted = f"{describe(value)} with three features", f"no {name}"
                raise ArgumentError(name, got, wanted, "leave it out, or pass one feature")
        points = dict(zip(("image", "second", "third"), z, strict=True))
        words = dict(zip(points, ("first feature", "second feature", "third feature"), strict=True))
    else:
        points, words = _points_of(head, z, bank, target, names)
    radius = float(guaranteed_balls(head, z[:1]).radius[0])
    known = 0 < radius < torch.inf
    if shown == "ball":
        if not known:
            got, fix = "'ball', of a feature without a guaranteed ball", "pass four numbers"
            raise ArgumentError("window", got, "four numbers, or None", fix)
        shown = window_of_ball(radius)
    view = plane_view(head, points, shown)
    seen = [region["class"] for region in view["regions"]]
    axes, chosen = place(ax, style, 5.0, 5.4)
    colours = chosen.class_colours(seen, head.num_classes)
    draw_view(axes, view, radius if known else None, names, colours, chosen)
    axes.set_xlabel("feature units" + (", towards the flip point" if "flip" in points else ""))
    axes.set_ylabel("feature units")
    explain(axes, view, words, radius if known else None, chosen)
    return axes


def check_window(window: object) -> Any:
    """Return the window, or raise ArgumentError unless it is four numbers in order or "ball"."""
    wanted, fix = 'left, right, bottom and top, or "ball"', "pass (-1, 1, -1, 1), for example"
    if isinstance(window, str) and window == "ball":
        return window
    if isinstance(window, str) or not isinstance(window, Sequence) or len(window) != 4:
        raise ArgumentError("window", describe(window), wanted, fix)
    try:
        left, right, bottom, top = (float(side) for side in window)
    except (TypeError, ValueError):
        raise ArgumentError("window", repr(window), wanted, fix) from None
    if not (-torch.inf < left < right < torch.inf and -torch.inf < bottom < top < torch.inf):
        raise ArgumentError("window", repr(window), f"{wanted}, ascending and finite", fix)
    return left, right, bottom, top


def _points_of(
    head: LinearHead, z: Tensor, bank: FeatureBank | None, target: int | None, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the three points of the plane of a feature (1,d), and a description of each."""
    if bank is not None:
        check_instance("bank", bank, FeatureBank, "a FeatureBank", "pass FeatureBank(z, labels)")
        if bank.labels is None or bank.num_features != head.num_features:
            got = "no labels" if bank.labels is None else f"width {bank.num_features}"
            wanted = f"a bank with labels, of width {head.num_features}"
            raise ArgumentError("bank", got, wanted, "pass FeatureBank(features, labels)")
    if target is not None:
        check_integer("target", target, 0, head.num_classes - 1, fix="count classes from 0")
    targets: Any = "nearest" if target is None else torch.tensor([target])
    flip = flip_points(head, z, targets).raise_for_status()
    if not bool(flip.distance.isfinite().all()):
        got = f"a feature of class {names[int(flip.source)]}, from which it cannot be reached"
        fix = "choose another target, or pass three features"
        raise ArgumentError("target", got, "a class that can be reached", fix)
    k = int(flip.target)
    points = {"image": z[0], "flip": flip.points[0, 0]}
    words = {"image": f"feature ({names[int(flip.source)]})", "flip": f"flip point ({names[k]})"}
    if bank is not None:
        points["mean"], words["mean"] = _mean_of(bank, k), f"mean of {names[k]}"
    elif (other := _next_flip(flip_points(head, z, "all"), k)) is not None:
        points["other"], words["other"] = other[0], f"flip point ({names[other[1]]})"
    return points, words


def _mean_of(bank: FeatureBank, k: int) -> Tensor:
    assert bank.labels is not None  # checked before
    rows = (bank.labels == k).nonzero()[:, 0]
    if not len(rows):
        fix = "leave the bank out, or choose another target"
        raise ArgumentError("bank", f"no point of class {k}", f"points of class {k}", fix)
    return bank.take(rows).to("cpu", torch.float64).mean(dim=0)


def _next_flip(every: FlipPoints, k: int) -> tuple[Tensor, int] | None:
    """Return the nearest flip point to a class other than `k`, and its class."""
    usable = every.ok[0] & every.distance[0].isfinite() & (every.target[0] != k)
    if not bool(usable.any()):
        return None
    column = int(torch.where(usable, every.distance[0], torch.inf).argmin())
    return every.points[0, column], int(every.target[0, column])


def explain(
    axes: Axes,
    view: dict[str, Any],
    words: dict[str, str],
    radius: float | None,
    style: Style,
    *,
    outside: str = "outside the domain",
) -> None:
    """Add a legend of the points, the ball and the domain, below the axes."""
    handles: list[Any] = [
        Line2D([], [], ls="none", label=words[name], **_marker(name, style)) for name in words
    ]
    if radius is not None:
        dashes: dict[str, Any] = {"ec": style.ink, "lw": 1.1, "ls": (0, (3, 2))}
        handles.append(Patch(fc="none", label=f"guaranteed ball, radius {radius:.3g}", **dashes))
    if not _all_inside(view):
        faces: dict[str, Any] = {"fc": style.outside, "ec": style.hatch, "hatch": "////", "lw": 0}
        handles.append(Patch(label=outside, **faces))
    legend_below(axes, style, handles=handles, ncols=2)
