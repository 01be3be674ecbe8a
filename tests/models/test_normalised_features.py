"""Heads of normalised features: regions are cones, and features are those before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fsboundary as fsb
from support.models.nets import CLASSES, WIDTH, Net, images

W = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(2))


class Cosine(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], shift: float = 0.0) -> None:
        super().__init__()
        self.body, self.w = Net().body, nn.Parameter(W.clone())
        with torch.no_grad():
            self.body[1].bias.add_(0.5)
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x), self.w)


def unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(-1, keepdim=True).sqrt()


CONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normalize": lambda z, w: F.linear(F.normalize(z), w),
    "ArcFace": lambda z, w: 30 * F.linear(F.normalize(z), F.normalize(w)),
    "WiSE-FT": lambda z, w: F.linear(z / z.norm(dim=-1, keepdim=True), w),
    "open_clip": lambda z, w: torch.tensor(4.6).exp() * F.normalize(z, dim=-1) @ F.normalize(w).T,
    "CLIP": lambda z, w: (unit(w) @ unit(z).t() * torch.tensor(4.6).exp()).t(),
    "SigLIP": lambda z, w: (unit(w) @ unit(z).t() * torch.tensor(2.3).exp() - 10.0).t(),
    "root mean square": lambda z, w: F.linear(z * z.pow(2).mean(-1, keepdim=True).rsqrt(), w),
    "softmax of cosines": lambda z, w: (5 * F.linear(F.normalize(z), w)).softmax(1),
}


@pytest.mark.parametrize("function", CONES.values(), ids=CONES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_before_the_normalisation(
    function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    model, x = Cosine(function).to(dtype), images(40).to(dtype)
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    with torch.no_grad():
        assert torch.equal(batch.features, model.body(x))
        assert torch.equal(batch.predicted, model(x).argmax(1))
    assert "cones" in space.notes()["features"]
    assert space.domain == fsb.Domain.nonnegative()
    # flip points are ties of the model's own function of features, whatever their length
    flips = fsb.flip_points(space.head, batch.features, "all")
    ok = flips.ok & torch.isfinite(flips.distance)
    size = batch.features.double().norm(dim=1)[:, None]
    ok &= flips.points.norm(dim=2) > 1e-3 * size  # not the apex of the cones, which has no angle
    assert ok.any()
    for scale in (1.0, 0.01, 50.0):
        logits = function(flips.points[ok] * scale, model.w.double()).double()
        source = flips.source[:, None].expand_as(flips.target)[ok]
        tie = logits.gather(1, torch.stack([source, flips.target[ok]], 1))
        spread = logits.amax(1) - logits.amin(1)
        assert ((tie[:, 0] - tie[:, 1]).abs() < 1e-5 * spread).all()
        assert (logits.amax(1) - tie[:, 0] < 1e-5 * spread).all()


def test_angles_are_those_of_a_closed_form() -> None:
    g = torch.Generator().manual_seed(0)
    head = fsb.LinearHead(torch.randn(5, 7, generator=g), None)
    z = torch.randn(30, 7, generator=g, dtype=torch.float64)
    flips = fsb.flip_points(head, z, "nearest")
    angle, bound = flips.angles(z)
    w = head.weight[flips.source][:, None] - head.weight
    distance = torch.einsum("bkd,bd->bk", w, z) / w.norm(dim=2)
    distance[torch.arange(30), flips.source] = torch.inf
    wanted = (distance.amin(1) / z.norm(dim=1)).arcsin()
    torch.testing.assert_close(angle[:, 0], wanted, rtol=1e-9, atol=1e-12)
    assert (bound <= angle).all()
    torch.testing.assert_close(bound, angle, rtol=1e-9, atol=1e-9)
    again = fsb.flip_points(head, 1000 * z, "nearest").angles(1000 * z)[0]
    torch.testing.assert_close(again, angle, rtol=1e-9, atol=1e-12)
    with pytest.raises(fsb.ArgumentError, match="features: got shape"):
        flips.angles(z[:3])


def test_no_smaller_angle_is_found_by_rotating_rows_at_random() -> None:
    g = torch.Generator().manual_seed(0)
    head = fsb.LinearHead(torch.randn(4, 3, generator=g), None, fsb.Domain.nonnegative())
    z = torch.rand(10, 3, generator=g, dtype=torch.float64)
    bound = fsb.flip_points(head, z, "nearest").angles(z)[1][:, 0]
    other = torch.rand(20_000, 3, generator=g, dtype=torch.float64)
    classes, own = head.predict(other), head.predict(z)
    cosine = F.normalize(z) @ F.normalize(other).T
    angle = torch.where(classes == own[:, None], math.pi, cosine.clamp(-1, 1).arccos())
    assert (angle.amin(dim=1) >= bound).all()


def test_other_biases_leave_the_sphere() -> None:
    model = Cosine(lambda z, w: F.linear(F.normalize(z), w, torch.arange(float(CLASSES))))
    space = fsb.FeatureSpace(model)
    batch = space.extract(images(20))
    torch.testing.assert_close(batch.features.norm(dim=1), torch.ones(20))
    assert "on a sphere" in space.notes()["features"]


NOT_CONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "another vector's norm": lambda z, w: F.linear(z / (z + 1).norm(dim=-1, keepdim=True), w),
    "the square of the norm": lambda z, w: F.linear(z / z.pow(2).sum(-1, keepdim=True), w),
    "times the norm": lambda z, w: F.linear(z * z.norm(dim=-1, keepdim=True), w),
    "sum": lambda z, w: F.linear(z / z.sum(-1, keepdim=True), w),
}


@pytest.mark.parametrize("function", NOT_CONES.values(), ids=NOT_CONES.keys())
def test_what_is_no_normalisation_is_left_as_it_is(function: Any) -> None:
    model, x = Cosine(function), images(20)
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    assert "cones" not in space.notes()["features"]
    torch.testing.assert_close(
        space.head.logits(batch.features).float(), batch.logits, rtol=1e-4, atol=1e-4
    )


def test_zero_shot() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = Net().body

        def encode_image(self, x: Tensor) -> Tensor:
            return self.visual(x) + 0.1

    clip, x = Clip().eval(), images(20)
    for encoder in (clip.encode_image, lambda x: clip.encode_image(x)):
        space = fsb.FeatureSpace.zero_shot(encoder, W, scale=100.0)
        batch = space.extract(x)
        with torch.no_grad():
            cosine = F.normalize(clip.encode_image(x)) @ F.normalize(W).T
        torch.testing.assert_close(batch.logits, 100 * cosine)
        assert torch.equal(batch.features, clip.encode_image(x))
        assert torch.equal(batch.predicted, cosine.argmax(1))
        assert fsb.flip_points(space.head, batch.features).ok.all()
    clip.train()
    with pytest.raises(fsb.HeadError, match="training mode"):
        fsb.FeatureSpace.zero_shot(clip.encode_image, W).extract(x)
    for text in (W[0], torch.zeros(2, WIDTH), W[:1], W.long()):
        with pytest.raises(fsb.ArgumentError, match="text_embeddings"):
            fsb.FeatureSpace.zero_shot(clip.encode_image, text)
    with pytest.raises(fsb.ArgumentError, match="scale"):
        fsb.FeatureSpace.zero_shot(clip.encode_image, W, scale=0.0)
    with pytest.raises(fsb.ArgumentError, match="image_encoder"):
        fsb.FeatureSpace.zero_shot("clip", W)


@pytest.mark.parametrize("shift", [0.0, -0.3])
def test_labels_of_normalised_features_are_cones_only_without_a_bias(shift: float) -> None:
    """One bias for all classes moves no boundary between classes, but the boundary of a label."""
    model = Cosine(lambda z, w: F.linear(F.normalize(z), F.normalize(w)) + shift)
    x = images(40)
    space = fsb.FeatureSpace(model, head="multi_label")
    batch = space.extract(x)
    with torch.no_grad():
        assert torch.equal(space.multi_label_head.predict(batch.features), model(x) > 0)
    assert ("regions are cones" in space.notes()["features"]) == (shift == 0)
    balls = fsb.label_balls(space.multi_label_head, batch.features)
    lengths = batch.features.norm(dim=1)
    assert bool((lengths - 1).abs().max() < 1e-5) == (shift != 0)
    # no length of a feature changes what the head says of the model's labels
    ok = balls.ok & torch.isfinite(balls.radius) & (balls.radius > 1e-6)
    assert ok.any()
    step = 0.99 * balls.radius[ok][:, None] * F.normalize(torch.ones(1, WIDTH)).double()
    near = batch.features[ok].double() + step
    head = space.multi_label_head
    assert torch.equal(head.predict(near), head.predict(batch.features[ok]))


def test_positions_that_are_normalised_one_by_one_stay_features() -> None:
    """The mean of normalised vectors is no multiple of the mean of the vectors."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(
                torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(0))
            )

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(x.flatten(2) + 0.1, dim=2), self.w).mean(1)

    space = fsb.FeatureSpace(Tokens().eval())
    batch = space.extract(images(20))
    assert batch.ok.all()
    assert "cones" not in space.notes()["features"]
    torch.testing.assert_close(space.head.logits(batch.features).float(), batch.logits)
