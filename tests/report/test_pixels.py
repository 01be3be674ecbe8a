"""The section on pixels: against direct calls, and subjects that lack something."""

from __future__ import annotations

import base64
import copy
import io
import json
import time
from statistics import median
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.report.figures import picture_uri
from fsboundary.report.page import Study, to_json
from fsboundary.report.sections.pixels import certified, sizes
from fsboundary.report.sections.pixels.section import WORDS, diverging
from fsboundary.report.sections.pixels.sizes import (
    Sizes,
    budget_for,
    evenly_spaced,
    num_gradients,
    stratified_sample,
)
from support.report import (
    NAMES,
    Page,
    read,
    tiny_images,
    tiny_model,
    tiny_page,
    tiny_study,
    tiny_subject,
)


@pytest.fixture(scope="module")
def study() -> Study:
    """Return the study of the plain subject in the sizes of a user's report."""
    with pytest.MonkeyPatch.context() as patch:
        # on a busy machine the section would be smaller
        patch.setattr(sizes, "SECONDS", float("inf"))
        return tiny_study("pixels")


@pytest.fixture(scope="module")
def p(study: Study) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(to_json(study.numbers))["pixels"]
    return found


def numbers_of(**changed: Any) -> dict[str, Any]:
    found = tiny_study("pixels", **changed).numbers
    numbers: dict[str, Any] = json.loads(to_json(found))["pixels"]
    return numbers


def rows_of(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["row"] for entry in entries]


def test_flips(study: Study, p: dict[str, Any]) -> None:
    subject, shown = tiny_subject(), p["flips"]["shown"]
    rows = rows_of(shown)
    flips = fsb.pixels.flip_images(subject.space, subject.images[rows])
    features = subject.space.extract(subject.images[rows]).features
    nearest = fsb.flip_points(subject.space.head, features)
    assert len(set(rows)) == p["flips"]["requested"] == p["flips"]["found"] == 6
    middle = median(flips.distance.tolist())
    assert p["flips"]["median_distance"] == pytest.approx(middle, rel=1e-4)  # as below
    same = flips.target == nearest.target[:, 0]
    assert p["flips"]["same_class"] == int(same.sum())
    distances = [entry["distance"] for entry in shown]
    assert distances == sorted(distances)
    for place, entry in enumerate(shown):
        image, other = subject.images[entry["row"]], flips.images[place]
        # the report searches in a batch of another order, which rounds otherwise
        far = float((other - image).double().norm())
        assert entry["pixels"] == pytest.approx(far, rel=1e-4)
        largest = float((other - image).abs().max())
        assert entry["largest_change"] == pytest.approx(largest, rel=1e-2)
        assert entry["target"] == int(flips.target[place])
        assert entry["distance"] == pytest.approx(float(nearest.distance[place, 0]))
        pictures = study.pictures["pixels"]
        assert torch.equal(pictures[f"image-{entry['row']}"], image)
        assert torch.allclose(pictures[f"flip-{entry['row']}"], other, rtol=0, atol=1e-2 * far)


def test_inverses(study: Study, p: dict[str, Any]) -> None:
    subject, shown = tiny_subject(), p["inverses"]["shown"]
    assert len(shown) == p["inverses"]["images"] == 3
    assert set(rows_of(shown)) <= set(rows_of(p["flips"]["shown"]))
    for entry in shown:
        image = subject.images[entry["row"]]
        z = subject.space.extract(image[None]).features.double()
        flip = fsb.flip_points(subject.space.head, z).points[:, 0]
        for kind, wanted in (("image", z), ("flip", flip)):
            made = study.pictures["pixels"][f"inverse-{kind}-{entry['row']}"]
            got = subject.space.extract(made[None]).features.double()
            left = float((got - wanted).norm() / wanted.norm())
            assert entry[kind]["relative_residual"] == pytest.approx(left, abs=1e-6)
            assert entry[kind]["reached"] == (left <= 0.01)
            assert entry[kind]["pixels"] == pytest.approx(float((made - image).norm()), rel=1e-5)
    for kind in ("image", "flip"):
        assert p["inverses"]["reached"][kind] == sum(entry[kind]["reached"] for entry in shown)


