"""Heat maps and curves of attributions."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.report.figures import LINE, MUTED, PALETTE, new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import quantile

SIDE = 64
"""Longer side of a heat map, pixels."""

FULL = 0.98
"""Entries at least as large as this quantile of the sizes have the full colour."""

CURVES = (4.6, 2.7)
"""Width and height, inches."""

DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
"""So that the lines can be told apart without colours."""


def heat_map(attribution: Tensor) -> Tensor:
    """Return an attribution (C, H, W), summed over channels, as an image (3, h, w) in [0, 1].

    Blue where it is positive, red where it is negative, white where it is 0.
    """
    values = attribution.detach().cpu().to(torch.float64).sum(dim=0).nan_to_num()
    small = thumbnail(values[None], SIDE)[0].to(torch.float64)
    size = small.abs().flatten()
    full = quantile(size[size > 0], FULL)
    scaled = (small / full).clamp(-1.0, 1.0) if full > 0 else torch.zeros_like(small)
    colours = torch.from_numpy(colormaps["RdBu"](0.5 + 0.5 * scaled.numpy())[..., :3])
    return colours.movedim(2, 0)


def curves(at: list[float], lines: list[list[float] | None], label: str, end: str) -> str:
    """Draw a mean margin for each method; return a data URI.

    Parameters
    ----------
    at : list of float
        Places along the axis.
    lines : list of list of float or None
        Shares of the margin, one line a method; None draws nothing but keeps the colours.
    label : str
        Of the axis.
    end : str
        What follows its numbers.
    """
    figure, axes = new_figure(*CURVES)
    for place, line in enumerate(lines):
        if line is not None:
            shares = [100 * share for share in line]
            axes.plot(
                at,
                shares,
                color=PALETTE[place],
                linestyle=DASHES[place],
                linewidth=2.4 if place == 0 else 1.6,
            )
    axes.set_xlim(at[0], at[-1])
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.xaxis.set_major_formatter("{x:g}" + end)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_xlabel(label, color=MUTED, fontsize=9)
    return svg_uri(figure)


def key_of(place: int) -> dict[str, Any]:
    """Return colour and dashes of a method's line, for the legend of the page."""
    style = DASHES[place]
    dashes = "" if isinstance(style, str) else " ".join(str(2 * d) for d in style[1])
    return {"colour": PALETTE[place], "dashes": dashes}
