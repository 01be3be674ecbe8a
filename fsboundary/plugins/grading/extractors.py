"""Verification of an extractor's head against the model's logits on every batch."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.errors import HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.models.linear_maps import (
    LayerCall,
    Residual,
    head_mismatch,
    largest_residual,
    logit_tolerance,
)
from fsboundary.plugins.interfaces import FeatureExtractor


@torch.no_grad()
def verify_head(
    extractor: FeatureExtractor,
    head: LinearHead,
    features: Tensor,
    logits: Tensor,
    call: LayerCall | None = None,
) -> tuple[Tensor, Residual | None] | None:
    """Return ``W z + b`` (B,K) in float64 after a check that it equals the logits.

    Parameters
    ----------
    extractor : FeatureExtractor
        The plugin, for messages.
    head : LinearHead
        The head that it claims.
    features, logits : Tensor (B, d) and (B, K)
        What it returned.
    call : LayerCall, optional
        How the layer computed the logits. Without it, as many rounded sums are assumed as there
        are features, because the operations between the two are unknown.

    Returns
    -------
    (Tensor (B, K), Residual or None), or None
        The product and the largest residual; None if shapes do not match, which the caller
        reports. Rows that are not finite are ignored.

    Raises
    ------
    HeadMismatchError
        The difference exceeds rounding (:mod:`fsboundary.models.linear_maps`).
    """
    rows = len(features)
    if (features.shape, logits.shape) != ((rows, head.num_features), (rows, head.num_classes)):
        return None
    exact = head.logits(features)
    known = call or LayerCall(
        layer="",
        features=features,
        outputs=logits,
        size=None,
        positions=head.num_features,
        convolution=True,
    )
    tolerance = logit_tolerance(known, head._weight, head._bias, logits)
    worst = largest_residual(exact, logits, tolerance)
    if worst is not None and worst.ratio > 1:
        if call is not None:
            raise head_mismatch(f"layer {call.layer!r}", "W z + b", worst, logits.dtype)
        raise HeadMismatchError(
            f"extractor {extractor!r}: W z + b differs from the model's logits by {worst.size:.3e} "
            f"at row {worst.row}, class {worst.column}; the tolerance there is "
            f"{worst.tolerance:.3e} ({logits.dtype}). Its features are not the input of its head, "
            "or it is a surrogate that does not declare itself one"
        )
    return exact, worst
