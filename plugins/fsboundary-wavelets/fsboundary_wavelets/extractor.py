"""Feature extractor: wavelet coefficients, and a logistic regression on the model's classes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import pywt
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary_wavelets.transform import coefficients


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Fit for one model: indices of the chosen coefficients, and the head."""

    chosen: Tensor
    head: fsb.LinearHead


@dataclass(frozen=True, eq=False)
class Wavelets(fsb.FeatureExtractor):
    """Wavelet coefficients of the images as features; the head is fitted to the model's classes.

    Parameters
    ----------
    wavelet : str
        Name of a discrete wavelet of PyWavelets.
    level : int
        Largest number of times the image is halved.
    keep : int
        Number of coefficients that are features: those that vary most; 0 for all.
    penalty : float
        Penalty of the squared weights of the standardised features, relative to the loss.
    steps : int
        Largest number of L-BFGS steps.
    """

    wavelet: str = "haar"
    level: int = 2
    keep: int = 0
    penalty: float = 1e-3
    steps: int = 200

    surrogate = True
    _fitted_heads: weakref.WeakKeyDictionary[nn.Module, _Fitted] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Raise for a wavelet that PyWavelets does not have."""
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            fix = "choose one: the shortest are haar, db2 and sym4"
            raise fsb.ArgumentError("wavelet", repr(self.wavelet), "a discrete wavelet", fix)

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> Self:
        """Fit the head to the classes that `model` predicts for the loader's images."""
        rows, classes, count = [], [], 0
        with torch.no_grad():
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) else batch
                logits = model(images)
                rows.append(coefficients(images, self.wavelet, self.level).double())
                classes.append(logits.argmax(dim=1))
                count = logits.shape[1]
        all_rows, labels = torch.cat(rows), torch.cat(classes)
        spread = all_rows.std(dim=0, correction=0)
        num_kept = min(self.keep or len(spread), len(spread))
        chosen = spread.argsort(descending=True, stable=True)[:num_kept].sort().values
        z = all_rows[:, chosen]
        head = fsb.logistic_head(z, labels, count, penalty=self.penalty, steps=self.steps)
        self._fitted_heads[model] = _Fitted(chosen, head)
        return self

    def features(
        self, model: nn.Module, images: Tensor, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the chosen coefficients (B,d) and the model's own logits (B,K)."""
        fitted = self._fitted_heads.get(model)
        if fitted is None:
            raise fsb.HeadError("the wavelet head is not fitted yet: call fit(loader) first")
        values = coefficients(images, self.wavelet, self.level)
        return values[:, fitted.chosen], model(images, *additional, **keywords)

    def head(self, model: nn.Module) -> fsb.LinearHead | None:
        """Return the fitted head; None before it is fitted."""
        fitted = self._fitted_heads.get(model)
        return None if fitted is None else fitted.head

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return a description of the features."""
        width = len(self._fitted_heads[model].chosen) if model in self._fitted_heads else 0
        return {
            "layer": f"{width} {self.wavelet} coefficients of the image, level {self.level}",
            "fitted head": "a logistic regression on the model's classes, not its own head",
        }
