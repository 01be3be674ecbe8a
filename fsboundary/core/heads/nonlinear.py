"""Heads that are any differentiable function of the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.rows import device_of


@final
class NonlinearHead:
    """Head computed by a callable, with part of the interface of :class:`LinearHead`.

    Finders with the capability "nonlinear_head" receive one; :func:`fsboundary.flip_points`
    creates it from the user's callable.

    Parameters
    ----------
    function : callable
        Function from features (B,d) to logits (B,K) that treats each row independently.
    num_features, num_classes : int
        Widths d and K.
    dtype : torch.dtype
        Dtype in which `function` computes; features are rounded to it.
    domain : Domain
        Set in which the features of interest lie.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        num_features: int,
        num_classes: int,
        dtype: torch.dtype,
        domain: Domain,
    ) -> None:
        self._function = function
        self._shape, self._dtype, self._domain = (num_classes, num_features), dtype, domain

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self._shape[0]

    @property
    def num_features(self) -> int:
        """Number of features d."""
        return self._shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which the function computes."""
        return self._dtype

    @property
    def domain(self) -> Domain:
        """Set in which the features of interest lie."""
        return self._domain

    def __call__(self, z: Tensor) -> Tensor:
        """Return the logits (B,K) of features `z` (B,d)."""
        return self.logits(z)

    def logits(self, z: Tensor) -> Tensor:
        """Return the logits (B,K) of `z` (B,d), upcast exactly to float64; differentiable."""
        place = device_of(self._function, z.device)
        return self._function(z.to(place, self.dtype)).to(z.device, torch.float64)

    def predict(self, z: Tensor) -> Tensor:
        """Return the class (B,) of the largest logit, the lowest index on ties."""
        with torch.no_grad():
            return self.logits(z).argmax(dim=-1)

    def gradients(self, z: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B,K) at `z` and the gradients (B,M,d) of logits `classes` (B,M)."""
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            logits = self.logits(leaf)
            gradients = []
            for column in classes.T:
                total = logits.gather(1, column[:, None]).sum()
                # a logit that does not depend on the features has no graph
                gradient = (
                    torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)[0]
                    if total.requires_grad
                    else None
                )
                gradients.append(torch.zeros_like(leaf) if gradient is None else gradient)
        return logits.detach(), torch.stack(gradients, dim=1).detach().to(torch.float64)

    def __repr__(self) -> str:
        d, k = self.num_features, self.num_classes
        return f"NonlinearHead(K={k}, d={d}, dtype={self.dtype}, domain={self.domain!r})"
