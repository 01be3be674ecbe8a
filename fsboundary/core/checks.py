"""Checks shared by the functions that a user calls with a head or a bank and features."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.errors import ArgumentError, HeadMismatchError
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.status import Status


def check_head(head: object) -> None:
    """Raise ArgumentError unless `head` is a LinearHead."""
    if not isinstance(head, LinearHead):
        raise ArgumentError(
            "head",
            type(head).__name__,
            "a LinearHead",
            "pass space.head, or LinearHead(weight, bias, domain)",
        )


def check_class(head: LinearHead, i: object) -> int:
    """Return `i`, or raise ArgumentError unless it is the number of a class of `head`."""
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < head.num_classes:
        raise ArgumentError(
            "i", repr(i), f"a class, 0 to {head.num_classes - 1}", "count classes from 0"
        )
    return i


def check_features(width: int, features: object, name: str = "features") -> Tensor:
    """Return argument `name`, (B, width), detached as float64, or raise ArgumentError."""
    wanted = f"a float tensor (B, {width})"
    if not isinstance(features, Tensor):
        raise ArgumentError(
            name, type(features).__name__, wanted, "pass space.extract(images).features"
        )
    if not features.is_floating_point():
        raise ArgumentError(name, f"dtype {features.dtype}", wanted, "call .double()")
    if features.ndim != 2 or features.shape[1] != width:
        raise ArgumentError(
            name,
            f"shape {tuple(features.shape)}",
            wanted,
            "pass features of the same layer as the head or bank; a single row needs [None]",
        )
    return features.detach().to(torch.float64)


def check_bank(bank: object) -> FeatureBank:
    """Return `bank`, or raise ArgumentError unless it is a FeatureBank."""
    if not isinstance(bank, FeatureBank):
        raise ArgumentError(
            "bank", type(bank).__name__, "a FeatureBank", "pass FeatureBank(training_features)"
        )
    return bank


def check_labelled(bank: FeatureBank) -> Tensor:
    """Return the labels (n,) of `bank`, or raise ArgumentError where it has none."""
    labels = bank.labels
    if labels is None:
        raise ArgumentError(
            "labels", "a bank without labels", "a bank with labels", "make the bank with labels"
        )
    return labels


def check_bank_features(bank: object, features: object) -> Tensor:
    """Return `features` (B,d), of the bank's width, detached as float64.

    Parameters
    ----------
    bank : FeatureBank
    features : Tensor (B, d) or FeatureBatch
        A batch says what it was extracted with, and so may a bank: where both do, they must
        agree. Tensors are checked by their width.

    Raises
    ------
    ArgumentError
        No bank, or features of another type or shape.
    HeadMismatchError
        Both carry a fingerprint and these differ.
    """
    bank = check_bank(bank)
    if not isinstance(features, FeatureBatch):
        return check_features(bank.num_features, features)
    check_fingerprints(bank, features.fingerprint)
    return check_features(bank.num_features, features.features)


def check_fingerprints(bank: FeatureBank, other: str) -> None:
    """Raise HeadMismatchError where bank and features both say what made them and differ."""
    own = bank.fingerprint
    if own and other and own != other:
        raise HeadMismatchError(
            f"features: of another head, extractor or layer than the bank: their fingerprint is "
            f"{other}, the bank's is {own}. Extract both with the same FeatureSpace, or, if you "
            "know that they can be compared, pass batch.features"
        )


def check_limits(
    tolerance: float | None, max_steps: int | None, default: tuple[float, int]
) -> tuple[float, int]:
    """Return tolerance and limit of steps, defaults filled in, or raise ArgumentError."""
    rtol = default[0] if tolerance is None else float(tolerance)
    limit = default[1] if max_steps is None else int(max_steps)
    if not 0 < rtol < 1:
        fix = f"pass {default[0]:g}, say"
        raise ArgumentError("tolerance", str(tolerance), "a number in (0, 1)", fix)
    if limit < 1:
        raise ArgumentError("max_steps", str(max_steps), "at least 1", "leave it out")
    return rtol, limit


def row_status(head: LinearHead | NonlinearHead, z: Tensor) -> Tensor:
    """Return CONVERGED for usable rows of `z` (B,d), NOT_FINITE or OUTSIDE_DOMAIN for others."""
    finite = torch.isfinite(z).all(dim=1)
    inside = head.domain.contains(z)
    status = torch.where(inside, int(Status.CONVERGED), int(Status.OUTSIDE_DOMAIN))
    return torch.where(finite, status, int(Status.NOT_FINITE))


def rows_and_sources(head: LinearHead | NonlinearHead, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the status (B,) of rows of `z`, CONVERGED if usable, and their predicted classes."""
    status = row_status(head, z)
    source = torch.full((len(z),), -1, dtype=torch.int64, device=z.device)
    finite = status != Status.NOT_FINITE
    source[finite] = head.predict(z[finite])
    return status, source
