"""Messages and statuses for models and images that are not usable."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import fsboundary as fsb
from fsboundary import Status
from fsboundary.demo import load_demo
from support.pixels.bodies import Constant
from support.pixels.models import Linear, pictures

FINDERS = ["feature_guided", "ddn", "line_search"]


@pytest.mark.parametrize("call", ["flip_images", "morph", "amplification", "check_accuracy"])
def test_missing_preprocessing_is_reported(call: str) -> None:
    demo = load_demo()
    x, labels = demo.test_images[::17], demo.test_labels[::17]

    def call_with_labels(model: Any) -> None:
        if call == "flip_images":
            fsb.pixels.flip_images(model, x, labels=labels, max_steps=1)
        elif call == "morph":
            fsb.pixels.morph(model, x, x, steps=2, labels=labels, max_steps=1)
        elif call == "amplification":
            fsb.pixels.amplification(model, x, radius=0.1, labels=labels, directions=1, max_steps=1)
        else:
            fsb.pixels.check_accuracy(model, x, labels)

    with pytest.warns(UserWarning, match="preprocessing missing") as caught:
        call_with_labels(demo.model)
    (warning,) = caught
    message = str(warning.message)
    assert "labels: got" in message  # what came
    assert "wanted at least 40.0 %" in message  # a third of the way from 1 of 10 to all
    assert "FeatureSpace(model, preprocess=...)" in message  # what to do
    assert warning.filename == __file__  # where the user called
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call_with_labels(fsb.FeatureSpace(demo.model, preprocess=demo.preprocess))


def test_images_on_the_scale_of_the_model_are_out_of_bounds() -> None:
    demo = load_demo()
    with pytest.raises(fsb.ArgumentError) as caught:
        fsb.pixels.flip_images(demo.model, demo.preprocess(demo.test_images[:2]))
    assert caught.value.name == "images"
    assert "wanted pixels from 0 to 1" in str(caught.value)
    assert "preprocess=" in str(caught.value)


def test_labels_change_no_result_and_need_one_per_image() -> None:
    model, x = Linear(), pictures(6, 1, 4, 4)
    x[1, 0, 0, 0] = torch.nan
    labels = model(x.nan_to_num()).argmax(dim=1)
    labels[1] = 7 - labels[1]  # not finite, so it does not count
    plain = fsb.pixels.flip_images(model, x)
    same = fsb.pixels.flip_images(model, x, labels=labels)
    assert torch.equal(same.images.nan_to_num(), plain.images.nan_to_num())
    with pytest.raises(fsb.ArgumentError, match=r"labels: got shape \(5,\)"):
        fsb.pixels.flip_images(model, x, labels=labels[:5])
    with pytest.raises(fsb.ArgumentError, match="labels"):
        fsb.pixels.morph(model, x, x, labels=labels[:5])


def test_misclassified_rows_leave_the_class_the_model_gives_them() -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    predicted = space.extract(demo.test_images).predicted
    wrong = (predicted != demo.test_labels).nonzero()[:4, 0]
    x, labels = demo.test_images[wrong], demo.test_labels[wrong]
    flips = fsb.pixels.flip_images(space, x, max_steps=20)
    assert bool(flips.ok.all())
    assert bool((flips.distance > 0).all())
    assert torch.equal(flips.source, predicted[wrong])
    # towards the true class, as towards any other
    aimed = fsb.pixels.flip_images(space, x, labels, max_steps=30)
    assert bool(aimed.ok.all())
    assert torch.equal(aimed.target, labels)
    with pytest.warns(UserWarning, match="the model misclassifies them"):
        fsb.pixels.flip_images(space, x, labels=labels, max_steps=1)


@pytest.mark.parametrize("finder", FINDERS)
def test_one_step_is_an_answer_or_a_status(finder: str) -> None:
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    flips = fsb.pixels.flip_images(space, demo.test_images[:12], finder=finder, max_steps=1)
    assert set(flips.status.tolist()) <= {Status.CONVERGED, Status.MAX_STEPS}
    assert torch.equal(flips.ok, torch.isfinite(flips.distance))
    assert torch.equal(flips.ok, torch.isfinite(flips.images).flatten(1).all(dim=1))
    assert int(flips.num_backwards.max()) <= 1


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("targets", ["nearest", torch.tensor([1, 2, 1])])
def test_a_constant_model_has_no_flip_images(finder: str, targets: object) -> None:
    for bias in (0.0, 1.0):
        model = Linear()
        with torch.no_grad():
            model.body.weight.zero_()
            model.body.bias.zero_()
            model.head.bias.copy_(bias * torch.arange(8.0))
        x = pictures(3, 1, 4, 4)
        flips = fsb.pixels.flip_images(model, x, targets, finder=finder, max_steps=6)
        # where all logits tie, a finder may report a tie, but the core rejects it
        assert set(flips.status.tolist()) <= {Status.MAX_STEPS, Status.INACCURATE}
        assert bool(torch.isnan(flips.images).all())
        assert bool(torch.isnan(flips.distance).all())


def test_a_constant_model_leads_nowhere() -> None:
    x = pictures(2, 1, 3, 4).float()
    crossed = fsb.pixels.crossed_images(
        Constant(), fsb.pixels.flip_images(Constant(), x, max_steps=4), margin=0.0
    )
    assert bool(torch.isnan(crossed.images).all())
    found = fsb.pixels.morph(Constant(), x, x.flip(0), steps=3, max_steps=2)
    assert bool(torch.isnan(found.crossing).all())
    assert bool((found.off_path == 0).all())
