"""Flip points of heads that are not linear: certified with the head to lie on the boundary."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import Domain, Status
from fsboundary.builtin.boundary_finders.linearised import Linearised
from fsboundary.core.errors import ArgumentError, PluginError

DOMAINS = [
    Domain.unbounded(),
    Domain.nonnegative(),
    Domain.box(torch.zeros(8), torch.full((8,), 1.5)),
]


def perceptron(seed: int, activation: type[nn.Module], width: int = 2) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(width, 12), activation(), nn.Linear(12, 3)).double()
        with torch.no_grad():
            for p in made.parameters():
                p.mul_(2)
    return made.eval()


def rows(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()


def find(head: Any, features: Tensor, targets: Any = "nearest", **options: Any) -> fsb.FlipPoints:
    return fsb.flip_points(head, features, targets, **{"finder": "linearised"} | options)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.kind)
def test_linear_callable_gets_the_exact_answer(domain: Domain) -> None:
    head = fsb.LinearHead(rows(6, 8, 0), rows(1, 6, 1)[0], domain)
    z = domain.clip(rows(6, 8, 2).abs())
    exact = fsb.flip_points(head, z, "all")
    found = find(lambda x: x @ head.weight.T + head.bias, z, "all", domain=domain)
    assert torch.equal(found.target, exact.target)
    reached = exact.status == Status.CONVERGED
    assert reached.any()
    assert (found.status[reached] == Status.ON_BOUNDARY).all()
    torch.testing.assert_close(found.distance[reached], exact.distance[reached], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.points[reached], exact.points[reached], rtol=0, atol=1e-6)
    assert (found.lower_bound == 0).all()


SPACING = 0.01


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_nearest_agrees_with_a_fine_grid(activation: type[nn.Module]) -> None:
    head, z = perceptron(0, activation), rows(8, 2, 3)
    found = find(head, z)
    axis = torch.arange(-4, 4, SPACING).double()
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    with torch.no_grad():
        top = head(grid.reshape(-1, 2)).argmax(dim=1).view(grid.shape[:2])
    for row in range(len(z)):
        away = torch.linalg.vector_norm(grid - z[row], dim=2)
        others = top != found.source[row]
        assert others.any()
        # a grid square of another class is at most a square's diagonal behind the boundary
        assert abs(float(found.distance[row, 0] - away[others].min())) < 2 * SPACING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_can_be_checked_with_the_head_alone(dtype: torch.dtype) -> None:
    head, z = perceptron(1, nn.ReLU, 5).to(dtype), rows(6, 5, 4)
    found = find(head, z.to(dtype), "all")
    assert found.ok.any()
    points = found.points[found.ok]
    assert torch.equal(points.to(dtype).double(), points)
    logits = head(points.to(dtype)).detach().double()
    source = found.source[:, None].expand_as(found.target)[found.ok]
    pair = torch.stack([source, found.target[found.ok]], dim=1)
    behind = logits.amax(dim=1) - logits.gather(1, pair).amin(dim=1)
    ranges = head(z.to(dtype)).detach().double()
    ranges = (ranges.amax(dim=1) - ranges.amin(dim=1))[:, None].expand_as(found.target)[found.ok]
    scale = torch.maximum(ranges, logits.amax(dim=1) - logits.amin(dim=1))
    assert (behind <= {torch.float32: 1.2e-5, torch.float64: 1e-8}[dtype] * scale).all()
    start = z.to(dtype).double()[:, None].expand_as(found.points)[found.ok]
    torch.testing.assert_close(found.distance[found.ok], (points - start).norm(dim=1))
    assert torch.equal(found.gap[found.ok], found.distance[found.ok])


def test_unusable_rows_fail_alone() -> None:
    head, z = perceptron(2, nn.Tanh, 3), rows(5, 3, 5).abs()
    spoilt = z.clone()
    spoilt[1, 0], spoilt[2, 1] = torch.nan, -1.0
    found = find(head, spoilt, domain=Domain.nonnegative())
    assert found.status[1, 0] == Status.NOT_FINITE
    assert found.status[2, 0] == Status.OUTSIDE_DOMAIN
    valid = [0, 3, 4]
    alone = find(head, z[valid], domain=Domain.nonnegative())
    torch.testing.assert_close(found.distance[valid], alone.distance, equal_nan=True)
    own = find(head, z, found.source.clamp_min(0))
    assert own.status[0, 0] == Status.TARGET_IS_SOURCE
    assert own.points[0].isnan().all()


def test_constant_head_has_no_boundary() -> None:
    found = find(lambda z: torch.tensor([[1.0, 0.0]]).double().repeat(len(z), 1), rows(3, 2, 6))
    assert (found.status == Status.MAX_STEPS).all()
    assert found.points.isnan().all()
    assert (found.lower_bound == 0).all()


def test_two_classes() -> None:
    head = nn.Linear(4, 2).double()
    z = rows(5, 4, 7)
    found = find(head, z)
    exact = fsb.flip_points(fsb.LinearHead(head.weight, head.bias), z)
    torch.testing.assert_close(found.distance, exact.distance, rtol=0, atol=1e-6)


def test_many_classes_nearest_is_the_smallest_of_all() -> None:
    head, z = nn.Linear(6, 40).double(), rows(4, 6, 8)
    exact = fsb.flip_points(fsb.LinearHead(head.weight, head.bias), z)
    found = find(head, z)
    assert torch.equal(found.target, exact.target)
    torch.testing.assert_close(found.distance, exact.distance, rtol=0, atol=1e-6)


class Liar(fsb.BoundaryFinder):
    """A finder that moves correct points off the boundary, or out of the domain."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def find(self, head: Any, features: Tensor, **options: Any) -> fsb.FlipPoints:
        found = Linearised().find(head, features, **options)
        return dataclasses.replace(
            found,
            points=found.points + self.shift,
            distance=torch.zeros_like(found.distance),
            lower_bound=torch.ones_like(found.lower_bound),
            status=torch.full_like(found.status, int(Status.CONVERGED)),
        )


