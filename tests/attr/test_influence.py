from __future__ import annotations

from typing import Any

import pytest
import torch

import fsboundary as fsb
from fsboundary.attr import HullInfluence
from support.attr.cases import LinearCase


@pytest.fixture
def bank(linear: LinearCase) -> fsb.FeatureBank:
    generator = torch.Generator().manual_seed(8)
    images = torch.rand(40, 2, 3, 4, generator=generator, dtype=torch.float64)
    batch = linear.space.extract(images)
    return linear.space.bank([(images, batch.predicted)])


def test_weights_are_those_of_the_projection_largest_first(
    linear: LinearCase, bank: fsb.FeatureBank
) -> None:
    found = HullInfluence(linear.space, bank).influence(linear.images)
    features = linear.space.extract(linear.images).features
    expected = fsb.hull_projection(bank, features)
    assert found.indices.shape == found.weights.shape
    assert found.weights.shape[1] == int((expected.weights > 0).sum(dim=1).max())
    assert bool((found.weights.diff(dim=1) <= 0).all())
    assert torch.equal(found.indices < 0, found.weights == 0)
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(5, dtype=torch.float64))
    means = torch.stack(
        [
            sum(w * bank.features[i] for i, w in zip(row.tolist(), weights, strict=True) if i >= 0)
            for row, weights in zip(found.indices, found.weights, strict=True)
        ]
    )
    torch.testing.assert_close(means.double(), expected.points)


def test_k_keeps_the_largest_and_pads(linear: LinearCase, bank: fsb.FeatureBank) -> None:
    influence = HullInfluence(linear.space, bank)
    whole = influence.influence(linear.images)
    first = influence.influence(linear.images, 2)
    assert torch.equal(first.indices, whole.indices[:, :2])
    assert torch.equal(first.weights, whole.weights[:, :2])
    wide = influence.influence(linear.images, 7)
    lack = 7 - whole.weights.shape[1]
    assert lack >= 0
    assert wide.indices[:, 7 - lack :].tolist() == [[-1] * lack] * 5
    assert wide.weights[:, 7 - lack :].tolist() == [[0.0] * lack] * 5
    layers = influence.by_layer(linear.images, top_k=2)
    assert list(layers) == [linear.space.notes()["layer"]]
    indices, weights = layers[linear.space.notes()["layer"]]
    assert torch.equal(indices, first.indices)
    assert torch.equal(weights, first.weights)


def test_a_training_image_supports_itself_unless_left_out(linear: LinearCase) -> None:
    bank = linear.space.bank([linear.images])
    influence = HullInfluence(linear.space, bank)
    own = influence.influence(linear.images, 1)
    assert own.indices[:, 0].tolist() == list(range(5))
    torch.testing.assert_close(own.weights, torch.ones(5, 1, dtype=torch.float64))
    left = influence.influence(linear.images, leave_out=torch.arange(5))
    assert not bool((left.indices == torch.arange(5)[:, None]).any())


def test_labels_keep_to_one_class(linear: LinearCase, bank: fsb.FeatureBank) -> None:
    labels = bank.labels
    assert labels is not None
    wanted = labels[:5]
    found = HullInfluence(linear.space, bank).influence(linear.images, labels=wanted)
    for row, indices in enumerate(found.indices.tolist()):
        assert {int(labels[i]) for i in indices if i >= 0} == {int(wanted[row])}


def test_a_row_that_failed_has_no_weights(linear: LinearCase, bank: fsb.FeatureBank) -> None:
    images = linear.images.clone()
    images[3, 0, 0, 0] = torch.nan
    influence = HullInfluence(linear.space, bank)
    found, expected = influence.influence(images, 3), influence.influence(linear.images, 3)
    assert found.indices[3].tolist() == [-1] * 3
    assert bool(found.weights[3].isnan().all())
    rest = [0, 1, 2, 4]
    assert torch.equal(found.indices[rest], expected.indices[rest])


@pytest.mark.parametrize("k", [0, 8, True, 1.5])
def test_k_out_of_range(linear: LinearCase, bank: fsb.FeatureBank, k: Any) -> None:
    with pytest.raises(
        fsb.ArgumentError, match=f"k: got {k}; wanted (at most 7|an integer, at least 1)"
    ):
        HullInfluence(linear.space, bank).influence(linear.images, k)


def test_k_beyond_a_small_bank(linear: LinearCase) -> None:
    bank = linear.space.bank([linear.images[:3]])
    with pytest.raises(fsb.ArgumentError, match="k: got 4; wanted at most 3"):
        HullInfluence(linear.space, bank).influence(linear.images, 4)


def test_no_bank_and_another_bank(linear: LinearCase, demo_space: fsb.FeatureSpace) -> None:
    with pytest.raises(fsb.ArgumentError, match="bank: got a Tensor"):
        HullInfluence(linear.space, torch.zeros(3, 6))  # type: ignore[arg-type]  # on purpose
    other = demo_space.bank([torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))])
    with pytest.raises(fsb.HeadMismatchError):
        HullInfluence(linear.space, other).influence(linear.images)
