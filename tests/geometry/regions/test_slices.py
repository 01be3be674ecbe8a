"""Slices: polygons compared with the classifier, on random and degenerate planes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.regions.slices import (
    Plane,
    Window,
    clip_polygon,
    cut,
    plane_through,
    polygon_area,
    rectangle,
)

WINDOW: Window = (-1.5, 2.5, -2.0, 1.0)
AREA = 12.0


def make_domain(kind: str, width: int) -> Domain:
    if kind == "box":
        high = torch.linspace(0.5, 3.0, width)
        return Domain.box(torch.zeros(width), torch.where(high > 2, torch.inf, high))
    return {"unbounded": Domain.unbounded(), "nonnegative": Domain.nonnegative()}[kind]


def make(seed: int, classes: int, width: int, kind: str) -> tuple[LinearHead, Plane]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    points = torch.rand(3, width, generator=generator, dtype=torch.float64)
    return LinearHead(weight, bias, make_domain(kind, width)), plane_through(*points)


def contains(polygon: Tensor, points: Tensor) -> Tensor:
    """Return whether a convex counter-clockwise polygon (V,2) contains each point (N,2)."""
    if len(polygon) == 0:
        return torch.zeros(len(points), dtype=torch.bool)
    edges = polygon.roll(-1, dims=0) - polygon
    offsets = points[:, None] - polygon
    return (edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0] >= 0).all(dim=1)


def scatter(seed: int, n: int, window: Window = WINDOW) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right, bottom, top = window
    unit = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    size = torch.tensor([right - left, top - bottom], dtype=torch.float64)
    return torch.tensor([left, bottom], dtype=torch.float64) + unit * size


@pytest.mark.parametrize("kind", ["unbounded", "nonnegative", "box"])
@pytest.mark.parametrize(("classes", "width"), [(2, 2), (3, 2), (10, 64), (40, 5), (200, 300)])
def test_points_lie_in_the_polygon_of_their_class(classes: int, width: int, kind: str) -> None:
    head, plane = make(classes + width, classes, width, kind)
    shown = cut(head, plane, WINDOW)
    points = scatter(1, 500)
    lifted = plane.lift(points)
    inside = torch.stack([contains(p, points) for p in shown.regions], dim=1)
    assert torch.equal(inside.sum(dim=1), torch.ones(500, dtype=torch.int64))
    assert torch.equal(inside.long().argmax(dim=1), head.predict(lifted))
    assert torch.equal(contains(shown.domain, points), head.domain.contains(lifted))


@pytest.mark.parametrize("seed", range(20))
def test_regions_tile_the_window(seed: int) -> None:
    head, plane = make(seed, 2 + seed, 2 + 3 * seed, "nonnegative")
    total = sum(float(polygon_area(p)) for p in cut(head, plane, WINDOW).regions)
    assert total == pytest.approx(AREA, rel=1e-12)


def test_far_and_tiny_windows_stay_exact() -> None:
    head, plane = make(3, 6, 8, "nonnegative")
    for window in [(-1e6, 1e6, -1e6, 1e6), (0.1, 0.1 + 1e-7, 0.2, 0.2 + 1e-7)]:
        shown = cut(head, plane, window)
        area = (window[1] - window[0]) * (window[3] - window[2])
        assert sum(float(polygon_area(p)) for p in shown.regions) == pytest.approx(area, rel=1e-6)
        points = scatter(2, 200, window)
        owners = head.predict(plane.lift(points))
        inside = torch.stack([contains(p, points) for p in shown.regions], dim=1)
        # a point nearer to an edge than rounding may fall in none
        assert float(inside[torch.arange(200), owners].double().mean()) >= 0.99


def test_domain_of_an_unbounded_head_is_the_whole_window() -> None:
    head, plane = make(0, 3, 4, "unbounded")
    assert torch.equal(cut(head, plane, WINDOW).domain, rectangle(WINDOW))


def test_domain_that_the_window_misses_is_empty() -> None:
    head = LinearHead(torch.eye(2), None, Domain.box(torch.full((2,), 9.0), torch.full((2,), 10.0)))
    plane = Plane(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert cut(head, plane, WINDOW).domain.shape == (0, 2)


def test_frame_is_orthonormal_and_holds_the_points() -> None:
    points = torch.rand(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plane = plane_through(*points)
    assert torch.allclose(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64), atol=1e-15)
    at = plane.locate(points)
    assert torch.equal(at[0], torch.zeros(2, dtype=torch.float64))
    assert float(at[1, 0]) > 0
    assert abs(float(at[1, 1])) < 1e-15
    assert float(at[2, 1]) > 0
    assert torch.allclose(plane.lift(at), points, atol=1e-14)


@pytest.mark.parametrize(
    ("second", "third"),
    [
        ([2.0, 1.0, 1.0], [3.0, 1.0, 1.0]),  # collinear
        ([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]),  # the second is the first
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]),  # the third is the first
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),  # all are equal
        ([2.0, 1.0, 1.0], [3.0, 1.0 + 1e-13, 1.0]),  # collinear up to rounding
    ],
)
def test_degenerate_points_still_give_a_plane_through_them(
    second: list[float], third: list[float]
) -> None:
    points = torch.tensor([[1.0, 1.0, 1.0], second, third], dtype=torch.float64)
    plane = plane_through(*points)
    assert torch.allclose(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(plane.lift(plane.locate(points)), points, atol=1e-12)


def test_one_feature_gives_strips() -> None:
    head = LinearHead(torch.tensor([[1.0], [-1.0]]), None)
    plane = plane_through(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([2.0]))
    first, second = cut(head, plane, (-1.0, 1.0, 0.0, 1.0)).regions
    assert float(polygon_area(first)) == pytest.approx(1.5)
    assert float(polygon_area(second)) == pytest.approx(0.5)


def test_classes_that_tie_everywhere_go_to_the_lowest() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    head = LinearHead(weight, torch.zeros(3))
    plane = Plane(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    regions = cut(head, plane, WINDOW).regions
    assert len(regions[2]) == 0
    assert sum(float(polygon_area(p)) for p in regions) == pytest.approx(AREA)


def test_clip_against_a_known_answer() -> None:
    square = rectangle((0.0, 1.0, 0.0, 1.0))
    sides = torch.tensor([[-1.0, -1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    triangle = clip_polygon(square, sides)
    assert float(polygon_area(triangle)) == pytest.approx(0.5)
    nowhere = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    assert clip_polygon(square, nowhere).shape == (0, 2)
    assert float(polygon_area(square[:0])) == 0.0
