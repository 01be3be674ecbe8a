"""Grading of body bounds: shapes are checked, and bounds compared with the values at known images.

A bound cannot be recomputed without a method of its own, but it can be refuted: one image of the
set, at which a function is lower than its bound, proves the plugin wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.core.errors import FsboundaryError
from fsboundary.core.protocols import ModelView
from fsboundary.plugins.grading.calls import (
    Answer,
    is_built_in,
    label_of,
    plugin_call,
    warn,
)
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions

VALUE_ERROR = 256
"""Roundoffs of the features' dtype, relative to the sum of the absolute terms of a function, by
which a value that the model computes may miss that of exact arithmetic. A bound that is above a
value by less refutes nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownImages:
    """P images near each of B images, and the functions there, as the model computes them.

    Attributes
    ----------
    distance : Tensor (B, P), float64
        Distances from the row's image; +inf for none.
    values : Tensor (B, P, F), float64
    error : Tensor (B, P, F), float64
        By how much the values may be wrong.
    """

    distance: Tensor
    values: Tensor
    error: Tensor

    @staticmethod
    def of(functions: LinearFunctions, features: Tensor, distance: Tensor) -> KnownImages:
        """Return the functions at `features` (B,P,d) of images at `distance` (B,P)."""
        z = features.to(torch.float64)
        weight, offset = functions.weight, functions.offset[:, None]
        values = z @ weight.mT + offset
        size = z.abs() @ weight.abs().mT + offset.abs()
        error = VALUE_ERROR * torch.finfo(features.dtype).eps * size
        return KnownImages(distance=distance, values=values, error=error)

    def take(self, rows: Tensor) -> KnownImages:
        """Return those of some of the images."""
        return KnownImages(
            distance=self.distance[rows], values=self.values[rows], error=self.error[rows]
        )


@final
@dataclass(frozen=True, slots=True)
class _BoundAnswer:
    """The answer of a plugin, a bare tensor, as an object with fields."""

    lower: object


def bound_and_grade(
    plugin: BodyBounds,
    view: ModelView,
    images: Tensor,
    radius: Tensor,
    *,
    norm: Literal["l2", "linf"],
    bounds: tuple[float, float],
    functions: LinearFunctions,
    known: KnownImages,
) -> tuple[Tensor, Tensor]:
    """Return the lower bounds (B,F) of `plugin`, float64, and which rows (B,) refute them.

    A bound that is no number counts as -inf.

    Raises
    ------
    HeadError
        The method has no rule for an operation of the body.
    PluginError
        The plugin raised, or its answer has another type, shape or device.
    """
    label, own = label_of("body bounds", plugin), is_built_in(plugin)
    with plugin_call(
        label, trusted=own, passes=(FsboundaryError,), model=getattr(view, "model", None)
    ):
        answer = plugin.bound(
            view,
            images.clone(),
            radius.clone(),
            norm=norm,
            bounds=bounds,
            functions=functions if own else _copy(functions),
        )
    fields = Answer(label, _BoundAnswer(answer), _BoundAnswer, images.device, own=own)
    lower = fields.floats("lower", *functions.offset.shape).to(torch.float64)
    lower = lower.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return lower, refuted_rows(lower, radius, known.distance, known.values + known.error)


def refuted_rows(lower: Tensor, radius: Tensor, distance: Tensor, highest: Tensor) -> Tensor:
    """Return which rows (B,) have a bound above a value at an image within the radius.

    Parameters
    ----------
    lower : Tensor (B, F)
    radius : Tensor (B,)
    distance : Tensor (B, P)
        Distances of P images.
    highest : Tensor (B, P, F)
        Upper bounds of the values there.
    """
    inside = distance <= radius[:, None]
    return ((lower[:, None] > highest) & inside[..., None]).flatten(1).any(dim=1)


def report_refuted(plugin: BodyBounds, count: int) -> None:
    """Warn that `plugin` was proved wrong in `count` rows, whose answers are withdrawn."""
    warn(
        f"{label_of('body bounds', plugin)} was proved wrong: a lower bound exceeds the value at a "
        f"known image of the set, in {count} rows, whose certificates are withdrawn"
    )


def _copy(functions: LinearFunctions) -> LinearFunctions:
    return LinearFunctions(
        weight=functions.weight.clone(),
        offset=functions.offset.clone(),
        weight_error=functions.weight_error.clone(),
    )
