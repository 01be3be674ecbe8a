"""The head that an extractor claims, checked against the model's logits on every batch."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.errors import HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.models.linear_maps import Reading, allowed
from fsboundary.plugins.interfaces import FeatureExtractor


@torch.no_grad()
def verified(
    extractor: FeatureExtractor, head: LinearHead, features: Tensor, logits: Tensor
) -> Tensor | None:
    """Return ``W z + b`` (B,K) in float64 after a check that it gives the logits.

    None where shapes do not fit, which the caller tells; rows that are not finite are passed over.

    Raises
    ------
    HeadMismatchError
        It differs by more than rounding explains
        (:mod:`fsboundary.models.linear_maps`).
    """
    rows = len(features)
    if (features.shape, logits.shape) != ((rows, head.num_features), (rows, head.num_classes)):
        return None
    exact = head.logits(features)
    # what ran between the two is not known: as many rounded sums again for a pooled layer
    reading = Reading(
        layer="",
        features=features,
        outputs=logits,
        size=None,
        positions=head.num_features,
        convolution=True,
    )
    tolerance = allowed(reading, head.weight, head.bias, logits)
    ratio = ((exact - logits).abs() / tolerance).nan_to_num(nan=0.0, posinf=0.0)
    if rows and float(ratio.max()) > 1:
        row, column = divmod(int(ratio.argmax()), ratio.shape[1])
        found, limit = float((exact - logits)[row, column].abs()), float(tolerance[row, column])
        raise HeadMismatchError(
            f"extractor {extractor!r}: W z + b differs from the model's logits by {found:.3e} at "
            f"row {row}, class {column}; the tolerance there is {limit:.3e} "
            f"({logits.dtype}). Its features are not the input of its head, or it is a surrogate "
            "and does not say so"
        )
    return exact
