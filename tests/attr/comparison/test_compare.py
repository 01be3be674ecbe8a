from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import Status
from fsboundary.attr import compare
from fsboundary.attr.comparison.compare import FLIP_STEPS
from fsboundary.attr.comparison.metrics import METRICS
from fsboundary.core.results import FlipImages
from fsboundary.demo import DemoData
from support.attr.cases import LinearCase


def noise(case: LinearCase, *names: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(case.images.shape, generator=generator).double() for n in names}


def test_without_a_model_the_curves_are_nan_and_all_shapes_the_same(linear: LinearCase) -> None:
    given = noise(linear, "a", "b", "c")
    bare = compare(linear.images, given, steps=4)
    full = compare(linear.images, given, steps=4, space=linear.space)
    assert bare.methods == ("a", "b", "c")
    assert bare.metrics == METRICS
    assert bare.reference == ""
    for name, value in bare.to_dict().items():
        if isinstance(value, Tensor):
            assert value.shape == full.to_dict()[name].shape
    assert bare.per_image.shape == (6, 5, 3, 3)
    assert bare.mean.shape == bare.ci_low.shape == bare.ci_high.shape == (6, 3, 3)
    for name in ("deletion", "reach", "crossing", "flip_distance"):
        assert bool(getattr(bare, name).isnan().all())
        assert not bool(getattr(full, name).isnan().any())
    assert torch.equal(bare.per_image, full.per_image)
    torch.testing.assert_close(bare.mean, bare.per_image.mean(dim=1))
    assert bool((bare.ci_low <= bare.mean + 1e-12).all())
    assert bool((bare.mean <= bare.ci_high + 1e-12).all())
    assert bool(bare.ok.all())


def test_deletion_is_that_of_slow_loops(linear: LinearCase) -> None:
    given = noise(linear, "a", "b")
    baselines = 0.2 * torch.ones_like(linear.images)
    found = compare(linear.images, given, space=linear.space, baselines=0.2, steps=7)
    start = linear.margins(linear.images)
    for m, attribution in enumerate(given.values()):
        for row in range(5):
            sizes = attribution[row].abs().sum(dim=0).flatten().tolist()
            order = sorted(range(12), key=lambda p, sizes=sizes: -sizes[p])
            for t in range(7):
                images = linear.images.clone()
                for pixel in order[: round(t / 6 * 12)]:
                    at = (row, slice(None), pixel // 4, pixel % 4)
                    images[at] = baselines[at]
                expected = float(linear.margins(images)[row] / start[row])
                assert float(found.deletion[m, row, t]) == pytest.approx(expected, abs=1e-9)


def crossing(case: LinearCase, attribution: Tensor, row: int) -> float:
    """Return how far from the image the line of `attribution` leaves the class, either way."""
    own = int(case.predicted[row])
    unit = attribution[row].flatten() / attribution[row].norm()
    lead = case.logits(case.images)[row]
    slopes = {k: float((case.weight[own] - case.weight[k]) @ unit) for k in range(4) if k != own}
    return min(
        (float(lead[own] - lead[k]) / abs(slope) for k, slope in slopes.items() if slope != 0),
        default=math.inf,
    )


def test_along_the_way_to_the_flip_image_the_boundary_is_there(
    demo: DemoData, demo_space: fsb.FeatureSpace
) -> None:
    # where it bends, the margin may rise at first
    images = demo.test_images[:12]
    flips = fsb.pixels.flip_images(demo_space, images, max_steps=60)
    ways = {"to": flips.images - images, "from": images - flips.images}
    found = compare(images, ways, space=demo_space, flips=flips, metrics=("cosine",))
    torch.testing.assert_close(found.crossing, torch.ones(2, 12).double(), rtol=0, atol=2e-3)
    way = {"to": ways["to"][:2]}
    own = compare(images[:2], way, space=demo_space, flips=images[:2])
    assert own.status.tolist() == [[Status.INACCURATE] * 2]
    assert torch.isnan(own.crossing).all()


def test_reach_is_the_closed_form_on_a_linear_model(linear: LinearCase) -> None:
    given = noise(linear, "a", "b", "c", seed=5)
    found = compare(linear.images, given, space=linear.space)
    start = linear.margins(linear.images)
    for m, attribution in enumerate(given.values()):
        for row in range(5):
            unit = float(found.flip_distance[row])
            expected = crossing(linear, attribution, row) / unit
            value = float(found.crossing[m, row])
            if expected > 10:
                assert math.isinf(value)
            else:  # halving stops at 1/4,096 of a step of 0.5
                assert expected <= value + 1e-9 <= expected + 2e-4
    opposite = compare(linear.images, {"a": -given["a"]}, space=linear.space)
    torch.testing.assert_close(opposite.reach[0], found.reach[0])
    unit = given["a"] / given["a"].flatten(1).norm(dim=1)[:, None, None, None]
    step = found.path_position[1] * found.flip_distance[:, None, None, None] * unit
    ends = [linear.margins(linear.images + sense * step) / start for sense in (1, -1)]
    for row in range(5):
        assert any(abs(float(found.reach[0, row, 1] - end[row])) < 1e-9 for end in ends)


def test_flip_distance_is_the_nearest_on_a_linear_model_of_two_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).double().eval()
    images = torch.randn(6, 1, 3, 4, generator=generator, dtype=torch.float64)
    weight = (model[1].weight[0] - model[1].weight[1]).detach()
    toward = weight.reshape(1, 1, 3, 4).expand(6, -1, -1, -1)
    found = compare(images, {"w": toward}, space=fsb.FeatureSpace(model), bounds=(-9, 9))
    logits = model(images).detach()
    nearest = (logits[:, 0] - logits[:, 1]).abs() / weight.norm()
    torch.testing.assert_close(found.flip_distance, nearest, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.crossing[0], torch.ones(6).double(), rtol=1e-3, atol=0)


