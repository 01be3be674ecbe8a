"""Pictures with images: supports of hull projections, flip images and morphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.checks import check_instance, check_integer
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipImages, HullProjection, Morph
from fsboundary.core.rows import TensorOrArray
from fsboundary.pixels.checks import check_bounds, check_pixels
from fsboundary.plot.arguments import (
    check_names,
    check_rows,
    count,
    describe_left_out,
    shorten,
)
from fsboundary.plot.style import (
    NotebookFigure,
    Style,
    StyleName,
    add_axes,
    check_place,
    legend_below,
    literal,
    new_figure,
)

MAX_IMAGES = 8
"""Largest number of rows in a picture with images."""

INCHES = 1.25
"""Side of an image."""

TITLE = 0.42
"""Height of two lines of text above an image, inches."""


def to_rgb(image: Tensor, bounds: tuple[float, float]) -> Any:
    """Return an image (C,H,W) as an array (H,W,3) in [0, 1]; grey unless it has three channels.

    NaN is shown as middle grey.
    """
    low, high = bounds
    pixels = ((image.double() - low) / (high - low)).nan_to_num(nan=0.5).clamp(0, 1).cpu()
    if len(pixels) != 3:
        pixels = pixels.mean(dim=0).expand(3, -1, -1)
    return np.asarray(pixels.permute(1, 2, 0))


def show_image(
    figure: NotebookFigure, style: Style, position: Any, picture: Any, title: str, **options: Any
) -> Axes:
    """Draw an image with a title in a cell of the figure's grid."""
    axes = add_axes(figure, style, position)
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    literal(axes.set_title(title, fontsize=9))
    return axes


def _empty(figure: Figure, style: Style) -> None:
    """Say that there is nothing to draw."""
    figure.text(0.5, 0.4, "no row to draw", ha="center", color=style.muted)


def _name_of(names: Sequence[str], k: int) -> str:
    return shorten(names[k], 16) if 0 <= k < len(names) else str(k)


def _check_class_names(class_names: object, last: int) -> list[str]:
    """Return a name per class up to `last`, or raise ArgumentError."""
    names = check_names(class_names, last + 1 if class_names is None else None)
    if len(names) <= last:
        fix = "pass one name per class"
        raise ArgumentError("class_names", f"{len(names)} names", f"at least {last + 1}", fix)
    return names


def _check_images(name: str, images: object, total: int, bounds: tuple[float, float]) -> Tensor:
    """Return images (total,C,H,W), or raise ArgumentError."""
    found = check_pixels(images, bounds, name)
    if len(found) != total:
        got, fix = f"{len(found)} images", "pass one image per row, in the order of the rows"
        raise ArgumentError(name, got, f"{total} images", fix)
    return found


