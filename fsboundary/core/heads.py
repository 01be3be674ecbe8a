"""Heads: maps from features to logits, with the domain of the features.

:class:`LinearHead` is the last linear map of a classifier, in float64; :class:`NonlinearHead` is
any differentiable function of the features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError

_UNBOUNDED = Domain.unbounded()


@final
class LinearHead:
    """Linear head: features z (B,d) to logits ``W z + b`` (B,K), with the domain of z; immutable.

    Norms, fingerprints and certificates are derived from a head once, so it owns its numbers: it
    copies what it is given, and :attr:`weight` and :attr:`bias` return copies.

    Parameters
    ----------
    weight : Tensor (K, d)
        One row per class. Stored as a detached float64 copy; upcasting is exact.
    bias : Tensor (K,) or None
        Bias per class; None means zeros.
    domain : Domain
        Set of features that the model's body can produce.

    Raises
    ------
    ArgumentError
        Wrong rank or shape, fewer than two classes, NaN or infinite numbers, or a box domain of
        another width.
    """

    @torch.inference_mode(False)  # gradients pass through heads made in inference mode too
    def __init__(self, weight: Tensor, bias: Tensor | None, domain: Domain = _UNBOUNDED) -> None:
        w = torch.as_tensor(weight).detach().to(torch.float64, copy=True)
        if w.ndim != 2:
            raise ArgumentError(
                "weight", f"shape {tuple(w.shape)}", "shape (K, d)", "pass one row per class"
            )
        if w.shape[0] < 2:
            raise ArgumentError(
                "weight",
                f"{w.shape[0]} row",
                "at least two classes",
                "turn a binary head into a two-class head with fsboundary.two_class_head",
            )
        if w.shape[1] < 1:
            raise ArgumentError(
                "weight", f"shape {tuple(w.shape)}", "d >= 1", "pass at least one feature"
            )
        b = torch.zeros_like(w[:, 0]) if bias is None else torch.as_tensor(bias)
        b = b.detach().to(w, copy=True)
        if b.shape != w.shape[:1]:
            raise ArgumentError(
                "bias",
                f"shape {tuple(b.shape)}",
                f"shape ({w.shape[0]},)",
                "pass one number per class, or None",
            )
        bad = ~(torch.isfinite(w).all(dim=1) & torch.isfinite(b))
        if bool(bad.any()):
            rows = bad.nonzero()[:5, 0].tolist()
            raise ArgumentError(
                "weight, bias",
                f"NaN or infinite numbers in class rows {rows}",
                "finite numbers",
                "retrain or reload the model",
            )
        domain.require_width(w.shape[1])
        # read by the rest of the package without a copy; never written to, never handed out
        self._weight, self._bias, self._domain = w, b, domain

    @property
    def weight(self) -> Tensor:
        """One row per class (K,d), float64; a copy, so that writing to it leaves the head as is."""
        return self._weight.clone()

    @property
    def bias(self) -> Tensor:
        """Bias per class (K,), float64; a copy like :attr:`weight`."""
        return self._bias.clone()

    @property
    def domain(self) -> Domain:
        """Set of features that the model's body can produce."""
        return self._domain

    @property
    def device(self) -> torch.device:
        """Device of weights and bias."""
        return self._weight.device

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self._weight.shape[0]

    @property
    def num_features(self) -> int:
        """Number of features d."""
        return self._weight.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights and bias that identifies the head."""
        digest = hashlib.sha256(repr(tuple(self._weight.shape)).encode())
        digest.update(self._weight.cpu().numpy().tobytes())
        digest.update(self._bias.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def to(self, device: torch.device) -> LinearHead:
        """Return the head on `device`; self if it is already there."""
        if self.device == device:
            return self
        return LinearHead(self._weight.to(device), self._bias.to(device), self.domain)

    def logits(self, z: Tensor) -> Tensor:
        """Return float64 logits (B,K) of features `z` (B,d); differentiable in `z`."""
        return z.to(torch.float64) @ self._weight.T + self._bias

    def predict(self, z: Tensor) -> Tensor:
        """Return the class (B,) of the largest float64 logit, the lowest index on ties."""
        return self.logits(z).argmax(dim=-1)

    def margins(self, z: Tensor) -> Tensor:
        """Return the predicted class's logit minus every logit, (B,K), logit units."""
        logits = self.logits(z)
        return logits.amax(dim=-1, keepdim=True) - logits

    def __repr__(self) -> str:
        return f"LinearHead(K={self.num_classes}, d={self.num_features}, domain={self.domain!r})"


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
        return self._function(z.to(self.dtype)).to(torch.float64)

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
