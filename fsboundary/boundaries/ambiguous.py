"""How ambiguous rows are: the distance to where their top classes tie, against what is usual."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.boundaries.ties import tie_points, top_classes
from fsboundary.core.checks import check_features, check_head, rows_and_sources
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import PointSet
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks

_ROWS = 4096
"""Rows of the reference in memory at a time."""


def ambiguity(
    head: LinearHead,
    features: Float[Tensor, "B d"],
    k: int = 3,
    reference: Float[Tensor, "N d"] | PointSet | None = None,
) -> Tensor:
    """Return how ambiguous each row is, (B,), float64: the smaller, the more ambiguous.

    The distance to the closest point where the row's `k` largest logits tie and no other is
    above, divided by the median of the same over the reference. 1 is what is usual there.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor (B, d)
        Any float dtype; computed in float64.
    k : int
        How many of the largest logits, 2 to K; the lowest index counts where equal.
    reference : Tensor (N, d) or PointSet, optional
        For example the bank of training features, read in pieces. The rows themselves if left
        out: the values then say which row is more ambiguous than which, and depend on the batch.

    Returns
    -------
    Tensor (B,), float64
        +inf where the top classes cannot tie. NaN where there is no certified answer, and
        everywhere if the median is 0 or no reference row has a finite distance. The median is of
        the finite distances.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or `k`, before any work.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    if not isinstance(k, int) or isinstance(k, bool) or not 2 <= k <= head.num_classes:
        raise ArgumentError(
            "k", repr(k), f"a whole number from 2 to {head.num_classes}", "leave it out for 3"
        )
    others = None if reference is None else _check_reference(head, reference)
    head = head.to(z.device)
    distance = _distances(head, z, k)
    if others is None:
        usual = distance
    else:
        usual = torch.cat([z.new_zeros(0), *(_distances(head, v, k) for v in others)])
    usual = usual[torch.isfinite(usual)]
    if len(usual) == 0:
        return torch.full_like(distance, torch.nan)
    middle = usual.quantile(0.5)
    return torch.where(middle > 0, distance / middle, torch.nan)


def _distances(head: LinearHead, z: Tensor, k: int) -> Tensor:
    """Return the distance (B,) to the tie of the `k` largest logits of each row."""
    z = z.to(head.weight.device)
    status, _ = rows_and_sources(head, z)
    # rows that fail are asked for any classes; their answer is NaN
    top = torch.arange(k, device=z.device).repeat(len(z), 1)
    fine = status == Status.CONVERGED
    top[fine] = top_classes(head, z[fine], k)
    return tie_points(head, z, top).distance


def _check_reference(head: LinearHead, reference: object) -> Iterator[Tensor]:
    """Return the pieces of `reference`, float64, or raise ArgumentError."""
    width = head.num_features
    if isinstance(reference, PointSet):
        if reference.num_features != width:
            raise ArgumentError(
                "reference",
                f"width {reference.num_features}",
                f"width {width}",
                "make the bank from features of the same layer as the head",
            )
        points = reference
        return (
            points.take(torch.arange(part.start, part.stop)).to(torch.float64)
            for part in chunks(len(points), chunk_rows(width, _ROWS))
        )
    return iter((check_features(width, reference, "reference"),))
