"""The numbers of every section against an independent computation, and degenerate subjects."""

from __future__ import annotations

import base64
import io
import math
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fsboundary as fsb
from fsboundary import plugins
from fsboundary.core.errors import PluginError
from fsboundary.plot.style import REPORT
from fsboundary.plugins.interfaces import BoundaryFinder
from fsboundary.report import measurements
from fsboundary.report.clock import Clock
from fsboundary.report.figures import png_uri
from support.report import NAMES, Page, tiny_images, tiny_page, tiny_subject


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return features, flips and labels of the plain subject, from the public functions."""
    subject = tiny_subject()
    batch = subject.space.extract(subject.images)
    head = subject.space.head
    return {
        "batch": batch,
        "head": head,
        "all": fsb.flip_points(head, batch.features, "all"),
        "nearest": fsb.flip_points(head, batch.features),
        "labels": subject.labels,
    }


def test_overview(page: Page, found: dict[str, Any]) -> None:
    o, distance = page.numbers["overview"], found["nearest"].distance[:, 0].tolist()
    right = (found["batch"].predicted == found["labels"]).tolist()
    assert o["images"] == o["with_distance"] == 40
    assert (o["classes"], o["features"]) == (5, 7)
    assert o["distance"]["median"] == pytest.approx(median(distance))
    assert o["distance"]["smallest"] == pytest.approx(min(distance))
    assert o["distance"]["largest"] == pytest.approx(max(distance))
    labels = o["labels"]
    assert labels["correct"] == sum(right)
    assert labels["accuracy"] == sum(right) / 40
    wrong = [d for d, r in zip(distance, right, strict=True) if not r]
    assert labels["wrong"] == len(wrong)
    assert labels["median_if_wrong"] == pytest.approx(median(wrong))
    tenth = sorted(distance)[:4]
    assert labels["wrong_in_nearest_tenth"] == len([d for d in tenth if d in wrong])
    certificates = o["certificates"]
    assert certificates["requested"] == certificates["certified"] == 160
    gaps = found["all"].gap / found["all"].distance
    assert certificates["largest_relative_gap"] == pytest.approx(float(gaps.max()), rel=1e-6)
    assert o["domain"]["kind"] == "nonnegative"
    assert "nonnegative" in o["domain"]["basis"]
    assert sum(o["histogram"]["right"]) == sum(right)
    assert sum(o["histogram"]["wrong"]) == len(wrong)


def test_pairs(page: Page, found: dict[str, Any]) -> None:
    cells = {(c["source"], c["target"]): c for c in page.numbers["pairs"]["cells"]}
    assert set(cells) == {(i, j) for i in range(5) for j in range(5) if i != j}
    by_pair: dict[tuple[int, int], list[float]] = {pair: [] for pair in cells}
    flips = found["all"]
    for row, source in enumerate(flips.source.tolist()):
        for target, distance in zip(
            flips.target[row].tolist(), flips.distance[row].tolist(), strict=True
        ):
            by_pair[source, target].append(distance)
    for pair, distances in by_pair.items():
        assert cells[pair]["images"] == len(distances)
        if distances and math.isfinite(median(distances)):
            assert cells[pair]["median"] == pytest.approx(median(distances))
        else:
            assert cells[pair]["median"] is None
    enough = [c for c in cells.values() if c["images"] >= 5 and c["median"] is not None]
    compared = {"compared": sum(c["images"] >= 5 for c in cells.values()), "all_pairs": 20}
    fragile = page.numbers["overview"]["fragile_pair"]
    expected = min(enough, key=lambda c: c["median"]) | compared | {"min_images": 5}
    assert fragile == expected


def test_extremes(page: Page, found: dict[str, Any]) -> None:
    extremes, distance = page.numbers["extremes"], found["nearest"].distance[:, 0]
    order = distance.argsort().tolist()
    assert [image["row"] for image in extremes["least"]] == order[:6]
    assert [image["row"] for image in extremes["most"]] == order[:-7:-1]
    balls = fsb.guaranteed_balls(found["head"], found["batch"].features)
    for image in extremes["all"]:
        row = image["row"]
        assert image["predicted"] == int(found["batch"].predicted[row])
        assert image["label"] == int(found["labels"][row])
        assert image["nearest"] == int(found["nearest"].target[row, 0])
        assert image["distance"] == pytest.approx(float(distance[row]))
        assert image["radius"] == pytest.approx(float(balls.radius[row]))
        assert image["radius"] <= image["distance"] * (1 + 1e-8)


def test_distances(page: Page, found: dict[str, Any]) -> None:
    numbers, predicted = page.numbers["distances"], found["batch"].predicted
    assert [entry["class"] for entry in numbers["classes"]] == list(range(5))
    for entry in numbers["classes"]:
        mine = found["nearest"].distance[predicted == entry["class"], 0].tolist()
        assert entry["images"] == len(mine) == sum(entry["right"]) + sum(entry["wrong"])
        if mine:
            assert entry["median"] == pytest.approx(median(mine))
            assert entry["smallest"] == pytest.approx(min(mine))


def test_slices(page: Page, found: dict[str, Any]) -> None:
    slices = page.numbers["planes"]["slices"]
    distance = found["nearest"].distance[:, 0]
    assert slices[0]["image"]["row"] == int(distance.argmin())
    assert slices[-1]["image"]["row"] == int(distance.argmax())
    assert page.numbers["planes"]["means_of"] == "training images"
    for entry in slices:
        assert len(entry["views"]) == 3
        for view in entry["views"]:
            points = view["points"]
            assert points["image"] == [0.0, 0.0]
            assert points["flip"] == pytest.approx([entry["image"]["distance"], 0.0], abs=1e-9)
            assert sum(r["window_fraction"] for r in view["regions"]) == pytest.approx(1.0)
            shares = {r["class"]: r["window_fraction_in_domain"] for r in view["regions"]}
            assert entry["image"]["predicted"] in shares


def test_class_means_come_from_the_training_images_by_label() -> None:
    subject = tiny_subject()
    measured = measurements.measure(subject, Clock())
    z = subject.space.extract(subject.train_images).features.double()
    for k in range(5):
        expected = z[subject.train_labels == k].mean(dim=0)
        assert torch.allclose(measured.means[k], expected, atol=1e-12)


def test_without_labels_or_training_images() -> None:
    page = tiny_page(labels=None, train_images=None, train_labels=None)
    assert page.numbers["overview"]["labels"] is None
    assert "predicted as that class" in page.numbers["planes"]["means_of"]
    assert "predicted as that class" in page.text["planes"]
    assert "Add labels" in page.text.pop("advice")
    for word in ("Accuracy", "misclassified", "label"):
        assert word not in "".join(page.text.values())


def test_failed_rows_are_counted_and_shown() -> None:
    images = tiny_images(40)
    images[[3, 17]] = torch.nan
    page = tiny_page(images=images)
    o = page.numbers["overview"]
    assert (o["images"], o["with_distance"], o["labels"]["evaluated"]) == (40, 38, 38)
    assert o["certificates"]["requested"] == 38 * 4
    (failed,) = o["failed_images"]
    assert (failed["status"], failed["count"], failed["first_rows"]) == ("NOT_FINITE", 2, [3, 17])
    assert "NOT_FINITE" in page.text["overview"]
    assert o["failed_nearest"] == []
    assert [image["row"] for image in page.numbers["extremes"]["all"]] == list(range(40))
    assert page.numbers["extremes"]["all"][3]["distance"] is None


def test_every_row_failed() -> None:
    page = tiny_page(images=torch.full((3, 1, 6, 6), torch.nan))
    assert page.numbers["overview"]["with_distance"] == 0
    assert page.numbers["planes"]["slices"] == []
    assert "No image has a certified distance" in page.text["overview"]


class FailsOnTarget2(BoundaryFinder):
    """Finds nothing for class 2."""

    def find(self, head: fsb.LinearHead, features: torch.Tensor, **how: Any) -> fsb.FlipPoints:
        inner = plugins.create("boundary_finder", "dual_newton")
        found = inner.find(head, features, **how)
        found.points[how["targets"] == 2] = 9.0
        found.multipliers[how["targets"] == 2] = 0.0
        return found


def test_flip_points_without_a_certificate_are_counted_and_shown() -> None:
    page = tiny_page("overview", finder=FailsOnTarget2())
    certificates = page.numbers["overview"]["certificates"]
    assert certificates["certified"] < certificates["requested"] == 160
    lost = sum(entry["count"] for entry in certificates["failed"])
    assert lost == 160 - certificates["certified"]
    assert "Flip points without a certificate" in page.text["overview"]
    assert page.numbers["provenance"]["finder"]["name"] == "FailsOnTarget2"


def test_finder_that_raises_is_not_hidden() -> None:
    class Broken(BoundaryFinder):
        def find(self, *args: Any, **how: Any) -> fsb.FlipPoints:
            raise RuntimeError("out of luck")

    with pytest.raises(PluginError, match="out of luck"):
        tiny_page("overview", finder=Broken())


class Spread(nn.Module):
    """A linear classifier of the centred pixels with random weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.head = nn.Linear(36, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(classes, 36, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head((x - 0.5).flatten(1))
        return out


def test_many_classes_show_the_most_predicted() -> None:
    model = Spread(40)
    names = tuple(f"name{k}" for k in range(40))
    page = tiny_page(model=model, class_names=names, labels=None)
    shown = page.numbers["pairs"]["classes"]
    assert len(shown) == measurements.SHOWN_CLASSES
    assert page.numbers["pairs"]["omitted"] == 20
    space = fsb.FeatureSpace(model.eval())
    predicted = space.extract(tiny_images(40)).predicted
    counts = torch.bincount(predicted, minlength=40)
    assert int(counts[shown].min()) >= int(counts[[k for k in range(40) if k not in shown]].max())
    nearest = fsb.flip_points(space.head, space.extract(tiny_images(40)).features)
    assert page.numbers["overview"]["distance"]["median"] == pytest.approx(
        median(nearest.distance[:, 0].tolist())
    )
    own = sum(int(k) in shown for k in predicted)
    assert page.numbers["overview"]["certificates"]["requested"] == 40 * 20 - own


def test_classes_without_an_image_are_named() -> None:
    page = tiny_page(images=tiny_images(3), labels=None)
    predicted = {image["predicted"] for image in page.numbers["extremes"]["all"]}
    absent = [k for k in range(5) if k not in predicted]
    assert page.numbers["pairs"]["never_predicted"] == absent
    words = ", ".join(NAMES[k] for k in absent)
    assert f"No image is predicted as {words}." in page.text["pairs"]
    assert all(NAMES[k] in page.text["distances"] for k in predicted)


def test_images_without_a_label_are_neither_right_nor_wrong() -> None:
    labels = torch.arange(40) % 5
    labels[::2] = -1
    train = torch.where(torch.arange(20) < 15, torch.arange(20) % 5, -1)
    page = tiny_page(labels=labels, train_labels=train)
    images = page.numbers["extremes"]["all"]
    assert [i["label"] is None for i in images] == [row % 2 == 0 for row in range(40)]
    pairs = [(i["predicted"], i["label"]) for i in images if i["label"] is not None]
    o = page.numbers["overview"]["labels"]
    assert (o["evaluated"], o["correct"]) == (20, sum(a == b for a, b in pairs))
    assert o["wrong"] == sum(a != b for a, b in pairs)
    assert sum(page.numbers["overview"]["histogram"]["wrong"]) == o["wrong"]
    classes = page.numbers["distances"]["classes"]
    assert sum(entry["misclassified"] for entry in classes) == o["wrong"]
    assert sum(q["wrong"] for q in page.numbers["hull"]["labels"]["quarters"]) == o["wrong"]
    assert sum(q["images"] for q in page.numbers["hull"]["labels"]["quarters"]) == 20
    assert "images with a label are classified correctly" in page.text["overview"]


def test_two_classes() -> None:
    page = tiny_page(model=Spread(2), class_names=("no", "yes"), labels=None, train_labels=None)
    assert len(page.numbers["pairs"]["cells"]) == 2
    names = [view["name"] for view in page.numbers["planes"]["slices"][0]["views"]]
    assert "next" not in names


def test_no_other_class_can_be_reached() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():  # class 0 gains by every feature, and features are nonnegative
        model[3].weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]).expand(3, 4))
        model[3].bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    page = tiny_page(model=model, class_names=("a", "b", "c"), labels=None, train_labels=None)
    o = page.numbers["overview"]
    assert o["distance"]["infinite"] == 40
    assert o["distance"]["median"] is None
    assert o["certificates"]["unreachable"] == o["certificates"]["certified"] == 80
    assert "∞" in page.text["header"]
    assert "no other class can be reached" in page.text["extremes"]
    assert page.numbers["planes"]["slices"] == []


