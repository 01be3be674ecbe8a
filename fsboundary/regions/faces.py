"""The whole decision region of a class, by its faces."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.checks import check_class, check_head
from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import RegionFaces
from fsboundary.core.status import Status
from fsboundary.geometry.regions.redundancy import (
    NEEDED,
    OPEN,
    REDUNDANT,
    Cell,
    needed_constraints,
    probe,
)
from fsboundary.regions.limits import common_limits


def region_faces(head: LinearHead, i: int, within: Domain | None = None) -> RegionFaces:
    """Return the decision region of class `i` as its non-redundant half-spaces.

    That a half-space is needed is proved by a point that breaks it alone; that one is redundant by
    multipliers of a linear program, checked in float64: no point beyond it meets the others, or
    none within a million times the distance of the farthest plane from a point inside. What is not
    decided, such as a plane that only touches the region, stays in the list, which so describes
    the region in any case. One linear program for each half-space that rays from the inside do not
    settle.

    Parameters
    ----------
    head : LinearHead
    i : int
        The class.
    within : Domain, optional
        Limits besides those of the head's domain, such as ``Domain.box(*bank.range())``. Features
        whose limits agree are constants and give no faces.

    Returns
    -------
    RegionFaces

    Raises
    ------
    ArgumentError
        No such class, or limits of another width or that leave nothing.
    """
    check_head(head)
    i, device = check_class(head, i), head.weight.device
    head = head.to(torch.device("cpu"))
    lower, upper = (torch.from_numpy(limit) for limit in common_limits(head, within))
    classes = _distinct(head, i)
    cell = Cell(
        rows=head.weight[i] - head.weight[classes],
        offset=head.bias[i] - head.bias[classes],
        lower=lower,
        upper=upper,
    )
    anchor = torch.minimum(torch.maximum(torch.zeros_like(lower), lower), upper)
    same = (head.weight == head.weight[i]).all(dim=1)
    below = bool((head.bias[same] > head.bias[i]).any())
    scale = cell.scale(anchor)
    inside = False if below else probe(cell, anchor, scale or 1.0, scale)
    if inside is False:
        empty = torch.full((0,), OPEN)
        return _listed(head, i, cell, classes[:0], empty, Status.INFEASIBLE).to(device)
    if inside is True:
        limits = torch.isfinite(torch.cat([lower, upper])) & cell.free.repeat(2)
        verdict = torch.where(limits, OPEN, REDUNDANT)
        verdict = torch.cat([torch.full_like(classes, OPEN), verdict])
        return _listed(head, i, cell, classes, verdict, Status.UNDECIDED).to(device)
    verdict, points = needed_constraints(cell, inside)
    return _listed(head, i, cell, classes, verdict, Status.CONVERGED, points).to(device)


def _distinct(head: LinearHead, i: int) -> Tensor:
    """Return the classes that no class with equal weights makes superfluous, ascending.

    Of classes with equal weights the one with the largest bias counts, the lowest of these. Those
    with the weights of `i` set no limit that depends on the point.
    """
    _, group = head.weight.unique(dim=0, return_inverse=True)
    leaders: dict[int, int] = {}
    for k in head.bias.argsort(descending=True, stable=True).tolist():
        leaders.setdefault(int(group[k]), k)
    leaders.pop(int(group[i]))
    return torch.tensor(sorted(leaders.values()), dtype=torch.int64)


def _listed(
    head: LinearHead,
    i: int,
    cell: Cell,
    classes: Tensor,
    verdict: Tensor,
    region: Status,
    points: Tensor | None = None,
) -> RegionFaces:
    """Return the half-spaces that were not proved redundant."""
    width, count = head.num_features, len(classes)
    stays = verdict != REDUNDANT
    kept, places = classes[stays[:count]], stays[count:].nonzero()[:, 0]
    features = places % width
    sign = torch.where(places < width, 1.0, -1.0).double()
    eye = torch.eye(width, dtype=torch.float64)
    limits = torch.cat([cell.lower, cell.upper])
    finite = torch.isfinite(limits) & cell.free.repeat(2)
    gone = (finite[: len(verdict) - count] & ~stays[count:]).nonzero()[:, 0] % width
    others = set() if region == Status.INFEASIBLE else set(range(head.num_classes)) - {i}
    if points is None:
        points = torch.full((len(verdict), width), torch.nan, dtype=torch.float64)
    return RegionFaces(
        normals=torch.cat([head.weight[i] - head.weight[kept], sign[:, None] * eye[features]]),
        offsets=torch.cat([head.bias[i] - head.bias[kept], -sign * limits[places]]),
        classes=torch.cat([kept, torch.full_like(features, -1)]),
        coordinates=torch.cat([torch.full_like(kept, -1), features]),
        witnesses=points[stays],
        status=torch.where(verdict[stays] == NEEDED, int(Status.CONVERGED), int(Status.UNDECIDED)),
        source=i,
        region=region,
        redundant_classes=tuple(sorted(others - set(kept.tolist()))),
        redundant_limits=tuple(gone.tolist()),
    )
