"""Signed distances to decision regions: depth in a row's own region, distance to the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.boundaries.flip_points import MAX_STEPS
from fsboundary.core.checks import (
    check_features,
    check_head,
    check_limits,
    check_targets,
    rows_and_sources,
)
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch, RegionDistances
from fsboundary.core.results.deferred import defer
from fsboundary.core.rows import TensorOrArray, write_rows
from fsboundary.core.status import OK_CODES, Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.flips.certify import grade_own_region
from fsboundary.geometry.flips.nearest import nearest_classes
from fsboundary.geometry.flips.recomputed import (
    DeferredDirections,
    DeferredPoints,
    defers,
)
from fsboundary.geometry.flips.solve import solve_ties
from fsboundary.geometry.flips.tie_problems import TieProblems
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def region_distances(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    targets: Literal["all", "own"] | Int[TensorOrArray, "B ..."] = "all",
    *,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> RegionDistances:
    """Return the signed distance of each row to decision regions, and its gradient.

    For another class than the predicted one, it is minus the distance to the region; for the
    predicted class, the distance to the nearest other region, which is where the row's own region
    ends (design.md, section 1, "Signed region distance"). It is continuous in the features, even
    where the prediction changes, and differentiable wherever the nearest point is unique, which is
    everywhere outside the region and almost everywhere inside it.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    targets : "all", "own" or integer Tensor or array (B,) or (B, T)
        Regions to measure. "all": T = K, all classes, ascending. "own": T = 1, the predicted class
        of each row, which takes about as long as its nearest flip point. A tensor (B,) gives T = 1;
        an entry of -1, such as the predicted class of a NaN row, has no target and is UNDECIDED.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Limit of steps per region, default 200.

    Returns
    -------
    RegionDistances

    Notes
    -----
    Gradients of more than 16 MiB, of at least 256 features, are computed when ``gradient`` is read:
    then they take B x T x d x 8 bytes. Until then the memory is that of B x T x S multipliers, S a
    few active constraints, and some arrays of 1 MiB per thread.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, before any work.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> distances = fsb.region_distances(head, z)
    >>> distances.distance.round(decimals=4).tolist()  # positive within the own region
    [[1.4142, -1.4142, -2.1213]]
    """
    check_head(head)
    z = check_features(head.num_features, features)
    chosen = check_targets(targets, len(z), head.num_classes, ("all", "own"), (len(z), "T"))
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    if isinstance(chosen, Tensor):
        target = chosen.to(z.device).reshape(len(z), -1)
    elif chosen == "own":
        target = source[:, None]
    else:
        target = torch.arange(head.num_classes, device=z.device).repeat(len(z), 1)
    nan = torch.full(target.shape, torch.nan, dtype=torch.float64, device=z.device)
    fields = {
        "distance": nan,
        "lower_bound": torch.zeros_like(nan),
        "gap": nan.clone(),
        "violation": nan.clone(),
        "status": status[:, None].repeat(1, target.shape[1]),
    }
    rows, own = z[usable], source[usable]
    if isinstance(chosen, str) and chosen == "all":
        columns, points = _all_columns(head, rows, own, rtol, limit)
    else:
        columns, points = _columns(head, rows, own, target[usable], rtol, limit)
    write_rows(fields, usable, columns)
    later = DeferredDirections(
        points=points.among(z, usable, torch.isfinite(fields["distance"])),
        distance=fields["distance"].clone(),  # the field itself may be written to
    )
    few = not defers(nan.numel(), z.shape[1])
    gradient = later.compute() if few else later.placeholder()
    found = RegionDistances(source=source, target=target, gradient=gradient, **fields)
    return found if few else defer(found, "gradient", later)


def _all_columns(
    head: LinearHead, z: Tensor, source: Tensor, rtol: float, limit: int
) -> tuple[dict[str, Tensor], DeferredPoints]:
    """Return the fields and points of usable rows, one column per region."""
    columns = torch.arange(head.num_classes - 1, device=z.device).repeat(len(z), 1)
    columns = columns + (columns >= source[:, None]).long()
    others, points = _other_regions(head, z, source, columns, rtol, limit)
    own, nearest = grade_own_region(others, _at(points), z, rtol)
    others["distance"] = -others["distance"]
    order = torch.cat([columns, source[:, None]], dim=1).argsort(dim=1)
    fields = {
        name: torch.cat([others[name], value], dim=1).gather(1, order)
        for name, value in own.items()
    }
    # the own region's point is that of the nearest other one
    every = torch.arange(columns.shape[1], device=z.device).expand_as(columns)
    taken = torch.cat([every, nearest[:, None]], dim=1).gather(1, order)
    return fields, points.choose(torch.arange(len(z), device=z.device)[:, None], taken, z)


def _columns(
    head: LinearHead, z: Tensor, source: Tensor, target: Tensor, rtol: float, limit: int
) -> tuple[dict[str, Tensor], DeferredPoints]:
    """Return fields and points of usable rows for the regions `target` (B,T); none of -1."""
    is_own = target == source[:, None]
    other = (~is_own & (target >= 0)).nonzero()
    solved, points = _other_regions(
        head, z[other[:, 0]], source[other[:, 0]], target[other.unbind(1)][:, None], rtol, limit
    )
    solved["distance"] = -solved["distance"]
    rows = is_own.any(dim=1).nonzero()[:, 0]
    own, own_points = _nearest_region(head, z[rows], source[rows], rtol, limit)
    number = torch.zeros_like(source).index_copy(0, rows, torch.arange(len(rows), device=z.device))
    row, column = is_own.nonzero().unbind(1)
    unknown = {"lower_bound": 0.0, "status": int(Status.UNDECIDED)}
    fields = {}
    for name, value in own.items():
        table = value.new_full(target.shape, unknown.get(name, torch.nan))
        table[row, column] = value[number[row], 0]
        table[other.unbind(1)] = solved[name][:, 0]
        fields[name] = table
    both = points.followed_by(own_points)
    taken = torch.zeros_like(target)  # an entry of -1 has no distance, so any point will do
    taken[other.unbind(1)] = torch.arange(len(other), device=z.device)
    taken[row, column] = len(other) + number[row]
    return fields, both.choose(taken, torch.zeros_like(taken), z)


def _nearest_region(
    head: LinearHead, z: Tensor, source: Tensor, rtol: float, limit: int
) -> tuple[dict[str, Tensor], DeferredPoints]:
    """Return the fields (B,1) of each row's own region, from the nearest other region.

    A path to another region crosses its tie with the row's own class, so a radius that no tie
    enters bounds the distances to all other regions. The rows where that does not close the gap
    are measured to every region.
    """
    # regions are closed: a class that wins exactly where logits agree within rounding is at 0
    nearest = nearest_classes(head, z, source, allow_ties=True)
    others, points = _other_regions(head, z, source, nearest.target[:, None], rtol, limit)
    own, _ = grade_own_region(others, _at(points), z, rtol, nearest.radius)
    left = (~torch.isin(own["status"][:, 0], torch.tensor(OK_CODES, device=z.device))).nonzero()
    rows = left[:, 0]
    if len(rows):
        whole, all_points = _all_columns(head, z[rows], source[rows], rtol, limit)
        index = torch.arange(len(rows), device=z.device)
        for name, value in own.items():
            value[rows, 0] = whole[name][index, source[rows]]
        chosen = all_points.choose(index[:, None], source[rows, None], z[rows])
        number = torch.arange(len(z), device=z.device)
        number[rows] = len(z) + index
        points = points.followed_by(chosen).choose(
            number[:, None], torch.zeros_like(number)[:, None], z
        )
    return own, points


def _at(points: DeferredPoints) -> Callable[[Tensor], Tensor]:
    """Return the function from columns (B,) to the points (B,d) there."""
    return lambda columns: points.at(torch.arange(len(columns), device=columns.device), columns)


def _other_regions(
    head: LinearHead, z: Tensor, source: Tensor, region: Tensor, rtol: float, limit: int
) -> tuple[dict[str, Tensor], DeferredPoints]:
    """Return fields and points (B,T) of the nearest points of `region` (B,T), not the source's."""
    shape = region.shape
    row = torch.arange(len(z), device=z.device).repeat_interleave(shape[1])
    regions = region.flatten()

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        anchor, rows = regions[part], row[part]
        free = torch.zeros((len(rows), head.num_classes), dtype=torch.bool, device=z.device)
        return TieProblems(head=head, z=z[rows], anchor=anchor, free=free), source[rows]

    recompute = defers(len(row), head.num_features)
    solved = solve_ties(
        head, len(row), make, ties=1, rtol=rtol, max_steps=limit, recompute=recompute
    )
    if not recompute:
        solved["kept"] = solved.pop("points")
        solved["kept_at"] = torch.arange(len(row), device=z.device)
    table = {name: solved[name].unflatten(0, shape) for name in _USED_FIELDS}
    points = DeferredPoints(
        head=head,
        z=z,
        anchor=region,
        other=solved["active"].unflatten(0, shape).clamp_min(0).to(torch.int32),
        coefficients=-solved["multipliers"].unflatten(0, shape),
        known=table["status"] == Status.CONVERGED,
        kept_at=solved["kept_at"].unflatten(0, shape),
        kept=solved["kept"],
    )
    return table, points


_USED_FIELDS = ("distance", "lower_bound", "gap", "violation", "status")
