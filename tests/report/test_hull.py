"""The section on the hull of the training set: against direct calls, and degenerate sets."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import plugins
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.report.figures import thumbnail
from fsboundary.report.page import to_json
from fsboundary.report.sections.hull import measure as hull_measure
from fsboundary.report.sections.hull.measure import MAX_STEPS, NOISE, dimension_grid
from support.report import (
    NAMES,
    Page,
    tiny_images,
    tiny_model,
    tiny_page,
    tiny_study,
    tiny_subject,
)


def far_images(n: int = 40) -> Tensor:
    """Return images brighter than those of the training set: some features are outside."""
    return (tiny_images(n) * 1.4).clamp(0, 1)


TRAIN = 40
"""Number of training images, fewer than half of which are in the hull of the others."""


def changes() -> dict[str, Any]:
    """Return what the subject of most tests is made of."""
    train = {"train_images": tiny_images(TRAIN, seed=1), "train_labels": torch.arange(TRAIN) % 5}
    return {"images": far_images()} | train


@pytest.fixture(scope="module")
def page() -> Page:
    return tiny_page("hull", **changes())


@pytest.fixture(scope="module")
def h(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.numbers["hull"]
    return found


@pytest.fixture(scope="module")
def direct() -> dict[str, Any]:
    """Return the same from the public functions."""
    subject = tiny_subject(**changes())
    batch = subject.space.extract(subject.images)
    z = subject.space.extract(subject.train_images).features
    bank = fsb.FeatureBank(z, subject.train_labels)
    noise = torch.rand((NOISE, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    return {
        "bank": bank,
        "wrong": batch.predicted != subject.labels,
        "predicted": batch.predicted,
        "images": fsb.hull_projection(bank, batch.features),
        "leave_one_out": fsb.hull_projection(bank, z, leave_out=torch.arange(TRAIN)),
        "noise": fsb.hull_projection(bank, subject.space.extract(noise).features),
        "classes": fsb.class_hull_distances(bank, batch.features),
    }


def numbers_of(**changed: Any) -> dict[str, Any]:
    """Return the section's numbers of a tiny subject, without its page."""
    study = tiny_study("hull", **changed)
    found: dict[str, Any] = json.loads(to_json(study.numbers))["hull"]
    return found


def distances(found: fsb.HullProjection) -> list[float]:
    inside = found.membership == 1
    values: list[float] = torch.where(inside, 0.0, found.distance).tolist()
    return values


@pytest.mark.parametrize("name", ["images", "leave_one_out", "noise"])
def test_groups(name: str, h: dict[str, Any], direct: dict[str, Any]) -> None:
    group, expected = h["groups"][name], direct[name]
    assert group["rows"] == len(expected.distance)
    for state, code in (("inside", 1), ("outside", -1), ("undecided", 0)):
        assert group[state] == int((expected.membership == code).sum())
        assert group["fractions"][state] == group[state] / group["rows"]
    relative = [d / h["reference"] for d in distances(expected)]
    assert group["median"] == pytest.approx(median(relative), rel=1e-6)
    assert group["largest"] == pytest.approx(max(relative), rel=1e-6)
    assert group["uncertified"] == 0


def test_reference_distance(h: dict[str, Any], direct: dict[str, Any]) -> None:
    assert h["relative"]
    assert h["reference"] == pytest.approx(median(distances(direct["leave_one_out"])), rel=1e-6)
    # distances are divided by the median before theirs is taken: a rounding or two
    assert h["groups"]["leave_one_out"]["median"] == pytest.approx(1.0, rel=1e-12)
    gap = (direct["images"].gap / direct["images"].distance)[direct["images"].membership == -1]
    assert 0 <= h["largest_relative_gap"] <= 1e-6
    assert float(gap.max()) <= 1e-6


def test_noise_is_compared_in_pairs(h: dict[str, Any], direct: dict[str, Any]) -> None:
    ours, noise = distances(direct["images"]), distances(direct["noise"])
    pairs = [one > other for one in noise for other in ours]
    assert h["noise_farther_fraction"] == pytest.approx(sum(pairs) / len(pairs), abs=2 / len(pairs))


