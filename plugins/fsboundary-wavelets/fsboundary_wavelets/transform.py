"""PyWavelets' transform as one matrix per side of an image, so that it is differentiable."""

from __future__ import annotations

from functools import cache

import numpy as np
import pywt
import torch
from torch import Tensor


@cache
def _matrix(wavelet: str, level: int, size: int) -> Tensor:
    """Return one side's transform (coefficients, size), from PyWavelets on each unit vector."""
    level = min(level, pywt.dwt_max_level(size, wavelet))
    unit = np.eye(size)
    parts = pywt.wavedec(unit, wavelet, mode="periodization", level=level, axis=0)
    return torch.from_numpy(np.concatenate(parts, axis=0))


def coefficients(images: Tensor, wavelet: str, level: int) -> Tensor:
    """Return the wavelet coefficients (B,n) of `images` (B,C,H,W): rows, then columns."""
    down, across = (_matrix(wavelet, level, size).to(images) for size in images.shape[-2:])
    return (down @ images @ across.mT).flatten(1)