def test_morphs(study: Study, p: dict[str, Any]) -> None:
    subject = tiny_subject()
    batch = subject.space.extract(subject.images)
    assert len(p["morphs"]["shown"]) == 2
    for place, entry in enumerate(p["morphs"]["shown"]):
        start, end = entry["start"]["row"], entry["end"]["row"]
        assert int(batch.predicted[end]) == entry["start"]["nearest"]
        peers = batch.features[batch.predicted == batch.predicted[end]].double()
        apart = (peers - peers.mean(dim=0)).norm(dim=1)
        own = (batch.features[end].double() - peers.mean(dim=0)).norm()
        assert float(own) == pytest.approx(float(apart.min()))
        film = study.pictures["pixels"][f"film-{place}"]
        assert film.shape == (2, 9, 1, 6, 6)
        assert torch.equal(film[0, 0], subject.images[start])
        assert torch.equal(film[0, -1], subject.images[end])
        assert torch.allclose(film[1, 4], (film[1, 0] + film[1, -1]) / 2, atol=1e-6)
        z = batch.features[[start, end]].double()
        path = fsb.class_path(subject.space.head, z[:1], z[1:])
        assert entry["feature_crossing"] == pytest.approx(float(path.crossings[0, 0]))
        for name, frames in zip(("images", "blend"), film, strict=True):
            way, classes = entry["sequences"][name], subject.space.extract(frames).predicted
            assert way["classes"] == classes.tolist()
            assert way["class_sequence"] == classes.unique_consecutive().tolist()
            left = next(n for n, k in enumerate(classes) if k != classes[0])
            assert entry["times"][left - 1] <= way["crossing"] <= entry["times"][left]


def test_moves(p: dict[str, Any]) -> None:
    subject, moves = tiny_subject(), p["moves"]
    assert moves["radius"] == p["flips"]["median_distance"]
    rows = rows_of(moves["most"]) + rows_of(moves["least"])
    assert len(set(rows)) == 12
    scores = [entry["vulnerability"] for entry in moves["most"] + moves["least"][::-1]]
    assert scores == sorted(scores, reverse=True)
    features = subject.space.extract(subject.images[rows]).features
    near = fsb.flip_points(subject.space.head, features).distance[:, 0].tolist()
    for entry, distance in zip(moves["most"] + moves["least"], near, strict=True):
        assert entry["boundary_distance"] == pytest.approx(distance)
        assert entry["vulnerability"] == pytest.approx(entry["max_displacement"] / distance)
    assert sum(entry["images"] for entry in moves["classes"]) == moves["ranked"] == 40
    medians = [entry["median"] for entry in moves["classes"]]
    assert medians == sorted(medians, reverse=True)
    means = moves["median"]
    assert means["random_mean"] <= means["random_max"] <= means["max_displacement"]
    assert moves["ratio_to_random"] > 1


def test_two_spaces(p: dict[str, Any]) -> None:
    spaces = p["spaces"]
    assert spaces["missing"] is None
    assert spaces["sizes"]["images"] == 40
    assert spaces["sizes"]["training_images"] == 20
    lines = {line["name"]: line for line in spaces["lines"]}
    assert set(lines) == set(WORDS)
    assert lines["inside"]["pixels"] == 0.0  # 20 points in 36 dimensions
    assert lines["third_class"]["kind"] == "percent"
    assert lines["boundary_distance"]["kind"] == "length"


def test_words(page: Page) -> None:
    text = page.text["pixels"]
    assert "it is certified that an image lies on the boundary" in text
    assert "fraction of neighbours in common" in text
    assert "Most vulnerable" in text
    assert any(name in text for name in NAMES)
    assert "prefers-reduced-motion" in page.html
    assert "data:image/gif" in page.html


def test_same_again_and_generator_untouched() -> None:
    state = torch.random.get_rng_state()
    first = numbers_of(images=tiny_images(9))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert numbers_of(images=tiny_images(9)) == first


def test_certified_radii(p: dict[str, Any], page: Page) -> None:
    subject, found = tiny_subject(), p["certified"]
    rows = rows_of(p["flips"]["shown"])
    flips = fsb.pixels.flip_images(subject.space, subject.images[rows])
    right = fsb.pixels.certify(subject.space, subject.images[rows], norm="l2", upper=flips)
    assert found["method"] == "linear_bounds"
    radii = torch.tensor([entry["radius"] for entry in found["shown"]])
    # the page searches to 2 % only, and flip images move in their last digits with the sizes
    assert bool((radii <= right.radius * 1.02).all())
    assert bool((radii >= right.radius * 0.95).all())
    assert found["certified"] == len(rows)
    assert 0.5 < found["share"] <= 1
    assert "certified at least" in page.text["pixels"]


