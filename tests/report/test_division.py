"""The section on how the space is divided: against direct calls, and degenerate subjects."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import nn

import fsboundary as fsb
from fsboundary.report import measurements as measure_module
from fsboundary.report.clock import Clock
from fsboundary.report.measurements import measure
from fsboundary.report.page import to_json
from fsboundary.report.sections.division import measure as division_measure
from fsboundary.report.sections.division.section import (
    MAX_NODES,
    DivisionSection,
)
from support.report import NAMES, Page, tiny_images, tiny_page, tiny_subject


@pytest.fixture(scope="module")
def n(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.numbers["division"]
    return found


@pytest.fixture(scope="module")
def direct() -> dict[str, Any]:
    """Return the same from the public functions."""
    subject = tiny_subject()
    batch = subject.space.extract(subject.images)
    head = subject.space.head
    z = subject.space.extract(subject.train_images).features
    bank = fsb.FeatureBank(z)
    box = fsb.Domain.box(*bank.range())
    return {
        "head": head,
        "batch": batch,
        "z": z,
        "bank": bank,
        "box": box,
        "whole": fsb.partition(head),
        "boxed": fsb.partition(head, box),
        "labels": subject.labels,
    }


def numbers_of(**changed: Any) -> dict[str, Any]:
    """Return the section's numbers of a tiny subject, without its page."""
    measured = measure(tiny_subject(**changed), Clock())
    found: dict[str, Any] = json.loads(to_json(DivisionSection().compute(measured).numbers))
    return found


def plain_head(
    weight: list[list[float]], bias: list[float], body: nn.Module | None = None
) -> nn.Module:
    """Return a model with these last weights, over all of R^d or behind `body`."""
    head = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
        head.bias.copy_(torch.tensor(bias))
    first = nn.Linear(36, len(weight[0]))
    with torch.no_grad():
        first.weight.copy_(torch.randn(first.weight.shape, generator=torch.manual_seed(0)))
        first.bias.copy_(-first.weight.sum(dim=1) / 2)
    return nn.Sequential(nn.Flatten(), first, *([] if body is None else [body]), head)


@pytest.mark.parametrize("which", ["whole", "boxed"])
def test_summary(which: str, n: dict[str, Any], direct: dict[str, Any]) -> None:
    found, p = n[which], direct[which]
    upper = [(i, j) for i, j in combinations(range(5), 2)]
    assert found["pairs"] == 10
    assert found["facets"] == sum(bool(p.adjacency[i, j]) for i, j in upper)
    for key, code in (("none", 1), ("undecided", 9)):
        assert found[key] == sum(int(p.status[i, j]) == code for i, j in upper)
    assert found["nonempty"] == int(p.nonempty.sum())
    assert found["bounded"] == int(p.bounded.sum())
    radii = sorted(float(p.facet_radius[i, j]) for i, j in upper if p.adjacency[i, j])
    assert found["infinite"] == sum(map(math.isinf, radii))
    for key, value in (("smallest", radii[0]), ("largest", radii[-1])):
        assert found[key] == (pytest.approx(value) if math.isfinite(value) else None)


def test_box_and_words(page: Page, n: dict[str, Any], direct: dict[str, Any]) -> None:
    low, high = direct["bank"].range()
    sides = (high - low)[high > low]
    assert n["half_side"] == pytest.approx(float(sides.min()) / 2)
    p = direct["boxed"]
    limited = int((p.chebyshev_radius[p.nonempty] >= 0.99 * n["half_side"]).sum())
    assert n["boxed"]["regions_limited_by_box"] == limited
    assert 0 < n["boxed"]["facets"] < 10  # some pairs are no neighbours there
    assert n["boxed"]["facets"] < n["whole"]["facets"]
    for words in ("Neighbours.", "Widths.", "theorem", "slices of the feature space", NAMES[0]):
        assert words in page.text["division"]


def test_cells(n: dict[str, Any], direct: dict[str, Any]) -> None:
    nearest = fsb.flip_points(direct["head"], direct["batch"].features)
    p, w = direct["boxed"], direct["head"].weight
    w = w - w.mean(dim=0)
    assert [c["pair"] for c in n["cells"]] == [list(pair) for pair in combinations(range(5), 2)]
    for cell in n["cells"]:
        i, j = cell["pair"]
        assert (cell["state"] == "facet") == bool(p.adjacency[i, j])
        assert (cell["state"] == "none") == (int(p.status[i, j]) == 1)
        if cell["radius"] is not None:
            assert cell["radius"] == pytest.approx(float(p.facet_radius[i, j]))
        cosine = float(w[i] @ w[j] / (w[i].norm() * w[j].norm()))
        assert cell["angle"] == pytest.approx(math.degrees(math.acos(cosine)))
        pairs = zip(nearest.source.tolist(), nearest.target[:, 0].tolist(), strict=True)
        assert cell["images"] == sum({a, b} == {i, j} for a, b in pairs)
    assert sum(c["images"] for c in n["cells"]) == 40
    busiest = [n["cells"][place]["images"] for place in n["busiest"]]
    assert busiest == sorted((c["images"] for c in n["cells"] if c["images"]), reverse=True)[:5]


