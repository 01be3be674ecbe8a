"""Graph of the classes whose decision regions share a border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from torch import Tensor

from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipPoints, Partition
from fsboundary.core.status import Status
from fsboundary.plot.arguments import check_classes, check_names, count
from fsboundary.plot.style import Style, StyleName, check_place, literal, place

ACROSS = 2.4
"""Half the figure's width in radii of the circle, with room for the names."""

WINDOW = (1.95, 1.35)
"""Half the width and half the height of a picture of its own, in radii of the circle."""

MAX_WIDTH = 3.5
MIN_WIDTH = 0.8
"""Widths of an edge, points; the largest facet radius has the largest width."""

MIN_COLOUR = 0.18
"""Position on the colour map of an edge without images near it."""

KNOWN_COLOUR = 0.75
"""Position on the colour map of all edges where images are not counted."""

MAX_FULL_WIDTH = 10
"""With more classes than this, the lines are thinner."""

HEAD, TAIL = 7, 5
"""Numbers of letters kept at the start and end of a long name, because numbers are at the end."""

NUM_COUNTED = 8
"""Number of edges, those with the most images, whose number of images is written on them."""


def draw_graph(
    axes: Axes,
    classes: Sequence[int],
    edges: Sequence[dict[str, Any]],
    names: Sequence[str],
    colours: dict[int, str],
    style: Style,
    *,
    height: float,
    counted: bool = True,
) -> dict[int, tuple[float, float]]:
    """Draw classes on a circle and their edges, and return the position of each class.

    Parameters
    ----------
    axes : Axes
    classes : sequence of int
        Classes in their order on the circle, the first at the top.
    edges : sequence of dict
        Edges with ``pair``, ``radius`` (None if there is no number), ``infinite`` and ``images``.
        The radius determines the width, the number of images the colour.
    names, colours : by class
    style : Style
    height : float
        Height of the axes divided by their width.
    counted : bool
        Whether images are counted; otherwise all edges have the same colour.
    """
    axes.axis("off")
    axes.set_xlim(-ACROSS, ACROSS)
    axes.set_ylim(-ACROSS * height, ACROSS * height)
    positions = {k: _on_circle(index, len(classes)) for index, k in enumerate(classes)}
    max_radius = max((e["radius"] for e in edges if e["radius"] is not None), default=None)
    thin = min(1.0, MAX_FULL_WIDTH / max(1, len(classes)))
    max_images = max((edge["images"] for edge in edges), default=0)
    for edge in sorted(edges, key=lambda edge: edge["images"]):
        (x, y), (u, v) = (positions[k] for k in edge["pair"])
        full = edge["infinite"] or edge["radius"] is None or not max_radius
        size = 1.0 if full else edge["radius"] / max_radius
        level = MIN_COLOUR + (1 - MIN_COLOUR) * (edge["images"] / max_images if max_images else 0.0)
        level = level if counted else KNOWN_COLOUR
        axes.plot(
            [x, u],
            [y, v],
            color=colormaps[style.heat](level),
            linewidth=thin * (MIN_WIDTH + (MAX_WIDTH - MIN_WIDTH) * size),
            solid_capstyle="round",
            zorder=1 + level,
        )
    for k, (x, y) in positions.items():
        axes.plot(
            x,
            y,
            "o",
            color=colours[k],
            markersize=9 + 6 * thin,
            markeredgecolor=style.paper,
            zorder=3,
        )
        side = "center" if abs(x) < 0.2 else ("left" if x > 0 else "right")
        literal(
            axes.text(
                1.1 * x + (0.08 if side == "left" else -0.08 if side == "right" else 0.0),
                1.22 * y if side == "center" else 1.12 * y,
                _abbreviate(names[k]),
                ha=side,
                va="center",
                color=style.ink,
                fontsize=11,
            )
        )
    return positions


def _on_circle(index: int, total: int) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / total
    return math.cos(angle), math.sin(angle)


def _abbreviate(name: str) -> str:
    return name if len(name) <= HEAD + TAIL else f"{name[:HEAD]}…{name[-TAIL:]}"


def count_between(source: Tensor, nearest: Tensor, known: Tensor, i: int, j: int) -> int:
    """Return the number of rows of either class whose nearest boundary is with the other one.

    Parameters
    ----------
    source, nearest : Tensor (B,)
        Class of each row, and the class whose boundary is nearest.
    known : Tensor (B,), bool
        Rows whose nearest boundary is known.
    i, j : int
    """
    between = (source == i) & (nearest == j) | (source == j) & (nearest == i)
    return int((between & known).sum())