def hull_support(
    projection: HullProjection,
    bank: FeatureBank,
    train_images: Float[TensorOrArray, "N C H W"],
    images: Float[TensorOrArray, "B C H W"] | None = None,
    *,
    rows: Sequence[int] | None = None,
    num_supporters: int = 5,
    bounds: tuple[float, float] = (0, 1),
    class_names: Sequence[str] | None = None,
    style: StyleName | None = None,
) -> Figure:
    """Draw the training images whose mixture is the nearest point of the hull, with their weights.

    Rows without a certified projection are left out and counted in the title.

    Parameters
    ----------
    projection : HullProjection
        Projections of B rows on the hull of the bank.
    bank : FeatureBank
        The bank of N points.
    train_images : Tensor or array (N, C, H, W)
        Images of the points of the bank, in their order.
    images : Tensor or array (B, C, H, W), optional
        Images of the rows.
    rows : sequence of int, optional
        At most 8 rows; by default the first ones.
    num_supporters : int
        Largest number of training images per row, those with the largest weights.
    bounds : (float, float)
        Pixel values shown as black and as white.
    class_names : sequence of str, optional
        One name per class of the bank's labels; numbers by default.
    style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        Wrong types, shapes or pixels, or rows that do not exist.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> train = torch.rand(30, 1, 4, 4)
    >>> bank = fsb.FeatureBank(train.flatten(1))
    >>> projection = fsb.hull_projection(bank, torch.rand(1, 16))
    >>> figure = fsb.plot.hull_support(projection, bank, train, num_supporters=3)
    >>> len(figure.axes)
    3
    """
    fix = "pass hull_projection(bank, features)"
    check_instance("projection", projection, HullProjection, "a HullProjection", fix)
    check_instance("bank", bank, FeatureBank, "a FeatureBank", "pass the bank of the projection")
    if bank.num_features != projection.points.shape[1]:
        got, wanted = f"width {bank.num_features}", f"width {projection.points.shape[1]}"
        raise ArgumentError("bank", got, wanted, "pass the bank of the projection")
    bounds = check_bounds(bounds)
    training = _check_images("train_images", train_images, len(bank), bounds)
    projection = projection.to("cpu")
    total = len(projection.status)
    own = None if images is None else _check_images("images", images, total, bounds)
    chosen = check_rows(rows, total, MAX_IMAGES)
    check_integer("num_supporters", num_supporters, 1, 12)
    labels = None if bank.labels is None else bank.labels.cpu()
    names = _check_class_names(class_names, -1 if labels is None else int(labels.max()))
    check_place(None, style)
    drawn = [row for row in chosen if bool(projection.ok[row])]
    first = int(own is not None)
    columns = num_supporters + first
    size = (columns * INCHES + 0.3, max(1, len(drawn)) * (INCHES + TITLE) + 0.5)
    figure, look = new_figure(*size, style)
    failed = [row for row in chosen if row not in drawn]
    out = describe_left_out(projection.status[failed])
    text = ", ".join(part for part in (count(len(drawn), "row"), out) if part)
    figure.suptitle(text, color=look.ink, fontsize=10)
    if not drawn:
        _empty(figure, look)
        return figure
    grid = figure.add_gridspec(len(drawn), columns)
    for line, row in enumerate(drawn):
        where = {1: "inside", -1: "outside", 0: "undecided"}[int(projection.membership[row])]
        title = f"row {row}, {where}\ndistance {float(projection.distance[row]):.3g}"
        if own is not None:
            show_image(figure, look, grid[line, 0], to_rgb(own[row], bounds), title)
        weights = projection.weights[row]
        heaviest = weights.argsort(descending=True, stable=True)[:num_supporters]
        for column, entry in enumerate(heaviest[weights[heaviest] > 0].tolist()):
            point = int(projection.support[row, entry])
            about = f"point {point}"
            if labels is not None and int(labels[point]) >= 0:
                about = _name_of(names, int(labels[point]))
            words = f"{about}\nweight {float(weights[entry]):.2f}"
            if own is None and column == 0:
                words = f"row {row}, {where}\n{words}"
            picture = to_rgb(training[point], bounds)
            show_image(figure, look, grid[line, column + first], picture, words)
    return figure


def flip_images(
    flips: FlipImages,
    images: Float[TensorOrArray, "B C H W"],
    *,
    rows: Sequence[int] | None = None,
    bounds: tuple[float, float] = (0, 1),
    class_names: Sequence[str] | None = None,
    style: StyleName | None = None,
) -> Figure:
    """Draw images, their flip images, and the differences between them.

    In the differences, blue is darker and red is lighter than the image, on the scale of the
    largest difference of the row, which is in the title. Rows without a flip image are left out and
    counted in the title.

    Parameters
    ----------
    flips : FlipImages
        Flip images of B rows.
    images : Tensor or array (B, C, H, W)
        The images that they belong to.
    rows : sequence of int, optional
        At most 8 rows; by default the first ones.
    bounds : (float, float)
        Pixel values shown as black and as white.
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
        Wrong types, shapes or pixels, or rows that do not exist.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> images = torch.rand(2, 1, 4, 4)
    >>> flips = fsb.pixels.flip_images(model, images)
    >>> len(fsb.plot.flip_images(flips, images).axes)
    6
    """
    fix = "pass pixels.flip_images(model, images)"
    check_instance("flips", flips, FlipImages, "FlipImages", fix)
    bounds = check_bounds(bounds)
    flips = flips.to("cpu")
    total = len(flips.status)
    own = _check_images("images", images, total, bounds).cpu()
    if own.shape != flips.images.shape:
        got, fix = f"shape {tuple(own.shape)}", "pass the images of the flip images"
        raise ArgumentError("images", got, f"shape {tuple(flips.images.shape)}", fix)
    chosen = check_rows(rows, total, MAX_IMAGES)
    last = max([-1, *flips.source.tolist(), *flips.target.tolist()])
    names = _check_class_names(class_names, last)
    check_place(None, style)
    drawn = [row for row in chosen if not bool(flips.distance[row].isnan())]
    lines = max(1, len(drawn))
    figure, look = new_figure(3 * 1.55 + 0.4, lines * (INCHES + TITLE) + 0.5, style)
    failed = [row for row in chosen if row not in drawn]
    out = describe_left_out(flips.status[failed])
    text = ", ".join(part for part in (count(len(drawn), "row"), out) if part)
    figure.suptitle(text, color=look.ink, fontsize=10)
    if not drawn:
        _empty(figure, look)
        return figure
    grid = figure.add_gridspec(lines, 3)
    for line, row in enumerate(drawn):
        change = flips.images[row].double() - own[row].double()
        change = change.gather(0, change.abs().argmax(dim=0, keepdim=True))[0]
        most = float(change.abs().max()) or 1.0
        title = f"row {row}\n{_name_of(names, int(flips.source[row]))}"
        show_image(figure, look, grid[line, 0], to_rgb(own[row], bounds), title)
        title = f"difference\nat most {most:.2g}"
        scale = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        show_image(figure, look, grid[line, 1], change.numpy(), title, **scale)
        title = f"tie with {_name_of(names, int(flips.target[row]))}"
        title += f"\ndistance {float(flips.distance[row]):.3g}"
        show_image(figure, look, grid[line, 2], to_rgb(flips.images[row], bounds), title)
    return figure


