"""Families of torchvision, with random weights; run only by ``tox -e torchvision``."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from support.models.untouched import state_of

pytestmark = pytest.mark.torchvision


class Expected(NamedTuple):
    """Head's dotted name, whether its inputs are provably nonnegative, and the image size."""

    layer: str
    nonnegative: bool
    size: int = 64


FAMILIES = {
    "alexnet": Expected("classifier.6", True),
    "vgg11_bn": Expected("classifier.6", True),
    "resnet18": Expected("fc", True),
    "resnext50_32x4d": Expected("fc", True),
    "wide_resnet50_2": Expected("fc", True),
    "densenet121": Expected("classifier", True),
    "googlenet": Expected("fc", True),
    "inception_v3": Expected("fc", True, 299),
    "shufflenet_v2_x0_5": Expected("fc", True),
    "mobilenet_v2": Expected("classifier.1", True),
    "mobilenet_v3_small": Expected("classifier.3", False),
    "mnasnet0_5": Expected("classifier.1", True),
    "regnet_y_400mf": Expected("fc", True),
    "efficientnet_b0": Expected("classifier.1", False),
    "efficientnet_v2_s": Expected("classifier.1", False),
    "convnext_tiny": Expected("classifier.2", False),
    "vit_b_32": Expected("heads.head", False, 224),
    "swin_t": Expected("head", False),
    "swin_v2_t": Expected("head", False),
    "maxvit_t": Expected("classifier.5", False, 224),
}


def build_model(name: str) -> nn.Module:
    """Return the model in eval mode, after one batch so that batch norms keep signals alive."""
    models = importlib.import_module("torchvision.models")
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    model: nn.Module = models.get_model(name, weights=None, **settings)
    model.train()
    with torch.no_grad():
        model(images(FAMILIES[name].size if name in FAMILIES else 64))
    return model.eval()


def images(size: int) -> Tensor:
    """Return four images."""
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_and_head_of(name: str) -> None:
    expected, model = FAMILIES[name], build_model(name)
    x, before = images(expected.size), state_of(model)
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    assert state_of(model) == before
    assert space.notes()["layer"] == expected.layer
    low, _ = space.domain.limits(space.head.weight)
    assert bool((low >= 0).all()) == expected.nonnegative
    assert space.domain.contains(batch.features).all()
    assert batch.ok.all()
    assert batch.features.std(dim=0).mean() > 0
    with torch.no_grad():
        torch.testing.assert_close(batch.logits, model(x), rtol=1e-4, atol=1e-5)
    exact = batch.features.double() @ space.head.weight.T + space.head.bias
    torch.testing.assert_close(exact, batch.logits.double(), rtol=1e-4, atol=1e-4)


def test_a_squeeze_net_is_rejected_for_the_relu_after_its_last_convolution() -> None:
    model = build_model("squeezenet1_1")
    with pytest.raises(
        fsb.HeadError, match=r"'classifier.1', gave other numbers.*classifier.2 \(R"
    ):
        fsb.FeatureSpace(model).extract(images(64))
