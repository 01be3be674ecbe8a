"""Answers of finders do not depend on the units of pixels or features."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from fsboundary import Domain, FeatureSpace, flip_points, pixels, plugins

IMAGE_FINDERS = sorted(
    info.name
    for info in plugins.describe()
    if info.distribution == "fsboundary" and "pixels" in info.capabilities
)
RANGES = [(-1.0, 1.0), (0.0, 255.0), (0.0, 4095.0), (-1000.0, 3000.0), (0.0, 65535.0)]


class Units(nn.Module):
    """A linear map from other units to those of the model."""

    def __init__(self, origin: float, width: float) -> None:
        super().__init__()
        self.origin, self.width = origin, width

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.origin) / self.width


def body() -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 4),
    )
    for p in net.parameters():
        p.data *= 2
    return net.eval()


@cache
def flips(finder: str, low: float, width: float, norm: str = "l2") -> pixels.FlipImages:
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * width + low
    return pixels.flip_images(
        FeatureSpace(body(), preprocess=Units(low, width)),
        images.clamp(low, low + width),
        bounds=(low, low + width),
        finder=finder,
        norm=norm,  # type: ignore[arg-type]  # a parameter of the test
        max_steps=30,
    )


def test_all_built_in_image_finders_are_here() -> None:
    assert {"feature_guided", "ddn", "line_search"} <= set(IMAGE_FINDERS)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("finder", IMAGE_FINDERS)
@pytest.mark.parametrize("width", [2.0**-20, 65536.0])
def test_images_times_a_power_of_two_give_flip_images_times_it(
    width: float, finder: str, norm: str
) -> None:
    plain, scaled = flips(finder, 0.0, 1.0, norm), flips(finder, 0.0, width, norm)
    assert plain.ok.all()
    assert torch.equal(plain.status, scaled.status)
    assert torch.equal(plain.images * width, scaled.images)
    assert torch.equal(plain.distance * width, scaled.distance)


@pytest.mark.parametrize("finder", IMAGE_FINDERS)
@pytest.mark.parametrize("limits", RANGES)
def test_every_range_of_pixels_gives_nearly_the_same_distances(
    limits: tuple[float, float], finder: str
) -> None:
    low, width = limits[0], limits[1] - limits[0]
    plain, other = flips(finder, 0.0, 1.0), flips(finder, low, width)
    assert other.ok.all()
    torch.testing.assert_close(other.distance / width, plain.distance, rtol=0.05, atol=0)


@pytest.mark.parametrize("unit", [2.0**-30, 1024.0])
def test_features_of_a_head_that_is_not_linear_in_other_units(unit: float) -> None:
    torch.manual_seed(0)
    layers, z = (nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4)), 2 * torch.randn(1, 10).double()
    one, other = (
        flip_points(
            nn.Sequential(Units(0, u), *layers).double().eval(),
            z * u,
            finder="linearised",
            domain=Domain.unbounded(),
            max_steps=8,
        )
        for u in (1.0, unit)
    )
    assert one.ok.all()
    assert torch.equal(one.status, other.status)
    torch.testing.assert_close(other.distance / unit, one.distance, rtol=1e-6, atol=0)
