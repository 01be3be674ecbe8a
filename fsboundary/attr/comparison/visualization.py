"""Attributions side by side, drawn by Captum's visualiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from captum.attr import visualization
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from fsboundary.attr.comparison.arguments import check_attributions, check_image_batch
from fsboundary.core.errors import ArgumentError
from fsboundary.core.status import Status

_INCHES = 1.8  # of one picture
_SIGNS = tuple(visualization.VisualizeSign.__members__)
_METHODS = tuple(visualization.ImageVisualizationMethod.__members__)

_CANCELLED = 1e-6
"""A sum over the channels below this share of the largest entry is what rounding left of 0."""


def draw_attributions(
    images: Float[Tensor, "B C H W"],
    attributions: Mapping[str, Float[Tensor, "B C H W"]],
    rows: Sequence[int] | None = None,
    *,
    sign: Literal["all", "positive", "negative", "absolute_value"] = "all",
    method: str = "heat_map",
    outlier_perc: float = 2.0,
) -> Figure:
    """Return a figure: a row for each image, the image first and then each attribution.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
        Stretched to [0, 1] where they leave it; in grey unless they have three channels.
    attributions : dict of Tensor (B, C, H, W)
        By name, as for :func:`compare`. Summed over the channels and scaled one by one, as
        ``captum.attr.visualization.visualize_image_attr`` does.
    rows : sequence of int, optional
        Images to draw, default all.
    sign, method, outlier_perc
        As for Captum's visualiser.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; ``figure.savefig(path)`` writes it. Where an attribution has no picture, for it
        is not finite or all its entries are equal, its status stands; where its sum over the
        channels holds nothing of the sign, a text says so.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, rows that are not there, names that the visualiser does not know, or
        ``sign="all"`` with "masked_image" or "alpha_scaling".
    """
    images = check_image_batch(images)
    compared = check_attributions(images, attributions)
    wanted = list(range(len(images)) if rows is None else rows)
    if not wanted or not all(-len(images) <= row < len(images) for row in wanted):
        got, fix = repr(rows), "count the images from 0"
        raise ArgumentError("rows", got, f"some of 0 to {len(images) - 1}", fix)
    for name, value, known in (("sign", sign, _SIGNS), ("method", method, _METHODS)):
        if value not in known:
            one_of = f"one of {', '.join(map(repr, known))}"
            raise ArgumentError(name, repr(value), one_of, "choose one of them")
    if method in ("masked_image", "alpha_scaling") and sign == "all":
        fix = 'pass sign="positive" or "absolute_value"'
        raise ArgumentError("sign", "'all'", f"one sign for method={method!r}", fix)
    columns = 1 + len(compared.names)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * len(wanted)), layout="constrained")
    grid = figure.subplots(len(wanted), columns, squeeze=False)
    for axes, row in zip(grid, wanted, strict=True):
        picture = _shown(images[row])
        axes[0].imshow(picture)
        axes[0].set_axis_off()
        for column, axis in enumerate(axes[1:]):
            status = Status(int(compared.status[column, row]))
            values = compared.values[column, row].permute(1, 2, 0).cpu().numpy()
            empty = status.name if status is not Status.CONVERGED else _empty(values, sign)
            if empty:
                axis.set_axis_off()
                axis.text(0.5, 0.5, empty, ha="center", va="center")
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
    for axis, title in zip(grid[0], ("image", *compared.names), strict=True):
        axis.set_title(title)
    return figure


def _empty(values: Any, sign: str) -> str:
    """Return what stands for an attribution (H,W,C) of which Captum would show nothing, or ""."""
    total, least = values.sum(axis=2), _CANCELLED * abs(values).max()
    if sign in ("all", "absolute_value"):
        return "" if (abs(total) > least).any() else "zero over the channels"
    kept = total > least if sign == "positive" else total < -least
    return "" if kept.any() else f"nothing {sign}"


def _shown(image: Tensor) -> Any:
    """Return an image (C,H,W) as (H,W,3) with values in [0, 1]; grey unless it has 3 channels."""
    image = torch.nan_to_num(image).double()
    low, high = torch.aminmax(image)
    if float(low) < 0 or float(high) > 1:
        image = (image - low) / (high - low) if high > low else image.clamp(0, 1)
    if len(image) != 3:
        image = image.mean(dim=0).expand(3, -1, -1)
    return image.permute(1, 2, 0).cpu().numpy()
