"""Angles between pairwise normals and between weight rows."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from fsboundary.arguments import check_head
from fsboundary.errors import ArgumentError
from fsboundary.geometry.angles import pairwise_angles
from fsboundary.head import LinearHead


def normal_angles(head: LinearHead, i: int) -> Float64[Tensor, "K K"]:
    """Return the angles between the pairwise normals ``w_i - w_k`` of one class.

    They are the angles at which the planes that bound the region of `i` meet.

    Parameters
    ----------
    head : LinearHead
    i : int
        The class.

    Returns
    -------
    Tensor (K, K), float64
        Radians, 0 to π. NaN in row and column `i`, and for classes with the weights of `i`, whose
        normal is zero.

    Raises
    ------
    ArgumentError
        `head` is no LinearHead, or `i` no class of it.
    """
    check_head(head)
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < head.num_classes:
        raise ArgumentError(
            "i", repr(i), f"a class from 0 to {head.num_classes - 1}", "count classes from 0"
        )
    return pairwise_angles(head.weight[i] - head.weight)


def weight_angles(head: LinearHead) -> Float64[Tensor, "K K"]:
    """Return the angles between ``w_i`` and ``w_j``, both less the mean row, in radians.

    Only differences of rows matter to a partition, so that the mean row is the natural origin.
    NaN where a row equals the mean.
    """
    angles = pairwise_angles(head.weight - head.weight.mean(dim=0))
    return angles.to(torch.float64)
