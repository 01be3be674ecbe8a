"""What a report says about a model of 100 classes, recomputed slowly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from statistics import median
from typing import Any

import pytest
import torch

import fsboundary as fsb
from fsboundary.report import measurements
from fsboundary.report.sections.pixels import sizes
from support.report import Page, tiny_images, tiny_model, tiny_page, tiny_subject

CLASSES, IMAGES, SHOWN = 100, 60, 12
NAMES = tuple(f"class {k}" for k in range(CLASSES))


def many_classes() -> dict[str, Any]:
    """Return changes of the tiny subject: 100 classes, of which few are predicted often."""
    return {
        "model": tiny_model(CLASSES, 12),
        "images": tiny_images(IMAGES),
        "labels": None,
        "class_names": NAMES,
        "train_labels": None,
    }


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Return the page; the section on pixels and the number of shown classes are kept small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "SHOWN_CLASSES", SHOWN)
        patch.setattr(sizes, "FULL", sizes.MINIMUM)
        yield tiny_page("extremes", "distances", "pairs", "planes", "division", **many_classes())


@pytest.fixture(scope="module")
def space() -> fsb.FeatureSpace:
    found: fsb.FeatureSpace = tiny_subject(**many_classes()).space
    return found


@pytest.fixture(scope="module")
def images(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.numbers["extremes"]["all"]
    return found


def test_the_shown_classes_are_the_most_predicted_then_the_nearest(
    page: Page, images: list[dict[str, Any]]
) -> None:
    counts = [
        (sum(i["predicted"] == k for i in images), sum(i["nearest"] == k for i in images), -k)
        for k in range(CLASSES)
    ]
    expected = sorted(sorted(range(CLASSES), key=counts.__getitem__)[-SHOWN:])
    for section in ("pairs", "distances", "division"):
        entries = page.numbers[section]["classes"]
        assert [e["class"] if isinstance(e, dict) else e for e in entries] == expected
        assert page.numbers[section]["omitted"] == CLASSES - SHOWN
        assert f"The {SHOWN} classes predicted most often are shown" in page.text[section]


def test_the_most_fragile_pair_is_that_of_the_pairs_compared(
    page: Page, space: fsb.FeatureSpace
) -> None:
    shown = page.numbers["pairs"]["classes"]
    batch = space.extract(tiny_images(IMAGES))
    medians = {}
    for i in shown:
        z = batch.features[batch.predicted == i]
        if len(z) >= 5:
            targets = torch.tensor([[j for j in shown if j != i]]).expand(len(z), -1)
            distance = fsb.flip_points(space.head, z, targets).distance
            for column, j in enumerate(targets[0].tolist()):
                medians[i, j] = median(distance[:, column].tolist())
    fragile = page.numbers["overview"]["fragile_pair"]
    best = min(medians, key=medians.__getitem__)
    assert (fragile["source"], fragile["target"]) == best
    assert fragile["median"] == pytest.approx(medians[best])
    assert fragile["compared"] == len(medians) < fragile["all_pairs"] == CLASSES * (CLASSES - 1)
    summary = page.text["overview"]
    assert "smallest of all" not in summary
    assert "ordered pairs compared, out of" in summary
    assert "classes predicted most often whose first class has at least" in summary
    assert "compared" in page.text["header"]


def test_certificates_are_counted_of_the_shown_targets(
    page: Page, images: list[dict[str, Any]]
) -> None:
    shown = page.numbers["pairs"]["classes"]
    own = sum(image["predicted"] in shown for image in images)
    assert page.numbers["overview"]["certificates"]["requested"] == IMAGES * SHOWN - own
    words = "flip points, from each image to each of the classes predicted most often, are"
    assert words in page.text["overview"]


def test_the_second_nearest_class_is_that_of_all_classes(
    page: Page, space: fsb.FeatureSpace
) -> None:
    seconds = {}
    for entry in page.numbers["planes"]["slices"]:
        row = entry["image"]["row"]
        z = space.extract(tiny_images(IMAGES)[row : row + 1]).features
        every = fsb.flip_points(space.head, z, "all")
        order = every.distance[0].argsort().tolist()
        assert int(every.target[0, order[0]]) == entry["image"]["nearest"]
        second = int(every.target[0, order[1]])
        views = {view["name"]: view for view in entry["views"]}
        if "next" in views:
            seconds[row] = views["next"]["mean_of"]
            assert seconds[row] == second
    assert seconds  # at least one image has a second nearest class with a mean


def test_no_picture_of_a_slice_is_shown_twice(page: Page) -> None:
    for entry in page.numbers["planes"]["slices"]:
        pictures = [(view["mean_of"], tuple(view["window"])) for view in entry["views"]]
        assert len(set(pictures)) == len(pictures)


def test_the_distance_of_one_image_is_not_called_a_median(page: Page) -> None:
    counts = [entry["images"] for entry in page.numbers["distances"]["classes"]]
    drawn = page.text["distances"].split("The same as a table")[0]
    assert drawn.count("imagedistance") == counts.count(1) > 0
    assert drawn.count("imagesmedian") == sum(count > 1 for count in counts) > 0


def test_the_rows_of_the_pairs_have_their_number_of_images(
    page: Page, images: list[dict[str, Any]]
) -> None:
    pairs = page.numbers["pairs"]
    expected = [sum(image["predicted"] == k for image in images) for k in pairs["classes"]]
    assert pairs["images"] == expected
    absent = [NAMES[k] for k, n in zip(pairs["classes"], expected, strict=True) if n == 0]
    assert (
        f"Of the classes shown, no image is predicted as {', '.join(absent)}."
        in (page.text["pairs"])
    )


def test_the_regions_say_that_they_are_those_among_the_shown_classes(
    page: Page, space: fsb.FeatureSpace
) -> None:
    division, text = page.numbers["division"], page.text["division"]
    assert division["restricted"]
    shown = division["classes"]
    space.extract(tiny_images(1))
    linear = space.head
    among = fsb.partition(fsb.LinearHead(linear.weight[shown], linear.bias[shown], linear.domain))
    whole = division["whole"]
    assert whole["pairs"] == SHOWN * (SHOWN - 1) // 2
    assert whole["facets"] == sum(
        bool(among.adjacency[i, j]) for i, j in combinations(range(SHOWN), 2)
    )
    for words in (
        "those among the shown classes only",
        "pairs of the shown classes share a boundary",
        "shown classes have a region if only the shown classes compete",
        "Busiest boundaries among the shown classes",
        "Thinnest facets among the shown classes",
        "These percentages are of the regions among all classes",
    ):
        assert words in text, words


def test_without_enough_images_no_pair_is_called_fragile() -> None:
    page = tiny_page(
        "pairs",
        "extremes",
        images=tiny_images(4),
        labels=None,
        train_images=None,
        train_labels=None,
    )
    counts = torch.bincount(torch.tensor([i["predicted"] for i in page.numbers["extremes"]["all"]]))
    assert int(counts.max()) < 5
    assert page.numbers["overview"]["fragile_pair"] is None
    assert "fragile" not in page.text["header"] + page.text["overview"]