def test_the_unit_is_that_of_flip_images_and_comes_nearer_with_more_steps(
    demo: DemoData, demo_space: fsb.FeatureSpace
) -> None:
    images = demo.test_images[100:103]
    given = {"boundary": fsb.attr.BoundaryDirection(demo_space).attribute(images)}
    few, more = (
        compare(images, given, space=demo_space, metrics=("cosine",), steps=3, max_steps=count)
        for count in (15, FLIP_STEPS)
    )
    expected = fsb.pixels.flip_images(demo_space, images, max_steps=FLIP_STEPS)
    assert bool(expected.ok.all())
    torch.testing.assert_close(more.flip_distance, expected.distance, rtol=1e-6, atol=0)
    passed = compare(images, given, space=demo_space, metrics=("cosine",), steps=3, flips=expected)
    torch.testing.assert_close(passed.crossing, more.crossing, rtol=1e-6, atol=0)
    assert bool((few.flip_distance > more.flip_distance).all())
    # a straight line along a gradient at the image leads to no nearer place on the boundary, if
    # flip images are as free to leave the range of pixels as the line is
    free = compare(
        images, given, space=demo_space, metrics=("cosine",), steps=3, bounds=(-9.0, 9.0)
    )
    assert bool((free.crossing > 1).all())
    assert bool((free.flip_distance < more.flip_distance).all())


def flips(case: LinearCase) -> Tensor:
    """Return the images moved to the boundary along random directions."""
    toward = noise(case, "a", seed=9)["a"]
    out = case.images.clone()
    for row in range(5):
        own, unit = case.images[row], toward[row] / toward[row].norm()
        for sense in (1.0, -1.0):
            images = case.images.clone()
            images[row] = own + sense * 1e-3 * unit
            if float(case.margins(images)[row]) < float(case.margins(case.images)[row]):
                out[row] = own + sense * crossing(case, toward, row) * unit
    return out


