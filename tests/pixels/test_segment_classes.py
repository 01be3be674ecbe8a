"""Classes on segments of images: fine sampling and bisection, refusals, rows alone, memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError, HeadError, Status, pixels
from fsboundary.core.results import SegmentClasses
from fsboundary.pixels.certification import pieces
from support.bounds.bodies import body
from support.bounds.bodies import pictures as two_channels
from support.pixels.models import kinked, pictures

BENT = (
    "relu", "leaky_relu", "relu6", "abs", "clamp", "residual", "max_pool", "ceil_mode",
    "dilated pool", "avg_pool", "concatenation", "broadcast", "in place",
)  # fmt: skip
"""Bodies of piecewise linear operations."""


def spread(model: nn.Module, images: Tensor) -> nn.Module:
    """Return `model`, in which each class has the same mean logit on `images`."""
    with torch.no_grad():
        model.head.bias -= model(images).mean(dim=0)
    return model


def at(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    return torch.lerp(start, end, t.reshape(-1, 1, 1, 1))


def check(model: nn.Module, start: Tensor, end: Tensor, found: SegmentClasses, row: int) -> int:
    """Compare one row with samples and bisections; return the number of crossings."""
    classes = found.classes[row][found.classes[row] >= 0]
    crossings = found.crossings[row][: len(classes) - 1]
    assert bool(found.crossings[row][len(classes) - 1 :].isnan().all())
    assert bool((classes[1:] != classes[:-1]).all())
    ends = torch.cat([crossings.new_zeros(1), crossings, crossings.new_ones(1)])
    assert bool((ends.diff() > 0).all())

    def classes_at(t: Tensor) -> Tensor:
        return model(at(start[row], end[row], t)).argmax(dim=1)

    t = torch.linspace(0, 1, 3001, dtype=torch.float64)
    clear = (t[:, None] - ends[1:-1]).abs().amin(dim=1) > 1e-9 if len(crossings) else t > -1
    stretch = torch.searchsorted(crossings, t[clear])
    assert torch.equal(classes[stretch], classes_at(t[clear]))
    # between the middles of two stretches the class changes at the crossing
    low, high = ends[:-2] / 2 + ends[1:-1] / 2, ends[1:-1] / 2 + ends[2:] / 2
    for _ in range(60):
        middle = (low + high) / 2
        before = classes_at(middle) == classes[:-1]
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    # crossings at shallow angles are off by the rounding of logits over their slope
    torch.testing.assert_close(crossings, low, rtol=0, atol=1e-10)
    return len(crossings)


@pytest.mark.parametrize("name", BENT)
def test_classes_and_crossings_are_those_of_samples_and_bisections(name: str) -> None:
    start, end = two_channels(8, 3), two_channels(8, 4)
    model = spread(body(name, 2), torch.cat([start, end]))
    found = pixels.segment_classes(model, start, end)
    assert bool((found.residual < 1e-12).all())
    assert bool((found.pieces > 1).all())
    # the features of clamped ones are constant on long stretches, where balanced logits tie
    rows = found.ok.nonzero()[:, 0].tolist()
    assert len(rows) == 8 or name == "clamp"
    with torch.no_grad():
        crossings = sum(check(model, start, end, found, row) for row in rows)
    assert crossings > 0, "no class changes: nothing is tested"


def test_many_classes_of_a_kinked_network() -> None:
    model, start, end = kinked(), pictures(30, 1, 1, 2), pictures(30, 1, 1, 2, seed=5)
    found = pixels.segment_classes(model, start, end)
    assert sum(check(model, start, end, found, row) for row in range(30)) > 20
    # a piece ends where one of 16 units passes 0
    first = model[1](torch.stack([start, end]).flatten(2))
    changes = (first[0].sign() != first[1].sign()).sum(dim=1)
    torch.testing.assert_close(found.pieces, changes + 1)


def test_linear_bodies_have_one_piece_and_closed_forms() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)).double().eval()
    start, end = pictures(6, 1, 2, 2), pictures(6, 1, 2, 2, seed=2)
    with torch.no_grad():
        model[2].bias -= model(torch.cat([start, end])).mean(dim=0)
        lead = (model(torch.stack([start, end]).flatten(0, 1)).diff(dim=1)[:, 0]).reshape(2, 6)
    found = pixels.segment_classes(model, start, end)
    assert found.pieces.tolist() == [1] * 6
    changes = lead[0].sign() != lead[1].sign()
    assert torch.equal(found.classes[:, 1] >= 0, changes)
    right = lead[0] / (lead[0] - lead[1])
    torch.testing.assert_close(found.crossings[changes, 0], right[changes], rtol=1e-12, atol=0)
    both = fsb.class_path(*_features(model, start, end))
    torch.testing.assert_close(found.crossings, both.crossings, rtol=1e-9, atol=0, equal_nan=True)


def _features(
    model: nn.Module, start: Tensor, end: Tensor
) -> tuple[fsb.LinearHead, Tensor, Tensor]:
    space = fsb.FeatureSpace(model)
    z = [space.extract(x).features for x in (start, end)]
    return space.head, z[0], z[1]


def test_rows_alone_rows_that_are_not_finite_and_equal_ends() -> None:
    model, start, end = kinked(), pictures(4, 1, 1, 2), pictures(4, 1, 1, 2, seed=5)
    start[1, 0, 0, 0], end[2] = torch.nan, start[2]
    full = pixels.segment_classes(model, start, end)
    assert full.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, *[Status.CONVERGED] * 2]
    assert int(full.classes[1].amax()) == -1
    assert math.isnan(float(full.residual[1]))
    assert full.pieces[2] == 1
    assert full.classes[2, 0] == model(start[2:3]).argmax()
    for row in (0, 2, 3):
        alone = pixels.segment_classes(model, start[row : row + 1], end[row : row + 1])
        width = alone.classes.shape[1]
        assert torch.equal(alone.classes, full.classes[row : row + 1, :width])
        assert torch.equal(alone.crossings, full.crossings[row : row + 1, : width - 1])
    space = fsb.FeatureSpace(model, example=start[:1])
    assert space.head.num_classes == 3  # an empty batch does not show the head
    assert pixels.segment_classes(space, start[:0], end[:0]).classes.shape[0] == 0


def test_parts_of_a_segment_give_the_same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = two_channels(2, 3), two_channels(2, 4)
    model = spread(body("max_pool", 2), torch.cat([start, end]))
    whole = pixels.segment_classes(model, start, end)
    monkeypatch.setattr(pieces, "_ROOM", 5000)
    parts = pixels.segment_classes(model, start, end, batch_size=3)
    # pooling divides a whole segment elsewhere than its parts
    assert bool((parts.pieces != whole.pieces).all())
    assert torch.equal(parts.classes, whole.classes)
    torch.testing.assert_close(parts.crossings, whole.crossings, rtol=1e-12, atol=0, equal_nan=True)


def test_float32_models_and_half_images() -> None:
    model, start, end = kinked(), pictures(5, 1, 1, 2), pictures(5, 1, 1, 2, seed=5)
    right = pixels.segment_classes(model, start.half().double(), end.half().double())
    space = fsb.FeatureSpace(kinked(), preprocess=lambda x: x.double())
    found = pixels.segment_classes(space, start.half(), end.half())
    torch.testing.assert_close(found.crossings, right.crossings, rtol=1e-12, atol=0, equal_nan=True)


def test_more_pieces_than_allowed_are_a_status() -> None:
    model, start, end = kinked(), pictures(3, 1, 1, 2), pictures(3, 1, 1, 2, seed=5)
    found = pixels.segment_classes(model, start, end, max_pieces=2)
    assert bool((found.status == Status.MAX_STEPS).all())
    assert bool((found.classes == -1).all())
    assert bool((found.pieces > 2).all())


def test_classes_that_tie_along_a_stretch_are_undecided() -> None:
    model, start, end = kinked(), pictures(3, 1, 1, 2), pictures(3, 1, 1, 2, seed=5)
    with torch.no_grad():
        model[3].weight[1:], model[3].bias[1:] = model[3].weight[0], model[3].bias[0]
    found = pixels.segment_classes(model, start, end)
    assert bool((found.status == Status.UNDECIDED).all())
    assert found.classes.tolist() == [[0]] * 3


def test_a_missed_kink_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, start, end = kinked(), pictures(3, 1, 1, 2), pictures(3, 1, 1, 2, seed=5)
    right = pieces._changes

    def careless(node, x):
        cuts = right(node, x)
        cuts[:, ::2] = torch.nan
        return cuts

    monkeypatch.setattr(pieces, "_changes", careless)
    found = pixels.segment_classes(model, start, end)
    assert bool((found.status == Status.INACCURATE).all())
    assert bool((found.classes == -1).all())


@pytest.mark.parametrize("name", ["gelu", "softplus", "silu", "sigmoid", "tanh"])
def test_curved_bodies_are_refused_by_name(name: str) -> None:
    with pytest.raises(HeadError, match=name):
        pixels.segment_classes(body(name), two_channels(1, 1), two_channels(1, 2))


def test_operations_without_a_rule_and_malformed_arguments_raise() -> None:
    cube = nn.Sequential(nn.Flatten(), nn.Softmax(dim=1), nn.Linear(2, 2)).double().eval()
    start, end = pictures(2, 1, 1, 2), pictures(2, 1, 1, 2, seed=5)
    with pytest.raises(HeadError, match="softmax"):
        pixels.segment_classes(cube, start, end)
    for given, name in (((start, end[:1]), "end"), ((start[0], end), "start"), ((start, 3), "end")):
        with pytest.raises(ArgumentError, match=name):
            pixels.segment_classes(kinked(), *given)
    with pytest.raises(ArgumentError, match="max_pieces"):
        pixels.segment_classes(kinked(), start, end, max_pieces=0)