def test_networks_for_which_bounds_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certified, "MAX_WORK", 0.0)
    page = tiny_page("pixels", train_images=None)
    assert page.numbers["pixels"]["certified"]["method"] == "interval"
    assert "too large for better bounds" in page.text["pixels"]
    odd = nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.LayerNorm(7), nn.Linear(7, 5))
    page = tiny_page("pixels", model=odd, train_images=None)
    assert page.numbers["pixels"]["certified"]["shown"] == []
    assert "No radius was certified" in page.text["pixels"]
    assert "native_layer_norm" in page.text["pixels"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("labels", "none: true classes of the images."),
        ("train_images", "none: training images."),
        ("train_labels", "none: true classes of the training images."),
    ],
)
def test_without(missing: str, words: str) -> None:
    page = tiny_page("pixels", **{missing: None})
    assert words in page.text["pixels"]
    assert page.numbers["pixels"]["flips"]["found"] == 2
    assert page.numbers["pixels"]["spaces"].keys() == {"missing"}


def test_two_images() -> None:
    page = tiny_page(
        "pixels", images=tiny_images(2), train_images=tiny_images(2), train_labels=None
    )
    assert page.numbers["pixels"]["flips"]["requested"] == 2


def test_one_image_leads_nowhere() -> None:
    page = tiny_page("pixels", images=tiny_images(1))
    assert page.numbers["pixels"]["morphs"]["shown"] == []
    assert "so there are no morphs" in page.text["pixels"]
    assert "none: images." in page.text["pixels"]


def test_no_usable_image() -> None:
    page = tiny_page("pixels", images=torch.full((3, 1, 6, 6), torch.nan))
    assert page.numbers["pixels"] == {"usable": 0}
    assert "nothing to search for in pixel space" in page.text["pixels"]


def test_images_that_are_not_numbers_are_never_drawn() -> None:
    images = tiny_images(12)
    images[::2] = torch.nan
    p = numbers_of(images=images, train_images=None)
    assert p["usable"] == 6
    assert all(row % 2 for row in rows_of(p["moves"]["most"]))


class Deaf(nn.Module):
    """A classifier with the gradient times `share`; None: without any."""

    def __init__(self, share: float | None) -> None:
        super().__init__()
        self.inner, self.share = tiny_model(), share

    def forward(self, x: Tensor) -> Tensor:
        heard = 0 if self.share is None else self.share * (x - x.detach())
        out: Tensor = self.inner(x.detach() + heard)
        return out


def test_no_gradients() -> None:
    page = tiny_page("pixels", model=Deaf(None), train_images=None)
    assert page.numbers["pixels"] == {"usable": 40, "has_gradients": False}
    assert "no gradient with respect to the pixels" in page.text["pixels"]


def test_nothing_found_with_gradients_of_zero() -> None:
    page = tiny_page("pixels", model=Deaf(0.0), train_images=None)
    p = page.numbers["pixels"]
    lost = p["flips"]["requested"] - p["flips"]["found"]
    assert lost == sum(part["count"] for part in p["flips"]["failed"]) > 0
    status = p["flips"]["failed"][0]["status"]
    assert f"without a flip image: {status}" in page.text["pixels"]
    assert f"No flip image: {status}" in page.text["pixels"]


def test_statuses_are_shown(page: Page) -> None:
    numbers = copy.deepcopy(page.numbers)
    shown = numbers["pixels"]["inverses"]["shown"][0]
    shown["image"] |= {"available": False, "status": "OUTSIDE_DOMAIN"}
    numbers["pixels"]["morphs"]["shown"][0] |= {"available": False, "status": "INFEASIBLE"}
    text = read(Study(numbers=numbers, pictures=page.study.pictures)).text["pixels"]
    assert "OUTSIDE_DOMAIN" in text
    assert "No path: INFEASIBLE" in text


