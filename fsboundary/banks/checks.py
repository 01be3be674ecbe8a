"""Argument checks of feature banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsboundary.core.checks import check_integer_tensor
from fsboundary.core.errors import ArgumentError

if TYPE_CHECKING:
    from fsboundary.banks.bank import FeatureBank


def labels_of(bank: FeatureBank) -> Tensor:
    """Return the labels (n,) of `bank`, or raise ArgumentError if it has none."""
    labels = bank.labels
    if labels is None:
        fix = "pass labels when creating the bank"
        raise ArgumentError("labels", "a bank without labels", "a bank with labels", fix)
    return labels


def labelled_classes(bank: FeatureBank) -> list[int]:
    """Return the classes of `bank`, ascending; rows without a label (-1) are of no class."""
    labels = labels_of(bank)
    classes: list[int] = labels[labels >= 0].unique().tolist()
    return classes


def check_classes(name: str, classes: object, labels: Tensor) -> Tensor:
    """Return `classes`, an int or several, as (m,) on the device of the bank's `labels`, or raise.

    Raises
    ------
    ArgumentError
        Not integers, none, or a class that no row has; -1 is no class.
    """
    fix = "pass a class such as 3, or several such as [3, 5]"
    found = check_integer_tensor(name, classes, (), ("m",), fix=fix, nonempty=True, convert=True)
    found = found.reshape(-1).to(labels.device)
    missing = found[~torch.isin(found, labels) | (found < 0)]
    if len(missing):
        present = ", ".join(map(str, labels[labels >= 0].unique()[:20].tolist()))
        got, wanted = f"{missing.unique().tolist()}, which no row has", "classes of the bank"
        raise ArgumentError(name, got, wanted, f"choose among {present}")
    return found