def test_points_of_a_finder_are_checked() -> None:
    head, z = perceptron(0, nn.Tanh), rows(4, 2, 9)
    assert find(head, z, finder=Liar(0.0)).status.unique().tolist() == [Status.ON_BOUNDARY]
    found = find(head, z, finder=Liar(1e-3))
    assert (found.status == Status.INACCURATE).all()
    assert found.points.isnan().all()
    assert (found.lower_bound == 0).all()


def test_finder_must_have_the_capability() -> None:
    head, z = perceptron(0, nn.Tanh), rows(2, 2, 9)
    with pytest.raises(ArgumentError, match=r"'dual_newton', which lacks it; .*: linearised"):
        fsb.flip_points(head, z)
    with pytest.raises(PluginError, match="DualNewton raised"):
        find(head, z, finder=fsb.plugins.create("boundary_finder", "dual_newton"))


def coupled(z: Tensor) -> Tensor:
    return z - z.cumsum(dim=0)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("text", "head: got str; wanted a LinearHead, or a callable"),
        (nn.Linear(5, 3), "head: got a callable that raised RuntimeError: .*layers after those"),
        (lambda z: z.sum(dim=1), r"returns torch.float64 of shape \(4,\)"),
        (lambda z: (z, z), "a callable that returns tuple"),
        (lambda z: z[:, :1], r"of shape \(4, 1\)"),
        (lambda z: z.detach() * 2, "logits without a graph"),
        (coupled, "call head.eval"),
        (nn.Linear(3, 3).bfloat16(), "call head.float"),
    ],
)
def test_malformed_heads_are_rejected(head: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        find(head, rows(4, 3, 10))


def test_domain_belongs_to_callables() -> None:
    linear = fsb.LinearHead(torch.eye(3), None)
    with pytest.raises(ArgumentError, match="None with a LinearHead"):
        fsb.flip_points(linear, rows(2, 3, 11), domain=Domain.nonnegative())
    with pytest.raises(ArgumentError, match="a box of width 8"):
        find(nn.Linear(3, 3).double(), rows(2, 3, 11), domain=DOMAINS[2])
    with pytest.raises(ArgumentError, match="a Domain"):
        find(nn.Linear(3, 3).double(), rows(2, 3, 11), domain="nonnegative")


def test_weights_get_no_gradient() -> None:
    head = perceptron(0, nn.Tanh)
    find(head, rows(3, 2, 12))
    assert all(p.grad is None and p.requires_grad for p in head.parameters())
