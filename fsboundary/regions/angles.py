"""Angles between pairwise normals and between weight rows of a head."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from fsboundary.core.checks import check_head, check_integer
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.norms import lengths
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread


def pairwise_angles(rows: Tensor) -> Tensor:
    """Return angles (K,K) in radians between `rows` (K,d); NaN where a row is zero.

    Computed as 2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan), which keeps its digits at 0
    and π, where the arc cosine loses half of them.
    """
    # a length below the smallest normal number would have few digits
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    unit = rows / lengths(rows)[:, None]
    mode = "donot_use_mm_for_euclid_dist"  # the product would lose the digits that atan2 keeps
    differences = torch.cdist(unit, unit, compute_mode=mode)
    sums = torch.cdist(unit, -unit, compute_mode=mode)
    return 2 * torch.atan2(differences, sums)


@in_one_thread
@in_standard_modes
def normal_angles(head: LinearHead, i: int) -> Float64[Tensor, "K K"]:
    """Return the angles between the pairwise normals ``w_i - w_k`` of one class.

    Where the planes of two classes meet at the border of region i, the angle inside the region is
    π minus this angle.

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
        `head` is not a LinearHead, or `i` is not one of its classes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> angles = fsb.normal_angles(head, 0)
    >>> angles.rad2deg().round(decimals=1).tolist()
    [[nan, nan, nan], [nan, 0.0, 60.0], [nan, 60.0, 0.0]]
    """
    check_head(head)
    return pairwise_angles(
        head._weight[check_integer("i", i, 0, head.num_classes - 1, fix="count classes from 0")]
        - head._weight
    )


def weight_angles(head: LinearHead) -> Float64[Tensor, "K K"]:
    """Return the angles in radians between the rows ``w_i`` and ``w_j`` minus the mean row.

    Only differences of rows matter to a partition, so the mean row is the natural origin. NaN
    where a row equals the mean.
    """
    return pairwise_angles(head._weight - head._weight.mean(dim=0))