def test_everything_is_counted(h: dict[str, Any]) -> None:
    sweep = [step[name] for step in h["sweep"]["steps"] for name in ("images", "leave_one_out")]
    for entry in [*h["groups"].values(), *sweep]:
        assert sum(entry["fractions"].values()) == pytest.approx(1.0)
        assert entry["inside"] + entry["outside"] + entry["undecided"] == entry["rows"]
    for group in h["groups"].values():
        answered = group["rows"] - group["uncertified"]
        assert sum(group["bin_fractions"]) * answered + group["beyond_axis"] == pytest.approx(
            answered
        )
    assert sum(q["images"] for q in h["labels"]["quarters"]) == 40


def test_farthest(page: Page, h: dict[str, Any], direct: dict[str, Any]) -> None:
    found, train = direct["images"], changes()["train_labels"]
    order = found.distance.argsort(descending=True).tolist()
    assert [entry["row"] for entry in h["farthest"]] == order[: len(h["farthest"])]
    assert len(h["farthest"]) == min(6, h["groups"]["images"]["outside"]) > 0
    for entry in h["farthest"]:
        row = entry["row"]
        assert entry["hull_distance"] == pytest.approx(float(found.distance[row]), rel=1e-6)
        assert entry["relative_distance"] == pytest.approx(entry["hull_distance"] / h["reference"])
        weights = sorted(found.weights[row].tolist(), reverse=True)
        assert [s["weight"] for s in entry["supporters"]] == pytest.approx(
            [w for w in weights[:3] if w > 0], abs=1e-4
        )
        for supporter in entry["supporters"]:
            assert supporter["row"] in found.support[row].tolist()
            assert supporter["class"] == int(train[supporter["row"]])
            assert f"training-{supporter['row']}" in page.study.pictures["hull"]


def test_errors_by_distance(h: dict[str, Any], direct: dict[str, Any]) -> None:
    values, wrong = distances(direct["images"]), direct["wrong"].tolist()
    inside, *quarters = h["labels"]["quarters"]
    assert (inside["name"], inside["to"]) == ("inside", 0.0)
    assert inside["images"] == values.count(0.0)
    assert inside["wrong"] == sum(w for d, w in zip(values, wrong, strict=True) if d == 0)
    assert [q["name"] for q in quarters] == ["nearest", "second", "third", "farthest"]
    order = sorted(range(40), key=lambda row: values[row])[inside["images"] :]
    for quarter in quarters:
        mine, order = order[: quarter["images"]], order[quarter["images"] :]
        assert quarter["from"] == pytest.approx(values[mine[0]] / h["reference"], rel=1e-6)
        assert quarter["to"] == pytest.approx(values[mine[-1]] / h["reference"], rel=1e-6)
        assert quarter["wrong"] == sum(wrong[row] for row in mine)
        assert quarter["error_rate"] == quarter["wrong"] / quarter["images"]
    assert order == []


def test_nearest_class(h: dict[str, Any], direct: dict[str, Any]) -> None:
    apart = direct["classes"]
    own = apart.gather(1, direct["predicted"][:, None])[:, 0]
    agrees = own <= apart.amin(dim=1) + 1e-7  # zero inside, except for rounding
    n = h["nearest_class"]
    assert (n["evaluated"], n["agrees"]) == (40, int(agrees.sum()))
    assert n["fraction"] == n["agrees"] / 40
    assert n["if_agrees"]["wrong"] == int((direct["wrong"] & agrees).sum())
    assert n["if_differs"]["wrong"] == int((direct["wrong"] & ~agrees).sum())


def test_sweep(h: dict[str, Any]) -> None:
    steps = h["sweep"]["steps"]
    assert [step["dimensions"] for step in steps] == [2, 3, 4, 5, 6, 7]
    for name, whole in (("images", 40), ("leave_one_out", TRAIN)):
        assert steps[-1][name]["rows"] == whole
        assert steps[-1][name]["inside"] == h["groups"][name]["inside"]
        for before, after in pairwise(steps):
            # inside in more components is inside in fewer
            assert after[name]["inside"] <= before[name]["inside"] + before[name]["undecided"]
            assert after[name]["outside"] + after[name]["undecided"] >= before[name]["outside"]


