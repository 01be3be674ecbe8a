"""What the figures share: colours, axes without clutter, and SVG that never varies."""

from __future__ import annotations

import colorsys
import io

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fsboundary.report.pictures import data_uri

INK = "#1d2733"
MUTED = "#6b7785"
LINE = "#d5dbe3"
RIGHT = "#3a6ea5"
WRONG = "#e07b39"

PALETTE = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#edc948",
    "#76b7b2",
    "#ff9da7",
    "#9c755f",
    "#8cd17d",
)


def class_colour(k: int) -> str:
    """Return the colour of the class with place `k`; no two are alike."""
    if k < len(PALETTE):
        return PALETTE[k]
    hue = (k * 0.618034) % 1.0  # golden-ratio steps keep neighbours apart
    red, green, blue = colorsys.hls_to_rgb(hue, 0.6, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def new_figure(
    width: float, height: float, rectangle: tuple[float, float, float, float] | None = None
) -> tuple[Figure, Axes]:
    """Return a figure of the given size in inches and its one pair of axes.

    `rectangle` (left, bottom, width, height in shares of the figure) places the axes, for figures
    that stand side by side; without it they fill what their labels leave.
    """
    figure = Figure(figsize=(width, height), layout=None if rectangle else "constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes(rectangle) if rectangle else figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=9, length=3, color=LINE)
    return figure, axes


def svg_uri(figure: Figure) -> str:
    """Return a figure as an SVG data URI, the same for the same figure."""
    stream = io.BytesIO()
    # paths, not text: the figure then looks alike whatever fonts the reader has
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "fsboundary"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return data_uri("image/svg+xml", stream.getvalue())
