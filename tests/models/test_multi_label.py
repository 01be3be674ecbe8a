"""Models of separate labels: a sigmoid per label, and the head that decides each of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from support.models.nets import Net, images


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_labels_of_a_model(sigmoid: bool, dtype: torch.dtype) -> None:
    model = Net(torch.sigmoid if sigmoid else lambda y: y).to(dtype)
    space = fsb.FeatureSpace(model, head="multi_label")
    x = images(20).to(dtype)
    batch = space.extract(x)
    plain = Net().to(dtype)(x)
    assert torch.equal(batch.logits, plain)
    head = space.multi_label_head
    assert isinstance(head, fsb.MultiLabelHead)
    assert space.multi_label
    assert torch.equal(head.weight, model.fc.weight.detach().double())
    flips = fsb.label_flips(head, batch.features)
    assert flips.ok.all()
    with pytest.raises(fsb.ArgumentError, match="label_flips"):
        fsb.flip_points(head, batch.features)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(fsb.HeadError, match="multi_label_head"):
        space.head  # noqa: B018  # raises
    with pytest.raises(fsb.HeadError, match='head="multi_label"'):
        fsb.FeatureSpace(Net().to(dtype), example=x).multi_label_head  # noqa: B018  # raises
    with pytest.raises(fsb.ArgumentError, match="multi_label"):
        fsb.pixels.flip_images(space, x.sigmoid(), bounds=(0, 1))


def test_a_sigmoid_is_refused_unless_labels_are_asked_for() -> None:
    with pytest.raises(fsb.HeadError, match='head="multi_label"'):
        fsb.FeatureSpace(Net(torch.sigmoid)).extract(images())
    with pytest.raises(fsb.HeadError, match="'_softmax' follows its last linear map"):
        fsb.FeatureSpace(Net(lambda y: y.softmax(1)), head="multi_label").extract(images())


def test_another_link_later_is_noticed() -> None:
    model = Net(torch.sigmoid)
    space = fsb.FeatureSpace(model, head="multi_label")
    space.extract(images())

    def other(y: Tensor) -> Tensor:
        return torch.sigmoid(1.01 * y)

    model.output = other
    with pytest.raises(fsb.HeadMismatchError):
        space.extract(images())