def test_flip_images_are_the_unit_and_may_be_the_baselines(linear: LinearCase) -> None:
    ends = flips(linear)
    given = {"way": ends - linear.images, **noise(linear, "a")}
    found = compare(linear.images, given, space=linear.space, flips=ends, baselines=ends)
    distance = (ends - linear.images).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.flip_distance, distance)
    torch.testing.assert_close(
        found.crossing[0], torch.ones(5, dtype=torch.float64), rtol=0, atol=2e-4
    )
    assert float(found.deletion[:, :, -1].abs().max()) < 1e-9
    assert torch.equal(found.deletion[:, :, 0], torch.ones(2, 5, dtype=torch.float64))


def test_a_missing_flip_image_leaves_the_rest(linear: LinearCase) -> None:
    ends, given = flips(linear), noise(linear, "a", "b")
    whole = compare(linear.images, given, space=linear.space, flips=ends)
    count = torch.zeros(5, dtype=torch.int64)
    ends[1] = torch.nan
    lost = FlipImages(
        images=ends,
        distance=torch.zeros(5, dtype=torch.float64),
        residual=torch.zeros(5, dtype=torch.float64),
        source=count,
        target=count,
        status=count,
        num_backwards=count,
        num_forwards=count,
    )
    found = compare(linear.images, given, space=linear.space, flips=lost)
    assert found.status.tolist() == [[0, int(Status.INACCURATE), 0, 0, 0]] * 2
    assert torch.equal(found.deletion, whole.deletion)
    assert bool(found.reach[:, 1].isnan().all())
    assert bool(found.crossing[:, 1].isnan().all())
    rest = [0, 2, 3, 4]
    assert torch.equal(found.crossing[:, rest], whole.crossing[:, rest])


def test_images_out_of_bounds_are_told_before_any_work(linear: LinearCase) -> None:
    images = linear.images + 1
    given = {"images": images, "attributions": noise(linear, "a")}
    with pytest.raises(fsb.ArgumentError, match=r"wanted pixels from 0 to 1\. Fix: pass bounds="):
        compare(**given, space=linear.space)
    assert bool(compare(**given).ok.all())
    found = compare(**given, space=linear.space, bounds=(1, 2))
    assert bool(found.crossing.isfinite().any())
    given["flips"] = images.roll(1, 0)
    assert bool(compare(**given, space=linear.space).flip_distance.isfinite().all())


def test_an_image_on_the_boundary_has_no_margin_to_fall() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    images = torch.tensor([[0.5, 0.5, 0, 1], [0.75, 0.5, 0, 1]]).reshape(2, 1, 2, 2)
    found = compare(images, {"a": images}, space=model)
    assert found.status.tolist() == [[int(Status.DEGENERATE), 0]]
    assert bool(found.deletion[0, 0].isnan().all())
    assert not bool(found.deletion[0, 1].isnan().any())


def test_a_flat_body_has_no_flip_image(linear: LinearCase) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 2)).double().eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    found = compare(linear.images, noise(linear, "a"), space=model)
    assert found.status.tolist() == [[int(Status.INACCURATE)] * 5]
    assert bool((found.deletion == 1).all())
    assert bool(found.flip_distance.isnan().all())


def test_a_row_with_nan_is_nan_there_alone(linear: LinearCase) -> None:
    given = noise(linear, "a", "b", "c")
    expected = compare(linear.images, given, space=linear.space)
    given["b"][3, 1, 2, 2] = torch.nan
    given["c"][2] = 0.0
    found = compare(linear.images, given, space=linear.space)
    status = torch.zeros(3, 5, dtype=torch.int64)
    status[1, 3], status[2, 2] = int(Status.NOT_FINITE), int(Status.DEGENERATE)
    assert torch.equal(found.status, status)
    for name in ("deletion", "reach", "crossing"):
        value, whole = getattr(found, name), getattr(expected, name).clone()
        whole[status != 0] = torch.nan
        torch.testing.assert_close(value, whole, equal_nan=True)
    for m, row in ((1, 3), (2, 2)):
        expected.per_image[:, row, m] = torch.nan
        expected.per_image[:, row, :, m] = torch.nan
    torch.testing.assert_close(found.per_image, expected.per_image, equal_nan=True)
    with pytest.raises(fsb.StatusError, match="DEGENERATE x 1"):
        found.raise_for_status()


