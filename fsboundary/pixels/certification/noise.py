"""Noisy copies of an image, from a random generator of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor


@final
class NoisyCopies:
    """Copies of one image with Gaussian noise, in a fixed order.

    The generator is seeded with the image and the seed. So the noise of an image depends neither
    on the other images of a call nor on how its copies are cut into batches, and different images
    have independent noise.

    Parameters
    ----------
    image : Tensor (C, H, W)
        Any floating dtype; copies are rounded to it.
    sigma : float
        Standard deviation of the noise of each pixel. Nothing is clipped.
    seed : int
    """

    def __init__(self, image: Tensor, sigma: float, seed: int) -> None:
        self._image, self._sigma = image, sigma
        self.digest = image_digest(image)
        digest = hashlib.sha256(f"{self.digest} {seed}".encode()).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        # narrower numbers have too few values for a Gaussian
        wide = torch.float64 if image.dtype == torch.float64 else torch.float32
        self._center = image.to(wide)
        self._left = torch.empty(0, *image.shape, dtype=wide)

    def take(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Yield the next `count` copies, at most `batch_size` (N,C,H,W) at a time."""
        for start in range(0, count, batch_size):
            noise = self._noise(min(batch_size, count - start)).to(self._center.device)
            yield (self._center + self._sigma * noise).to(self._image.dtype)

    def _noise(self, count: int) -> Tensor:
        """Return the next noise images (count,C,H,W).

        They are drawn in blocks of a fixed size, because torch draws the numbers of a tensor in an
        order that depends on its size.
        """
        parts, missing = [self._left[:count]], count - len(self._left)
        self._left = self._left[count:]
        while missing > 0:
            size = max(1, _BLOCK // max(1, self._center.numel()))
            block = torch.empty(size, *self._center.shape, dtype=self._center.dtype)
            block.normal_(generator=self._generator)
            parts.append(block[:missing])
            missing, self._left = missing - len(parts[-1]), block[missing:]
        return torch.cat(parts)


_BLOCK = 2**14
"""Numbers that are drawn at a time, unless an image has more."""


def image_digest(image: Tensor) -> str:
    """Return a digest of the shape, the dtype and the numbers of an image."""
    digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype}".encode())
    numbers = image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()[:32]
