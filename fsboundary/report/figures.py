"""Data URIs of images, films and figures, and new figures in the style of the report."""

from __future__ import annotations

import base64
import io

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fsboundary.pixels import write_gif
from fsboundary.plot.style import REPORT, plain_axes

MAX_SIDE = 192
"""Longer sides are scaled down to this many pixels, because a report shows thumbnails."""

FILM_SIDE = 64
"""Frames are enlarged to about this many pixels, so that a browser does not blur them."""

FRAME_MILLISECONDS = 300


def png_uri(image: Tensor) -> str:
    """Return an image (C, H, W) in [0, 1] as a data URI.

    One channel is shown in grey and three as red, green and blue; for any other number, the mean
    is shown. NaN is shown as black.
    """
    pixels = image.detach().cpu().to(torch.float32).nan_to_num().clamp(0, 1)
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.mean(dim=0, keepdim=True)
    values = (pixels * 255).round().to(torch.uint8).movedim(0, -1)
    array = values.numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return _data_uri("image/png", stream.getvalue())


def picture_uri(picture: Tensor) -> str:
    """Return an image (C, H, W) as PNG, or films (R, N, C, H, W), stacked vertically, as GIF."""
    if picture.ndim == 3:
        return png_uri(picture)
    stream = io.BytesIO()
    side = max(picture.shape[-2:])
    write_gif(picture, stream, scale=max(1, FILM_SIDE // side), milliseconds=FRAME_MILLISECONDS)
    return _data_uri("image/gif", stream.getvalue())


def thumbnail(image: Tensor, side: int) -> Tensor:
    """Return an image (C, H, W) with its longer side scaled down to at most `side` pixels."""
    height, width = image.shape[1:]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    small = torch.nn.functional.interpolate(
        image[None].to(torch.float32), size, mode="bilinear", antialias=True
    )
    return small[0]


def _data_uri(kind: str, content: bytes) -> str:
    """Return `content` as a base64 data URI of media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def new_figure(
    width: float, height: float, rectangle: tuple[float, float, float, float] | None = None
) -> tuple[Figure, Axes]:
    """Return a figure of the given size in inches and its axes.

    `rectangle` (left, bottom, width, height as fractions of the figure) places the axes, for
    figures shown side by side; without it they fill the space beside their labels.
    """
    figure = Figure(figsize=(width, height), layout=None if rectangle else "constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes(rectangle) if rectangle else figure.add_subplot()
    plain_axes(axes, REPORT)
    return figure, axes


def svg_uri(figure: Figure) -> str:
    """Return a figure as an SVG data URI, reproducibly."""
    stream = io.BytesIO()
    # paths, not text, so that the figure does not depend on the reader's fonts
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "fsboundary"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return _data_uri("image/svg+xml", stream.getvalue())
