"""Classes along straight paths through feature space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from fsboundary.core.checks import check_instance
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import ClassPath
from fsboundary.core.status import Status
from fsboundary.plot.arguments import (
    check_names,
    check_rows,
    count,
    describe_left_out,
    shorten,
)
from fsboundary.plot.style import StyleName, check_place, legend_below, literal, place

MAX_PATHS = 24
"""Largest number of paths in a picture."""

LETTER = 0.017
"""Width of a letter, as a fraction of a path."""

THICK = 0.7
"""Thickness of a path, as a fraction of the distance between two."""

UPRIGHT = 0.018
"""Shorter segments have no name in them, and longer ones at least an upright one."""


def class_path(
    path: ClassPath,
    *,
    rows: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the classes along straight paths through feature space, one bar per path.

    The ends of the segments are the exact points at which the class changes. Rows whose path is not
    certified are left out and counted in the title.

    Parameters
    ----------
    path : ClassPath
        Paths of B rows.
    rows : sequence of int, optional
        At most 24 rows; by default the first ones.
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
        Wrong types, rows that do not exist, or too few names.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> path = fsb.class_path(head, torch.eye(3)[:1], torch.eye(3)[1:2])
    >>> fsb.plot.class_path(path, class_names=["a", "b", "c"]).get_title()
    '1 path'
    """
    fix = "pass class_path(head, start, end)"
    check_instance("path", path, ClassPath, "a ClassPath", fix)
    path = path.to("cpu")
    last = int(path.classes.max()) if path.classes.numel() else -1
    names = check_names(class_names, last + 1 if class_names is None else None)
    if len(names) <= last:
        got, fix = f"{len(names)} names", "pass one name per class"
        raise ArgumentError("class_names", got, f"at least {last + 1} names", fix)
    chosen_rows = check_rows(rows, len(path.status), MAX_PATHS)
    check_place(ax, style)
    drawn = [row for row in chosen_rows if int(path.status[row]) == Status.CONVERGED]
    axes, look = place(ax, style, 6.0, 1.3 + 0.34 * max(1, len(drawn)))
    seen = sorted({k for k in path.classes[drawn].flatten().tolist() if k >= 0})
    colours = look.class_colours(seen, len(names))
    halo = [patheffects.withStroke(linewidth=2, foreground=look.paper, alpha=0.8)]
    for height, row in enumerate(drawn):
        classes = [k for k in path.classes[row].tolist() if k >= 0]
        ends = [0.0, *path.crossings[row, : len(classes) - 1].tolist(), 1.0]
        for k, (start, end) in zip(classes, pairwise(ends), strict=True):
            face: dict[str, Any] = {
                "color": colours[k],
                "alpha": 0.6,
                "edgecolor": look.paper,
                "linewidth": 1.2,
            }
            axes.barh(height, end - start, THICK, start, **face)
            if end - start < UPRIGHT:
                continue
            fits = int((end - start) / LETTER)
            flat = fits >= min(len(names[k]), 4)
            text = shorten(names[k], fits if flat else 5)
            shown = axes.text((start + end) / 2, height, text, ha="center", va="center")
            literal(shown).set(fontsize=8 if flat else 6, color=look.ink, path_effects=halo)
            shown.set_rotation(0 if flat else 90)
    axes.set(xlim=(0, 1), ylim=(max(1, len(drawn)) - 0.5, -0.5))
    axes.set_yticks(range(len(drawn)), [f"row {row}" for row in drawn])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("position on the straight path from start to end")
    failed = [row for row in chosen_rows if row not in drawn]
    out = describe_left_out(path.status[failed])
    axes.set_title(", ".join(part for part in (count(len(drawn), "path"), out) if part))
    handles = [Patch(fc=colours[k], alpha=0.6, label=shorten(names[k], 20)) for k in seen]
    if handles:
        legend_below(axes, look, handles=handles, ncols=min(4, len(handles)))
    return axes
