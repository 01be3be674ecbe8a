"""Features of a batch of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsboundary.core.results.base import Result


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FeatureBatch(Result):
    """Features, logits and predicted classes of B examples.

    Attributes
    ----------
    features : Tensor (B, d)
        Inputs of the head, in the model's dtype.
    logits : Tensor (B, K)
        Logits of the model itself.
    predicted : Tensor (B,)
        Argmax of the float64 ``W z + b``; -1 for rows that are not finite.
    disagrees : Tensor (B,), bool
        Mask of the rows where the model's logits have a different argmax.
    status : Tensor (B,)
        CONVERGED, or NOT_FINITE for rows with NaN or infinite features or logits.
    fingerprint : str
        Digest of head, extractor and layer.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> batch = space.extract(images)
    >>> batch.features.shape, batch.predicted.tolist(), batch.ok.all().item()
    (torch.Size([2, 64]), [4, 8], True)
    """

    features: Float[Tensor, "B d"]
    logits: Float[Tensor, "B K"]
    predicted: Int[Tensor, " B"]
    disagrees: Bool[Tensor, " B"]
    status: Int[Tensor, " B"]
    fingerprint: str
