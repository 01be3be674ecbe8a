"""Faces of the decision region of a class: its non-redundant half-spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.checks import check_head, check_integer
from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import RegionFaces
from fsboundary.core.status import Status
from fsboundary.geometry.regions.certify import Polyhedron
from fsboundary.geometry.regions.redundancy import (
    NEEDED,
    OPEN,
    REDUNDANT,
    find_interior_point,
    needed_constraints,
)
from fsboundary.modes import in_standard_modes
from fsboundary.regions.limits import common_limits
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def region_faces(head: LinearHead, i: int, within: Domain | None = None) -> RegionFaces:
    """Return the decision region of class `i` as its non-redundant half-spaces.

    A half-space is proved necessary by a point that violates only it. It is proved redundant by
    multipliers of a linear program, checked in float64: no point beyond it satisfies the others. A
    half-space that is not decided, such as one whose plane only touches the region, is kept, so
    the list always describes the region. One linear program is solved per half-space that rays
    from the inside do not decide.

    Parameters
    ----------
    head : LinearHead
    i : int
        The class.
    within : Domain, optional
        Limits in addition to those of the head's domain, such as ``Domain.box(*bank.range())``.
        Features whose limits agree are constants and give no faces.

    Returns
    -------
    RegionFaces

    Raises
    ------
    ArgumentError
        No such class, or limits of another width or with an empty intersection.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> faces = fsb.region_faces(head, 0, fsb.Domain.nonnegative())
    >>> faces.classes.tolist(), faces.coordinates.tolist()  # -1: not of that kind
    ([1, 2, -1, -1, -1], [-1, -1, 0, 1, 2])
    """
    check_head(head)
    i, device = (
        check_integer("i", i, 0, head.num_classes - 1, fix="count classes from 0"),
        head.device,
    )
    head = head.to(torch.device("cpu"))
    lower, upper = (torch.from_numpy(limit) for limit in common_limits(head, within))
    classes = _distinct_classes(head, i)
    region = Polyhedron(
        rows=head._weight[i] - head._weight[classes],
        offset=head._bias[i] - head._bias[classes],
        lower=lower,
        upper=upper,
        exact=_exact_differences(head, i, classes),
    )
    scaled, exponent = _scale_features(region, head._weight)
    anchor = torch.minimum(torch.maximum(torch.zeros_like(lower), scaled.lower), scaled.upper)
    same = (head._weight == head._weight[i]).all(dim=1)
    below = bool((head._bias[same] > head._bias[i]).any())
    inside = False if below else find_interior_point(scaled, anchor, scaled.scale(anchor) or 1.0)
    if inside is False:
        empty = torch.full((0,), OPEN)
        return _region_faces(head, i, region, classes[:0], empty, Status.INFEASIBLE).to(device)
    if inside is True:
        limits = torch.isfinite(torch.cat([lower, upper])) & region.free.repeat(2)
        verdict = torch.where(limits, OPEN, REDUNDANT)
        verdict = torch.cat([torch.full_like(classes, OPEN), verdict])
        return _region_faces(head, i, region, classes, verdict, Status.UNDECIDED).to(device)
    verdict, points = needed_constraints(scaled, inside)
    points = torch.ldexp(points, -exponent)
    return _region_faces(head, i, region, classes, verdict, Status.CONVERGED, points).to(device)


def _exact_differences(head: LinearHead, i: int, classes: Tensor) -> bool:
    """Return whether no entry of w_i - w_k is rounded."""
    a, b = head._weight[i], head._weight[classes]
    difference = a - b
    # Knuth's error of a sum
    part = difference - a
    return bool((((a - (difference - part)) - (b + part)) == 0).all())


def _scale_features(region: Polyhedron, weight: Tensor) -> tuple[Polyhedron, Tensor]:
    """Return the region with features of similar weights, and their exponents (d,).

    Feature q is multiplied by two to the power of its exponent, which changes no number but its
    exponent: columns of very different sizes would be beyond the tolerances of a linear program.
    """
    exponent = torch.frexp(weight.abs().amax(dim=0)).exponent
    scaled = Polyhedron(
        rows=torch.ldexp(region.rows, -exponent),
        offset=region.offset,
        lower=torch.ldexp(region.lower, exponent),
        upper=torch.ldexp(region.upper, exponent),
        exact=region.exact,
    )
    same = (
        torch.equal(torch.ldexp(scaled.rows, exponent), region.rows)
        and torch.equal(torch.ldexp(scaled.lower, -exponent), region.lower)
        and torch.equal(torch.ldexp(scaled.upper, -exponent), region.upper)
    )
    return (scaled, exponent) if same else (region, torch.zeros_like(exponent))


def _distinct_classes(head: LinearHead, i: int) -> Tensor:
    """Return one class per distinct weight vector, without that of `i`, ascending.

    Among classes with equal weights, the one with the largest bias counts, and the lowest index
    among these. Classes with the weights of `i` set no limit that depends on the point.
    """
    _, group = head._weight.unique(dim=0, return_inverse=True)
    leaders: dict[int, int] = {}
    for k in head._bias.argsort(descending=True, stable=True).tolist():
        leaders.setdefault(int(group[k]), k)
    leaders.pop(int(group[i]))
    return torch.tensor(sorted(leaders.values()), dtype=torch.int64)


def _region_faces(
    head: LinearHead,
    i: int,
    region: Polyhedron,
    classes: Tensor,
    verdict: Tensor,
    status: Status,
    points: Tensor | None = None,
) -> RegionFaces:
    """Return the half-spaces that were not proved redundant, and those that were."""
    width, count = head.num_features, len(classes)
    listed = verdict != REDUNDANT
    kept, sides = classes[listed[:count]], listed[count:].nonzero()[:, 0]
    features = sides % width
    sign = 1.0 - 2.0 * (sides >= width).to(torch.float64)
    eye = torch.eye(width, dtype=torch.float64)
    limits = torch.cat([region.lower, region.upper])
    finite = torch.isfinite(limits) & region.free.repeat(2)
    redundant = (finite[: len(verdict) - count] & ~listed[count:]).nonzero()[:, 0] % width
    others = set() if status == Status.INFEASIBLE else set(range(head.num_classes)) - {i}
    if points is None:
        points = torch.full((len(verdict), width), torch.nan, dtype=torch.float64)
    return RegionFaces(
        normals=torch.cat([head._weight[i] - head._weight[kept], sign[:, None] * eye[features]]),
        offsets=torch.cat([head._bias[i] - head._bias[kept], -sign * limits[sides]]),
        classes=torch.cat([kept, torch.full_like(features, -1)]),
        coordinates=torch.cat([torch.full_like(kept, -1), features]),
        witnesses=points[listed],
        status=torch.where(verdict[listed] == NEEDED, int(Status.CONVERGED), int(Status.UNDECIDED)),
        source=i,
        region=status,
        redundant_classes=tuple(sorted(others - set(kept.tolist()))),
        redundant_limits=tuple(redundant.tolist()),
    )
