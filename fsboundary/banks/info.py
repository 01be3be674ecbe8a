"""Where the features of a bank came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class BankInfo:
    """What produced the features of a bank; empty strings for raw tensors.

    Attributes
    ----------
    fingerprint : str
        Digest of head, extractor and layer, as :attr:`fsboundary.FeatureSpace.fingerprint`.
    extractor : str
        Class of the feature extractor, dotted.
    layer : str
        The layer whose input the features are.
    domain : str
        "unbounded", "nonnegative" or "box".
    """

    fingerprint: str = ""
    extractor: str = ""
    layer: str = ""
    domain: str = ""
