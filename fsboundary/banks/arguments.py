"""Argument checks shared by the functions that take a bank and features."""

from __future__ import annotations

from torch import Tensor

from fsboundary.banks.bank import FeatureBank
from fsboundary.core.checks import check_features, check_instance, check_width
from fsboundary.core.errors import HeadMismatchError
from fsboundary.core.results import FeatureBatch


def check_bank(bank: object, width: int | None = None, fingerprint: str = "") -> FeatureBank:
    """Return `bank`, or raise unless it is a FeatureBank, of a width and fingerprint if given.

    Raises
    ------
    ArgumentError
        Not a bank, or one of another width.
    HeadMismatchError
        The bank and the features with `fingerprint` are of another head, extractor or layer.
    """
    fix = "pass FeatureBank(training_features)"
    found = check_instance("bank", bank, FeatureBank, "a FeatureBank", fix)
    if width is not None:
        check_width("bank", found.num_features, width)
    expected = found.fingerprint
    if expected and fingerprint and expected != fingerprint:
        raise HeadMismatchError(
            f"features: of another head, extractor or layer than the bank: their fingerprint is "
            f"{fingerprint}, the bank's is {expected}. Extract both with the same FeatureSpace, "
            "or, if you know that they are comparable, pass batch.features"
        )
    return found


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
    if not isinstance(features, FeatureBatch):
        return check_features(check_bank(bank).num_features, features)
    found = check_bank(bank, fingerprint=features.fingerprint)
    return check_features(found.num_features, features.features)
