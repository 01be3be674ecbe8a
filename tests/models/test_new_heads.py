"""Two-class heads made from binary heads with one logit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fsboundary as fsb
from support.models.nets import WIDTH, Last, Net, images


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_its_class_is_the_sign_of_the_logit(bias: bool, dtype: torch.dtype) -> None:
    old = nn.Linear(WIDTH, 1, bias, dtype=dtype).eval()
    new = fsb.two_class_head(old)
    z = torch.randn(100, WIDTH).to(dtype)
    assert torch.equal(new(z)[:, 0], torch.zeros(100, dtype=dtype))
    torch.testing.assert_close(new(z)[:, 1], old(z)[:, 0])
    torch.testing.assert_close(new(z).softmax(1)[:, 1], old(z)[:, 0].sigmoid())
    assert (new.in_features, new.out_features) == (WIDTH, 2)
    assert (new.bias is None) == (not bias)
    assert new.weight.dtype == dtype
    assert not new.training


def test_it_changes_neither_the_old_layer_nor_the_random_state() -> None:
    old = nn.Linear(WIDTH, 1).requires_grad_(False)
    weight, state = old.weight.clone(), torch.get_rng_state()
    new = fsb.two_class_head(old)
    new.weight.add_(1)
    assert torch.equal(old.weight, weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert new.training
    assert not new.weight.requires_grad
    assert fsb.two_class_head(nn.Linear(WIDTH, 1)).weight.requires_grad


def test_a_model_with_it_has_a_feature_space() -> None:
    model = Last(Net().body, nn.Linear(WIDTH, 1))
    old = model(images())[:, 0]
    model.head = fsb.two_class_head(model.head)
    batch = fsb.FeatureSpace(model).extract(images())
    assert torch.equal(batch.predicted, (old > 0).long())


def test_other_layers_are_rejected() -> None:
    with pytest.raises(fsb.ArgumentError, match="a Linear with 3 outputs; wanted one output"):
        fsb.two_class_head(nn.Linear(2, 3))
    with pytest.raises(fsb.ArgumentError, match="a Conv2d with 2 outputs; wanted one output"):
        fsb.two_class_head(nn.Conv2d(2, 2, 1))
    with pytest.raises(fsb.ArgumentError, match="linear: got a ReLU"):
        fsb.two_class_head(nn.ReLU())


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_before_or_after_an_average(bias: bool) -> None:
    x = images(6)
    for build in (
        lambda conv: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()),
        lambda conv: nn.Sequential(nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ):
        conv = nn.Conv2d(3, 1, 1, bias=bias)
        old = build(conv).eval()(x)[:, 0]
        model = build(fsb.two_class_head(conv)).eval()
        torch.testing.assert_close(model(x)[:, 1], old)
        assert torch.equal(model(x)[:, 0], torch.zeros(6))
        assert torch.equal(fsb.FeatureSpace(model).extract(x).predicted, (old > 0).long())
