"""Images and films as data URIs, in the file itself."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from fsboundary.pixels import write_gif

LARGEST = 192
"""Longer sides are scaled down to this many pixels: a report shows thumbnails."""

FILM_SIDE = 64
"""Frames are enlarged to about so many pixels, that a browser need not blur them."""

FRAME_MILLISECONDS = 300


def png_uri(image: Tensor) -> str:
    """Return an image (C, H, W) in [0, 1] as a data URI.

    One channel is grey, three are red, green and blue; of any other number the mean is shown.
    NaN is shown as black.
    """
    pixels = image.detach().cpu().to(torch.float32).nan_to_num().clamp(0, 1)
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.mean(dim=0, keepdim=True)
    values = (pixels * 255).round().to(torch.uint8).movedim(0, -1)
    array = values.numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    picture.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return data_uri("image/png", stream.getvalue())


def picture_uri(picture: Tensor) -> str:
    """Return an image (C, H, W) as PNG, or films (R, N, C, H, W), one below the other, as GIF."""
    if picture.ndim == 3:
        return png_uri(picture)
    stream = io.BytesIO()
    side = max(picture.shape[-2:])
    write_gif(picture, stream, scale=max(1, FILM_SIDE // side), milliseconds=FRAME_MILLISECONDS)
    return data_uri("image/gif", stream.getvalue())


def thumbnail(image: Tensor, side: int) -> Tensor:
    """Return an image (C, H, W) with its longer side scaled down to at most `side` pixels."""
    height, width = image.shape[1:]
    share = side / max(height, width)
    if share >= 1:
        return image
    size = (max(1, round(share * height)), max(1, round(share * width)))
    small = torch.nn.functional.interpolate(
        image[None].to(torch.float32), size, mode="bilinear", antialias=True
    )
    return small[0]


def data_uri(kind: str, content: bytes) -> str:
    """Return `content` as a base64 data URI of media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