def test_thin_and_narrow(n: dict[str, Any], direct: dict[str, Any]) -> None:
    p = direct["boxed"]
    assert [e["pair"] for e in n["thinnest"]] == p.thinnest(5).tolist()
    assert [e["class"] for e in n["narrowest"]] == p.narrowest(5).tolist()
    for entry in n["narrowest"]:
        assert entry["radius"] == pytest.approx(float(p.chebyshev_radius[entry["class"]]))
        assert entry["limited_by_box"] == (entry["radius"] >= 0.99 * n["half_side"])
    assert not n["narrowest"][0]["limited_by_box"]


def test_sizes(n: dict[str, Any], direct: dict[str, Any]) -> None:
    head = direct["head"]
    expected = {
        "box_fraction": fsb.region_fractions(head, direct["box"]),
        "training_fraction": fsb.feature_fractions(head, direct["z"]),
        "image_fraction": fsb.feature_fractions(head, direct["batch"].features),
    }
    hulls = fsb.guaranteed_hulls(head, direct["bank"])
    assert n["samples"] == 100_000
    for key, found in expected.items():
        assert [r[key] for r in n["regions"]] == pytest.approx(found.fractions.tolist())
    errors = expected["box_fraction"].standard_error.tolist()
    assert [r["box_standard_error"] for r in n["regions"]] == pytest.approx(errors)
    for row, clearance in zip(n["regions"], hulls.clearance.tolist(), strict=True):
        known = math.isfinite(clearance)
        assert row["clearance"] == (pytest.approx(clearance) if known else None)


def test_covered(n: dict[str, Any], direct: dict[str, Any]) -> None:
    held = fsb.coverage(direct["head"], direct["bank"], direct["batch"].features, direct["labels"])
    found = fsb.coverage_fractions(held)
    assert n["coverage"]["images"] == 40
    for place, kind in enumerate(("hull", "ball", "both", "either")):
        entry = n["coverage"]["kinds"][kind]
        assert entry["covered"] == int(found.covered[place])
        assert entry["fraction"] == entry["covered"] / 40
        accuracy = float(found.accuracy_uncovered[place])
        assert entry["accuracy_uncovered"] == (None if math.isnan(accuracy) else accuracy)
    assert n["coverage"]["kinds"]["ball"]["covered"] > 0


def test_path(page: Page, n: dict[str, Any], direct: dict[str, Any]) -> None:
    path, z = n["path"], direct["batch"].features
    start, end = path["start"]["row"], path["end"]["row"]
    found = fsb.class_path(direct["head"], z[[start]], z[[end]])
    stretches = path["segments"]
    assert [s["class"] for s in stretches] == found.classes[0].tolist()
    assert [s["from"] for s in stretches[1:]] == pytest.approx(found.crossings[0].tolist())
    assert [s["to"] for s in stretches] == [s["from"] for s in stretches[1:]] + [1.0]
    assert len(stretches) == max(entry["classes"] for entry in path["class_counts"])
    assert sum(entry["pairs"] for entry in path["class_counts"]) == path["pairs"]
    assert (stretches[0]["class"], stretches[-1]["class"]) == (
        path["start"]["predicted"],
        path["end"]["predicted"],
    )
    assert {str(start), str(end)} <= set(page.study.pictures["division"])


