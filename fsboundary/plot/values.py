"""One number per row of a result, and medians that take +inf for a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.core.checks import check_float_tensor, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import (
    CertifiedPixels,
    FlipImages,
    FlipPoints,
    GuaranteedBalls,
    HullProjection,
    LabelBalls,
    LabelFlips,
    LargestTies,
    LeaveOneOutDistances,
    NearestHulls,
    TiePoints,
)
from fsboundary.core.rows import from_array
from fsboundary.core.status import Status

_FEATURES, _PIXELS = "feature units", "pixel units"

_QUANTITIES: dict[type, tuple[str, str, str]] = {
    FlipPoints: ("distance", "distance to the boundary", _FEATURES),
    LabelFlips: ("distance", "distance to a change of labels", _FEATURES),
    TiePoints: ("distance", "distance to the tie", _FEATURES),
    LargestTies: ("distance", "distance to the largest tie", _FEATURES),
    GuaranteedBalls: ("radius", "guaranteed radius", _FEATURES),
    LabelBalls: ("radius", "guaranteed radius", _FEATURES),
    HullProjection: ("distance", "distance to the hull", _FEATURES),
    NearestHulls: ("distance", "distance to the nearest hull", _FEATURES),
    LeaveOneOutDistances: ("distance", "leave-one-out distance", _FEATURES),
    FlipImages: ("distance", "distance to the flip image", _PIXELS),
    CertifiedPixels: ("radius", "certified radius", _PIXELS),
}
"""Field, quantity and unit of each kind of result that has one distance per row."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowValues:
    """One number per row.

    Attributes
    ----------
    value : Tensor (B,), float64
        Numbers; +inf is one, NaN where the row has none.
    status : Tensor (B,)
        Status codes of the rows.
    quantity, unit : str
    """

    value: Tensor
    status: Tensor
    quantity: str
    unit: str

    @property
    def known(self) -> Tensor:
        """Mask of the rows that have a number, bool (B,)."""
        return ~self.value.isnan()

    @property
    def label(self) -> str:
        """Quantity with its unit."""
        return f"{self.quantity}, {self.unit}" if self.unit else self.quantity


def row_values(name: str, result: object) -> RowValues:
    """Return the distance or radius of each row of a result or tensor, or raise ArgumentError.

    Of several targets, the nearest counts, if all of them have a certified distance.
    """
    given: Any = from_array(result)
    if isinstance(given, Tensor):
        fix = "pass a result, or one distance per row"
        value = check_float_tensor(name, given, ("B",), fix=fix).to("cpu", torch.float64)
        status = torch.zeros(len(value), dtype=torch.int64)
        return RowValues(value=value, status=status, quantity="distance", unit="")
    if type(given) not in _QUANTITIES:
        wanted = f"a tensor (B,) or one of {', '.join(sorted(k.__name__ for k in _QUANTITIES))}"
        fix = "pass flip_points(head, features), for example"
        raise ArgumentError(name, describe(result), wanted, fix)
    field, quantity, unit = _QUANTITIES[type(given)]
    value, status = getattr(given, field).to("cpu", torch.float64), given.status.to("cpu")
    if value.ndim == 2:
        value, status = _nearest_target(name, value, status)
    if getattr(given, "norm", "l2") == "linf":
        unit += " (largest difference)"
    return RowValues(value=value, status=status, quantity=quantity, unit=unit)


def _nearest_target(name: str, value: Tensor, status: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest of T distances (B,T) and a status per row; NaN if one is not known."""
    if not value.shape[1]:
        raise ArgumentError(name, "no targets", "one or more", 'pass targets="nearest"')
    other = status != Status.TARGET_IS_SOURCE  # the row's own class does not count
    unknown = other & value.isnan()
    nearest = torch.where(other, value, torch.inf).amin(dim=1)
    # the first target without a distance is the reason of the row
    column = torch.where(unknown.any(dim=1), unknown.int().argmax(dim=1), other.int().argmax(dim=1))
    none = ~other.any(dim=1)
    reason = status.gather(1, column[:, None])[:, 0]
    return torch.where(unknown.any(dim=1) | none, torch.nan, nearest), reason


def quantile(values: Tensor, fraction: float) -> float:
    """Return a quantile of a 1-D tensor by linear interpolation; NaN if it is empty.

    Unlike :func:`torch.quantile` it supports +inf, which sorts last.
    """
    if len(values) == 0:
        return math.nan
    ordered = values.to(torch.float64).sort().values
    position = fraction * (len(ordered) - 1)
    low, high = float(ordered[math.floor(position)]), float(ordered[math.ceil(position)])
    weight = position - math.floor(position)
    return low if weight == 0 or low == high else low + weight * (high - low)


def median(values: Tensor) -> float:
    """Return the median of a 1-D tensor, which may contain +inf; NaN if it is empty."""
    return quantile(values, 0.5)
