"""Exact two-dimensional slices of a feature space, as polygons.

A decision region is a polyhedron, so a plane intersects it in a convex polygon. Each polygon is
found by clipping the window, a rectangle in the plane, with half-planes (Sutherland and Hodgman):
its corners are exact up to float64 rounding, whatever the window's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead

Window = tuple[float, float, float, float]
"""Left, right, bottom and top of a rectangle in a plane, feature units."""

_COLLINEAR_RTOL = 1e-9
"""Three points count as collinear where the third is nearer to the line of the others than this
fraction of its distance to the first: the remainder is then mostly rounding."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A plane in feature space with an orthonormal frame.

    Attributes
    ----------
    origin : Tensor (d,), float64
        Point with coordinates (0, 0).
    axes : Tensor (2, d), float64
        Unit vectors, orthogonal. With d = 1 there is no second direction and the second axis is
        zero: pictures are then constant along it.
    """

    origin: Tensor
    axes: Tensor

    def locate(self, points: Tensor) -> Tensor:
        """Return coordinates (..., 2) of the projections of `points` (..., d) on the plane."""
        return (points.to(torch.float64) - self.origin) @ self.axes.T

    def lift(self, coordinates: Tensor) -> Tensor:
        """Return the points (..., d) of the plane at `coordinates` (..., 2)."""
        return self.origin + coordinates.to(torch.float64) @ self.axes


@final
@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The decision regions and the domain in a window of a plane.

    Attributes
    ----------
    regions : tuple of Tensor (V, 2), float64
        Corners per class, counter-clockwise, of its decision region in the window, **without** the
        domain; (0, 2) where it does not meet the window. The regions tile the window.
    domain : Tensor (V, 2), float64
        Corners of the part of the window that lies in the domain.
    """

    regions: tuple[Tensor, ...]
    domain: Tensor


def plane_through(
    first: Float[Tensor, " d"], second: Float[Tensor, " d"], third: Float[Tensor, " d"]
) -> Plane:
    """Return the plane through three points.

    Parameters
    ----------
    first, second, third : Tensor (d,)
        Points of the plane: `first` is the origin, `second` is on the positive first axis, `third`
        in the upper half. Where two of them or all three coincide or are collinear many planes
        contain them: the missing direction is then the coordinate axis that is least parallel to
        the axes found so far.
    """
    origin, b, c = (p.detach().to(torch.float64) for p in (first, second, third))
    candidates = [b - origin, c - origin]
    axes: list[Tensor] = []
    for candidate in candidates:
        rest = _orthogonalise(candidate, axes)
        if float(rest.norm()) > _COLLINEAR_RTOL * float(candidate.norm()):
            axes.append(rest / rest.norm())
    while len(axes) < 2:
        axes.append(_orthogonal_unit(origin, axes))
    return Plane(origin, torch.stack(axes))


def _orthogonalise(vector: Tensor, axes: list[Tensor]) -> Tensor:
    """Return `vector` without its components along `axes`."""
    for _ in range(2):  # the second pass removes the rounding of the first
        for axis in axes:
            vector = vector - (vector @ axis) * axis
    return vector


def _orthogonal_unit(like: Tensor, axes: list[Tensor]) -> Tensor:
    """Return a unit vector orthogonal to `axes`, or zeros where d is too small for one."""
    if len(axes) >= len(like):
        return torch.zeros_like(like)
    used = torch.stack([*axes, torch.zeros_like(like)]).square().sum(dim=0)
    unit = torch.zeros_like(like)
    unit[used.argmin()] = 1.0
    rest = _orthogonalise(unit, axes)
    length: Tensor = rest.norm()
    return rest / length


def cut(head: LinearHead, plane: Plane, window: Window) -> Slice:
    """Return the polygons of every decision region and of the domain in a window.

    Parameters
    ----------
    head : LinearHead
        Head with K classes and d features, and the domain.
    plane : Plane
        Plane in the same d dimensions.
    window : tuple of float
        Left, right, bottom and top; left < right and bottom < top. Feature units.
    """
    logits = torch.column_stack([head._weight @ plane.axes.T, head.logits(plane.origin)])
    start = rectangle(window).to(logits.device)
    regions = tuple(_region(logits, i, start) for i in range(head.num_classes))
    return Slice(regions, domain_polygon(head.domain, plane, window))


def rectangle(window: Window) -> Float64[Tensor, "4 2"]:
    """Return the corners (4, 2) of a window, counter-clockwise."""
    left, right, bottom, top = window
    corners = [[left, bottom], [right, bottom], [right, top], [left, top]]
    return torch.tensor(corners, dtype=torch.float64)


