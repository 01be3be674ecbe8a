"""A view of a model that counts what is asked of it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView


@final
class CountingView(ModelView):
    """Passes everything on to `view` and counts images.

    Attributes
    ----------
    passes : int
        Images that went forward.
    used : int
        Of these, images that a gradient came back for.
    gradients : int
        Gradients that came back, one an image and backward pass.
    """

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self.passes = self.used = self.gradients = 0

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B,K) of images (B,C,H,W), differentiable."""
        return self._view.logits(self.watched(images))

    def features(self, images: Tensor) -> Tensor:
        """Return features (B,d) of images (B,C,H,W), differentiable."""
        return self._view.features(self.watched(images))

    @property
    def head(self) -> LinearHead:
        """The last linear map."""
        return self._view.head

    @property
    def domain(self) -> Domain:
        """What the body can produce."""
        return self._view.domain

    @property
    def forwards(self) -> int:
        """Images that went forward and no gradient came back for."""
        return self.passes - self.used

    def watched(self, images: Tensor) -> Tensor:
        """Return `images` for one pass, counted now and when a gradient comes back."""
        self.passes += len(images)
        if not (images.requires_grad and torch.is_grad_enabled()):
            return images
        first = True

        def count(gradient: Tensor) -> None:
            nonlocal first
            # reading a number refuses batched gradients (vmap), which would count as one
            float(gradient.detach().sum())
            self.gradients += len(gradient)
            self.used += len(gradient) if first else 0
            first = False

        seen = images.view_as(images)
        seen.register_hook(count)
        return seen
