"""Rows without a class, such as those whose features are NaN, fail alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fsboundary import (
    ArgumentError,
    FeatureBank,
    FeatureSpace,
    LinearHead,
    Status,
    flip_points,
    hull_projection,
    pixels,
)


def images() -> torch.Tensor:
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[1, 0, 0, 0] = torch.nan
    return x


def space() -> FeatureSpace:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    return FeatureSpace(net.eval())


def test_a_hull_of_the_predicted_class() -> None:
    batch = space().extract(images())
    assert batch.predicted[1] == -1
    points = torch.rand(30, 6, generator=torch.Generator().manual_seed(1))
    bank = FeatureBank(points, torch.arange(30) % 3)
    result = hull_projection(bank, batch.features, labels=batch.predicted)
    good = [0, 2, 3]
    alone = hull_projection(bank, batch.features[good], labels=batch.predicted[good])
    assert result.ok.tolist() == [True, False, True, True]
    assert result.status[1] == Status.NOT_FINITE
    assert torch.equal(result.distance[good], alone.distance)
    # a row of numbers without a class has no hull either
    labels = batch.predicted.clone()
    labels[0] = -1
    result = hull_projection(bank, batch.features, labels=labels)
    assert result.status.tolist() == [Status.UNDECIDED, Status.NOT_FINITE, 0, 0]
    assert result.distance[:2].isnan().all()
    assert (result.lower_bound[:2] == 0).all()
    nothing = hull_projection(bank, batch.features, labels=torch.full((4,), -1))
    assert not nothing.ok.any()
    with pytest.raises(ArgumentError, match="-2"):
        hull_projection(bank, batch.features, labels=torch.full((4,), -2))


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("columns", [False, True])
def test_flip_points_towards_the_class_of_another_batch(linear: bool, columns: bool) -> None:
    g = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 6, generator=g), torch.randn(3, generator=g)
    layer = nn.Linear(6, 3).double()
    layer.load_state_dict({"weight": weight.double(), "bias": bias.double()})
    head = LinearHead(weight, bias) if linear else layer.eval()
    z = torch.randn(4, 6, generator=g).double()
    z[1] = torch.nan
    targets = torch.tensor([-1, -1, 1, 2])
    finder = {} if linear else {"finder": "linearised"}
    result = flip_points(head, z, targets[:, None] if columns else targets, **finder)
    alone = flip_points(head, z[2:], targets[2:], **finder)
    assert result.status[:2, 0].tolist() == [Status.UNDECIDED, Status.NOT_FINITE]
    assert result.distance[:2].isnan().all()
    assert (result.lower_bound[:2] == 0).all()
    assert torch.equal(result.status[2:], alone.status)
    assert torch.equal(result.distance[2:].nan_to_num(), alone.distance.nan_to_num())
    with pytest.raises(ArgumentError, match="-1 leaves a row without a target"):
        flip_points(head, z, targets - 1, **finder)


@pytest.mark.parametrize("finder", ["feature_guided", "ddn", "line_search"])
def test_flip_images_towards_the_class_of_another_batch(finder: str) -> None:
    targets = torch.tensor([-1, -1, 0, 1])
    result = pixels.flip_images(space(), images(), targets, finder=finder, max_steps=5)
    assert result.status[:2].tolist() == [Status.UNDECIDED, Status.NOT_FINITE]
    assert result.images[:2].isnan().all()
    assert (result.num_backwards[:2] == 0).all()
    alone = pixels.flip_images(space(), images()[2:], targets[2:], finder=finder, max_steps=5)
    assert torch.equal(result.status[2:], alone.status)