def test_an_image_with_nan_leaves_the_others_alone(linear: LinearCase) -> None:
    given = noise(linear, "a", "b")
    expected = compare(linear.images, given, space=linear.space)
    images = linear.images.clone()
    images[1, 0, 0, 0] = torch.nan
    found = compare(images, given, space=linear.space)
    assert found.status.tolist() == [[0, int(Status.NOT_FINITE), 0, 0, 0]] * 2
    rest = [0, 2, 3, 4]
    for name in ("deletion", "reach", "crossing"):
        assert bool(getattr(found, name)[:, 1].isnan().all())
        torch.testing.assert_close(getattr(found, name)[:, rest], getattr(expected, name)[:, rest])
    assert torch.equal(found.per_image, expected.per_image)


def test_no_number_depends_on_the_batch_size_or_the_global_generator(linear: LinearCase) -> None:
    given = noise(linear, "a", "b")
    state = torch.get_rng_state()
    whole = compare(linear.images, given, space=linear.space, reference="b")
    assert torch.equal(torch.get_rng_state(), state)
    parts = compare(linear.images, given, space=linear.space, reference="b", batch_size=2)
    for name, value in whole.to_dict().items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, parts.to_dict()[name])
    assert whole.reference == "b"
    one = compare(linear.images[:1], {n: a[:1] for n, a in given.items()}, space=linear.space)
    torch.testing.assert_close(one.crossing, whole.crossing[:, :1])
    # one image says nothing of how images differ
    assert torch.isnan(one.ci_low).all()


def test_take_keeps_the_images_asked_for(linear: LinearCase) -> None:
    found = compare(linear.images, noise(linear, "a", "b"), space=linear.space)
    part = found.take([3, 1])
    assert torch.equal(part.per_image, found.per_image[:, [3, 1]])
    assert torch.equal(part.crossing, found.crossing[:, [3, 1]])
    assert torch.equal(part.flip_distance, found.flip_distance[[3, 1]])
    assert part.status.shape == (2, 2)
    assert torch.equal(part.mean, found.mean)
    assert part.to("cpu").take(slice(0, 1)).deletion.shape == (2, 1, 21)


ROWS = {"pairs": 6 * 4, "reference": 6 * 2, "images": 6 * 5 * 4, "curves": 2 * 2 * 5 * 3}


