"""Amplification, against the singular value decomposition, and within ball and box."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.demo import load_demo
from fsboundary.pixels.amplification import farthest_move
from support.pixels.bodies import SHAPE, Constant, images, linear, matrix, smooth

WIDE = (-100.0, 100.0)


@pytest.mark.parametrize("features", [2, 5, 20])
def test_on_a_linear_body_the_largest_move_is_the_singular_direction(features: int) -> None:
    space, x = linear(features), images(4)
    found = fsb.pixels.amplification(space, x, radius=0.3, bounds=WIDE)
    _, values, right = torch.linalg.svd(matrix(space)[0], full_matrices=False)
    top = values[0].expand(4)
    torch.testing.assert_close(found.singular_value, top)
    torch.testing.assert_close(found.max_displacement, 0.3 * top)
    cosine = (found.max_direction.flatten(1) @ right[0]).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    near = fsb.flip_points(space.head, space.extract(x).features).distance[:, 0]
    torch.testing.assert_close(found.boundary_distance, near)
    torch.testing.assert_close(found.vulnerability, found.max_displacement / near)
    assert bool((found.random_mean < found.random_max).all())
    assert bool((found.random_max <= found.max_displacement).all())
    assert bool(torch.isnan(found.towards_flip).all())


def test_rank_one_and_repeated_singular_values() -> None:
    space, x = linear(4), images(3)
    layer = space.model.get_submodule("1")
    for weight, top in (
        (torch.ones(4, 12, dtype=torch.float64), 48**0.5),
        (3 * torch.eye(4, 12, dtype=torch.float64), 3.0),
    ):
        layer.weight.data.copy_(weight)
        found = fsb.pixels.amplification(space, x, radius=0.1, bounds=WIDE)
        torch.testing.assert_close(
            found.singular_value, torch.full_like(found.max_displacement, top)
        )
        torch.testing.assert_close(
            found.max_displacement, torch.full_like(found.max_displacement, 0.1 * top)
        )


def test_the_largest_displacement_is_reached_within_the_box() -> None:
    space, x = smooth(), images(5).round()  # every pixel at a bound
    found = fsb.pixels.amplification(space, x, radius=0.5)
    move = farthest_move(x, found.max_direction, 0.5, (0, 1))
    far = space.extract((x + move).clamp(0, 1)).features - space.extract(x).features
    torch.testing.assert_close(far.norm(dim=1), found.max_displacement)
    torch.testing.assert_close(move.flatten(1).norm(dim=1), torch.full((5,), 0.5).double())


def test_farthest_move_beats_every_other_of_its_length() -> None:
    x, direction = images(3), images(3, seed=2) - 0.5
    move = farthest_move(x, direction, 0.8, (0, 1))
    best = (move * direction).flatten(1).sum(dim=1)
    generator = torch.Generator().manual_seed(3)
    for _ in range(300):
        other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        other = 0.8 * other / other.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        other = (x + 0.3 * other + 0.7 * move).clamp(0, 1) - x
        length = other.flatten(1).norm(dim=1).clamp_min(0.8).reshape(-1, 1, 1, 1)
        assert bool(((0.8 / length * other * direction).flatten(1).sum(dim=1) <= best).all())
    assert bool((((x + move) >= 0) & ((x + move) <= 1)).all())


def test_a_move_is_as_long_as_the_box_lets_it() -> None:
    x = images(2)
    move = farthest_move(x, torch.ones_like(x), 1e3, (0, 1))
    torch.testing.assert_close(x + move, torch.ones_like(x))
    assert bool((farthest_move(x, torch.zeros_like(x), 1.0, (0, 1)) == 0).all())


def test_the_direction_to_a_flip_image() -> None:
    space, x = linear(), images(3)
    ends = images(3, seed=2)
    ends[1] = torch.nan
    found = fsb.pixels.amplification(space, x, radius=0.2, flips=ends)
    move = ends - x
    move = 0.2 * move / move.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    far = (move.flatten(1) @ matrix(space)[0].T).norm(dim=1)
    torch.testing.assert_close(found.towards_flip, far, equal_nan=True)


def test_rows_do_not_depend_on_each_other_and_bad_ones_fail_alone() -> None:
    space, x = smooth(), images(5)
    whole = fsb.pixels.amplification(space, x, radius=0.3)
    for row in range(5):
        alone = fsb.pixels.amplification(space, x[row : row + 1], radius=0.3)
        torch.testing.assert_close(alone.max_displacement, whole.max_displacement[row : row + 1])
        torch.testing.assert_close(alone.random_max, whole.random_max[row : row + 1])
    small = fsb.pixels.amplification(space, x, radius=0.3, batch_size=2)
    torch.testing.assert_close(small.max_displacement, whole.max_displacement)
    x = x.clone()
    x[1, 0, 0, 0] = torch.nan
    found = fsb.pixels.amplification(space, x, radius=0.3)
    assert found.status[1] == Status.NOT_FINITE
    assert bool(torch.isnan(found.max_displacement[1]))
    assert found.predicted[1] == -1
    valid = [0, 2, 3, 4]
    torch.testing.assert_close(found.max_displacement[valid], whole.max_displacement[valid])
    assert found.ranking().tolist()[-1] == 1
    scores = found.vulnerability[found.ranking()[:-1]]
    assert bool((scores[:-1] >= scores[1:]).all())


def test_classes_are_ranked_by_their_median() -> None:
    space, x = smooth(), images(40)
    found = fsb.pixels.amplification(space, x, radius=0.3, max_steps=2)
    table = fsb.pixels.vulnerability_by_class(found)
    assert sum(line["images"] for line in table.values()) == 40
    medians = [line["median"] for line in table.values()]
    assert medians == sorted(medians, reverse=True)
    k = next(iter(table))
    scores = found.vulnerability[found.predicted == k]
    assert table[k]["median"] == pytest.approx(float(scores.quantile(0.5)))
    assert table[k]["largest"] == pytest.approx(float(scores.amax()))
    with pytest.raises(ArgumentError, match="labels"):
        fsb.pixels.vulnerability_by_class(found, torch.zeros(3))
    with pytest.raises(ArgumentError, match="found"):
        fsb.pixels.vulnerability_by_class(space)  # type: ignore[arg-type]  # wrong on purpose


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    space, x = smooth(), images(2)
    before = torch.random.get_rng_state()
    one, two, other = (
        fsb.pixels.amplification(space, x, radius=0.3, seed=seed).random_mean for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


def test_a_constant_body_moves_nowhere() -> None:
    found = fsb.pixels.amplification(Constant(), images(2).float(), radius=0.3)
    assert found.max_displacement.tolist() == [0, 0]
    assert found.singular_value.tolist() == [0, 0]
    assert bool(torch.isnan(found.max_direction).all())
    assert found.boundary_distance.tolist() == pytest.approx([0.5**0.5] * 2)


def test_no_rows() -> None:
    space = linear()
    space.extract(images(1))
    found = fsb.pixels.amplification(space, images(1)[:0], radius=1.0)
    assert found.max_displacement.shape == (0,)
    assert found.max_direction.shape == (0, *SHAPE)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"images": images(2) + 1}, "images"),
        ({"images": torch.zeros(2, 2, 3, 4, dtype=torch.float64)}, "images"),
        ({"images": torch.zeros(2, 12)}, "images"),
        ({"radius": 0}, "radius"),
        ({"radius": float("nan")}, "radius"),
        ({"radius": "large"}, "radius"),
        ({"flips": images(3)}, "flips"),
        ({"flips": images(2) + 1}, "flips"),
        ({"directions": 0}, "directions"),
        ({"max_steps": 0}, "max_steps"),
        ({"labels": torch.zeros(3)}, "labels"),
    ],
)
def test_bad_arguments(change: dict[str, Any], name: str) -> None:
    good: dict[str, Any] = {"space": linear(), "images": images(2), "radius": 0.1}
    with pytest.raises(ArgumentError) as error:
        fsb.pixels.amplification(**(good | change))
    assert error.value.name == name


def test_the_demo_s_singular_values_and_its_missing_preprocessing() -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    x = demo.test_images[3:500:71]
    found = fsb.pixels.amplification(space, x, radius=0.3, directions=2)
    exact = torch.stack(
        [
            torch.linalg.matrix_norm(
                torch.autograd.functional.jacobian(
                    lambda image: space.features(image[None])[0], row
                ).reshape(64, -1),
                2,
            )
            for row in x
        ]
    )
    ratio = found.singular_value / exact
    print(
        f"relative to the exact singular value: {float(ratio.min()):.4f}, {float(ratio.max()):.4f}"
    )
    assert bool((ratio >= 0.95).all())
    assert bool((ratio <= 1 + 1e-4).all())
    assert fsb.pixels.check_accuracy(space, demo.test_images, demo.test_labels) > 0.9
    with pytest.warns(UserWarning, match="preprocessing missing"):
        fsb.pixels.check_accuracy(demo.model, demo.test_images, demo.test_labels)
