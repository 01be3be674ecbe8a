"""Signed distances to decision regions: depth in a row's own region, distance to the others."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.boundaries.flip_points import MAX_STEPS
from fsboundary.core.checks import check_features, check_head, check_limits, rows_and_sources
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import RegionDistances
from fsboundary.core.rows import TensorOrArray, write_rows
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.flips.certify import grade_own_region
from fsboundary.geometry.flips.solve import solve_ties
from fsboundary.geometry.flips.tie_problems import TieProblems
from fsboundary.modes import in_standard_modes


@in_standard_modes
def region_distances(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"],
    *,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> RegionDistances:
    """Return the signed distance of each row to each decision region, and its gradient.

    Column k is minus the distance to region k; the column of the predicted class is the distance
    to the nearest other region, which is where the row's own region ends (design.md, section 1,
    "Signed region distance"). It is continuous in the features, even where the prediction
    changes, and differentiable wherever the nearest point is unique, which is everywhere outside
    the region and almost everywhere inside it.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor or array (B, d)
        Any float dtype; computed in float64.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Limit of steps per region, default 200.

    Returns
    -------
    RegionDistances

    Raises
    ------
    ArgumentError
        Wrong types or shapes, before any work.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    shape = (len(z), head.num_classes)
    nan = torch.full(shape, torch.nan, dtype=torch.float64, device=z.device)
    fields = {
        "distance": nan,
        "lower_bound": torch.zeros_like(nan),
        "gap": nan.clone(),
        "violation": nan.clone(),
        "gradient": nan[..., None].repeat(1, 1, z.shape[1]),
        "status": status[:, None].repeat(1, head.num_classes),
    }
    write_rows(fields, usable, _columns(head, z[usable], source[usable], rtol, limit))
    return RegionDistances(source=source, **fields)


def _columns(
    head: LinearHead, z: Tensor, source: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the fields of usable rows, one column per region."""
    count = head.num_classes
    row, region = (torch.arange(count, device=z.device) != source[:, None]).nonzero().unbind(1)

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        anchor, rows = region[part], row[part]
        free = torch.zeros((len(rows), count), dtype=torch.bool, device=z.device)
        return TieProblems(head=head, z=z[rows], anchor=anchor, free=free), source[rows]

    solved = solve_ties(head, len(row), make, ties=1, rtol=rtol, max_steps=limit)
    # all columns except the source's, ascending
    others = {name: solved[name].unflatten(0, (len(z), count - 1)) for name in _USED_FIELDS}
    own, nearest = grade_own_region(others, z, rtol)
    points = others.pop("points")
    inward = points - z[:, None]
    outward = (z - points[torch.arange(len(z), device=z.device), nearest])[:, None]
    others["gradient"], own["gradient"] = _unit(inward, others), _unit(outward, own)
    others["distance"] = -others["distance"]
    rows = torch.arange(len(z), device=z.device)[:, None]
    own_column = source[:, None]
    columns = torch.arange(count - 1, device=z.device)
    columns = columns + (columns >= own_column)
    fields = {}
    for name, value in others.items():
        table = value.new_empty((len(z), count, *value.shape[2:]))
        table[rows, columns] = value
        table[rows, own_column] = own[name]
        fields[name] = table
    return fields


_USED_FIELDS = ("points", "distance", "lower_bound", "gap", "violation", "status")


def _unit(direction: Tensor, fields: dict[str, Tensor]) -> Tensor:
    """Return unit directions (B,C,d): 0 at distance 0 or infinity, NaN where the entry failed."""
    distance = fields["distance"][..., None]
    unit = direction / torch.where(distance > 0, distance, 1.0)
    unit = torch.where(torch.isinf(distance), 0.0, unit)
    return torch.where(torch.isnan(distance), torch.nan, unit)
