"""One head with its rows and targets, as plain arrays, and what fsboundary says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import fsboundary as fsb

Array = NDArray[Any]

DomainKind = Literal["unbounded", "nonnegative", "box"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Raw inputs; the checker sees nothing else of a problem.

    Attributes
    ----------
    weight : array (K, d)
    bias : array (K,)
    lower, upper : array (d,)
        Infinite where the domain has no limit.
    kind : str
        How the domain is handed over; "box" takes any limits.
    features : array (B, d)
    targets : "nearest", "all" or an integer array (B, T)
    """

    weight: Array
    bias: Array
    features: Array
    kind: DomainKind = "unbounded"
    lower: Array = field(default_factory=lambda: np.zeros(0))
    upper: Array = field(default_factory=lambda: np.zeros(0))
    targets: Any = "all"
    tolerance: float = 1e-8

    def limits(self) -> tuple[Array, Array]:
        """Return lower and upper limits (d,), float64."""
        if self.kind == "box":
            return self.lower.astype(np.float64), self.upper.astype(np.float64)
        high = np.full(self.weight.shape[1], np.inf)
        return (np.zeros_like(high) if self.kind == "nonnegative" else -high), high

    def head(self) -> fsb.LinearHead:
        """Return fsboundary's head."""
        domain = {
            "unbounded": fsb.Domain.unbounded,
            "nonnegative": fsb.Domain.nonnegative,
            "box": lambda: fsb.Domain.box(torch.tensor(self.lower), torch.tensor(self.upper)),
        }[self.kind]()
        return fsb.LinearHead(torch.tensor(self.weight), torch.tensor(self.bias), domain)

    def flips(self, **options: Any) -> dict[str, Array]:
        """Return fsboundary's flip points as arrays."""
        targets = self.targets if isinstance(self.targets, str) else torch.tensor(self.targets)
        found = fsb.flip_points(
            self.head(), torch.tensor(self.features), targets, tolerance=self.tolerance, **options
        )
        return arrays(found)

    def balls(self, norm: Literal["l2", "linf"]) -> dict[str, Array]:
        """Return fsboundary's guaranteed balls as arrays."""
        return arrays(fsb.guaranteed_balls(self.head(), torch.tensor(self.features), norm))


def arrays(result: Any) -> dict[str, Array]:
    """Return the tensor fields of a result as numpy arrays."""
    names = result.__dataclass_fields__
    pairs = ((n, getattr(result, n)) for n in names)
    return {n: v.numpy() for n, v in pairs if isinstance(v, torch.Tensor)}
