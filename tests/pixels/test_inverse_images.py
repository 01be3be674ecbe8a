"""Inverse images, against least squares, and on real images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.demo import load_demo
from fsboundary.pixels.inversion import total_variation
from support.pixels.bodies import SHAPE, Constant, images, linear, matrix, positive, smooth


@pytest.mark.parametrize("features", [5, 20])
def test_a_linear_body_is_inverted_exactly(features: int) -> None:
    space, x = linear(features), images(6)
    z = space.extract(x).features
    found = fsb.pixels.inverse_images(space, z, (2, *SHAPE), max_steps=100)
    assert found.images.shape == (6, 2, *SHAPE)
    assert bool((found.relative_residual < 1e-9).all())
    assert bool(found.ok.all())
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    # as many equations as pixels have one solution, fewer have many
    unique = features >= x[0].numel()
    assert bool((found.spread < 1e-6).all()) == unique
    if unique:
        torch.testing.assert_close(found.images[:, 1], x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("features", [5, 20])
def test_unreachable_features_have_the_least_residual_in_the_box(features: int) -> None:
    space = linear(features)
    z = space.extract(images(6)).features
    z = z + 3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=z.dtype)
    found = fsb.pixels.inverse_images(space, z, images(6, seed=3), max_steps=100)
    weight, bias = matrix(space)
    for row in range(6):
        target = (z[row] - bias).numpy()
        exact = lsq_linear(weight.numpy(), target, bounds=(0, 1), tol=1e-14)
        assert float(found.residual[row, 0]) == pytest.approx(
            float(np.sqrt(2 * exact.cost)), rel=1e-4
        )
    assert bool((found.status == Status.MAX_STEPS).any())


def test_reported_numbers_are_those_of_the_images() -> None:
    space = smooth()
    z = space.extract(images(4)).features
    found = fsb.pixels.inverse_images(space, z, images(4, seed=2), max_steps=5)
    again = space.extract(found.images[:, 0]).features
    torch.testing.assert_close(again, found.features[:, 0])
    torch.testing.assert_close((again - z).norm(dim=1), found.residual[:, 0])
    torch.testing.assert_close(found.residual[:, 0] / z.norm(dim=1), found.relative_residual[:, 0])
    assert torch.equal(found.predicted[:, 0], space.head.predict(again))
    near = fsb.flip_points(space.head, again).distance
    torch.testing.assert_close(near, found.boundary_distance)


def test_images_of_flip_points_are_on_the_boundary_of_a_linear_body() -> None:
    space, x = linear(), images(5) * 0.2 + 0.4
    bounds = (-20.0, 20.0)
    z = space.extract(x).features
    flips = fsb.flip_points(space.head, z)
    found = fsb.pixels.inverse_images(space, flips.points[:, 0], x, bounds=bounds, max_steps=100)
    assert bool((found.boundary_distance < 1e-6).all())
    assert bool((flips.distance > 1e-3).all())


def test_rows_do_not_depend_on_each_other() -> None:
    space = smooth()
    z, start = space.extract(images(5)).features, images(5, seed=2)
    whole = fsb.pixels.inverse_images(space, z, start, max_steps=30)
    for row in range(5):
        part = slice(row, row + 1)
        alone = fsb.pixels.inverse_images(space, z[part], start[part], max_steps=30)
        torch.testing.assert_close(alone.images, whole.images[part], atol=1e-7, rtol=0)
    small = fsb.pixels.inverse_images(space, z, start, max_steps=30, batch_size=2)
    torch.testing.assert_close(small.images, whole.images, atol=1e-7, rtol=0)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    space = smooth()
    z = space.extract(images(2)).features
    before = torch.random.get_rng_state()
    one, two, other = (
        fsb.pixels.inverse_images(space, z, (2, *SHAPE), max_steps=5, seed=seed).images
        for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


def test_several_starts_and_the_best() -> None:
    space = smooth()
    z = space.extract(images(3)).features
    starts = torch.stack([images(3, seed=4), images(3, seed=5)])
    found = fsb.pixels.inverse_images(space, z, starts, max_steps=3)
    for s in (0, 1):
        alone = fsb.pixels.inverse_images(space, z, starts[s], max_steps=3)
        torch.testing.assert_close(alone.images[:, 0], found.images[:, s])
        assert bool(torch.isnan(alone.spread).all())
    best = found.best()
    assert torch.equal(best.residual[:, 0], found.residual.amin(dim=1))
    apart = (found.images[:, 0] - found.images[:, 1]).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.spread, apart)


def test_bad_rows_fail_alone() -> None:
    space = positive()
    z, start = space.extract(images(5)).features, images(5, seed=2)
    good = fsb.pixels.inverse_images(space, z, start, max_steps=10)
    bad, begin = z.clone(), start.clone()
    bad[1, 0], bad[2, 0], begin[3, 0, 0, 0] = torch.nan, -1, torch.nan
    found = fsb.pixels.inverse_images(space, bad, begin, max_steps=10)
    wanted = [Status.NOT_FINITE, Status.OUTSIDE_DOMAIN, Status.NOT_FINITE]
    assert found.status[1:4, 0].tolist() == wanted
    assert bool(torch.isnan(found.images[1:4]).all())
    assert bool(torch.isnan(found.residual[1:4]).all())
    assert found.predicted[1:4, 0].tolist() == [-1] * 3
    for row in (0, 4):
        torch.testing.assert_close(found.images[row], good.images[row], atol=1e-7, rtol=0)
        assert found.status[row, 0] == good.status[row, 0]


def test_a_constant_body_gives_no_image() -> None:
    found = fsb.pixels.inverse_images(Constant(), torch.ones(2, 3), images(2).float(), max_steps=20)
    assert found.status.tolist() == [[Status.INACCURATE]] * 2
    assert bool(torch.isnan(found.images).all())


def test_no_rows() -> None:
    space = linear()
    space.extract(images(1))
    found = fsb.pixels.inverse_images(space, torch.zeros(0, 5), (2, *SHAPE))
    assert found.images.shape == (0, 2, *SHAPE)
    assert found.spread.shape == (0,)


def test_one_step_has_the_same_shape() -> None:
    space = smooth()
    found = fsb.pixels.inverse_images(
        space, space.extract(images(2)).features, images(2, 3), max_steps=1
    )
    assert found.images.shape == (2, 1, *SHAPE)
    assert bool(torch.isfinite(found.residual).all())


def test_the_prior_makes_images_smoother() -> None:
    space = linear(3)
    z = space.extract(images(6)).features
    plain, smoother = (
        fsb.pixels.inverse_images(space, z, (1, *SHAPE), prior=prior, max_steps=200).images[:, 0]
        for prior in (None, "tv")
    )
    assert float(total_variation(smoother).mean()) < 0.95 * float(total_variation(plain).mean())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"features": torch.zeros(2, 4)}, "features"),
        ({"start": images(3)}, "start"),
        ({"start": images(2) + 2}, "start"),
        ({"start": (1, 3, 4)}, "start"),
        ({"start": "noise"}, "start"),
        ({"start": torch.zeros(2, 2, 3, 4, dtype=torch.float64)}, "images"),
        ({"prior": "l2"}, "prior"),
        ({"max_steps": 0}, "max_steps"),
        ({"bounds": (1, 0)}, "bounds"),
        ({"space": "model"}, "model"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(change: dict[str, Any], name: str) -> None:
    good: dict[str, Any] = {"space": linear(), "features": torch.zeros(2, 5), "start": images(2)}
    with pytest.raises(ArgumentError) as error:
        fsb.pixels.inverse_images(**(good | change))
    assert error.value.name == name


def test_features_of_real_images_from_noise() -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    z = space.extract(demo.test_images[5:500:83]).features
    found = fsb.pixels.inverse_images(space, z, (1, 1, 28, 28))
    relative = found.relative_residual[:, 0]
    print(
        f"relative residual: median {float(relative.median()):.2e}, max {float(relative.max()):.2e}"
    )
    assert float(relative.quantile(0.5)) <= 1e-2
