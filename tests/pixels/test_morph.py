"""Morphs, against straight lines on a linear body, and through flip points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.demo import load_demo
from support.pixels.bodies import PIXELS, images, linear, positive, smooth


def pair(space: fsb.FeatureSpace) -> tuple[Tensor, Tensor]:
    """Return starts and ends (4,...) whose classes differ row by row."""
    x = images(400, seed=7)
    predicted = space.extract(x).predicted
    start, end = [], []
    for k in predicted.unique().tolist():
        start += list((predicted == k).nonzero()[:2, 0])
        end += list((predicted != k).nonzero()[-2:, 0])
    return x[torch.stack(start[:4])], x[torch.stack(end[:4])]


def test_on_a_linear_body_the_morph_is_the_blend_and_crosses_at_the_exact_point() -> None:
    space = linear()
    start, end = pair(space)
    found = fsb.pixels.morph(space, start, end, steps=5, max_steps=5)
    torch.testing.assert_close(found.images, found.blend, atol=1e-9, rtol=0)
    z, behind = (space.extract(x).features for x in (start, end))
    paths = fsb.class_path(space.head, z, behind)
    a, b = space.head.logits(z), space.head.logits(behind)
    i, j = paths.classes[:, 0], paths.classes[:, 1]
    rows = torch.arange(len(z))
    before, after = (v[rows, i] - v[rows, j] for v in (a, b))
    formula = before / (before - after)
    for crossing in (found.crossing, found.blend_crossing):
        torch.testing.assert_close(crossing, formula, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.feature_crossing, formula)
    jump = (end - start).flatten(1).norm(dim=1) / 4
    torch.testing.assert_close(found.largest_jump, jump)
    assert found.ok.all()


def test_first_and_last_frames_are_the_given_images() -> None:
    space = smooth()
    start, end = pair(space)
    for via in ("straight", "flip_point"):
        found = fsb.pixels.morph(space, start, end, steps=4, via=via, max_steps=20)
        assert torch.equal(found.images[:, 0], start)
        assert torch.equal(found.images[:, -1], end)
        assert bool(((found.images >= 0) & (found.images <= 1)).all())
        assert found.times[0, 0] == 0
        assert found.times[0, -1] == 1
        assert found.times.shape == (4, 4)


def test_reported_numbers_are_those_of_the_frames() -> None:
    space = smooth()
    start, end = pair(space)
    found = fsb.pixels.morph(space, start, end, steps=4, max_steps=10)
    z = space.extract(found.images.flatten(0, 1)).features.reshape(found.features.shape)
    torch.testing.assert_close(found.features, z)
    torch.testing.assert_close(found.logits, space.head.logits(z))
    assert torch.equal(found.predicted, space.head.logits(z).argmax(dim=-1))
    wanted = torch.lerp(z[:, :1], z[:, -1:], found.times[..., None])
    torch.testing.assert_close(found.off_path, (z - wanted).norm(dim=2) / wanted.norm(dim=2))


@pytest.mark.parametrize("steps", [2, 3, 6, 7])
def test_the_flip_point_is_met_half_way(steps: int) -> None:
    space = linear()
    x = images(4) * 0.1 + 0.45
    z = space.extract(x).features
    # the segment to the flip point of any other target may cross a third class first
    target = fsb.flip_points(space.head, z).target[:, 0]
    flips = fsb.flip_points(space.head, z, target)
    bounds = (-50.0, 50.0)
    found = fsb.pixels.morph(
        space, x, target, steps=steps, via="flip_point", bounds=bounds, max_steps=150
    )
    torch.testing.assert_close(found.features[:, -1], 2 * flips.points[:, 0] - z)
    assert found.ok.all()
    half = torch.full_like(found.crossing, 0.5)
    torch.testing.assert_close(found.feature_crossing, half)
    if steps > 2:
        assert (found.times == 0.5).any()
        torch.testing.assert_close(found.crossing, half, atol=2e-4, rtol=0)
        middle = found.times[0].tolist().index(0.5)
        torch.testing.assert_close(found.features[:, middle], flips.points[:, 0])


def test_bad_rows_fail_alone() -> None:
    space = positive()
    start, end = pair(space)
    good = fsb.pixels.morph(space, start, end, steps=3, max_steps=10, via="flip_point")
    start, end = start.clone(), end.clone()
    start[0, 0, 0, 0] = torch.nan
    end[1] = start[1]
    end[2, 0, 0, 0] = torch.nan
    found = fsb.pixels.morph(space, start, end, steps=3, max_steps=10, via="flip_point")
    wanted = [Status.NOT_FINITE, Status.TARGET_IS_SOURCE, Status.NOT_FINITE]
    assert found.status[:3].tolist() == wanted
    for name in ("images", "blend", "features", "off_path", "crossing", "largest_jump"):
        assert bool(torch.isnan(getattr(found, name)[:3]).all()), name
    assert bool((found.predicted[:3] == -1).all())
    torch.testing.assert_close(found.images[3], good.images[3], atol=1e-7, rtol=0)
    assert found.status[3] == good.status[3]


def test_a_path_within_one_class_has_no_crossing() -> None:
    space = linear()
    start, _ = pair(space)
    found = fsb.pixels.morph(space, start, start, steps=3, max_steps=2)
    for name in ("crossing", "blend_crossing", "feature_crossing"):
        assert bool(torch.isnan(getattr(found, name)).all()), name
    assert bool((found.largest_jump == 0).all())


def test_rows_do_not_depend_on_each_other() -> None:
    space = smooth()
    start, end = pair(space)
    whole = fsb.pixels.morph(space, start, end, steps=4, max_steps=20)
    for row in range(4):
        part = slice(row, row + 1)
        alone = fsb.pixels.morph(space, start[part], end[part], steps=4, max_steps=20)
        torch.testing.assert_close(alone.images, whole.images[part], atol=1e-7, rtol=0)
        torch.testing.assert_close(
            alone.crossing, whole.crossing[part], atol=1e-4, rtol=0, equal_nan=True
        )


def test_on_the_demo_straight_paths_are_followed_and_off_path_frames_reported() -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    start, end = demo.test_images[[36, 181]], demo.test_images[[260, 420]]
    assert not torch.equal(*(space.extract(x).predicted for x in (start, end)))
    found = fsb.pixels.morph(space, start, end, steps=5, max_steps=200)
    print(f"off the path at most {float(found.off_path.max()):.3f}, {found.status.tolist()}")
    assert torch.equal(found.images[:, [0, -1]], torch.stack([start, end], dim=1))
    assert torch.equal(found.status == Status.CONVERGED, found.off_path.amax(dim=1) <= 0.03)
    # the blend leaves the path by ten times as much
    blended = space.extract(found.blend.flatten(0, 1)).features.reshape(found.features.shape)
    fractions = found.times[..., None]
    wanted = torch.lerp(found.features[:, :1], found.features[:, -1:], fractions)
    off = ((blended - wanted).norm(dim=2) / wanted.norm(dim=2)).amax(dim=1)
    assert bool((found.off_path.amax(dim=1) < 0.2 * off).all())
    # and neighbouring frames stay as close as the size of the change allows
    assert bool((found.largest_jump < 3 * found.blend_largest_jump).all())
    crossed = ~torch.isnan(found.crossing)
    assert bool(crossed.any())
    assert bool((found.predicted[crossed, 0] != found.predicted[crossed, -1]).all())


def test_no_rows() -> None:
    space = linear()
    space.extract(images(1))
    found = fsb.pixels.morph(space, images(1)[:0], images(1)[:0], steps=3)
    assert found.images.shape == (0, 3, 1, 3, 4)
    assert found.crossing.shape == (0,)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"end": images(3)}, "end"),
        ({"end": images(2) - 1}, "end"),
        ({"start": images(2) * 300}, "start"),
        ({"end": torch.tensor([0, 3])}, "targets"),
        ({"end": torch.tensor([True, False])}, "end"),
        ({"end": 1}, "end"),
        ({"steps": 1}, "steps"),
        ({"via": "curve"}, "via"),
        ({"max_steps": 0}, "max_steps"),
        ({"bounds": 1}, "bounds"),
        ({"start": torch.zeros(2, 1, PIXELS)}, "start"),
    ],
)
def test_bad_arguments(change: dict[str, Any], name: str) -> None:
    good: dict[str, Any] = {"space": linear(), "start": images(2), "end": images(2, seed=3)}
    with pytest.raises(ArgumentError) as error:
        fsb.pixels.morph(**(good | change))
    assert error.value.name == name
