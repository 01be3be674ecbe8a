"""Matrices of numbers: distances from class to class, and agreement of attributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Comparison, FlipPoints, HullSeparation
from fsboundary.core.status import Status
from fsboundary.plot.arguments import check_classes, check_names, count, shorten
from fsboundary.plot.style import (
    LINES,
    Style,
    StyleName,
    add_axes,
    check_place,
    legend_below,
    literal,
    new_figure,
    place,
)
from fsboundary.plot.values import median

DARKEST = 0.8
"""Position on the colour map of the smallest distance."""


def class_medians(
    source: Tensor, target: Tensor, distance: Tensor, ok: Tensor, classes: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the median distance from class to class, over the rows predicted as the source.

    Parameters
    ----------
    source : Tensor (B,)
    target : Tensor (B, T)
    distance : Tensor (B, T), float64
    ok : Tensor (B, T), bool
        Entries that count.
    classes : sequence of int

    Returns
    -------
    list of dict
        Per ordered pair: ``source``, ``target``, the numbers of ``images`` and of those among them
        from which the target is ``unreachable``, and the ``median``: +inf if more than half of them
        cannot reach it, NaN without images.
    """
    cells = []
    for i in classes:
        rows = source == i
        targets, distances, usable = target[rows], distance[rows], ok[rows]
        for j in classes:
            if i != j:
                values = distances[(targets == j) & usable]
                cells.append(
                    {
                        "source": i,
                        "target": j,
                        "images": len(values),
                        "unreachable": int(values.isinf().sum()),
                        "median": median(values),
                    }
                )
    return cells


def nearness(value: float, smallest: float, largest: float) -> float:
    """Return 1 for the smallest distance and 0 for the largest, on a logarithmic scale."""
    floor = max(smallest, largest * 1e-3, 1e-300)
    span = math.log(max(largest, floor)) - math.log(floor)
    return 1 - (math.log(max(value, floor)) - math.log(floor)) / span if span > 0 else 0.0


