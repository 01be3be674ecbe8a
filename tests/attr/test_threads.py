"""Methods that put hooks on layers, while other threads use the same model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn

import fsboundary as fsb
from support.attr.nets import images, positive

WAIT = 0.5
"""Seconds in which the other thread's pass would be over if it were let through."""


class Overtaken:
    """A layer's hook that lets a pass of another thread come between, in each pass of this one."""

    def __init__(self, space: fsb.FeatureSpace, layer: nn.Module) -> None:
        self.space, self.ends = space, False
        self.started, self.done = threading.Event(), threading.Event()
        self.thread = threading.get_ident()
        self.handle = layer.register_forward_hook(self.wait)

    def wait(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == self.thread:
            self.done.clear()
            self.started.set()
            self.done.wait(WAIT)

    def pass_between(self) -> list[Tensor]:
        found = []
        while self.started.wait(20) and not self.ends:
            self.started.clear()
            found.append(self.space.extract(images(3)).features)
            self.done.set()
        return found


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")  # DeepLift's
@pytest.mark.parametrize("name", ["layer_boundary_direction", "attribute_methods"])
def test_hooks_see_no_pass_of_another_thread(name: str) -> None:
    space = fsb.FeatureSpace(positive(), domain="nonnegative")
    assert isinstance(space.model, nn.Sequential)
    x, layer = images(2), space.model[2]

    def attribute() -> Tensor:
        if name == "layer_boundary_direction":
            found = fsb.attr.LayerBoundaryDirection(space, layer).attribute(x)
            assert isinstance(found, Tensor)
            return found
        return fsb.attr.attribute_methods(space, x, {"DeepLift": DeepLift})["DeepLift"]

    wanted, features = attribute(), space.extract(images(3)).features
    # at the layer after the one whose hook is tested
    overtaken = Overtaken(space, space.model[3])
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(overtaken.pass_between)
        try:
            found = attribute()
        finally:
            overtaken.ends = True
            overtaken.started.set()
        between = other.result()
    overtaken.handle.remove()
    assert torch.equal(found, wanted)
    assert between
    assert all(torch.equal(z, features) for z in between)
