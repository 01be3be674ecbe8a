"""The extractor: wavelet coefficients, and a logistic regression on the model's classes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import pywt
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.models.new_heads import logistic_head
from fsboundary_wavelets.transform import coefficients


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What was fitted for one model: which coefficients count, and the head."""

    chosen: Tensor
    head: fsb.LinearHead


@dataclass(frozen=True, eq=False)
class Wavelets(fsb.FeatureExtractor):
    """Features are wavelet coefficients of the images; the head is fitted to the model's classes.

    Parameters
    ----------
    wavelet : str
        A discrete wavelet of PyWavelets.
    level : int
        How often the image is halved at most.
    keep : int
        How many coefficients are features: those that vary most; 0 for all.
    penalty : float
        Of the squared weights of the standardised features, as a share of the loss.
    steps : int
        Most steps of L-BFGS.
    """

    wavelet: str = "haar"
    level: int = 2
    keep: int = 0
    penalty: float = 1e-3
    steps: int = 200

    surrogate = True
    _known: weakref.WeakKeyDictionary[nn.Module, _Fitted] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Refuse a wavelet that PyWavelets does not have."""
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            fix = "choose one: the shortest are haar, db2 and sym4"
            raise fsb.ArgumentError("wavelet", repr(self.wavelet), "a discrete wavelet", fix)

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> Self:
        """Fit the head to the classes that `model` gives the loader's images."""
        rows, classes, count = [], [], 0
        with torch.no_grad():
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) else batch
                logits = model(images)
                rows.append(coefficients(images, self.wavelet, self.level).double())
                classes.append(logits.argmax(dim=1))
                count = logits.shape[1]
        every, wanted = torch.cat(rows), torch.cat(classes)
        spread = every.std(dim=0, correction=0)
        most = min(self.keep or len(spread), len(spread))
        chosen = spread.argsort(descending=True, stable=True)[:most].sort().values
        z = every[:, chosen]
        head = logistic_head(z, wanted, count, penalty=self.penalty, steps=self.steps)
        self._known[model] = _Fitted(chosen, head)
        return self

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        """Return the chosen coefficients (B,d) and the model's own logits (B,K)."""
        known = self._known.get(model)
        if known is None:
            raise fsb.HeadError("the wavelet head is not fitted yet: call fit(loader) first")
        found = coefficients(images, self.wavelet, self.level)
        return found[:, known.chosen], model(images, *additional)

    def head(self, model: nn.Module) -> fsb.LinearHead | None:
        """Return the fitted head; None before it is fitted."""
        known = self._known.get(model)
        return None if known is None else known.head

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return what the features are."""
        width = len(self._known[model].chosen) if model in self._known else 0
        return {
            "layer": f"{width} {self.wavelet} coefficients of the image, level {self.level}",
            "fitted head": "a logistic regression on the model's classes, not its own head",
        }