@pytest.mark.parametrize("table", [*ROWS, "crossings"])
def test_tables(linear: LinearCase, table: Any, tmp_path: Path) -> None:
    given = noise(linear, "a", "b")
    given["a"][0] = 0.0
    found = compare(linear.images, given, space=linear.space, steps=3, reference="a")
    frame = found.to_pandas(table)
    assert len(frame) == ROWS.get(table, 2 * 5)
    found.to_csv(tmp_path / "table.csv", table)
    with (tmp_path / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(frame.columns)
    for row, expected in zip(rows, frame.to_dict("records"), strict=True):
        for name, value in expected.items():
            missing = isinstance(value, float) and math.isnan(value)
            assert row[name] == ("" if missing else str(value))


def test_tables_name_what_they_hold(linear: LinearCase) -> None:
    found = compare(linear.images, noise(linear, "a", "b"), space=linear.space, steps=3)
    pairs = found.to_pandas().set_index(["metric", "method", "other"])
    assert pairs.loc[("ssim", "a", "b"), "mean"] == float(found.mean[4, 0, 1])
    images = found.to_pandas("images").set_index(["metric", "image", "method", "other"])
    assert images.loc[("sign", 3, "b", "a"), "value"] == float(found.per_image[5, 3, 1, 0])
    curves = found.to_pandas("curves").set_index(["curve", "method", "image", "position"])
    assert curves.loc[("deletion", "b", 4, 0.5), "margin"] == float(found.deletion[1, 4, 1])
    assert curves.loc[("reach", "a", 2, 10.0), "margin"] == float(found.reach[0, 2, 2])
    with pytest.raises(fsb.ArgumentError, match="without a reference"):
        found.to_pandas("reference")
    with pytest.raises(fsb.ArgumentError, match="table: got 'all'; wanted 'pairs' or"):
        found.to_csv("nowhere.csv", "all")  # type: ignore[arg-type]  # wrong on purpose


def test_without_pandas(linear: LinearCase, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(linear.images, noise(linear, "a"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'fsboundary\[pandas\]'; to_csv"):
        found.to_pandas()


def test_progress_is_shown_when_asked_for(
    linear: LinearCase, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(linear.images, noise(linear, "a"), space=linear.space, steps=2)
    assert capsys.readouterr().err == ""
    compare(linear.images, noise(linear, "a"), space=linear.space, steps=2, show_progress=True)
    assert "compare" in capsys.readouterr().err


BAD: list[tuple[dict[str, Any], str]] = [
    ({"images": [1, 2]}, "images: got a list"),
    ({"images": torch.zeros(5, 24)}, r"images: got shape \(5, 24\)"),
    ({"images": torch.zeros(5, 2, 3, 4, dtype=torch.uint8)}, "images: got dtype torch.uint8"),
    ({"images": torch.zeros(0, 2, 3, 4)}, r"images: got shape \(0, 2, 3, 4\); wanted.*not empty"),
    ({"attributions": {}}, "attributions: got none"),
    ({"attributions": torch.zeros(5, 2, 3, 4)}, "attributions: got a Tensor"),
    ({"attributions": {"a": torch.zeros(5, 1, 3, 4)}}, r"attributions\['a'\]: got shape .*interp"),
    ({"attributions": {"a": torch.zeros(4, 2, 3, 4)}}, r"attributions\['a'\]: got shape"),
    ({"attributions": {"a": torch.zeros(5, 2, 3, 4).long()}}, r"\['a'\]: got dtype torch.int64"),
    ({"attributions": {3: torch.zeros(5, 2, 3, 4)}}, "the name 3"),
    ({"metrics": ("cosine", "pearson")}, "metrics: got 'pearson'; wanted one of 'cosine'"),
    ({"metrics": "cosine"}, "metrics: got 'cosine'"),
    ({"metrics": ()}, r"metrics: got \(\)"),
    ({"reference": "IG"}, "reference: got 'IG'; wanted one of 'boundary', 'a'"),
    ({"flips": torch.zeros(5, 1, 3, 4)}, "flips: got shape"),
    ({"baselines": torch.zeros(1)}, "baselines: got shape"),
    ({"baselines": "zero"}, "baselines: got 'zero'"),
    ({"top_fraction": 0.0}, "top_fraction: got 0.0"),
    ({"top_fraction": 1.5}, "top_fraction: got 1.5"),
    ({"confidence": 1.0}, "confidence: got 1.0"),
    ({"steps": 1}, "steps: got 1"),
    ({"max_steps": 0}, "max_steps: got 0"),
    ({"bounds": (1, 0)}, r"bounds: got \(1, 0\)"),
    ({"steps": True}, "steps: got True"),
    ({"resamples": 0}, "resamples: got 0"),
    ({"batch_size": 0}, "batch_size: got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(linear: LinearCase, change: dict[str, Any], message: str) -> None:
    given = {"images": linear.images, "attributions": noise(linear, "a"), **change}
    with pytest.raises(fsb.ArgumentError, match=message):
        compare(given.pop("images"), given.pop("attributions"), **given)