def test_path_that_meets_most_classes_is_shown() -> None:
    model = plain_head([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [0.0, 0.2, 0.0])
    path = numbers_of(model=model, class_names=("a", "b", "c"), labels=None, train_images=None)[
        "path"
    ]
    assert {entry["classes"] for entry in path["class_counts"]} == {2, 3}
    assert [s["class"] for s in path["segments"]] in ([0, 1, 2], [2, 1, 0])


def test_ambiguous(page: Page, n: dict[str, Any], direct: dict[str, Any]) -> None:
    head, z = direct["head"], direct["batch"].features
    value = fsb.ambiguity(head, z, 3, direct["bank"])
    order = torch.where(value.isfinite(), value, math.inf).argsort()[:6].tolist()
    images = n["ambiguous"]["images"]
    assert [e["row"] for e in images] == order
    assert n["ambiguous"]["cannot_tie"] == int(value.isinf().sum())
    for entry in images:
        assert entry["ambiguity"] == pytest.approx(float(value[entry["row"]]))
        top = head.logits(z)[entry["row"]].argsort(descending=True)[:3]
        assert entry["classes"] == top.tolist()
        assert str(entry["row"]) in page.study.pictures["division"]


def test_no_training_images_and_no_labels() -> None:
    page = tiny_page("division", "hull", train_images=None, train_labels=None, labels=None)
    n = page.numbers["division"]
    assert not n["box"]
    assert (n["coverage"], n["samples"], n["half_side"]) == (None, None, None)
    assert n["whole"] == n["boxed"]
    assert "No training images were given" in page.text["division"]
    assert "Widths." not in page.text["division"]


def test_training_images_that_are_all_the_same_span_no_box() -> None:
    n = numbers_of(train_images=tiny_images(1, seed=1).expand(4, -1, -1, -1), train_labels=None)
    assert not n["box"]
    assert n["coverage"] is not None


def test_no_usable_image() -> None:
    page = tiny_page("division", "hull", images=torch.full((3, 1, 6, 6), torch.nan))
    n = page.numbers["division"]
    assert (n["path"], n["coverage"], n["ambiguous"]["images"]) == (None, None, [])
    assert n["busiest"] == []
    assert n["whole"]["facets"] > 0


def test_counting_proves_regions_unbounded() -> None:
    model = plain_head([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0])
    page = tiny_page(
        "division", model=model, class_names=("a", "b", "c"), labels=None, train_labels=None
    )
    n = page.numbers["division"]
    assert n["unbounded_by_counting"]
    assert n["whole"]["unbounded"] == 3
    assert "does not depend on training" in page.text["division"]


def test_limits_may_bound_a_region_however_many_features() -> None:
    # class 1 wins where z_1 + z_2 < 1: with z >= 0 a bounded triangle, though d > K - 1
    model = plain_head([[1.0, 1.0], [0.0, 0.0]], [-1.0, 0.0], nn.ReLU())
    n = numbers_of(model=model, class_names=("a", "b"), labels=None, train_labels=None)
    assert not n["unbounded_by_counting"]
    assert (n["whole"]["bounded"], n["whole"]["unbounded"]) == (1, 1)
    assert n["ambiguous"]["num_tied"] == 2


def test_empty_region_and_equal_classes() -> None:
    weight = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, -1.0], [0.0, -1.0]]
    page = tiny_page("division", "hull", model=plain_head(weight, [0.0, 0.0, -1.0, 0.0, 0.0]))
    whole = page.numbers["division"]["whole"]
    assert whole["empty"] >= 1  # class 2 is below the mean of 0 and 1
    assert whole["same"] == 1
    assert "have an empty region and are never predicted" in page.text["division"]
    assert "equal weights and biases" in page.text["division"]


class Wide(nn.Module):
    """Random weights of many classes, over all of R^36."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(36, classes, bias=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(classes, 36, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head((x - 0.5).flatten(1))
        return out


def test_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division_measure, "MAX_DIVIDED", 31)
    monkeypatch.setattr(measure_module, "SHOWN_CLASSES", MAX_NODES + 1)
    names = tuple(f"name{k}" for k in range(32))
    page = tiny_page(
        "division", "hull", model=Wide(32), class_names=names, labels=None, train_labels=None
    )
    n = page.numbers["division"]
    assert n["restricted"]
    assert n["omitted"] == 32 - len(n["classes"]) == 11
    assert n["whole"]["regions"] == len(n["classes"])
    assert not n["graph"]
    assert "among the shown classes only" in page.text["division"]
    assert "graph of" not in page.html.lower()
    subject = tiny_subject(model=Wide(32))
    z = subject.space.extract(subject.images).features
    sizes = fsb.feature_fractions(subject.space.head, z).fractions
    shown = [float(sizes[k]) for k in n["classes"]]
    assert [r["image_fraction"] for r in n["regions"]] == pytest.approx(shown)


def test_pairs_of_the_shown_classes_are_those_of_the_whole_head() -> None:
    model = Wide(32)
    found = numbers_of(model=model, class_names=tuple("x" * 32), labels=None, train_images=None)
    assert not found["restricted"]
    assert found["whole"]["regions"] == 32
    pairs = torch.tensor([cell["pair"] for cell in found["cells"]])
    space = tiny_subject(model=model).space
    space.extract(tiny_images(1))  # the head is found on the first image
    head = space.head
    expected = fsb.partition(head, pairs=pairs).adjacency[pairs[:, 0], pairs[:, 1]]
    assert [c["whole"] == "facet" for c in found["cells"]] == expected.tolist()
