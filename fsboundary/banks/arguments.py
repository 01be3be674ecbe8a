"""Argument checks shared by the functions that take a bank and features."""

from __future__ import annotations

from torch import Tensor

from fsboundary.banks.bank import FeatureBank
from fsboundary.core.checks import check_features, check_instance
from fsboundary.core.errors import ArgumentError, HeadMismatchError
from fsboundary.core.results import FeatureBatch


def check_bank(bank: object, width: int | None = None) -> FeatureBank:
    """Return `bank`, or raise ArgumentError unless it is a FeatureBank, of `width` if given."""
    fix = "pass FeatureBank(training_features)"
    found = check_instance("bank", bank, FeatureBank, "a FeatureBank", fix)
    if width not in (None, found.num_features):
        fix = "make the bank from features of the same layer as the head"
        raise ArgumentError("bank", f"width {found.num_features}", f"width {width}", fix)
    return found


def check_labelled(bank: FeatureBank) -> Tensor:
    """Return the labels (n,) of `bank`, or raise ArgumentError if it has none."""
    labels = bank.labels
    if labels is None:
        raise ArgumentError(
            "labels", "a bank without labels", "a bank with labels", "create the bank with labels"
        )
    return labels


def check_bank_features(bank: object, features: object) -> Tensor:
    """Return `features` (B,d), of the bank's width, detached as float64.

    Parameters
    ----------
    bank : FeatureBank
        Bank that the features are compared with.
    features : Tensor (B, d) or FeatureBatch
        Features to check. A batch carries the fingerprint of its extraction, and so may a bank; if
        both do, they must agree. Tensors are checked by their width only.

    Raises
    ------
    ArgumentError
        Not a bank, or features of another type or shape.
    HeadMismatchError
        Both have a fingerprint and these differ.
    """
    bank = check_bank(bank)
    if not isinstance(features, FeatureBatch):
        return check_features(bank.num_features, features)
    check_fingerprints(bank, features.fingerprint)
    return check_features(bank.num_features, features.features)


def check_fingerprints(bank: FeatureBank, other: str) -> None:
    """Raise HeadMismatchError if bank and features both have a fingerprint and these differ."""
    expected = bank.fingerprint
    if expected and other and expected != other:
        raise HeadMismatchError(
            f"features: of another head, extractor or layer than the bank: their fingerprint is "
            f"{other}, the bank's is {expected}. Extract both with the same FeatureSpace, or, if "
            "you know that they are comparable, pass batch.features"
        )
