"""What a picture of matplotlib shows, as plain numbers and texts."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def figure_of(picture: Axes | Figure) -> Figure:
    """Return the figure of what a plot returns."""
    figure = picture if isinstance(picture, Figure) else picture.figure
    assert isinstance(figure, Figure)
    return figure


def shown(picture: Axes | Figure, *, colours: bool = True) -> list[Any]:
    """Return the texts, lines, surfaces and images of a picture, in the order of drawing.

    Without `colours`, only the opacity of an image with an opacity counts.
    """
    found: list[Any] = []
    for axes in figure_of(picture).axes:
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title()]
        found += [(t.get_text(), *np.round(t.get_position(), 6)) for t in axes.texts]
        found += [np.round(line.get_xydata(), 6).tolist() for line in axes.lines]
        found += [
            np.round(p.get_patch_transform().transform_path(p.get_path()).vertices, 6).tolist()
            for p in axes.patches
        ]
        for image in axes.images:
            table = np.round(np.ma.filled(image.get_array(), -1.0), 6)
            found.append((table if colours or table.shape[-1] != 4 else table[..., 3]).tolist())
        found += [t.get_text() for t in legend_texts(axes)]
    return found


def legend_texts(axes: Axes) -> list[Any]:
    legend = axes.get_legend()
    return [] if legend is None else legend.get_texts()


def legend(axes: Axes) -> list[str]:
    """Return the texts of the legend of axes."""
    return [text.get_text() for text in legend_texts(axes)]


def saved(picture: Axes | Figure, kind: str) -> bytes:
    """Return the file of a picture in a format of matplotlib."""
    stream = io.BytesIO()
    figure_of(picture).savefig(stream, format=kind)
    return stream.getvalue()
