"""Calls of a model on images: logits, features, and products with the Jacobian of the features."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fsboundary.core.errors import ArgumentError, FsboundaryError
from fsboundary.core.protocols import ModelView
from fsboundary.core.rows import scatter_rows
from fsboundary.geometry.batching import unsqueeze_like
from fsboundary.space import FeatureSpace


def first_logits(space: FeatureSpace, images: Tensor, batch_size: int) -> Tensor:
    """Return the model's logits (B,K) of `images`, float64, on their device.

    Images that are not finite are not passed to the model; their logits are NaN.

    Raises
    ------
    ArgumentError
        The model does not take images of this shape, or its outputs are separate labels.
    """
    if space.multi_label:
        raise ArgumentError(
            "model",
            'a FeatureSpace with head="multi_label"',
            "classes that exclude each other",
            "call fsboundary.label_flips and label_balls on the features; pixels of labels are "
            "not supported",
        )
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    parts = []
    with torch.no_grad():
        for rows in finite.nonzero()[:, 0].split(batch_size):
            try:
                part = space.logits(images[rows])
            except FsboundaryError:
                raise
            except (RuntimeError, ValueError, TypeError) as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise ArgumentError(
                    "images",
                    f"shape {tuple(images.shape)}, dtype {images.dtype}, which the model does "
                    f"not take ({lines[0]})",
                    "images as the model was trained on",
                    "check channels, size and dtype, and what preprocess= does",
                ) from error
            parts.append(part.to(images.device, torch.float64))
    return scatter_rows(torch.cat(parts), finite, len(images))


@final
class FeatureJacobian:
    """The features of B images, and both products with their Jacobian J.

    The vector-Jacobian product is linear in its vector, so J.v is the gradient of that product: a
    model needs no forward-mode derivatives.

    Parameters
    ----------
    view : ModelView
    images : Tensor or array (B, C, H, W)
    """

    def __init__(self, view: ModelView, images: Tensor) -> None:
        with torch.enable_grad():
            self._x = images.detach().requires_grad_(True)
            # only this kernel of attention can be passed backward twice
            with sdpa_kernel(SDPBackend.MATH):
                z = view.features(self._x)
            # connects a body that ignores its images to them: its Jacobian is then 0, no error
            self._z = z + 0 * self._x.flatten(1).sum(dim=1, keepdim=True).to(z)
            self._u = torch.zeros_like(self._z, requires_grad=True)
            (self._vjp,) = torch.autograd.grad(self._z, self._x, self._u, create_graph=True)
        self.features = self._z.detach()

    def vjp(self, u: Tensor) -> Tensor:
        """Return the transposed J times `u` (B,d), (B,C,H,W)."""
        return torch.autograd.grad(self._z, self._x, u, retain_graph=True)[0]

    def jvp(self, v: Tensor) -> Tensor:
        """Return J times `v` (B,C,H,W), (B,d)."""
        return torch.autograd.grad(self._vjp, self._u, v, retain_graph=True)[0]


def features_of(view: ModelView, images: Tensor, batch_size: int) -> Tensor:
    """Return the features (B,d) of `images`, detached, float64, on their device."""
    with torch.no_grad():
        parts = [view.features(part).to(images.device) for part in images.split(batch_size)]
    return torch.cat(parts).to(torch.float64)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Return `values` (B,) in the dtype of `images` (B,...), shaped to broadcast over its rows."""
    return unsqueeze_like(values, images).to(images.dtype)


def norms(images: Tensor) -> Tensor:
    """Return the Euclidean length of each row of `images` (B,...), (B,)."""
    lengths: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return lengths
