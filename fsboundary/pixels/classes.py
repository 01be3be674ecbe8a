"""The first pass over images: what class the model gives each."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError, FsboundaryError
from fsboundary.space import FeatureSpace


def first_logits(space: FeatureSpace, images: Tensor, batch_size: int) -> Tensor:
    """Return the model's logits (B,K) of `images`, float64, on their device.

    NaN for images that are not finite, which the model never sees.

    Raises
    ------
    ArgumentError
        The model does not take images of this shape.
    """
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    parts = []
    with torch.no_grad():
        for rows in finite.nonzero()[:, 0].split(batch_size):
            try:
                part = space.logits(images[rows])
            except FsboundaryError:
                raise
            except (RuntimeError, ValueError, TypeError) as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise ArgumentError(
                    "images",
                    f"shape {tuple(images.shape)}, dtype {images.dtype}, which the model does "
                    f"not take ({lines[0]})",
                    "images as the model was trained on",
                    "check channels, size and dtype, and what preprocess= does",
                ) from error
            parts.append(part.to(images.device, torch.float64))
    classes = parts[0].shape[1] if parts else space.head.num_classes
    logits = torch.full(
        (len(images), classes), torch.nan, dtype=torch.float64, device=images.device
    )
    if parts:
        logits[finite] = torch.cat(parts)
    return logits