def test_classes_that_tie_everywhere() -> None:
    model = Spread(5)
    with torch.no_grad():
        model.head.weight[1], model.head.bias[1] = model.head.weight[0], model.head.bias[0]
    page = tiny_page(model=model)
    least = page.numbers["extremes"]["least"][0]
    assert (least["predicted"], least["nearest"], least["distance"]) == (0, 1, 0.0)
    assert page.numbers["overview"]["fragile_pair"]["median"] == 0.0


def test_one_image() -> None:
    page = tiny_page(images=tiny_images(1), train_images=None, train_labels=None)
    assert len(page.numbers["extremes"]["least"]) == 1
    assert page.numbers["extremes"]["most"] == []
    assert len(page.numbers["planes"]["slices"]) == 1
    assert "that class has no images" in page.text["planes"]


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    one_row = 8 * 4 * 7
    monkeypatch.setattr(measurements, "POINTS_BYTES", 9 * one_row)
    again = tiny_page()
    for section in ("extremes", "pairs"):
        first, second = leaves(page.numbers[section]), leaves(again.numbers[section])
        assert first.keys() == second.keys()
        for path, value in first.items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert second[path] == close, path


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """Return the numbers and texts of nested dicts and lists by their paths."""
    if not isinstance(node, dict | list):
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return {p: v for key, inner in items for p, v in leaves(inner, f"{path}.{key}").items()}


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_show_any_number_of_channels(channels: int) -> None:
    image = torch.full((channels, 4, 6), 0.5)
    image[:, 0, 0] = torch.nan
    prefix, encoded = png_uri(image).split(",")
    assert prefix == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    pixels = np.asarray(picture)
    assert picture.size == (6, 4)
    assert pixels.shape == ((4, 6, 3) if channels == 3 else (4, 6))
    assert (pixels[1, 1] == 128).all()
    assert (pixels[0, 0] == 0).all()


def test_large_pictures_become_thumbnails() -> None:
    encoded = png_uri(torch.rand(3, 300, 600, generator=torch.Generator().manual_seed(0)))
    assert Image.open(io.BytesIO(base64.b64decode(encoded.split(",")[1]))).size == (192, 96)


def test_class_colours_differ() -> None:
    colours = [REPORT.class_colour(k) for k in range(100)]
    assert len(set(colours)) == 100
    assert all(len(colour) == 7 for colour in colours)