def neighbours(
    partition: Partition,
    flips: FlipPoints | None = None,
    *,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the classes on a circle, with a line between those that are proved to share a facet.

    The wider a line, the larger the ball in the facet; balls of any size, and facets of which only
    a point is known, have the largest width. With flip points, the colour of a line is the number
    of rows whose nearest boundary it is, and the largest numbers are written on the lines.

    Parameters
    ----------
    partition : Partition
        Regions and facets of K classes.
    flips : FlipPoints, optional
        Flip points of rows to their nearest class, with ``targets="nearest"``.
    classes : sequence of int, optional
        At most 20 classes to draw; by default all.
    class_names : sequence of str, optional
        K names; numbers by default.
    ax, style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or more than 20 classes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> ax = fsb.plot.neighbours(fsb.partition(head), class_names=["a", "b", "c"])
    >>> ax.get_title()
    '3 of 3 pairs of classes share a border'
    """
    fix = "pass partition(space.head)"
    check_instance("partition", partition, Partition, "a Partition", fix)
    partition = partition.to("cpu")
    shown = check_classes(classes, len(partition.nonempty))
    names = check_names(class_names, len(partition.nonempty))
    check_place(ax, style)
    source = nearest = known = torch.zeros(0, dtype=torch.int64)
    if flips is not None:
        fix = "pass flip_points(head, features)"
        check_instance("flips", flips, FlipPoints, "FlipPoints", fix)
        if flips.target.shape[1] != 1:
            got = f"{flips.target.shape[1]} targets per row"
            raise ArgumentError("flips", got, "1", 'pass targets="nearest"')
        flips = flips.to("cpu")
        source, nearest = flips.source, flips.target[:, 0]
        known = flips.ok[:, 0] & flips.distance[:, 0].isfinite()
    pairs = list(combinations(shown, 2))
    edges = [
        _edge(partition, i, j, count_between(source, nearest, known, i, j) if len(known) else 0)
        for i, j in pairs
        if bool(partition.adjacency[i, j])
    ]
    axes, chosen = place(ax, style, 5.4, 4.2)
    colours = chosen.class_colours(shown, len(names))
    numbered = flips is not None
    at = draw_graph(axes, shown, edges, names, colours, chosen, height=1.0, counted=numbered)
    (wide, high) = WINDOW
    axes.set(xlim=(-wide, wide), ylim=(-high, high), aspect="equal")
    if numbered:
        _write_counts(axes, edges, at, chosen)
    open_pairs = sum(int(partition.status[i, j]) == Status.UNDECIDED for i, j in pairs)
    title = f"{len(edges)} of {count(len(pairs), 'pair')} of classes share a border"
    title += f", {open_pairs} undecided" if open_pairs else ""
    out = len(known) - int(known.sum())
    title += f"\nnumbers: rows nearest to this border, {int(known.sum()):,} in all" * numbered
    title += f", {count(out, 'row')} left out" if out else ""
    axes.set_title(title)
    return axes


def _edge(partition: Partition, i: int, j: int, images: int) -> dict[str, Any]:
    radius, status = float(partition.facet_radius[i, j]), int(partition.status[i, j])
    measured = status in (Status.CONVERGED, Status.UNBOUNDED) and math.isfinite(radius)
    return {
        "pair": (i, j),
        "radius": radius if measured else None,
        "infinite": math.isinf(radius),
        "images": images,
    }


def _write_counts(
    axes: Axes, edges: list[dict[str, Any]], at: dict[int, tuple[float, float]], style: Style
) -> None:
    """Write the largest numbers of images on their edges, near the first class of each."""
    halo = [patheffects.withStroke(linewidth=3, foreground=style.paper)]
    for edge in sorted(edges, key=lambda edge: -edge["images"])[:NUM_COUNTED]:
        if edge["images"]:
            (x, y), (u, v) = (at[k] for k in edge["pair"])
            place, text = (0.62 * x + 0.38 * u, 0.62 * y + 0.38 * v), f"{edge['images']:,}"
            axes.text(*place, text, ha="center", va="center", fontsize=9, color=style.ink,
                      path_effects=halo, zorder=4)  # fmt: skip
