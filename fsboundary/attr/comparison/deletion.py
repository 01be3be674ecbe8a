"""How fast the margin falls when pixels are moved in the order of an attribution."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.attr.comparison.margins import Margins


def deletion_curves(
    margins: Margins, attributions: Tensor, baselines: Tensor, moved: Tensor
) -> Tensor:
    """Return the margins (M,B,T) as shares of the images' own.

    Parameters
    ----------
    margins : Margins
        Of images (B,C,H,W).
    attributions : Tensor (M, B, C, H, W)
        A pixel's place in the order is by the sum of the sizes of its entries, largest first;
        equal ones go by their place in the image.
    baselines : Tensor (B, C, H, W)
        What the pixels are moved to.
    moved : Tensor (T,)
        Shares of the pixels.
    """
    images = margins.images
    size = attributions.abs().sum(dim=2).flatten(2)
    rank = size.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    rank = rank.unflatten(2, images.shape[2:])[:, :, None]
    counts = (moved * size.shape[2]).round().tolist()
    curves = [
        torch.stack(
            [margins.shares(torch.where(places < count, baselines, images)) for count in counts],
            dim=1,
        )
        for places in rank
    ]
    return torch.stack(curves)
