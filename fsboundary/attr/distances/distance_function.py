"""Autograd function of a certified distance.

The derivative of a distance to a convex set is the unit vector from the nearest point to the
row, however the nearest point moves (the envelope theorem; Rockafellar and Wets, Variational
Analysis, 1998, theorem 10.58). So the value and the direction come from the certified float64
result, and no solver is differentiated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import Function

from fsboundary.core.errors import ArgumentError
from fsboundary.geometry.batching import chunk_rows
from fsboundary.modes import caller_level

MAX_ROWS_SHOWN = 5
"""Largest number of rows that a warning lists."""

MAX_COLUMNS_SHOWN = 12
"""Largest number of columns that a warning lists, so that the demo's ten classes are all named."""

Directions = Callable[[Tensor, Tensor], Tensor]
"""Rows (P,), positions among the computed columns (P,) -> derivatives (P,d), float64."""

Curvature = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows (P,), positions among the computed columns (P,), vectors (P,d) -> second derivative times
the vectors (P,d)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistanceResult:
    """Certified distances and their derivatives, of C of the K columns.

    Attributes
    ----------
    value : Tensor (B, K), float64
        Distances; NaN where there is no certified result or none was requested.
    columns : Tensor (C,)
        The columns that were computed.
    directions : callable
        Derivatives of the values with respect to the rows, of entries of the computed columns: a
        table of all would be larger than everything else.
    notes : list of (Tensor (B, K) bool, str)
        Entries whose derivative needs care, and the warning to raise when it is used.
    excluded : Tensor (K,), bool
        Columns that cannot be a target.
    reason : str
        Reason why they are excluded.
    curvature : callable
        Second derivative.
    """

    value: Tensor
    columns: Tensor
    directions: Directions
    notes: list[tuple[Tensor, str]]
    excluded: Tensor
    reason: str
    curvature: Curvature


@final
@dataclass(slots=True, eq=False)
class GradientRecord:
    """Rows of one forward pass that a nonzero gradient was propagated through."""

    nonzero: Tensor | None = field(default=None)


def watch_gradient(inputs: Tensor, record: GradientRecord) -> Tensor:
    """Return `inputs` unchanged, but warn in the backward pass if the body does not react."""
    out: Tensor = _WatchGradient.apply(inputs, record)  # type: ignore[no-untyped-call]  # torch's
    return out


def attach_gradient(features: Tensor, result: DistanceResult, record: GradientRecord) -> Tensor:
    """Return ``result.value`` in the dtype of `features` (B,d), differentiable in them."""
    # a copy of the value, which the caller may write to while the derivatives still need it
    value = result.value.to(features.dtype, copy=True)
    out: Tensor = _DistanceFunction.apply(features, value, result, record)  # type: ignore[no-untyped-call]  # torch's
    return out


def warn_nonfinite(result: DistanceResult, *, columns: bool) -> None:
    """Warn of the values of `result` that are not finite, and if `columns` of excluded columns."""
    if columns and bool(result.excluded.any()):
        named = _describe_columns(result.excluded)
        warnings.warn(
            f"columns {named} are NaN and cannot be targets: {result.reason}",
            stacklevel=caller_level(),
        )
    for mask, message in result.notes:
        rows = mask & ~torch.isfinite(result.value) & ~result.excluded
        if bool(rows.any()):
            warnings.warn(f"{message} ({describe_rows(rows)})", stacklevel=caller_level())


def _describe_columns(mask: Tensor) -> str:
    """Return a text that lists the columns where `mask` (K,) is true, or else is false."""
    columns, others = (m.nonzero()[:, 0].tolist() for m in (mask, ~mask))
    if len(columns) <= MAX_COLUMNS_SHOWN:
        return f"{columns}"
    if len(others) <= MAX_COLUMNS_SHOWN:
        return f"other than {others}"
    return f"{columns[:MAX_COLUMNS_SHOWN]} and {len(columns) - MAX_COLUMNS_SHOWN} more"


def describe_rows(mask: Tensor) -> str:
    """Return a text that lists the rows in which any entry of `mask` (B, ...) is true."""
    rows = mask.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    return f"{len(rows)} of {len(mask)} rows, first {rows[:MAX_ROWS_SHOWN]}"


class _DistanceFunction(Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        value: Tensor,
        result: DistanceResult,
        record: GradientRecord,
    ) -> Tensor:
        ctx.save_for_backward(features)
        ctx.result, ctx.record = result, record
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (features,) = ctx.saved_tensors
        result, used = ctx.result, grad.detach() != 0
        if bool((used & result.excluded).any()):
            columns = _describe_columns((used & result.excluded).any(dim=0))
            raise ArgumentError("target", columns, "another class", result.reason)
        for mask, message in result.notes:
            noted = used & mask
            if bool(noted.any()):
                warnings.warn(f"{message} ({describe_rows(noted)})", stacklevel=2)
        gradient = _DistanceGradient.apply(grad, features, result)  # type: ignore[no-untyped-call]  # torch's
        ctx.record.nonzero = (gradient.detach() != 0).any(dim=1)
        return gradient, None, None, None


class _DistanceGradient(Function):
    """The backward pass as a separate function, so that it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, features: Tensor, result: DistanceResult) -> Tensor:
        ctx.save_for_backward(grad, features)
        ctx.result = result
        grad = grad[:, result.columns]
        out = torch.zeros_like(features)
        # NaN in an unused entry must not propagate to the row
        for part in (grad != 0).nonzero().split(chunk_rows(features.shape[1])):
            rows, positions = part.unbind(1)
            direction = result.directions(rows, positions).to(features.dtype)
            out.index_add_(0, rows, grad[rows, positions, None] * direction)
        return out

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor | None, ...]:
        grad, features = ctx.saved_tensors
        with torch.no_grad():
            columns = ctx.result.columns
            first = torch.zeros_like(grad)
            every = torch.ones_like(grad[:, columns], dtype=torch.bool).nonzero()
            for part in every.split(chunk_rows(features.shape[1])):
                rows, positions = part.unbind(1)
                direction = ctx.result.directions(rows, positions).to(vector.dtype)
                along = torch.linalg.vecdot(vector[rows], torch.nan_to_num(direction))
                first[rows, columns[positions]] = along
            used = grad[:, columns]
            rows, positions = (used != 0).nonzero().unbind(1)
            curved = ctx.result.curvature(rows, positions, vector[rows].to(torch.float64))
            curved = curved.to(grad.dtype) * used[rows, positions, None]
            second = torch.zeros_like(vector).index_add_(0, rows, curved)
        sources = (grad, features, vector)
        first, second = (_NoThirdDerivative.apply(t, *sources) for t in (first, second))  # type: ignore[no-untyped-call]  # torch's
        return first, second, None


class _NoThirdDerivative(Function):
    """Identity that raises in its backward pass: third derivatives are not implemented.

    We do not use torch's once_differentiable because its error has no path to the inputs, so that
    ``autograd.grad`` skips it and silently drops a term.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError("distances have first and second derivatives, but no third")


class _WatchGradient(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, record: GradientRecord) -> Tensor:
        ctx.record = record
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # reset, because in a second backward pass `grad` is not the gradient of the distance
        nonzero, ctx.record.nonzero = ctx.record.nonzero, None
        if nonzero is not None and len(nonzero) == len(grad):
            flat = nonzero.to(grad.device) & ~(grad.detach() != 0).flatten(1).any(dim=1)
            if bool(flat.any()):
                warnings.warn(
                    "the features do not react to these inputs: the gradient of the distance "
                    f"with respect to them is zero ({describe_rows(flat[:, None])})",
                    stacklevel=2,
                )
        return grad, None
