"""Attributions side by side, drawn by Captum's visualiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from captum.attr import visualization
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from fsboundary.attr.compared import check_attributions, check_image_batch
from fsboundary.errors import ArgumentError
from fsboundary.status import Status

_INCHES = 1.8  # of one picture


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
        Stretched to [0, 1] where they leave it.
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
        is not finite or all its entries are equal, its status stands.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or rows that are not there.
    """
    images = check_image_batch(images)
    compared = check_attributions(images, attributions)
    wanted = list(range(len(images)) if rows is None else rows)
    if not wanted or not all(-len(images) <= row < len(images) for row in wanted):
        got, fix = repr(rows), "count the images from 0"
        raise ArgumentError("rows", got, f"some of 0 to {len(images) - 1}", fix)
    columns = 1 + len(compared.names)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * len(wanted)), layout="constrained")
    grid = figure.subplots(len(wanted), columns, squeeze=False)
    for axes, row in zip(grid, wanted, strict=True):
        picture = _shown(images[row])
        visualization.visualize_image_attr(
            picture, picture, "original_image", plt_fig_axis=(figure, axes[0]), use_pyplot=False
        )
        for column, axis in enumerate(axes[1:]):
            status = Status(int(compared.status[column, row]))
            if status is not Status.CONVERGED:
                axis.set_axis_off()
                axis.text(0.5, 0.5, status.name, ha="center", va="center")
                continue
            visualization.visualize_image_attr(
                compared.values[column, row].permute(1, 2, 0).cpu().numpy(),
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


def _shown(image: Tensor) -> object:
    """Return an image (C,H,W) as (H,W,C) with values in [0, 1]."""
    low, high = torch.aminmax(torch.nan_to_num(image))
    if float(low) < 0 or float(high) > 1:
        image = (image - low) / (high - low)
    # grey as three equal channels, which Captum draws in grey
    colours = image.expand(3, -1, -1) if len(image) == 1 else image
    return torch.nan_to_num(colours).double().permute(1, 2, 0).cpu().numpy()