def test_sweep_against_direct_calls(h: dict[str, Any], direct: dict[str, Any]) -> None:
    z = direct["bank"].features.double()
    _, _, axes = torch.linalg.svd(z - z.mean(dim=0))
    subject = tiny_subject(**changes())
    queries = subject.space.extract(subject.images).features.double() - z.mean(dim=0)
    bank = fsb.FeatureBank((z - z.mean(dim=0)) @ axes[:3].T)
    found = fsb.hull_projection(bank, queries @ axes[:3].T)
    out = fsb.hull_projection(bank, bank.features, leave_out=torch.arange(TRAIN))
    (step,) = [step for step in h["sweep"]["steps"] if step["dimensions"] == 3]
    assert step["images"]["inside"] == int((found.membership == 1).sum())
    assert step["leave_one_out"]["inside"] == int((out.membership == 1).sum())


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 2048])
def test_ladder(width: int) -> None:
    found = dimension_grid(width)
    assert found == sorted(set(found))
    assert len(found) <= MAX_STEPS
    assert (found[0], found[-1]) == (min(2, width), width)


def test_words(page: Page) -> None:
    text = page.text["hull"]
    for words in ("extrapolates", "reference", "farther out", "In fewer dimensions", NAMES[0]):
        assert words in text
    assert "No certified distance" not in text
    assert "undecided" in text


def test_no_training_images() -> None:
    page = tiny_page("hull", train_images=None, train_labels=None)
    assert page.numbers["hull"] == {"training": {"total": 0, "usable": 0}}
    assert "No training images were given" in page.text["hull"]
    assert page.numbers["provenance"]["hull_solver"] is None
    assert "active_set" not in page.text["provenance"]


def test_no_training_image_of_use() -> None:
    space = fsb.FeatureSpace(tiny_model().eval())
    space.extract(tiny_images(1))  # the head is found on the first usable image
    nothing = torch.full((3, 1, 6, 6), torch.nan)
    page = tiny_page("hull", space=space, train_images=nothing, train_labels=None)
    assert page.numbers["hull"]["training"] == {"total": 3, "usable": 0}
    assert "None of the training images has usable features" in page.text["hull"]


def test_rows_that_are_not_numbers_are_left_out() -> None:
    images, train = far_images(), tiny_images(22, seed=1)
    images[[3, 17]], train[[0, 5]] = torch.nan, torch.nan
    page = tiny_page("hull", images=images, train_images=train, train_labels=torch.arange(22) % 5)
    h = page.numbers["hull"]
    assert h["training"] == {"total": 22, "usable": 20}
    assert h["groups"]["images"]["rows"] == 38
    assert h["groups"]["leave_one_out"]["rows"] == 20
    assert "training images have usable features" in page.text["hull"]
    shown = {s["row"] for entry in h["farthest"] for s in entry["supporters"]}
    assert shown
    assert not shown & {0, 5}
    good = [k for k in range(40) if k not in (3, 17)]
    again = numbers_of(
        images=images[good],
        labels=torch.tensor(good) % 5,
        train_images=train[[*range(1, 5), *range(6, 22)]],
        train_labels=None,
    )
    for name, group in again["groups"].items():
        assert group["largest"] == pytest.approx(h["groups"][name]["largest"], rel=1e-6)


def test_no_image_of_use() -> None:
    page = tiny_page("hull", images=torch.full((3, 1, 6, 6), torch.nan))
    group = page.numbers["hull"]["groups"]["images"]
    assert (group["rows"], group["fractions"]["inside"]) == (0, None)
    assert "No image has usable features" in page.text["hull"]


def test_one_class_of_one_image() -> None:
    labels = torch.arange(20) % 4
    labels[7] = 4
    subject = tiny_subject()
    z = subject.space.extract(subject.images).features
    bank = fsb.FeatureBank(subject.space.extract(subject.train_images).features, labels)
    nearest = fsb.class_hull_distances(bank, z).argmin(dim=1)
    found = numbers_of(train_labels=labels)["nearest_class"]
    assert found["evaluated"] == 40
    predicted = subject.space.extract(subject.images).predicted
    assert found["agrees"] == int((nearest == predicted).sum())


def test_class_without_training_image() -> None:
    subject = tiny_subject()
    predicted = subject.space.extract(subject.images).predicted
    found = numbers_of(train_labels=torch.arange(20) % 2)["nearest_class"]
    assert found["evaluated"] == 40
    assert found["agrees"] <= int((predicted < 2).sum()) < 40


@pytest.mark.parametrize("copies", [1, 4])
def test_training_set_of_one_point(copies: int) -> None:
    train = tiny_images(1, seed=1).expand(copies, 1, 6, 6)
    page = tiny_page(
        "hull", train_images=train, train_labels=torch.zeros(copies, dtype=torch.int64)
    )
    h = page.numbers["hull"]
    assert h["groups"]["leave_one_out"]["rows"] == 0
    assert (h["reference"], h["relative"]) == (None, False)
    assert "All training images have the same feature" in page.text["hull"]
    z = tiny_subject().space
    here = z.extract(tiny_images(40)).features.double()
    there = z.extract(train[:1]).features.double()
    expected = torch.linalg.vector_norm(here - there, dim=1)
    assert h["groups"]["images"]["largest"] == pytest.approx(float(expected.max()))


