"""Use of the plugin: published attacks, whose success is verified."""

from __future__ import annotations

import pytest
import torch
from fsboundary_foolbox import attacks
from fsboundary_foolbox.features import FoolboxFeatures
from fsboundary_foolbox.finder import Foolbox
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import plugins


def subject() -> tuple[nn.Module, Tensor]:
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=draw))
    return model, torch.rand(4, 3, 4, 4, generator=draw)


@pytest.mark.parametrize("attack", ["", "L2DeepFoolAttack", "DDNAttack", "L2CarliniWagnerAttack"])
def test_attacks_give_images_on_the_boundary(attack: str) -> None:
    model, images = subject()
    overrides = (("binary_search_steps", 3),) if "Carlini" in attack else ()
    found = fsb.pixels.flip_images(model, images, finder=Foolbox(attack, overrides), max_steps=60)
    assert found.ok.all()
    assert (found.residual <= 1e-4).all()
    # none is much farther than that of the built-in finder
    built_in = fsb.pixels.flip_images(model, images)
    assert (found.distance <= 3 * built_in.distance).all()


def test_without_gradients() -> None:
    model, images = subject()
    options = {"attack": "HopSkipJumpAttack", "overrides": (("max_gradient_eval_steps", 50),)}
    finder = plugins.create("boundary_finder", "foolbox", options=options, capability="pixels")
    found = fsb.pixels.flip_images(model, images, finder=finder, max_steps=3)
    assert found.ok.any()
    assert (found.num_backwards == 0).all()


def test_features_of_a_head_that_is_not_linear() -> None:
    model, images = subject()
    head = model[1:].double()
    features = images.flatten(1).double()
    options = {
        "finder": "foolbox_features",
        "domain": fsb.Domain.box(torch.zeros(48), torch.ones(48)),
    }
    found = fsb.flip_points(head, features, **options)
    assert (found.status == fsb.Status.ON_BOUNDARY).all()
    assert (found.lower_bound == 0).all()
    top = head(found.points[:, 0]).topk(2).values
    assert (top[:, 0] - top[:, 1] < 1e-6).all()


def test_success_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = subject()
    monkeypatch.setattr(
        attacks, "run_attack", lambda name, more, view, images, *rest, **options: images
    )
    found = fsb.pixels.flip_images(model, images, finder=Foolbox())
    assert not found.ok.any()
    assert found.images.isnan().all()


def test_attacks_that_do_not_minimise_are_rejected() -> None:
    assert {"L2FMNAttack", "LInfFMNAttack", "DDNAttack", "BoundaryAttack"} <= set(
        attacks.attack_names()
    )
    for name in ("LinfPGD", "no_such"):
        with pytest.raises(fsb.ArgumentError, match=f"got '{name}'; wanted one of "):
            Foolbox(name)


class Units(nn.Module):
    """A linear map from other units to those of the model."""

    def __init__(self, origin: float, width: float) -> None:
        super().__init__()
        self.origin, self.width = origin, width

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.origin) / self.width


def flips_in_units(low: float, width: float) -> fsb.FlipImages:
    model, images = subject()
    return fsb.pixels.flip_images(
        fsb.FeatureSpace(model, preprocess=Units(low, width)),
        (images[:2] * width + low).clamp(low, low + width),
        bounds=(low, low + width),
        finder=Foolbox(),
        max_steps=40,
    )


def test_images_times_a_power_of_two_give_flip_images_times_it() -> None:
    plain, scaled = flips_in_units(0.0, 1.0), flips_in_units(0.0, 4096.0)
    assert plain.ok.all()
    assert torch.equal(plain.images * 4096, scaled.images)
    assert torch.equal(plain.distance * 4096, scaled.distance)


@pytest.mark.parametrize("limits", [(0.0, 255.0), (-1000.0, 3000.0), (0.0, 65535.0)])
def test_every_range_of_pixels(limits: tuple[float, float]) -> None:
    low, width = limits[0], limits[1] - limits[0]
    plain, other = flips_in_units(0.0, 1.0), flips_in_units(low, width)
    assert other.ok.all()
    torch.testing.assert_close(other.distance / width, plain.distance, rtol=0.05, atol=0)


@pytest.mark.parametrize("unit", [2.0**-20, 1024.0, 1000.0])
def test_features_in_other_units(unit: float) -> None:
    torch.manual_seed(0)
    layers, z = (nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4)), 2 * torch.randn(3, 10).double()
    one, other = (
        fsb.flip_points(
            nn.Sequential(Units(0, u), *layers).double().eval(), z * u, finder=FoolboxFeatures()
        )
        for u in (1.0, unit)
    )
    assert one.ok.all()
    assert other.ok.all()
    torch.testing.assert_close(other.distance / unit, one.distance, rtol=0.05, atol=0)
