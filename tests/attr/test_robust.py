from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.attr import BoundaryPush
from support.attr.cases import LinearCase


def straight(case: LinearCase, target: list[int]) -> Tensor:
    """Return the unit pixel directions towards the flip points with the targets."""
    flips = fsb.flip_points(
        case.space.head, case.space.extract(case.images).features, torch.tensor(target)
    )
    way = flips.points[:, 0] - case.space.features(case.images).detach()
    body = case.space.model[1]
    pixels = (way @ body.weight.detach()).reshape(case.images.shape)
    return pixels / pixels.flatten(1).norm(dim=1)[:, None, None, None]


def others(case: LinearCase) -> list[int]:
    return [(own + 1) % 4 for own in case.predicted.tolist()]


@pytest.mark.parametrize("amount", [0.0, 0.3, 4.0])
def test_on_a_linear_body_the_way_is_straight(linear: LinearCase, amount: float) -> None:
    target = others(linear)
    pushed = BoundaryPush(linear.space)(linear.images, amount=amount, target=target)
    torch.testing.assert_close(pushed, linear.images + amount * straight(linear, target))
    moved = (pushed - linear.images).flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, amount))


def test_nearest_is_the_default_and_the_class_changes_at_the_distance(linear: LinearCase) -> None:
    features = linear.space.extract(linear.images).features
    nearest = fsb.flip_points(linear.space.head, features).target[:, 0]
    push = BoundaryPush(linear.space)
    assert torch.equal(
        push(linear.images, amount=0.5), push(linear.images, amount=0.5, target=nearest)
    )
    unit = straight(linear, nearest.tolist()).flatten(1)
    for row, own in enumerate(linear.predicted.tolist()):
        lead = linear.logits(linear.images)[row, own] - linear.logits(linear.images)[row]
        slope = (linear.weight - linear.weight[own]) @ unit[row]
        reach = min(float(lead[k] / slope[k]) for k in range(4) if k != own and slope[k] > 0)
        for factor, kept in ((0.999, True), (1.001, False)):
            pushed = push(linear.images[row : row + 1], amount=factor * reach)
            assert (int(linear.logits(pushed).argmax()) == own) == kept


def test_forms_of_a_target(linear: LinearCase) -> None:
    push = BoundaryPush(linear.space)
    rows = [row for row, own in enumerate(linear.predicted.tolist()) if own != 2]
    images = linear.images[rows]
    expected = push(images, 0.4, 2)
    for target in ([2] * len(rows), torch.full((len(rows),), 2), torch.tensor(2), [2]):
        assert torch.equal(push(images, 0.4, target), expected)
    away = push(linear.images, 0.4, linear.predicted)
    assert bool((linear.margins(away) > linear.margins(linear.images)).all())


def test_batch_is_loop_and_tuples_come_back_as_tuples(linear: LinearCase) -> None:
    push = BoundaryPush(linear.space, steps=3)
    whole = push(linear.images, 0.7)
    loop = torch.cat([push(linear.images[row : row + 1], 0.7) for row in range(5)])
    torch.testing.assert_close(whole, loop)
    (again,) = push((linear.images,), 0.7)
    assert torch.equal(again, whole)
    with torch.no_grad():
        assert torch.equal(push(linear.images, 0.7), whole)
    assert not whole.requires_grad
    bounded = BoundaryPush(linear.space, lower_bound=0.25, upper_bound=0.75)(linear.images, 2.0)
    assert float(bounded.min()) >= 0.25
    assert float(bounded.max()) <= 0.75


def test_rows_that_cannot_be_pushed_are_nan_alone(linear: LinearCase) -> None:
    push = BoundaryPush(linear.space)
    expected = push(linear.images, 0.5)
    images = linear.images.clone()
    images[2, 1, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match="no flip point"):
        found = push(images, 0.5)
    assert bool(found[2].isnan().all())
    rest = [0, 1, 3, 4]
    torch.testing.assert_close(found[rest], expected[rest])


def test_a_flat_body_cannot_be_pushed() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
    with pytest.warns(UserWarning, match="its gradient is zero"):
        found = BoundaryPush(model)(torch.ones(2, 1, 2, 2), 0.5)
    assert bool(found.isnan().all())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amount": -0.1}, "amount: got -0.1"),
        ({"amount": float("nan")}, "amount: got nan"),
        ({"target": 4}, "target: got classes from 4 to 4"),
        ({"target": [0, 1]}, "target: got shape"),
        ({"inputs": torch.zeros(5, dtype=torch.int64)}, "inputs: got dtype torch.int64"),
        ({"inputs": (torch.zeros(2, 3), torch.zeros(2, 3))}, "inputs: got 2 tensors"),
    ],
)
def test_bad_arguments(linear: LinearCase, given: dict[str, Any], message: str) -> None:
    call = {"inputs": linear.images, "amount": 0.1, **given}
    with pytest.raises(fsb.ArgumentError, match=message):
        BoundaryPush(linear.space)(**call)


def test_bad_hyper_parameters(linear: LinearCase) -> None:
    with pytest.raises(fsb.ArgumentError, match="steps: got 0"):
        BoundaryPush(linear.space, steps=0)
    with pytest.raises(fsb.ArgumentError, match="lower_bound, upper_bound: got 1 and 0"):
        BoundaryPush(linear.space, lower_bound=1, upper_bound=0)