def test_most_left_out_inside_gives_no_reference_distance() -> None:
    page = tiny_page(
        "hull", model=tiny_model(width=2), train_images=tiny_images(60, seed=1), train_labels=None
    )
    h = page.numbers["hull"]
    assert h["groups"]["leave_one_out"]["fractions"]["inside"] > 0.5
    assert (h["reference"], h["relative"]) == (0.0, False)
    assert "there is no reference distance" in page.text["hull"]
    assert [step["dimensions"] for step in h["sweep"]["steps"]] == [2]


def test_one_feature() -> None:
    found = numbers_of(model=tiny_model(width=1))
    assert [step["dimensions"] for step in found["sweep"]["steps"]] == [1]


def test_many_classes_have_no_hulls_of_their_own() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 40)).eval()
    page = tiny_page(
        "hull",
        model=model,
        images=tiny_images(8),
        class_names=tuple(f"name{k}" for k in range(40)),
        labels=None,
        train_images=tiny_images(40, seed=1),
        train_labels=torch.arange(40),
    )
    assert page.numbers["hull"]["nearest_class"] is None
    assert "Nearest class" not in page.text["hull"]


def test_without_labels() -> None:
    h = numbers_of(**changes() | {"labels": None, "train_labels": None})
    assert h["labels"] is None
    assert set(h["nearest_class"]) == {"evaluated", "agrees", "fraction"}
    subject = tiny_subject(**changes())
    owners = subject.space.extract(subject.train_images).predicted
    for supporter in (s for entry in h["farthest"] for s in entry["supporters"]):
        assert supporter["class"] == int(owners[supporter["row"]])


def test_samples_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hull_measure, "MAX_IMAGES", 15)
    monkeypatch.setattr(hull_measure, "LEAVE_ONE_OUT", 12)
    monkeypatch.setattr(hull_measure, "SWEEP_ROWS", 10)
    state = torch.random.get_rng_state()
    page = tiny_page("hull")
    first = page.numbers["hull"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert numbers_of() == first
    assert (first["groups"]["images"]["rows"], first["sampled_from"]) == (15, 40)
    assert first["groups"]["leave_one_out"]["rows"] == 12
    assert first["sweep"]["steps"][0]["images"]["rows"] == 10
    assert "They are a random sample of" in page.text["hull"]
    assert "Of a random sample of training images" in page.text["hull"]


class Careless(HullSolver):
    """Answers with the first point of the bank for every second row."""

    def prepare(self, points: Any) -> Any:
        self.inner = plugins.create("hull_solver", "active_set")
        return self.inner.prepare(points)

    def project(self, state: Any, queries: Tensor, **how: Any) -> fsb.HullProjection:
        found: fsb.HullProjection = self.inner.project(state, queries, **how)
        weights, support = found.weights.clone(), found.support.clone()
        weights[::2], support[::2] = 0.0, -1
        weights[::2, 0], support[::2, 0] = 1.0, 0
        return dataclasses.replace(found, weights=weights, support=support)


def test_answers_without_a_certificate_are_counted_and_shown() -> None:
    page = tiny_page("hull", **changes(), hull_solver=Careless())
    h = page.numbers["hull"]
    group = h["groups"]["images"]
    assert group["undecided"] > 0
    assert 0 < group["uncertified"] <= 20
    assert sum(group["fractions"].values()) == pytest.approx(1.0)
    assert "No certified distance" in page.text["hull"]
    assert "are undecided" in page.text["hull"]
    assert page.numbers["provenance"]["hull_solver"]["name"] == "Careless"
    assert sum(q["images"] for q in h["labels"]["quarters"]) == 40 - group["uncertified"]
    assert h["nearest_class"]["evaluated"] < 40


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 28, 28), (1, 28, 28)), ((3, 200, 100), (3, 96, 48)), ((1, 1, 960), (1, 1, 96))],
)
def test_thumbnail(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    small = thumbnail(torch.full(shape, 0.5), 96)
    assert tuple(small.shape) == expected
    assert torch.allclose(small, torch.full_like(small, 0.5))
