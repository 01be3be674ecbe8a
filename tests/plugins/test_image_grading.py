"""Grading of image finders, and rejection of malformed arguments before any work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fsboundary as fsb
from support.pixels.models import FixedProposal, Linear, pictures


def flips_of(finder: object, count: int = 4, **options: object) -> fsb.results.FlipImages:
    return fsb.pixels.flip_images(Linear(), pictures(count, 1, 4, 4), finder=finder, **options)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: 1 - x,
        lambda x: x + 5,
        lambda x: torch.full_like(x, 0.3),
    ],
    ids=["clean", "elsewhere", "out of bounds", "one image for all"],
)
def test_images_that_are_not_ties_are_not_returned(change) -> None:
    flips = flips_of(FixedProposal(change, distance=torch.zeros(4), residual=torch.zeros(4)))
    assert flips.status.tolist() == [fsb.Status.INACCURATE] * 4
    assert bool(torch.isnan(flips.images).all())
    assert bool(torch.isnan(flips.distance).all())
    assert bool(torch.isnan(flips.residual).all())


def test_ties_of_other_classes_or_out_of_bounds_are_not_returned() -> None:
    images = pictures(4, 1, 4, 4)
    right = fsb.pixels.flip_images(Linear(), images)
    # another row's flip image is on a boundary, but not on one of this row's class
    order = torch.arange(3, -1, -1)
    other = flips_of(FixedProposal(lambda x: right.images[order]))
    pair = torch.stack([right.source, right.target], dim=1)[order]
    foreign = (pair != right.source[:, None]).all(dim=1)
    assert bool((other.status[foreign] == fsb.Status.INACCURATE).all())
    wrong_target = (right.target + 1) % 8
    wrong_target = torch.where(wrong_target == right.source, (wrong_target + 1) % 8, wrong_target)
    result = fsb.pixels.flip_images(
        Linear(), images, wrong_target, finder=FixedProposal(lambda x: right.images)
    )
    assert not bool(result.ok.any())


@pytest.mark.parametrize("left", [0.0, 0.5e-4, 2e-4, 0.5, 1.0])
def test_two_classes_tie_by_the_gap_of_the_row(left: float) -> None:
    model, images = Linear(3, 2), pictures(4, 1, 4, 4)
    right = fsb.pixels.flip_images(model, images)
    assert bool(right.ok.all())
    # along a line of a linear model the gap falls evenly
    short = images + (1 - left) * (right.images - images)
    flips = fsb.pixels.flip_images(model, images, finder=FixedProposal(lambda x: short))
    assert bool((flips.ok == (left < 1e-4)).all())
    if left < 1e-4:
        # the residual is the remaining gap
        want = torch.full_like(flips.residual, left)
        torch.testing.assert_close(flips.residual, want, rtol=0, atol=2e-6)


def test_rounding_counts() -> None:
    images = pictures(4, 1, 4, 4).float()
    exact = fsb.pixels.flip_images(Linear(), images.double())
    model = Linear().float()
    flips = fsb.pixels.flip_images(model, images, finder=FixedProposal(lambda x: exact.images))
    assert bool(flips.ok.all())
    assert flips.images.dtype == torch.float32
    change = (flips.images.double() - images.double()).flatten(1)
    torch.testing.assert_close(flips.distance, torch.linalg.vector_norm(change, dim=1))


def test_passes_are_counted_whatever_is_claimed() -> None:
    flips = flips_of(FixedProposal(lambda x: x * torch.nan, passes=3, gradients=2))
    assert flips.num_backwards.tolist() == [2] * 4
    # and one pass for the class, one for the grade
    assert flips.num_forwards.tolist() == [5] * 4
    assert flips.status.tolist() == [fsb.Status.MAX_STEPS] * 4


def test_batched_gradients_are_rejected() -> None:
    class Batched(FixedProposal):
        def find(self, view, images, **rest):
            shown = images.clone().requires_grad_()
            logits = view.logits(shown)
            ones = torch.eye(8, dtype=logits.dtype)[:, None].expand(-1, len(images), -1)
            torch.autograd.grad(logits, shown, ones, is_grads_batched=True)
            return super().find(view, images, **rest)

    with pytest.raises(fsb.PluginError, match="Batched raised"):
        flips_of(Batched(lambda x: x))


def test_wrong_answers_name_the_finder() -> None:
    with pytest.raises(fsb.PluginError, match=r"FixedProposal: images has shape \(2, 1, 4, 4\)"):
        flips_of(FixedProposal(lambda x: x[:2]))
    with pytest.raises(fsb.PluginError, match="FixedProposal: num_backwards"):
        flips_of(FixedProposal(lambda x: x, num_backwards=torch.zeros(2)))
    with pytest.raises(fsb.PluginError, match="FixedProposal raised ZeroDivisionError"):
        flips_of(FixedProposal(lambda x: x / (1 // 0)))

    class Silent(FixedProposal):
        def find(self, *args, **rest):
            return None

    with pytest.raises(fsb.PluginError, match="Silent returned NoneType; wanted FlipImages"):
        flips_of(Silent(lambda x: x))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"images": pictures(2, 1, 4, 4) * 255}, r"images: got pixels from .* to 2"),
        ({"images": pictures(2, 3, 4, 4)}, r"images: got shape \(2, 3, 4, 4\).* not take"),
        (
            {"images": pictures(2, 16)},
            r"images: got shape \(2, 16\); wanted a float tensor \(B, C, H, W\)",
        ),
        ({"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, "images: got dtype torch.uint8"),
        ({"bounds": (1, 0)}, r"bounds: got \(1, 0\)"),
        ({"bounds": 1}, "bounds: got 1"),
        ({"norm": "l1"}, "norm: got 'l1'"),
        ({"max_steps": 0}, "max_steps: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"finder": "dual_newton"}, "which lacks it"),
        ({"targets": "all"}, "targets: got 'all'"),
        ({"targets": torch.tensor([0.0, 1.0])}, "targets: got dtype"),
        ({"targets": torch.tensor([0, 1, 2])}, r"targets: got shape \(3,\)"),
        ({"targets": torch.tensor([0, 8])}, "targets: got classes from 0 to 8"),
        ({"model": 3}, "model: got 3; wanted a torch nn.Module"),
    ],
)
def test_malformed_arguments(options: dict[str, object], match: str) -> None:
    given = {"model": Linear(), "images": pictures(2, 1, 4, 4)} | options
    with pytest.raises(fsb.ArgumentError, match=match):
        fsb.pixels.flip_images(**given)


def test_a_model_in_training_mode_is_rejected() -> None:
    model = nn.Sequential(Linear(), nn.Dropout()).train()
    with pytest.raises(fsb.HeadError, match="training mode"):
        fsb.pixels.flip_images(model, pictures(2, 1, 4, 4))
