"""A head that is any differentiable function of the features, with their domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain


@final
class NonlinearHead:
    """Features z (B,d) to logits (B,K) by a callable, with what :class:`LinearHead` offers too.

    Finders with the capability "nonlinear_head" get one; :func:`fsboundary.find_flip_points`
    makes it from the user's callable.

    Parameters
    ----------
    function : callable
        Features (B,d) to logits (B,K), each row by itself.
    num_features, num_classes : int
        d and K.
    dtype : torch.dtype
        In which `function` computes. Features are rounded to it.
    domain : Domain
        Where the features of interest lie.
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
        self.num_features, self.num_classes = num_features, num_classes
        self.dtype, self.domain = dtype, domain

    def __call__(self, z: Tensor) -> Tensor:
        """Return the logits (B,K) of features `z` (B,d)."""
        return self.logits(z)

    def logits(self, z: Tensor) -> Tensor:
        """Return logits (B,K), float64 (exact: upcast), of features `z` (B,d); differentiable."""
        return self._function(z.to(self.dtype)).to(torch.float64)

    def predict(self, z: Tensor) -> Tensor:
        """Return the class (B,) of the largest logit, the lowest index on ties."""
        with torch.no_grad():
            return self.logits(z).argmax(dim=-1)

    def gradients(self, z: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B,K) at `z` and the gradients (B,M,d) of those of `classes` (B,M)."""
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            logits = self.logits(leaf)
            rows = []
            for column in classes.T:
                chosen = logits.gather(1, column[:, None]).sum()
                # a logit that does not depend on the features has no graph
                row = (
                    torch.autograd.grad(chosen, leaf, retain_graph=True, allow_unused=True)[0]
                    if chosen.requires_grad
                    else None
                )
                rows.append(torch.zeros_like(leaf) if row is None else row)
        return logits.detach(), torch.stack(rows, dim=1).detach().to(torch.float64)

    def __repr__(self) -> str:
        d, k = self.num_features, self.num_classes
        return f"NonlinearHead(K={k}, d={d}, dtype={self.dtype}, domain={self.domain!r})"
