"""Pairs of hulls for the tests of their distance."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary import FeatureBank, HullSeparation, hull_separation


def two_class_bank(one: Tensor, other: Tensor) -> FeatureBank:
    """Return a bank of class 3, then class 5."""
    labels = torch.tensor([3] * len(one) + [5] * len(other))
    return FeatureBank(torch.cat([one, other]), labels)


def separation(one: Tensor, other: Tensor, **options: object) -> HullSeparation:
    return hull_separation(two_class_bank(one, other), 3, 5, **options)  # type: ignore[arg-type]  # options of one call