def class_matrix(
    result: FlipPoints | HullSeparation,
    *,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the distances from class to class as a matrix with numbers.

    For flip points, a cell is the median distance to the column's class over the rows that are
    predicted as the row's class; "∞" if more than half of them cannot reach it. For separations, a
    cell is the distance between the hulls of two classes. Entries without a certified distance are
    left out and counted in the title.

    Parameters
    ----------
    result : FlipPoints or HullSeparation
        Flip points with ``targets="all"`` or of any targets; or separations of pairs of classes.
    classes : sequence of int, optional
        At most 20 classes to draw; by default all up to the largest in the result.
    class_names : sequence of str, optional
        One name per class; numbers by default.
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
    >>> ax = fsb.plot.class_matrix(fsb.flip_points(head, torch.rand(50, 3), "all"))
    >>> ax.get_xlabel()
    'nearest point of this class'
    """
    fix = 'pass flip_points(head, features, "all")'
    kinds = (FlipPoints, HullSeparation)
    wanted = "FlipPoints or a HullSeparation"
    found: Any = check_instance("result", result, kinds, wanted, fix).to("cpu")
    numbers = found.target if isinstance(found, FlipPoints) else found.classes
    own = found.source if isinstance(found, FlipPoints) else numbers
    last = max([-1, *numbers.flatten().tolist(), *own.flatten().tolist()])
    if last < 0:
        raise ArgumentError("result", "no classes", "rows or pairs of classes", fix)
    names = check_names(class_names, last + 1 if class_names is None else None)
    if len(names) <= last:
        got, fix = f"{len(names)} names", "pass one name per class"
        raise ArgumentError("class_names", got, f"at least {last + 1} names", fix)
    shown = check_classes(classes, len(names))
    check_place(ax, style)
    side = 1.6 + 0.55 * len(shown)
    axes, chosen = place(ax, style, side + 0.4, side)
    table = torch.full((len(shown), len(shown)), torch.nan, dtype=torch.float64)
    index = {k: position for position, k in enumerate(shown)}
    if isinstance(found, FlipPoints):
        cells = class_medians(found.source, found.target, found.distance, found.ok, shown)
        for cell in cells:
            table[index[cell["source"]], index[cell["target"]]] = cell["median"]
        labels = ("nearest point of this class", "rows predicted as")
        left_out = ~found.ok & (found.status != Status.TARGET_IS_SOURCE)
        title = f"median over {count(len(found.source), 'row')}"
    else:
        inside = found.intersect == 1
        distance = torch.where(inside, 0.0, found.distance)
        for (i, j), value in zip(found.classes.tolist(), distance.tolist(), strict=True):
            if i in index and j in index:
                table[index[i], index[j]] = table[index[j], index[i]] = value
        labels, title = ("hull of this class", "hull of"), count(len(distance), "pair")
        left_out = distance.isnan()
    out = int(left_out.sum())
    title += f", {out:,} without a distance left out" if out else ""
    _draw_table(axes, table, [names[k] for k in shown], chosen, near=True)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"{title}; feature units")
    return axes


def _draw_table(
    axes: Axes, table: Tensor, names: Sequence[str], style: Style, *, near: bool
) -> None:
    """Draw a square table with its numbers; the strongest colour is the smallest or largest."""
    finite = table[table.isfinite()]
    smallest, largest = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    span = largest - smallest
    size = len(table)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    for row, values in enumerate(table.tolist()):
        for column, value in enumerate(values):
            corner, text = (column - 0.46, row - 0.46), ""
            face: Any = style.outside
            ink = style.muted
            if math.isfinite(value):
                level = (
                    nearness(value, smallest, largest)
                    if near
                    else ((value - smallest) / span if span > 0 else 0.0)
                )
                colour = colormaps[style.heat](DARKEST * level)
                brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
                face, ink = colour, "#1d2733" if brightness > 0.55 else "#ffffff"
                text = _short(value) if near else f"{value:.2f}"
            elif math.isinf(value):
                text = "∞"
            axes.add_patch(Rectangle(corner, 0.92, 0.92, facecolor=face, edgecolor="none"))
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    ticks = range(size)
    shown = [shorten(name, 14) for name in names]
    axes.set_xticks(ticks, shown, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, shown)
    for text_of in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        literal(text_of).set_color(style.ink)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _short(value: float) -> str:
    """Return a number with about three digits, which fits in a cell."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.0e}"


COLUMNS = 3
"""Largest number of matrices side by side."""

MAX_METHODS = 12
"""More attributions in one picture are unreadable."""


def comparison(result: Comparison, *, style: StyleName | None = None) -> Figure:
    """Draw how far attributions agree, and what following them does.

    One matrix per metric shows its mean over the images. The curves show the margin of the image's
    own class, divided by that of the original image: while the pixels with the largest attributions
    are replaced (lower is better), and along the direction of the attribution (1 is the distance of
    the flip image; below 0 the class has changed). They are means over the images whose status
    allows it; the numbers are in the legend.

    Parameters
    ----------
    result : Comparison
        At most 12 attributions, of :func:`fsboundary.attr.compare`.
    style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        Another result, or more than 12 attributions.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> images = torch.rand(2, 1, 4, 4)
    >>> given = {"one": torch.rand(2, 1, 4, 4), "two": torch.rand(2, 1, 4, 4)}
    >>> found = fsb.attr.compare(images, given, space=fsb.FeatureSpace(model), resamples=9)
    >>> [axes.get_title() for axes in fsb.plot.comparison(found).axes][-1]
    'towards the boundary'
    """
    fix = "pass attr.compare(images, attributions, space=space)"
    check_instance("result", result, Comparison, "a Comparison", fix)
    if len(result.methods) > MAX_METHODS:
        got, fix = f"{len(result.methods)} attributions", "compare fewer in one picture"
        raise ArgumentError("result", got, f"at most {MAX_METHODS}", fix)
    check_place(None, style)
    result = result.to("cpu")
    side = 1.4 + 0.5 * len(result.methods)
    columns = max(2, min(COLUMNS, len(result.metrics)))
    lines = math.ceil(len(result.metrics) / columns)
    figure, chosen = new_figure(max(10.0, side * columns), side * lines + 3.4, style)
    grid = figure.add_gridspec(lines + 1, 2 * columns, height_ratios=[side] * lines + [3.0])
    for index, name in enumerate(result.metrics):
        line, column = divmod(index, columns)
        axes = add_axes(figure, chosen, grid[line, 2 * column : 2 * column + 2])
        _draw_table(axes, result.mean[index], result.methods, chosen, near=False)
        literal(axes.set_title(name))
    halves = (grid[-1, :columns], grid[-1, columns:])
    curves = (
        ("largest attributions replaced", result.fraction_perturbed, result.deletion),
        ("towards the boundary", result.path_position, result.reach),
    )
    for part, (title, position, values) in zip(halves, curves, strict=True):
        axes = add_axes(figure, chosen, part)
        axes.axhline(0, color=chosen.line, linewidth=0.8)
        for index, name in enumerate(result.methods):
            usable = ~values[index].isnan().any(dim=1)
            label = f"{shorten(name, 16)} ({int(usable.sum())} of {len(usable)})"
            look: dict[str, Any] = {
                "color": chosen.lines[index % len(chosen.lines)],
                "linestyle": LINES[index % len(LINES)],
                "linewidth": 1.6,
                "label": label,
            }
            # without images the mean is NaN, which is not drawn; the legend has the number
            axes.plot(position, values[index][usable].mean(dim=0), **look)
        axes.set(title=title, ylabel="margin, relative to the image")
        axes.set_xlabel(
            "fraction of the pixels" if values is result.deletion else "in distances of flip images"
        )
        legend_below(axes, chosen, ncols=2)
    return figure