def _region(logits: Tensor, i: int, start: Tensor) -> Tensor:
    """Return the polygon where class `i` has the largest logit, the lowest index on ties."""
    sides = logits[i] - logits
    # of classes that tie everywhere on the plane, the lowest index is predicted
    if bool((sides[:i] == 0).all(dim=1).any()):
        return start[:0]
    return clip_polygon(start, sides)


def domain_polygon(domain: Domain, plane: Plane, window: Window) -> Float64[Tensor, "V 2"]:
    """Return the corners, counter-clockwise, of the part of a window that lies in the domain."""
    start = rectangle(window).to(plane.origin.device)
    return clip_polygon(start, _domain_sides(domain, plane))


def _domain_sides(domain: Domain, plane: Plane) -> Tensor:
    """Return the half-planes (n, 3) in which the plane meets the domain's faces."""
    low, high = domain.limits(plane.origin)
    lower = torch.column_stack([plane.axes.T, plane.origin - low])
    upper = torch.column_stack([-plane.axes.T, high - plane.origin])
    return torch.cat([lower[low.isfinite()], upper[high.isfinite()]])


def clip_polygon(
    polygon: Float64[Tensor, "V 2"], sides: Float64[Tensor, "n 3"]
) -> Float64[Tensor, "W 2"]:
    """Return the part of a convex polygon that satisfies ``a u + b v + c >= 0`` for all sides.

    Parameters
    ----------
    polygon : Tensor (V, 2), float64
        Corners in order.
    sides : Tensor (n, 3), float64
        Half-planes, one row (a, b, c) each. Rows with a = b = 0 hold everywhere or nowhere.

    Returns
    -------
    Tensor (W, 2), float64
        Corners in the same order; (0, 2) where nothing with an area is left.
    """
    pending = torch.ones(len(sides), dtype=torch.bool, device=sides.device)
    norms = sides[:, :2].norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    while len(polygon) >= 3 and bool(pending.any()):
        heights = polygon @ sides[:, :2].T + sides[:, 2]
        depth = torch.where(pending, heights.amin(dim=0) / norms, 0.0)
        side = int(depth.argmin())  # deepest cut first: few of many sides are needed
        if depth[side] >= 0:
            return polygon
        polygon = _clip_to_half_plane(polygon, heights[:, side])
        pending[side] = False
    return polygon if len(polygon) >= 3 else polygon[:0]


def _clip_to_half_plane(polygon: Tensor, height: Tensor) -> Tensor:
    """Return the part of a convex polygon at heights >= 0, given the height of each corner."""
    inside = height >= 0
    following, next_height = polygon.roll(-1, dims=0), height.roll(-1)
    crosses = inside != (next_height >= 0)
    fraction = torch.where(crosses, height / (height - next_height), 0.0)
    crossings = polygon + fraction[:, None] * (following - polygon)
    corners = torch.stack([polygon, crossings], dim=1).reshape(-1, 2)
    return corners[torch.stack([inside, crosses], dim=1).reshape(-1)]


def polygon_area(polygon: Float64[Tensor, "V 2"]) -> Float64[Tensor, ""]:
    """Return the area (scalar) of a polygon (V, 2) with counter-clockwise corners."""
    centred = polygon - polygon.mean(dim=0) if len(polygon) else polygon
    x, y = centred.unbind(dim=1)
    return (x * y.roll(-1) - x.roll(-1) * y).sum() / 2


def polygon_centre(polygon: Float64[Tensor, "V 2"]) -> Float64[Tensor, " 2"]:
    """Return the centroid (2,) of a polygon (V, 2) with nonzero area."""
    mean = polygon.mean(dim=0)
    x, y = (polygon - mean).unbind(dim=1)
    weights = x * y.roll(-1) - x.roll(-1) * y
    sums = torch.stack([x + x.roll(-1), y + y.roll(-1)], dim=1)
    return mean + (weights[:, None] * sums).sum(dim=0) / (3 * weights.sum())


def polygon_sides(polygon: Float64[Tensor, "V 2"]) -> Float64[Tensor, "V 3"]:
    """Return the half-planes (V, 3) whose intersection is a counter-clockwise polygon (V, 2)."""
    edges = polygon.roll(-1, dims=0) - polygon
    normals = torch.stack([-edges[:, 1], edges[:, 0]], dim=1)
    return torch.column_stack([normals, -(normals * polygon).sum(dim=1)])
