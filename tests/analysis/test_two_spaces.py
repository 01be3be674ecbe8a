"""Comparison of two spaces: if features are the pixels, both columns must agree."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError
from fsboundary.analysis import TwoSpaces
from fsboundary.analysis.two_spaces import (
    PairedPoints,
    Points,
    angles_between,
    class_hull_measures,
    draw_pairs,
    rank_correlation,
)

CLASSES = 3


def images(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 1, 2, 2, generator=generator, dtype=torch.float64)


def pixels_as_features(scale: float = 1.0) -> fsb.FeatureSpace:
    """Return a space whose features are the pixels times `scale`."""
    body, head = nn.Linear(4, 4, bias=False), nn.Linear(4, CLASSES)
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), body, head).double().eval()
    with torch.no_grad():
        body.weight.copy_(scale * torch.eye(4))
        head.weight.copy_(torch.randn(CLASSES, 4, generator=generator))
        head.bias.copy_(-head.weight @ torch.full((4,), scale / 2, dtype=torch.float64))
    return fsb.FeatureSpace(model)


def measured(space: fsb.FeatureSpace, **options: Any) -> TwoSpaces:
    x, train = images(30, 1), images(120, 2)
    labels, train_labels = (space.extract(v).predicted for v in (x, train))
    sizes = {"sample": 30, "flips": 20, "pairs": 60, "neighbours": 4, "points": 401}
    return fsb.analysis.two_spaces(
        space, x, labels, train, train_labels, bounds=(-50, 50), **(sizes | options)
    )


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_if_features_are_the_pixels_both_columns_agree(scale: float) -> None:
    table = measured(pixels_as_features(scale))
    for measure in table.measures:
        if not math.isnan(measure.pixels):
            # flip images are searched for, and segments in pixels are sampled; angles of parallel
            # directions are rounding, in degrees
            assert measure.pixels == pytest.approx(measure.features, rel=1e-3, abs=1e-9), measure
    perfect = {
        "hull_distance": 1.0,
        "class_hull_distance": 1.0,
        "neighbours": 1.0,
        "boundary_distance": 1.0,
        "same_target": 1.0,
        "classes_met": 1.0,
    }
    for name, value in perfect.items():
        assert table[name].agreement == pytest.approx(value, abs=1e-3), name
    assert table["direction"].agreement == pytest.approx(0, abs=1)
    assert 0 < table["inside"].pixels < 1
    assert table["classes_met"].features >= 2


def test_a_body_that_folds_space_shows() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU()).double()
    head = nn.Linear(6, CLASSES).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in (*body.parameters(), *head.parameters()):
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    table = measured(fsb.FeatureSpace(nn.Sequential(*body, head).eval()), points=21)
    assert table["neighbours"].agreement < 1
    assert table["hull_distance"].agreement < 1


def test_draws_repeat_and_leave_the_global_generator_alone() -> None:
    space = pixels_as_features()
    before = torch.random.get_rng_state()
    one, two, other = (
        measured(space, seed=seed, sample=10, flips=5, points=11).to_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert one == two
    assert one != other


def test_the_table_is_json_and_markdown() -> None:
    table = measured(pixels_as_features(), sample=10, flips=5, points=11)
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert [line["name"] for line in plain["measures"]] == [m.name for m in table.measures]
    assert plain["sizes"]["training images"] == 120
    lines = table.to_markdown().splitlines()
    assert len(lines) == 2 + len(table.measures)
    assert {line.count("|") for line in lines} == {5}
    with pytest.raises(KeyError):
        table["nothing"]


def test_angles_and_ranks() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 3.0], [1.0, 1e-9], [-1.0, 0.0], [0.0, 0.0]])
    angles = angles_between(a, b)
    assert angles[:3].tolist() == pytest.approx([90, 57.29578e-9, 180], rel=1e-6)
    assert bool(torch.isnan(angles[3]))
    x = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    assert rank_correlation(x, torch.tensor([1.0, 8.0, 9.0, 0.0])) == pytest.approx(1)
    assert math.isnan(rank_correlation(x, torch.ones(4)))
    pairs = draw_pairs(3, 500, torch.Generator().manual_seed(0))
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    assert len(pairs.unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"images": images(2, 1), "labels": torch.zeros(2)}, "images"),
        ({"images": images(5, 1) + 9, "labels": torch.zeros(5)}, "images"),
        ({"train_images": torch.full((5, 1, 2, 2), torch.nan)}, "train_images"),
        ({"train_labels": torch.zeros(4)}, "train_labels"),
        ({"labels": torch.zeros(4)}, "labels"),
        ({"labels": torch.zeros(4).long()}, "labels"),
        ({"labels": torch.zeros(5)}, "labels"),
        ({"sample": 1}, "sample"),
        ({"points": 0}, "points"),
    ],
)
def test_bad_arguments(change: dict[str, Any], name: str) -> None:
    good: dict[str, Any] = {
        "space": pixels_as_features(),
        "images": images(5, 1),
        "labels": torch.zeros(5).long(),
        "train_images": images(5, 2),
        "train_labels": torch.zeros(5).long(),
    }
    with pytest.raises(ArgumentError) as error:
        fsb.analysis.two_spaces(**(good | change))
    assert error.value.name == name


def test_labels_that_the_model_does_not_predict_are_reported() -> None:
    space = pixels_as_features()
    x = images(30, 1)
    wrong = (space.extract(x).predicted + 1) % CLASSES
    with pytest.warns(UserWarning, match="preprocessing missing"):
        fsb.analysis.two_spaces(
            space, x, wrong, x, wrong, sample=5, flips=2, pairs=4, points=3, bounds=(-9, 9)
        )


def test_hulls_of_few_points_in_many_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(29, 3, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(torch.randn(40_000, 3, generator=generator, dtype=torch.float64)).Q
    labels = torch.arange(25) % CLASSES
    low, high = (Points(v[25:], v[:25], labels) for v in (flat, flat @ frame.T))
    ratios, inside = low.hull_distances(25, 0)
    again, inside_again = high.hull_distances(25, 0)
    assert torch.allclose(again, ratios, atol=1e-6)
    assert inside_again == inside
    for found, want in zip(high.class_hull_distances(), low.class_hull_distances(), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_undecided_pairs_of_hulls_do_not_count_as_pairs_that_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = Points(images(2, 1).flatten(1), images(9, 2).flatten(1), torch.arange(9) % CLASSES)
    both = PairedPoints(points, points, torch.tensor([[0, 1], [2, 3]]))
    distances = torch.tensor([0.0, torch.nan, torch.nan, 2.0], dtype=torch.float64)
    # the second pair is proved apart without a certified distance; the third is undecided
    apart = torch.tensor([0.0, 1.0, torch.nan, 1.0], dtype=torch.float64)
    monkeypatch.setattr(Points, "class_hull_distances", lambda _: (distances, apart))
    fraction, distance = class_hull_measures(both)
    assert fraction.pixels == pytest.approx(2 / 3)
    assert fraction.question.endswith("(of 4, 3 and 3 are decided)")
    assert distance.pixels == pytest.approx(1 / both.units[0])
