"""Use of the plugin: raw pixels through the processor, and earlier layers."""

from __future__ import annotations

import pytest
import torch
import transformers
from fsboundary_transformers.extractor import HuggingFace, pool_tokens
from fsboundary_transformers.tiny import tiny_classifier
from torch import Tensor

import fsboundary as fsb

SIZES = {"height": 16, "width": 16}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(rows: int, side: int = 16) -> Tensor:
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_raw_pixels_go_through_the_processor() -> None:
    model = tiny_classifier().eval()
    processor = transformers.ViTImageProcessor(size=SIZES, image_mean=MEAN, image_std=STD)
    extractor = HuggingFace.like(processor)
    assert extractor.size == (16, 16)
    space = fsb.FeatureSpace(model, extractor=extractor)
    # bytes, as the processor takes them, of a size that needs no resizing: equal results
    pixels = (images(4) * 255).round()
    fed = processor(pixels.byte(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        want = model(fed).logits
    batch = space.extract(pixels / 255)
    torch.testing.assert_close(batch.logits, want, rtol=1e-4, atol=1e-4)
    # another size, with a gradient at the raw pixels
    large = images(2, 24).requires_grad_()
    [slope] = torch.autograd.grad(space.features(large).sum(), large)
    assert slope.shape == large.shape
    assert slope.abs().sum() > 0
    flips = fsb.flip_points(space.head, batch.features)
    assert flips.ok.all()


def test_an_earlier_layer_has_a_fitted_head() -> None:
    model = tiny_classifier().eval()
    space = fsb.FeatureSpace(model, extractor=HuggingFace(layer="vit.layernorm", pooling="mean"))
    space.fit([(part, None) for part in images(300).split(50)])
    assert space.surrogate
    assert space.fidelity is not None
    assert space.fidelity > 0.5
    notes = space.notes()
    assert notes["layer"] == "vit.layernorm, tokens pooled: mean"
    assert "held-out examples" in notes["fidelity"]


def test_pooling_of_tokens() -> None:
    states = torch.tensor([[[1.0], [2.0], [6.0]]])
    found = [pool_tokens(states, how).item() for how in ("first", "mean", "patches")]
    assert found == [1.0, 3.0, 4.0]
    assert pool_tokens(torch.ones(2, 5, 3, 3), "first").shape == (2, 5)
    with pytest.raises(fsb.ArgumentError, match="got 'last'"):
        HuggingFace(pooling="last")


def test_a_processor_that_crops_is_rejected() -> None:
    processor = transformers.ViTImageProcessor(do_center_crop=True, crop_size=SIZES)
    with pytest.raises(fsb.ArgumentError, match=r"with do_center_crop.*Fix: crop or pad"):
        HuggingFace.like(processor)
