"""Checks of the arguments of a partition, and the box to which it is limited."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.exact_arithmetic import Array


def common_limits(head: LinearHead, within: object) -> tuple[Array, Array]:
    """Return the limits (d,) of the domain of `head` cut down to `within`.

    Raises
    ------
    ArgumentError
        `within` is not a Domain, has another width, does not meet the domain, or leaves one point.
    """
    lower, upper = (t.cpu().numpy() for t in head.domain.limits(head.weight))
    if within is not None:
        if not isinstance(within, Domain):
            raise ArgumentError(
                "within",
                type(within).__name__,
                "a Domain",
                "pass Domain.box(lower, upper), for example Domain.box(*bank.range())",
            )
        if within.num_features not in (None, head.num_features):
            raise ArgumentError(
                "within",
                f"a box of width {within.num_features}",
                f"a box of width {head.num_features}, that of the head",
                "build the box from features of the same layer",
            )
        low, high = (t.cpu().numpy() for t in within.limits(head.weight))
        lower, upper = lower.clip(min=low), upper.clip(max=high)
    apart = (lower > upper).nonzero()[0]
    if len(apart):
        m = int(apart[0])
        raise ArgumentError(
            "within",
            f"a domain that does not meet the head's: feature {m} from {lower[m]} to {upper[m]}",
            "a domain that meets the head's domain",
            "build the box from features of the same layer",
        )
    if (lower == upper).all():
        raise ArgumentError(
            "within",
            "a domain of one point",
            "a domain in which a feature varies",
            "call head.predict for the class of the point",
        )
    return lower, upper


def check_pairs(k: int, pairs: object) -> Tensor | None:
    """Return `pairs` with i < j, each once, ascending, or None for "auto"."""
    if isinstance(pairs, str) and pairs == "auto":
        return None
    wanted = '"auto" or an integer tensor (P, 2)'
    if not isinstance(pairs, Tensor):
        fix = "pass, for example, torch.tensor([[0, 1]])"
        raise ArgumentError("pairs", repr(pairs), wanted, fix)
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise ArgumentError("pairs", f"dtype {pairs.dtype}", wanted, "call .long()")
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ArgumentError("pairs", f"shape {tuple(pairs.shape)}", wanted, "pass one pair per row")
    ordered = pairs.detach().cpu().long().sort(dim=1).values
    if len(ordered) == 0:
        return ordered
    if int(ordered.min()) < 0 or int(ordered.max()) >= k:
        raise ArgumentError(
            "pairs",
            f"classes from {int(ordered.min())} to {int(ordered.max())}",
            f"0 to {k - 1}",
            "count classes from 0",
        )
    if bool((ordered[:, 0] == ordered[:, 1]).any()):
        i = int(ordered[ordered[:, 0] == ordered[:, 1]][0, 0])
        raise ArgumentError("pairs", f"({i}, {i})", "two different classes per pair", "drop it")
    unique: Tensor = ordered.unique(dim=0)
    return unique


def check_integer(name: str, value: object, fits: bool, wanted: str, fix: str) -> None:
    """Raise ArgumentError unless `value` is an integer that `fits`."""
    if isinstance(value, bool) or not isinstance(value, int) or not fits:
        raise ArgumentError(name, repr(value), wanted, fix)


def check_path(name: str, value: object) -> Path | None:
    """Return `value` as a path, None as None, or raise ArgumentError."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        fix = 'pass, for example, "partition.jsonl"'
        raise ArgumentError(name, type(value).__name__, "a path or None", fix)
    return Path(value)