@pytest.mark.parametrize("shape", [(2, 6, 9), (3, 120, 100)])
def test_other_shapes(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(8, 5)
        model = nn.Sequential(nn.Conv2d(shape[0], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        model.extend([nn.Flatten(), head])
    images = torch.rand(12, *shape, generator=generator)
    # both are needed for two classes to be predicted
    images[::2] *= 0.1
    page = tiny_page(
        "pixels",
        model=model,
        images=images,
        train_images=images.flip(0),
        train_labels=torch.arange(12) % 5,
    )
    p = page.numbers["pixels"]
    assert p["flips"]["requested"] == 2
    pictures = page.study.pictures["pixels"]
    assert max(max(picture.shape[-2:]) for picture in pictures.values()) <= 96
    assert p["spaces"]["missing"] is None


def test_slow_models_get_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    least = Sizes(**dict.fromkeys(fields(), 2))
    monkeypatch.setattr(sizes, "FULL", Sizes())
    monkeypatch.setattr(sizes, "MINIMUM", least)
    space, image = fsb.FeatureSpace(tiny_model().eval()), tiny_images(1)[0]
    space.extract(image[None])

    def budget_at(seconds: float) -> sizes.Budget:
        monkeypatch.setattr(sizes, "_seconds_per_gradient", lambda space, image: seconds)
        return budget_for(space, image)

    one = sizes.SECONDS / num_gradients(Sizes())
    assert budget_at(one / 2).sizes == Sizes()
    assert budget_at(one / 2).numbers()["reduced"] is False
    for slow in (1.5, 3, 10):
        budget = budget_at(slow * one)
        numbers = budget.numbers()
        assert numbers["reduced"] is True
        assert sizes.SECONDS / 4 < numbers["expected_seconds"] <= sizes.SECONDS
        assert 2 < budget.sizes.inverse_steps <= Sizes().inverse_steps // 2
    # even the smallest does not fit: it runs anyway, and the page says how long it takes
    budget = budget_at(1e6 * one)
    assert budget.sizes == Sizes(**dict.fromkeys(fields(), 2) | {"training": 3})
    assert budget.numbers()["expected_seconds"] > sizes.SECONDS
    monkeypatch.setattr(sizes, "_PIXELS", 36 * 50)
    assert budget_at(one / 2).sizes.training == 50


def test_the_time_of_a_pass_is_measured_on_the_model() -> None:
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = tiny_model().eval()

        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.02)
            out: Tensor = self.body(images)
            return out

    space, image = fsb.FeatureSpace(Slow().eval()), tiny_images(1)[0]
    space.extract(image[None])
    budget = budget_for(space, image)
    # the sleep of a pass, shared by its images; no upper bound, because a machine may be busy
    assert budget.seconds_per_gradient >= 0.02 / sizes._TIMED


def fields() -> list[str]:
    return list(Sizes.__dataclass_fields__)


def test_drawn_evenly() -> None:
    owners = torch.tensor([0] * 20 + [3] * 5 + [1] * 2)
    rows = 100 + torch.arange(27)
    chosen = stratified_sample(rows, owners, 10, seed=0)
    assert len(chosen.unique()) == 10
    assert torch.bincount(owners[chosen - 100]).tolist() == [4, 2, 0, 4]
    assert sorted(stratified_sample(rows, owners, 99, seed=0).tolist()) == rows.tolist()
    assert stratified_sample(rows, owners, 10, seed=1).tolist() != chosen.tolist()


def test_spread() -> None:
    assert evenly_spaced(torch.arange(10, 20), 4).tolist() == [10, 13, 16, 19]
    assert evenly_spaced(torch.arange(3), 4).tolist() == [0, 1, 2]


def test_diverging_colours() -> None:
    change = torch.tensor([[[0.0, 0.2, -0.2, 0.1]]]).expand(3, 1, 4)
    red, _, blue = diverging(change)[:, 0]
    assert red[0] == pytest.approx(float(blue[0]), abs=0.02)
    assert red[0] > 0.95
    assert red[1] > blue[1] + 0.2
    assert blue[2] > red[2] + 0.2
    assert red[3] - blue[3] > 0.1
    assert torch.isfinite(diverging(torch.zeros(1, 2, 2))).all()


def test_films_become_gifs() -> None:
    film = torch.rand(2, 5, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    prefix, encoded = picture_uri(film).split(",")
    assert prefix == "data:image/gif;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.size == (6 * 8, (8 * 2 + 1) * 8)
    assert picture.n_frames == 2 * 5 - 2  # there and back
