"""Signed distances to decision regions: how far inside its own, how far from every other."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.boundaries.flip_points import MAX_STEPS
from fsboundary.core.checks import check_features, check_head, check_limits, rows_and_sources
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import RegionDistances
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL, absolute
from fsboundary.geometry.flips.solve import answer_ties
from fsboundary.geometry.flips.tie_problems import TieProblems
from fsboundary.geometry.norms import lengths


def region_distances(
    head: LinearHead,
    features: Float[Tensor, "B d"],
    *,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> RegionDistances:
    """Return the signed distance of each row to each decision region, and its gradient.

    Column k is minus the distance to region k; the column of the predicted class is the distance
    to the nearest other region, which is where the row's own region ends (design.md, section 1,
    "Signed region distance"). It is continuous in the features, also where the prediction
    changes, and differentiable wherever the nearest point is unique, which is everywhere outside
    the region and almost everywhere inside.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor (B, d)
        Any float dtype; computed in float64.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Default 200.

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
    fine = (status == Status.CONVERGED).nonzero()[:, 0]
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
    for name, value in _columns(head, z[fine], source[fine], rtol, limit).items():
        fields[name][fine] = value
    return RegionDistances(source=source, **fields)


def _columns(
    head: LinearHead, z: Tensor, source: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the fields of usable rows."""
    count = head.num_classes
    row, region = (torch.arange(count, device=z.device) != source[:, None]).nonzero().unbind(1)

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        anchor, rows = region[part], row[part]
        free = torch.zeros((len(rows), count), dtype=torch.bool, device=z.device)
        return TieProblems(head=head, z=z[rows], anchor=anchor, free=free), source[rows]

    found = answer_ties(head, len(row), make, ties=1, rtol=rtol, max_steps=limit)
    # without the source's column, ascending
    others = {n: found[n].unflatten(0, (len(z), count - 1)) for n in _NEEDED}
    own, nearest = _own_column(others, z, rtol)
    points = others.pop("points")
    moved = points - z[:, None]
    ends = (z - points[torch.arange(len(z), device=z.device), nearest])[:, None]
    others["gradient"], own["gradient"] = _unit(moved, others), _unit(ends, own)
    others["distance"] = -others["distance"]
    place = source[:, None]
    at = torch.arange(count - 1, device=z.device)
    at = at + (at >= place)
    out = {}
    for name, value in others.items():
        full = value.new_empty((len(z), count, *value.shape[2:]))
        rows = torch.arange(len(z), device=z.device)[:, None]
        full[rows, at] = value
        full[rows, place] = own[name]
        out[name] = full
    return out


_NEEDED = ("points", "distance", "lower_bound", "gap", "violation", "status")


def _own_column(
    others: dict[str, Tensor], z: Tensor, rtol: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the fields (B,1) of the row's own region, and the place (B,) of the nearest other.

    A path out of a region enters another one where it leaves; so the distance to where the region
    ends is the smallest distance to another region.
    """
    known = torch.where(torch.isnan(others["distance"]), torch.inf, others["distance"])
    distance, nearest = known.min(dim=1, keepdim=True)
    bound, doubtful = others["lower_bound"].min(dim=1, keepdim=True)
    bound = torch.minimum(bound, distance)
    end = others["points"][torch.arange(len(z), device=z.device), nearest[:, 0]]
    allowed = torch.maximum(absolute(lengths(z) + lengths(end)), rtol * distance[:, 0])[:, None]
    converged = torch.isfinite(distance) & (distance - bound <= allowed)
    # where the gap stays open, a region that was not decided may be nearer
    blamed = others["status"].gather(1, doubtful)
    blamed = torch.where(blamed == Status.CONVERGED, int(Status.INACCURATE), blamed)
    none = (others["status"] == Status.INFEASIBLE).all(dim=1, keepdim=True)
    status = torch.where(converged, int(Status.CONVERGED), blamed)
    status = torch.where(none, int(Status.UNBOUNDED), status)
    failed = ~(converged | none)
    violation = others["violation"].gather(1, nearest)
    own = {
        "distance": torch.where(failed, torch.nan, distance),
        "lower_bound": bound,
        "gap": torch.where(
            failed, torch.nan, torch.where(torch.isinf(bound), 0.0, distance - bound)
        ),
        "violation": torch.where(failed, torch.nan, violation),
        "status": status,
    }
    return own, nearest[:, 0]


def _unit(direction: Tensor, fields: dict[str, Tensor]) -> Tensor:
    """Return unit directions (B,C,d): 0 at distance 0 or at no distance, NaN where it failed."""
    distance = fields["distance"][..., None]
    unit = direction / torch.where(distance > 0, distance, 1.0)
    unit = torch.where(torch.isinf(distance), 0.0, unit)
    return torch.where(torch.isnan(distance), torch.nan, unit)
