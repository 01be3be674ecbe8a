"""Robustness curves and histograms of distances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fsboundary.core.checks import check_instance, check_integer, check_labels, check_shape
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Result
from fsboundary.core.rows import TensorOrArray
from fsboundary.plot.arguments import check_names, count, describe_left_out, shorten
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
from fsboundary.plot.values import RowValues, median, row_values
from fsboundary.scores.set_scores import wilson_interval

MAX_CURVES = 12
"""More curves in one picture cannot be distinguished."""

BAND = 0.18
"""Opacity of the intervals."""


def shares_above(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the steps of the share of values (N,) that exceed r.

    Returns
    -------
    r, share : Tensor (S,), float64
        Share at each r and up to the next one; the first r is 0.
    """
    finite = value[value.isfinite()].clamp_min(0)
    r = torch.cat([torch.zeros(1, dtype=torch.float64), finite]).unique()
    above = (len(value) - torch.searchsorted(value.sort().values, r, right=True)).double()
    return r, above / max(1, len(value))


def robustness_curve(
    results: Result | TensorOrArray | Mapping[str, Result | TensorOrArray],
    *,
    interval: bool = True,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the share of rows whose distance exceeds r, against r; one curve per result.

    The share is a step function of all rows that have a distance, drawn exactly. Rows without one
    are left out, and their number and statuses are in the legend: where a finder failed on rows
    that are hard to flip, the curve is too low. A distance of +inf exceeds every
    r. Feature units of different models are different units: compare curves of models in pixel
    units, or divide by a length of each model first.

    Parameters
    ----------
    results : result, tensor or array (B,), or mapping of names to these
        Results with one distance or radius per row: flip points, guaranteed balls, flip images,
        certified radii, projections and the like. Of several targets, the nearest counts.
    interval : bool
        Whether to draw the pointwise 95 % Wilson interval of the share, for rows that are a random
        sample: it contains the share at any single r, not the whole curve, with probability 95 %.
    ax, style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        Results of another kind, of different units, or too many.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> ax = fsb.plot.robustness_curve({"one": torch.tensor([0.1, 0.4]), "two": torch.rand(9)})
    >>> ax.get_ylabel()
    'rows with a larger distance'
    """
    curves = _check_curves(results)
    check_instance("interval", interval, bool, "True or False", "leave it out")
    check_place(ax, style)
    axes, chosen = place(ax, style, 5.2, 3.6)
    finite = torch.cat([v.value[v.value.isfinite()] for v in curves.values()])
    end = 1.05 * float(finite.max()) if len(finite) and float(finite.max()) > 0 else 1.0
    for index, (name, values) in enumerate(curves.items()):
        _draw_curve(axes, chosen, index, name, values, end, interval)
    axes.set(xlim=(0, end), ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.grid(axis="y", color=chosen.line, linewidth=0.6)
    axes.set_xlabel(_common_label(list(curves.values())))
    axes.set_ylabel("rows with a larger distance")
    legend_below(axes, chosen)
    return axes


def _check_curves(results: object) -> dict[str, RowValues]:
    """Return the distances by name, or raise ArgumentError."""
    if not isinstance(results, Mapping):
        return {"": row_values("results", results)}
    fix = "draw fewer curves, or several pictures"
    if not 1 <= len(results) <= MAX_CURVES:
        got, wanted = f"{len(results)} results", f"1 to {MAX_CURVES}"
        raise ArgumentError("results", got, wanted, fix)
    for name in results:
        check_instance("results", name, str, "names as text", 'pass {"name": result}')
    curves = {name: row_values(f"results[{name!r}]", one) for name, one in results.items()}
    units = sorted({values.unit for values in curves.values() if values.unit})
    if len(units) > 1:
        got, wanted = " and ".join(units), "results of one unit"
        raise ArgumentError("results", got, wanted, "draw them on different axes")
    return curves


def _common_label(curves: list[RowValues]) -> str:
    quantities = list(dict.fromkeys(values.quantity for values in curves))
    units = [values.unit for values in curves if values.unit]
    label = quantities[0] if len(quantities) == 1 else "distance"
    return f"r: {label}, {units[0]}" if units else f"r: {label}"


def _draw_curve(
    axes: Axes,
    style: Style,
    index: int,
    name: str,
    values: RowValues,
    end: float,
    interval: bool,
) -> None:
    known = values.value[values.known]
    out = describe_left_out(values.status[~values.known])
    label = ", ".join(part for part in (name, count(len(known), "row"), out) if part)
    colour = style.lines[index % len(style.lines)]
    dashes = LINES[index % len(LINES)]
    if not len(known):
        axes.plot([], [], color=colour, linestyle=dashes, label=label)
        return
    r, share = shares_above(known)
    ends = torch.cat([r, torch.tensor([max(end, float(r[-1]))], dtype=torch.float64)])
    heights = torch.cat([share, share[-1:]])
    if interval:
        low, high = wilson_interval(heights, len(known)).unbind(dim=-1)
        band: dict[str, Any] = {"color": colour, "alpha": BAND, "linewidth": 0}
        axes.fill_between(ends.numpy(), low.numpy(), high.numpy(), step="post", **band)
    line: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.6, "label": label}
    axes.step(ends.numpy(), heights.numpy(), where="post", **line)


BINS = 24
"""Number of bins of the histograms."""

MAX_PANELS = 20
"""Of more groups, those with the most rows are drawn."""

COLUMNS = 5
"""Largest number of panels side by side."""


def bin_edges(value: Tensor, bins: int = BINS) -> Tensor:
    """Return bin edges (bins + 1,) from 0 to the largest finite value."""
    finite = value[value.isfinite()]
    top = float(finite.max()) if len(finite) else 0.0
    return torch.linspace(0.0, top if top > 0 else 1.0, bins + 1, dtype=torch.float64)


def bin_counts(value: Tensor, edges: Tensor) -> list[int]:
    """Return the number of finite values in each bin."""
    counts: list[int] = torch.histogram(value[value.isfinite()], edges).hist.long().tolist()
    return counts


def draw_bars(
    axes: Axes,
    edges: Sequence[float],
    stack: Sequence[tuple[Sequence[float], str, str | None]],
    middle: float | None,
    style: Style,
) -> None:
    """Draw bars on top of each other, each with its colour and hatch, and a line at the median."""
    width = edges[1] - edges[0]
    bottom = [0.0] * (len(edges) - 1)
    for heights, colour, hatch in stack:
        bars: dict[str, Any] = {"color": colour, "edgecolor": style.paper, "hatch": hatch}
        axes.bar(edges[:-1], heights, width, bottom, align="edge", linewidth=0.4, **bars)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    if middle is not None:
        axes.axvline(middle, color=style.ink, linewidth=1.2, linestyle=(0, (3, 2)))
    axes.set_xlim(0, edges[-1])
    axes.xaxis.set_major_formatter("{x:g}")


def distances(
    result: Result | TensorOrArray,
    *,
    wrong: TensorOrArray | None = None,
    bins: int = BINS,
    ax: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw a histogram of distances.

    A dashed line is the median. Rows without a distance, and those with a distance of +inf, are
    left out of the bars and counted in the title; the latter count in the median.

    Parameters
    ----------
    result : result, or tensor or array (B,)
        As for :func:`robustness_curve`.
    wrong : Tensor or array (B,), bool, optional
        Rows to show in another colour, hatched, such as the misclassified ones.
    bins : int
        Number of bins from 0 to the largest distance.
    ax, style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        Results of another kind, or wrong types or shapes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> fsb.plot.distances(torch.rand(60)).get_title()
    '60 rows'
    """
    values = row_values("result", result)
    marked = _marked_rows(wrong, len(values.value))
    check_integer("bins", bins, 1, 1000)
    check_place(ax, style)
    edges = bin_edges(values.value, bins)
    none = torch.zeros_like(values.known) if marked is None else marked
    axes, chosen = place(ax, style, 5.2, 3.2)
    top = _draw_histogram(axes, values, values.known, none, edges, chosen)
    axes.set_ylim(0, max(top, 1) * 1.05)
    axes.set_title(_rows_text(values, torch.ones_like(values.known)))
    axes.set_xlabel(values.label)
    axes.set_ylabel("rows")
    if marked is not None:
        legend_below(axes, chosen, ncols=2)
    return axes


def distances_by_class(
    result: Result | TensorOrArray,
    labels: TensorOrArray | Sequence[int],
    *,
    wrong: TensorOrArray | None = None,
    bins: int = BINS,
    class_names: Sequence[str] | None = None,
    style: StyleName | None = None,
) -> Figure:
    """Draw the histograms of :func:`distances` of each class, with the same bins and axes.

    Parameters
    ----------
    result : result, or tensor or array (B,)
        As for :func:`robustness_curve`.
    labels : Tensor or array (B,) or list
        Class of each row, -1 for none: one panel per class, at most 20, of the classes with the
        most rows.
    wrong : Tensor or array (B,), bool, optional
        As for :func:`distances`.
    bins : int
        Number of bins from 0 to the largest distance.
    class_names : sequence of str, optional
        One name per class; numbers by default.
    style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        Results of another kind, or wrong types or shapes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> figure = fsb.plot.distances_by_class(torch.rand(60), torch.arange(60) % 3)
    >>> len(figure.axes), figure.get_suptitle()
    (3, '60 rows')
    """
    values = row_values("result", result)
    rows = len(values.value)
    marked = _marked_rows(wrong, rows)
    check_integer("bins", bins, 1, 1000)
    check_place(None, style)
    groups = check_labels(labels, rows, "labels").cpu()
    last = int(groups.max()) if rows else -1
    names = check_names(class_names, last + 1 if class_names is None else None)
    if last >= len(names):
        got, wanted = f"classes up to {last}", f"classes 0 to {len(names) - 1}"
        raise ArgumentError("labels", got, wanted, "pass one name per class")
    return _panels(values, groups, marked, bin_edges(values.value, bins), names, style)


def _marked_rows(wrong: TensorOrArray | None, rows: int) -> Tensor | None:
    """Return the mask `wrong` (rows,) on the CPU, or raise ArgumentError."""
    if wrong is None:
        return None
    fix = "pass batch.predicted != labels, for example"
    found = check_shape("wrong", wrong, (rows,), fix=fix, wanted=f"a bool tensor ({rows},)")
    if found.dtype != torch.bool:
        raise ArgumentError("wrong", f"dtype {found.dtype}", "a bool tensor", fix)
    return found.cpu()


def _panels(
    values: RowValues,
    groups: Tensor,
    marked: Tensor | None,
    edges: Tensor,
    names: Sequence[str],
    style: StyleName | None,
) -> Figure:
    """Return a figure with one histogram per group."""
    sizes = torch.bincount(groups[groups >= 0])
    present = sizes.nonzero()[:, 0]
    order = sizes[present].argsort(descending=True, stable=True)[:MAX_PANELS]
    shown = present[order].sort().values.tolist()
    columns = max(1, min(COLUMNS, len(shown)))
    lines = max(1, math.ceil(len(shown) / columns))
    figure, chosen = new_figure(0.6 + 2.0 * columns, 0.9 + 1.55 * lines, style)
    tallest = 1.0
    for index, k in enumerate(shown):
        axes = add_axes(figure, chosen, lines, columns, index + 1)
        inside = groups == k
        none = torch.zeros_like(inside) if marked is None else marked
        top = _draw_histogram(axes, values, inside & values.known, none, edges, chosen)
        tallest = max(tallest, top)
        drawn, size = int((inside & values.value.isfinite()).sum()), int(sizes[k])
        rows = count(size, "row") if drawn == size else f"{drawn:,} of {size:,} rows"
        literal(axes.set_title(f"{shorten(names[k], 24)}\n{rows}", fontsize=9))
    for index, panel in enumerate(figure.axes):
        panel.set_ylim(0, tallest * 1.05)
        panel.locator_params(axis="y", nbins=2, integer=True)
        panel.locator_params(axis="x", nbins=3)
        panel.tick_params(labelleft=index % columns == 0)
    figure.supxlabel(values.label, color=chosen.muted, fontsize=9)
    figure.supylabel("rows", color=chosen.muted, fontsize=9)
    left_out = [_rows_text(values, torch.isin(groups, torch.tensor(shown)))]
    left_out += [f"{len(present) - len(shown):,} smaller classes"] * (len(present) > len(shown))
    without = int((groups < 0).sum())
    left_out += [f"{count(without, 'row')} without a class"] * (without > 0)
    figure.suptitle(", ".join(left_out), color=chosen.ink, fontsize=10)
    if marked is not None and figure.axes:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        legend: dict[str, Any] = {"loc": "outside lower right", "frameon": False, "ncols": 2}
        figure.legend(handles, labels, labelcolor=chosen.ink, fontsize=9, **legend)
    return figure


def _draw_histogram(
    axes: Axes, values: RowValues, inside: Tensor, marked: Tensor, edges: Tensor, style: Style
) -> float:
    """Draw the rows `inside` and return the height of the tallest bar."""
    right = bin_counts(values.value[inside & ~marked], edges)
    wrong = bin_counts(values.value[inside & marked], edges)
    middle = median(values.value[inside])
    stack = [(right, style.right, None), (wrong, style.wrong, "////")]
    draw_bars(axes, edges.tolist(), stack, middle if math.isfinite(middle) else None, style)
    for bars, label in zip(axes.containers[-2:], ("other rows", "marked as wrong"), strict=True):
        bars.set_label(label)
    return float(max(map(sum, zip(right, wrong, strict=True))))


def _rows_text(values: RowValues, inside: Tensor) -> str:
    """Return the number of rows in the bars, and of those that are not."""
    drawn = inside & values.value.isfinite()
    parts = [count(int(drawn.sum()), "row")]
    infinite = int((inside & values.value.isinf()).sum())
    parts += [f"{infinite:,} at +inf"] if infinite else []
    out = describe_left_out(values.status[inside & ~values.known])
    return ", ".join([*parts, out] if out else parts)
