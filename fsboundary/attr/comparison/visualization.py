"""Attributions side by side, drawn by Captum's visualiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from captum.attr import visualization
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from fsboundary.attr.comparison.arguments import stack_attributions
from fsboundary.core.checks import check_choice, check_integer
from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.pixels.checks import check_pixels

_INCHES = 1.8  # of one picture
_SIGNS = tuple(visualization.VisualizeSign.__members__)
_METHODS = tuple(visualization.ImageVisualizationMethod.__members__)

_CANCELLATION_RTOL = 1e-6
"""A sum over the channels below this fraction of the largest entry is a rounding error of 0."""


def draw_attributions(
    images: Float[TensorOrArray, "B C H W"],
    attributions: Mapping[str, Float[TensorOrArray, "B C H W"]],
    rows: Sequence[int] | None = None,
    *,
    sign: Literal["all", "positive", "negative", "absolute_value"] = "all",
    method: str = "heat_map",
    outlier_perc: float = 2.0,
) -> Figure:
    """Return a figure with one row per image: the image, then each attribution.

    Parameters
    ----------
    images : Tensor or array (B, C, H, W)
        Images; rescaled to [0, 1] if they exceed it, and grey unless they have three channels.
    attributions : dict of Tensor (B, C, H, W)
        Attributions by name, as for :func:`compare`. Each is summed over the channels and scaled
        separately, as in ``captum.attr.visualization.visualize_image_attr``.
    rows : sequence of int, optional
        Images to draw, default all.
    sign, method, outlier_perc
        Options of Captum's visualiser.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that is not shown; ``figure.savefig(path)`` writes it. If an attribution cannot be
        drawn (non-finite or constant), its status is shown instead; if its sum over the channels
        has no entry of the sign, a text says so.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, rows that do not exist, names that the visualiser does not know, or
        ``sign="all"`` with "masked_image" or "alpha_scaling".

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> from captum.attr import Saliency
    >>> maps = fsb.attr.attribute_methods(space, images, {"saliency": Saliency})
    >>> figure = fsb.attr.draw_attributions(images, maps)
    >>> type(figure).__name__
    'Figure'
    """
    images = check_pixels(images, None, nonempty=True)
    stack = stack_attributions(images, attributions)
    drawn_rows = list(range(len(images)) if rows is None else rows)
    if not drawn_rows:
        raise ArgumentError("rows", "no rows", "at least one", "leave it out for all")
    for row in drawn_rows:
        check_integer("rows", row, -len(images), len(images) - 1, fix="count images from 0")
    check_choice("sign", sign, _SIGNS)
    check_choice("method", method, _METHODS)
    if method in ("masked_image", "alpha_scaling") and sign == "all":
        fix = 'pass sign="positive" or "absolute_value"'
        raise ArgumentError("sign", "'all'", f"one sign for method={method!r}", fix)
    columns = 1 + len(stack.names)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * len(drawn_rows)), layout="constrained")
    grid = figure.subplots(len(drawn_rows), columns, squeeze=False)
    for axes, row in zip(grid, drawn_rows, strict=True):
        picture = _to_rgb(images[row])
        axes[0].imshow(picture)
        axes[0].set_axis_off()
        for column, axis in enumerate(axes[1:]):
            status = Status(int(stack.status[column, row]))
            values = stack.values[column, row].permute(1, 2, 0).cpu().numpy()
            text = status.name if status is not Status.CONVERGED else _placeholder(values, sign)
            values = _scaled(values)
            if text:
                axis.set_axis_off()
                axis.text(0.5, 0.5, text, ha="center", va="center")
                continue
            visualization.visualize_image_attr(
                values,
                picture,
                method,
                sign,
                plt_fig_axis=(figure, axis),
                outlier_perc=outlier_perc,
                use_pyplot=False,
            )
    for axis, title in zip(grid[0], ("image", *stack.names), strict=True):
        axis.set_title(title)
    return figure


def _scaled(values: Any) -> Any:
    """Return an attribution (H,W,C) with a largest sum over the channels of 1, in float64.

    Captum takes a largest value below 1e-5 for nothing; those of 16-bit images are that small.
    """
    values = values.astype("float64")
    values = values / (abs(values).max() or 1.0)  # numbers near the smallest may be summed
    size = abs(values.sum(axis=2)).max()
    return values / (size if size > 0 else 1.0)


def _placeholder(values: Any, sign: str) -> str:
    """Return a text for an attribution (H,W,C) that Captum would draw empty, or ""."""
    total, threshold = values.sum(axis=2), _CANCELLATION_RTOL * abs(values).max()
    if sign in ("all", "absolute_value"):
        return "" if (abs(total) > threshold).any() else "zero over the channels"
    of_sign = total > threshold if sign == "positive" else total < -threshold
    return "" if of_sign.any() else f"nothing {sign}"


def _to_rgb(image: Tensor) -> Any:
    """Return an image (C,H,W) as (H,W,3) with values in [0, 1]; grey unless it has 3 channels."""
    image = torch.nan_to_num(image).double()
    low, high = torch.aminmax(image)
    if float(low) < 0 or float(high) > 1:
        image = (image - low) / (high - low) if high > low else image.clamp(0, 1)
    if len(image) != 3:
        image = image.mean(dim=0).expand(3, -1, -1)
    return image.permute(1, 2, 0).cpu().numpy()
