"""For each architecture, the head is found and verified, and the model stays unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from support.models import handmade_models, transformers_models
from support.models.families import CLASSES, Family, randomize_weights
from support.models.untouched import state_of

FAMILIES = {**transformers_models.FAMILIES, **handmade_models.FAMILIES}


def first_tensor(output: object) -> Tensor:
    """Return the logits in the output of a model, independently of the package."""
    if isinstance(output, tuple):
        return output[0]
    return output if isinstance(output, Tensor) else output.logits


def expected_features(model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layer's input (B,d), averaged over space, and the logits, as an oracle."""
    inputs: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(
        lambda _, args: inputs.append(args[0].clone())
    )
    with torch.no_grad():
        logits = first_tensor(model(images))
    hook.remove()
    z = inputs[-1]
    if isinstance(model.get_submodule(layer), nn.Linear):
        return z.flatten(1), logits
    return z.flatten(2).double().mean(2).float(), logits


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_features_and_head_of(family: Family) -> None:
    model = randomize_weights(family.build())
    images = torch.randn(5, *family.shape, generator=torch.Generator().manual_seed(1))
    before = state_of(model)
    space = fsb.FeatureSpace(model, output=family.output)

    batch = space.extract(images)

    assert state_of(model) == before
    notes = space.notes()
    assert notes["layer"] == family.layer
    assert notes["features"].startswith("mean over space") == family.pooled
    low, _ = space.domain.limits(space.head.weight)
    assert bool((low >= 0).all()) == family.nonnegative
    assert space.domain.contains(batch.features).all()
    features, logits = expected_features(model, family.layer, images)
    assert batch.features.std(dim=0).mean() > 2e-4  # constant features would pass any test
    torch.testing.assert_close(batch.features, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch.logits, logits, rtol=1e-4, atol=1e-5)
    layer = model.get_submodule(family.layer)
    weight = layer.weight.detach().flatten(1).double()
    bias = torch.zeros(CLASSES) if layer.bias is None else layer.bias.detach()
    assert torch.equal(space.head.weight, weight)
    assert torch.equal(space.head.bias, bias.double())
    torch.testing.assert_close(
        batch.features.double() @ weight.T + bias, batch.logits.double(), rtol=1e-4, atol=1e-4
    )
    assert (batch.status == fsb.Status.CONVERGED).all()
    assert torch.equal(batch.predicted, batch.logits.argmax(1))

    one_by_one = [space.extract(image[None]) for image in images]
    features = torch.cat([one.features for one in one_by_one])
    torch.testing.assert_close(batch.features, features, rtol=1e-4, atol=1e-4)
    assert state_of(model) == before


def test_the_matrix_is_wide_enough() -> None:
    builders = {family.build for family in FAMILIES.values()}
    assert len(builders) == len(FAMILIES) >= 50


AVERAGED = transformers_models.AVERAGED


@pytest.mark.parametrize("family", AVERAGED.values(), ids=AVERAGED.keys())
def test_an_average_of_two_heads_has_the_features_of_both(family: Family) -> None:
    model = randomize_weights(family.build())
    images = torch.randn(3, *family.shape, generator=torch.Generator().manual_seed(1))
    before = state_of(model)
    space = fsb.FeatureSpace(model)
    batch = space.extract(images)
    assert state_of(model) == before
    assert space.notes()["layer"] == family.layer
    with torch.no_grad():
        logits = first_tensor(model(images))
    torch.testing.assert_close(space.head.logits(batch.features).float(), logits)
    torch.testing.assert_close(batch.logits, logits)
    layers = [model.get_submodule(layer) for layer in family.layer.split(", ")]
    widths = {layer.in_features for layer in layers}
    assert batch.features.shape[1] in (*widths, 2 * max(widths))  # one input for both, or two
