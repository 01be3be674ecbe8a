"""A certified distance as a node of autograd.

The derivative of a distance to a convex set is the unit vector from the nearest point to the
row, whatever the nearest point does (the envelope theorem; Rockafellar and Wets, Variational
Analysis, 1998, theorem 10.58). So the value and the direction come from the certified float64
answer, and no solver is differentiated.
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

SHOWN = 5
"""Rows that a warning names."""

_CALLER = 5
"""The frame that called a module, seen from what warns: past forward and two frames of torch."""

Curvature = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows (P,), columns (P,), vectors (P,d) -> second derivative times the vectors (P,d)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Certified distances and what their derivative is.

    Attributes
    ----------
    value : Tensor (B, K), float64
        NaN where there is no certified answer or none was asked for.
    direction : Tensor (B, K, d), float64
        The derivative of each value with respect to the row.
    notes : list of (Tensor (B, K) bool, str)
        Entries whose derivative is not what it seems, and why: a warning when it is used.
    refused : Tensor (K,), bool
        Columns that nothing may be asked of.
    why : str
        Why not.
    curvature : callable
        The second derivative.
    """

    value: Tensor
    direction: Tensor
    notes: list[tuple[Tensor, str]]
    refused: Tensor
    why: str
    curvature: Curvature


@final
@dataclass(slots=True, eq=False)
class Pass:
    """One forward pass: which rows a gradient that is not zero was sent through."""

    pulled: Tensor | None = field(default=None)


def watched(images: Tensor, record: Pass) -> Tensor:
    """Return `images` unchanged; warns in the backward pass where the body does not react."""
    out: Tensor = _Watch.apply(images, record)  # type: ignore[no-untyped-call]  # torch's
    return out


def attach(features: Tensor, answer: Answer, record: Pass) -> Tensor:
    """Return ``answer.value`` in the dtype of `features` (B,d), differentiable in them."""
    value, direction = (t.to(features.dtype) for t in (answer.value, answer.direction))
    out: Tensor = _Envelope.apply(features, value, direction, answer, record)  # type: ignore[no-untyped-call]  # torch's
    return out


def warn_of_values(answer: Answer, *, columns: bool) -> None:
    """Warn of the values of `answer` that are no numbers, and of whole `columns` if asked to."""
    if columns and bool(answer.refused.any()):
        none = answer.refused.nonzero()[:, 0].tolist()
        warnings.warn(f"columns {none} are NaN and no targets: {answer.why}", stacklevel=_CALLER)
    for mask, message in answer.notes:
        found = mask & ~torch.isfinite(answer.value) & ~answer.refused
        if bool(found.any()):
            warnings.warn(f"{message} ({rows_in(found)})", stacklevel=_CALLER)


def rows_in(mask: Tensor) -> str:
    """Return the rows where `mask` (B, ...) is true somewhere, for a message."""
    rows = mask.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    return f"{len(rows)} of {len(mask)} rows, first {rows[:SHOWN]}"


class _Envelope(Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, value: Tensor, direction: Tensor, answer: Answer, record: Pass
    ) -> Tensor:
        ctx.save_for_backward(features, direction)
        ctx.answer, ctx.record = answer, record
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, direction = ctx.saved_tensors
        answer, asked = ctx.answer, grad.detach() != 0
        if bool((asked & answer.refused).any()):
            columns = (asked & answer.refused).any(dim=0).nonzero()[:, 0].tolist()
            raise ArgumentError("target", f"{columns}", "another class", answer.why)
        for mask, message in answer.notes:
            found = asked & mask
            if bool(found.any()):
                warnings.warn(f"{message} ({rows_in(found)})", stacklevel=2)
        pulled = _Pull.apply(grad, features, direction, answer)  # type: ignore[no-untyped-call]  # torch's
        ctx.record.pulled = (pulled.detach() != 0).any(dim=1)
        return pulled, None, None, None, None


class _Pull(Function):
    """The backward pass as a function of its own, so that it can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, features: Tensor, direction: Tensor, answer: Answer
    ) -> Tensor:
        ctx.save_for_backward(grad, features, direction)
        ctx.answer = answer
        # entries that nothing was asked of must not spoil the row where they are NaN
        used = torch.where((grad != 0)[..., None], direction, 0.0)
        return torch.einsum("bk,bkd->bd", grad, used)

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor | None, ...]:
        grad, features, direction = ctx.saved_tensors
        with torch.no_grad():
            first = torch.einsum("bd,bkd->bk", vector, torch.nan_to_num(direction))
            rows, columns = (grad != 0).nonzero().unbind(1)
            curved = ctx.answer.curvature(rows, columns, vector[rows].to(torch.float64))
            curved = curved.to(grad.dtype) * grad[rows, columns, None]
            second = torch.zeros_like(vector).index_add_(0, rows, curved)
        sources = (grad, features, vector)
        first, second = (_Last.apply(t, *sources) for t in (first, second))  # type: ignore[no-untyped-call]  # torch's
        return first, second, None, None


class _Last(Function):
    """The end of what can be differentiated.

    Not torch's once_differentiable: its error has no path to the inputs, so that ``autograd.grad``
    passes it by and a term is missing without a word.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError("distances have first and second derivatives, and no third")


class _Watch(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, record: Pass) -> Tensor:
        ctx.record = record
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # None in a second backward pass: what arrives then is no gradient of the distance
        pulled, ctx.record.pulled = ctx.record.pulled, None
        if pulled is not None and len(pulled) == len(grad):
            flat = pulled.to(grad.device) & ~(grad.detach() != 0).flatten(1).any(dim=1)
            if bool(flat.any()):
                warnings.warn(
                    "the features do not react to these images: the gradient of the distance "
                    f"with respect to them is zero ({rows_in(flat[:, None])})",
                    stacklevel=2,
                )
        return grad, None
