from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fsboundary.models.structures import modules_of, tensors_of


def shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer, nn.BatchNorm1d(3)))
    model.add_module("twice", model[1])
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.register_module("nothing", None)
    model.register_buffer("none", None)
    model.register_buffer("count", torch.zeros(()), persistent=False)
    return model


def parametrised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))


def scripted() -> nn.Module:
    return torch.jit.trace(shared().eval(), torch.zeros(2, 3))


class Renamed(nn.Sequential):
    """Names its parts itself, as wrappers of distributed training do."""

    def named_parameters(self, *args: object, **kwargs: object) -> object:
        for name, tensor in super().named_parameters(*args, **kwargs):  # type: ignore[arg-type]  # passed on
            yield f"own.{name}", tensor

    def named_modules(self, *args: object, **kwargs: object) -> object:
        for name, module in super().named_modules(*args, **kwargs):  # type: ignore[arg-type]  # passed on
            yield f"own.{name}", module


MODELS: dict[str, Callable[[], nn.Module]] = {
    "shared": shared,
    "tied": tied,
    "parametrised": parametrised,
    "scripted": scripted,
    "renamed": lambda: Renamed(nn.Linear(2, 2), nn.BatchNorm1d(2)),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # older models still use it
@pytest.mark.parametrize("name", MODELS)
def test_the_fast_walks_agree_with_torch(name: str) -> None:
    model = MODELS[name]()
    found = modules_of(model)
    expected = dict(model.named_modules())
    assert list(found) == list(expected)
    if name != "scripted":  # whose modules are wrapped anew by each walk
        assert all(found[key] is expected[key] for key in expected)
        tensors = {id(t) for t in [*model.parameters(), *model.buffers()]}
        assert {id(t) for t in tensors_of(model, modules_of(model).values())} == tensors
