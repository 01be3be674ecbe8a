"""The set of features that a model's body can produce."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import TensorOrArray, from_array, require_float64

Kind = Literal["unbounded", "nonnegative", "box"]


@final
class Domain:
    """Unbounded space, the nonnegative orthant, or a box (design.md, section 1); immutable.

    Created with :meth:`unbounded`, :meth:`nonnegative` or :meth:`box`.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> box = fsb.Domain.box(torch.zeros(2), torch.ones(2))
    >>> box.contains(torch.tensor([[0.5, 0.5], [2.0, 0.5]]))
    tensor([ True, False])
    >>> fsb.Domain.nonnegative()
    Domain.nonnegative()
    """

    __slots__ = ("_kind", "_lower", "_upper")

    _kind: Kind
    _lower: Tensor | None
    _upper: Tensor | None

    def __init__(self, kind: Kind, lower: Tensor | None = None, upper: Tensor | None = None):
        self._kind = kind
        self._lower = None if lower is None else lower.clone()
        self._upper = None if upper is None else upper.clone()

    @classmethod
    def unbounded(cls) -> Domain:
        """Return the domain that is all of feature space."""
        return cls("unbounded")

    @classmethod
    def nonnegative(cls) -> Domain:
        """Return the domain of features after a ReLU: every coordinate is at least 0."""
        return cls("nonnegative")

    @classmethod
    @torch.inference_mode(False)  # as for heads
    def box(cls, lower: TensorOrArray, upper: TensorOrArray) -> Domain:
        """Return the domain of coordinates between `lower` and `upper`, which may be infinite.

        Parameters
        ----------
        lower, upper : Tensor or array (d,)
            Bounds in feature units, ``lower <= upper``. Equal bounds fix a coordinate.

        Raises
        ------
        ArgumentError
            Shapes differ or are not 1-D, a bound is NaN, or a lower bound is above its upper.
        """
        given = torch.as_tensor(from_array(lower))
        require_float64("lower", given.device)
        low = given.detach().to(torch.float64)
        high = torch.as_tensor(from_array(upper)).detach().to(low)
        if low.ndim != 1 or low.shape != high.shape:
            raise ArgumentError(
                "lower, upper",
                f"shapes {tuple(low.shape)} and {tuple(high.shape)}",
                "two tensors of one shape (d,)",
                "pass one lower and one upper bound for each feature",
            )
        # `not <=` instead of `>` so that NaN is caught too
        bad = ~(low <= high) | (low == torch.inf) | (high == -torch.inf)
        if bool(bad.any()):
            m = int(bad.nonzero()[0, 0])
            raise ArgumentError(
                "lower, upper",
                f"lower[{m}]={float(low[m])}, upper[{m}]={float(high[m])}",
                "lower <= upper, not NaN, lower below +inf and upper above -inf",
                "swap or correct that pair of bounds",
            )
        return cls("box", low, high)

    @property
    def kind(self) -> Kind:
        """Kind of the domain: "unbounded", "nonnegative" or "box"."""
        return self._kind

    @property
    def num_features(self) -> int | None:
        """Width d of a box; None if features of any width fit."""
        return None if self._lower is None else len(self._lower)

    def limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the lower and upper limits (d,), float64, infinite where none is.

        Parameters
        ----------
        like : Tensor (..., d)
            Tensor that sets the width and the device.
        """
        width, device = like.shape[-1], like.device
        if self._lower is not None and self._upper is not None:
            self.require_width(width)
            return self._lower.to(device, copy=True), self._upper.to(device, copy=True)
        high = torch.full((width,), torch.inf, dtype=torch.float64, device=device)
        low = torch.zeros_like(high) if self.kind == "nonnegative" else -high
        return low, high

    def require_width(self, width: int, name: str = "domain") -> None:
        """Raise ArgumentError about `name` unless features of `width` fit this domain."""
        if self.num_features not in (None, width):
            raise ArgumentError(
                name,
                f"a box of width {self.num_features} for features of width {width}",
                f"a box of width {width}",
                "build the box from features of the same layer",
            )

    def clip(self, z: TensorOrArray) -> Tensor:
        """Return the nearest point of the domain to each row of `z` (..., d)."""
        rows: Tensor = from_array(z)
        if self.kind == "unbounded":
            return rows
        if self.kind == "nonnegative":
            return rows.clamp_min(0.0)
        low, high = (limit.to(rows.dtype) for limit in self.limits(rows))
        return torch.minimum(torch.maximum(rows, low), high)

    def violation(self, z: TensorOrArray) -> Tensor:
        """Return the distance of each row of `z` (..., d) to the domain, (...), float64."""
        rows = from_array(z).to(torch.float64)
        out: Tensor = torch.linalg.vector_norm(rows - self.clip(rows), dim=-1)
        return out

    def contains(self, z: TensorOrArray, atol: float = 0.0) -> Tensor:
        """Return whether each row of `z` (B, d) is in the domain, within `atol` per coordinate.

        Returns
        -------
        Tensor (B,), bool
            False for rows that contain NaN.
        """
        rows: Tensor = from_array(z)
        if self.kind == "unbounded":
            return ~torch.isnan(rows).any(dim=-1)
        low, high = self.limits(rows)
        inside = (rows >= low - atol) & (rows <= high + atol)
        return inside.all(dim=-1)

    def __repr__(self) -> str:
        if self.kind == "box":
            return f"Domain.box(<{self.num_features} lower>, <{self.num_features} upper>)"
        return f"Domain.{self.kind}()"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Domain) or other.kind != self.kind:
            return False
        if self._lower is None or self._upper is None:
            return True
        if other._lower is None or other._upper is None:
            return False
        return torch.equal(self._lower, other._lower) and torch.equal(self._upper, other._upper)

    def __hash__(self) -> int:
        return hash((self.kind, self.num_features))
