"""Images across the boundary stay there when saved as 8-bit pixels."""

from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary.demo import load_demo
from support.pixels.models import Linear, pictures


def test_the_class_has_changed_after_rounding() -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    images = demo.test_images[:6]
    flips = fsb.pixels.flip_images(space, images, max_steps=20)
    for margin in (0.0, 1.0):
        crossed = fsb.pixels.crossed_images(space, flips, margin=margin)
        assert bool(crossed.ok.all())
        saved = crossed.images.mul(255).round().to(torch.uint8)
        read = saved.float() / 255
        assert torch.equal(read, crossed.images)
        found = space.extract(read)
        assert torch.equal(found.predicted, flips.target)
        assert bool((found.predicted != flips.source).all())
        top = found.logits.double().topk(2, dim=1).values
        torch.testing.assert_close(top[:, 0] - top[:, 1], crossed.margin, rtol=0, atol=1e-4)
        assert float(crossed.margin.min()) >= margin
        change = (crossed.images.double() - flips.images.double()).flatten(1)
        torch.testing.assert_close(crossed.distance, torch.linalg.vector_norm(change, dim=1))


def test_margins_out_of_reach_and_rows_without_an_image() -> None:
    images = pictures(4, 1, 4, 4)
    images[1, 0, 0, 0] = torch.nan
    flips = fsb.pixels.flip_images(Linear(), images)
    crossed = fsb.pixels.crossed_images(Linear(), flips, margin=1e6)
    wanted = [fsb.Status.MAX_STEPS] * 4
    wanted[1] = fsb.Status.NOT_FINITE
    assert crossed.status.tolist() == wanted
    assert bool(torch.isnan(crossed.images).all())
    assert bool(torch.isnan(crossed.distance).all())


@pytest.mark.parametrize("margin", [-1.0, float("nan"), float("inf")])
def test_malformed_margins(margin: float) -> None:
    flips = fsb.pixels.flip_images(Linear(), pictures(2, 1, 4, 4), max_steps=2)
    with pytest.raises(fsb.ArgumentError, match="margin: got"):
        fsb.pixels.crossed_images(Linear(), flips, margin=margin)


def test_only_flip_images_are_accepted() -> None:
    with pytest.raises(fsb.ArgumentError, match="flips: got a Tensor"):
        fsb.pixels.crossed_images(Linear(), pictures(2, 1, 4, 4), margin=0.0)
