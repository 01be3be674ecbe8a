"""Fixtures of the attribution tests: the demo's network, and one that is linear in the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fsboundary as fsb
from fsboundary.demo import DemoData, load_demo
from support.attr.cases import LinearCase


@pytest.fixture
def linear() -> LinearCase:
    generator = torch.Generator().manual_seed(3)
    body, head = nn.Linear(24, 6), nn.Linear(6, 4)
    with torch.no_grad():
        for layer in (body, head):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    model = nn.Sequential(nn.Flatten(), body, head).double().eval()
    images = torch.rand(5, 2, 3, 4, generator=generator, dtype=torch.float64)
    weight = (head.weight @ body.weight).detach()
    bias = (head.weight @ body.bias + head.bias).detach()
    space = fsb.FeatureSpace(model)
    space.extract(images)
    return LinearCase(space, images, weight, bias)


@pytest.fixture(scope="session")
def demo() -> DemoData:
    return load_demo()


@pytest.fixture(scope="session")
def demo_space(demo: DemoData) -> fsb.FeatureSpace:
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    space.extract(demo.test_images[:1])
    return space
