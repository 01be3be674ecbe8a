"""Minima of linear functions on balls of pixels: closed forms, cvxpy, samples."""

from __future__ import annotations

import cvxpy
import pytest
import torch

from fsboundary.geometry.bounds.pixel_sets import PixelSets


def draw(seed: int, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    center = torch.rand(3, n, generator=g, dtype=torch.float64)
    center[0, :2] = 0.0  # on the limits
    return center, torch.randn(3, 4, n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("radius", [0.0, 1e-3, 0.1, 0.6, 3.0])
def test_minimum_on_a_cube_is_that_of_its_corner(radius: float) -> None:
    center, a = draw(0)
    sets = PixelSets(center, torch.full((3,), radius, dtype=torch.float64), "linf", (0.0, 1.0))
    corner = (center[:, None] - radius * a.sign()).clamp(0, 1)
    exact = (a * corner).sum(dim=2)
    found = sets.minimum(a)
    assert bool((found <= exact).all())
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.6, 3.0])
def test_minimum_on_a_ball_cut_by_limits_is_that_of_cvxpy(radius: float) -> None:
    center, a = draw(1)
    radii = torch.tensor([radius, radius / 2, 0.0], dtype=torch.float64)
    found = PixelSets(center, radii, "l2", (0.0, 1.0)).minimum(a, tight=True)
    loose = PixelSets(center, radii, "l2", (0.0, 1.0)).minimum(a)
    assert bool((loose <= found).all())
    for row in range(3):
        for f in range(4):
            x = cvxpy.Variable(6)
            ball = cvxpy.norm(x - center[row].numpy()) <= float(radii[row])
            objective = cvxpy.Minimize(a[row, f].numpy() @ x)
            wanted = cvxpy.Problem(objective, [ball, x >= 0, x <= 1]).solve()
            # the tolerance of the solver
            assert float(found[row, f]) == pytest.approx(wanted, abs=2e-6)


def test_minimum_on_a_ball_inside_the_limits_is_the_closed_form() -> None:
    _, a = draw(2)
    center = torch.full((3, 6), 0.5, dtype=torch.float64)
    radii = torch.full((3,), 0.3, dtype=torch.float64)
    exact = 0.5 * a.sum(dim=2) - 0.3 * a.norm(dim=2)
    for tight in (False, True):
        found = PixelSets(center, radii, "l2", (0.0, 1.0)).minimum(a, tight=tight)
        assert bool((found <= exact + 1e-15).all())
        torch.testing.assert_close(found, exact, rtol=1e-13, atol=1e-13)


def test_a_centre_beyond_the_limits_is_in_its_set() -> None:
    center = torch.tensor([[1.0 + 1e-7, 0.5]], dtype=torch.float64)
    sets = PixelSets(center, torch.tensor([0.1], dtype=torch.float64), "linf", (0.0, 1.0))
    low, high = sets.box()
    assert bool(((low <= center) & (center <= high)).all())
