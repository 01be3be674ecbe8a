"""Resizing and centre crop of images, as torchvision's ``Resize`` and ``CenterCrop``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fsboundary.core.errors import ArgumentError

MAX_SIDE = 4096
"""Largest side, as that of images that are read without resizing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A size for all images.

    Attributes
    ----------
    resize : int
        Pixels of the shorter side after resizing, bilinearly with antialiasing; the longer side is
        in proportion, rounded down.
    crop : int
        Side of the square that is cut out of the centre.
    """

    resize: int
    crop: int

    def of_picture(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture (H, W) or (H, W, 3) resized and cropped."""
        height, width = self._resized(*pixels.shape[:2])
        if (height, width) != pixels.shape[:2]:
            picture = Image.fromarray(pixels)
            pixels = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
        top, left = self._corner(height, width)
        return pixels[top : top + self.crop, left : left + self.crop]

    def of_images(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) resized and cropped."""
        new = self._resized(*images.shape[2:])
        if new != tuple(images.shape[2:]):
            parts = [
                torch.nn.functional.interpolate(part, new, mode="bilinear", antialias=True)
                for part in images.split(64)
            ]
            images = torch.cat(parts).clamp_(0, 1)
        top, left = self._corner(*new)
        return images[..., top : top + self.crop, left : left + self.crop].contiguous()

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        short, long = min(height, width), max(height, width)
        longer = int(self.resize * long / short)
        return (longer, self.resize) if height > width else (self.resize, longer)

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        return round((height - self.crop) / 2.0), round((width - self.crop) / 2.0)


def parse_size(text: str | None) -> Size | None:
    """Return the size that a text names: ``224``, or ``256:224`` to resize to 256 and crop 224.

    Raises
    ------
    ArgumentError
        Another text.
    """
    if text is None:
        return None
    parts: list[Any] = text.split(":")
    valid = len(parts) <= 2 and all(part.isascii() and part.isdecimal() for part in parts)
    resize, crop = (int(parts[0]), int(parts[-1])) if valid else (0, 0)
    if not (valid and 1 <= crop <= resize <= MAX_SIDE):
        wanted = f"a side in pixels such as 224, or RESIZE:CROP such as 256:224, up to {MAX_SIDE}"
        raise ArgumentError("size", repr(text), wanted, "do not crop more than the resized side")
    return Size(resize=resize, crop=crop)