FRAMES = 9
"""Largest number of frames of a morph; of more, as many are drawn at equal steps."""


def morph(
    result: Morph,
    row: int = 0,
    *,
    bounds: tuple[float, float] = (0, 1),
    class_names: Sequence[str] | None = None,
    style: StyleName | None = None,
) -> Figure:
    """Draw a morph and the plain blend of its ends: frames with their classes, and the margin.

    The margin is the logit of the first frame's class minus the largest other one. Vertical lines
    are the positions at which the class of the start is left.

    Parameters
    ----------
    result : Morph
        Morphs of B rows.
    row : int
        Row to draw.
    bounds : (float, float)
        Pixel values shown as black and as white.
    class_names : sequence of str, optional
        K names; numbers by default.
    style
        As for :func:`plane`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        Another result, or a row that does not exist.
    StatusError
        The row has no morph.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> space, images = fsb.FeatureSpace(model), torch.rand(2, 1, 4, 4)
    >>> found = fsb.pixels.morph(space, images[:1], images[1:], steps=5)
    >>> len(fsb.plot.morph(found).axes)
    11
    """
    fix = "pass pixels.morph(space, start, end)"
    check_instance("result", result, Morph, "a Morph", fix)
    check_integer("row", row, 0, len(result.status) - 1, fix="count rows from 0")
    bounds = check_bounds(bounds)
    names = check_names(class_names, result.logits.shape[2])
    check_place(None, style)
    one = result.take([row]).to("cpu")
    if bool(one.images.isnan().all()):
        one.raise_for_status()
    total = one.times.shape[1]
    shown = torch.linspace(0, total - 1, min(FRAMES, total)).round().long().tolist()
    width = len(shown) * 0.95 + 0.5
    figure, look = new_figure(width, 2 * 1.25 + 2.6, style)
    grid = figure.add_gridspec(3, len(shown), height_ratios=[1, 1, 1.7])
    films = (
        ("morph", one.images[0], one.predicted[0]),
        ("blend", one.blend[0], one.blend_predicted[0]),
    )
    for line, (name, film, predicted) in enumerate(films):
        for column, frame in enumerate(shown):
            title = shorten(names[int(predicted[frame])], 12)
            picture = to_rgb(film[frame], bounds)
            axes = show_image(figure, look, grid[line, column], picture, title)
            axes.title.set_fontsize(8)
            if column == 0:
                axes.set_ylabel(name, color=look.ink, fontsize=9)
    _draw_margins(add_axes(figure, look, grid[2, :]), one, look)
    return figure


def _draw_margins(axes: Axes, one: Morph, style: Style) -> None:
    """Draw the margin of the first frame's class along a morph and its blend."""
    start = int(one.predicted[0, 0])
    curves = (
        ("morph", one.logits[0], float(one.crossing[0]), "solid"),
        ("blend", one.blend_logits[0], float(one.blend_crossing[0]), (0, (5, 2))),
    )
    for (name, logits, crossing, dashes), colour in zip(curves, style.lines, strict=False):
        others = logits.clone()
        others[:, start] = -torch.inf
        margin = logits[:, start] - others.amax(dim=1)
        left = "" if math.isnan(crossing) else f", leaves the class at {crossing:.2f}"
        line: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.6}
        axes.plot(one.times[0], margin, label=f"{name}{left}", **line)
        if left:
            axes.axvline(crossing, color=colour, linewidth=0.9, linestyle=dashes)
    axes.axhline(0, color=style.muted, linewidth=0.8)
    axes.set(xlabel="position t", ylabel="margin, logit units", xlim=(0, 1))
    legend_below(axes, style, ncols=2)
