"""Body bounds "interval": limits of every value, operation by operation."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import trace_body
from fsboundary.builtin.body_bounds.boxes import boxes_of
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.protocols import ModelView
from fsboundary.geometry.bounds.pixel_sets import PixelSets, minimum_on_boxes
from fsboundary.geometry.bounds.rounding import sum_error
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions


@final
class Interval(BodyBounds):
    """Limits of every value from the limits of its operands: fast, and loose for deep bodies.

    Bounds hold for the body in exact arithmetic; everything is rounded outward in float64.
    """

    def bound(
        self,
        view: ModelView,
        images: Tensor,
        radius: Tensor,
        *,
        norm: Literal["l2", "linf"],
        bounds: tuple[float, float],
        functions: LinearFunctions,
    ) -> Tensor:
        """Return lower bounds (B,F) of `functions`; see :class:`BodyBounds`."""
        body = trace_body(view, images, rule_of)
        sets = PixelSets(images.to("cpu", torch.float64), radius.cpu(), norm, bounds)
        features = boxes_of(body, sets)[-1]
        low, high = features.low.flatten(1), features.high.flatten(1)
        weight, offset = functions.weight.cpu(), functions.offset.cpu()
        lowest = minimum_on_boxes(weight, low, high) + offset
        lowest = lowest - sum_error(2, lowest.abs() + offset.abs())
        lowest = lowest - weight_slack(functions, features.magnitude.flatten(1))
        return lowest.nan_to_num(-torch.inf, torch.inf, -torch.inf).to(images.device)

    def __repr__(self) -> str:
        return "Interval()"


def weight_slack(functions: LinearFunctions, magnitude: Tensor) -> Tensor:
    """Return what the rounding of the weights may lower the functions by, (B,F).

    Parameters
    ----------
    functions : LinearFunctions
    magnitude : Tensor (B, d)
        Upper bounds of the absolute features.
    """
    error = functions.weight_error.cpu()
    if not bool(error.any()):
        return torch.zeros(error.shape[:2], dtype=torch.float64)
    slack = (error @ magnitude[..., None])[..., 0]
    return slack + sum_error(error.shape[-1], slack)
