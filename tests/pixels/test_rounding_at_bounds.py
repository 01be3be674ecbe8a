"""Pixels beyond their range by rounding are clipped; others are refused with enough digits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.pixels.checks import check_pixels

RANGES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.1, 0.9), (-1000.0, 3000.0)]


def space() -> fsb.FeatureSpace:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return fsb.FeatureSpace(net.append(nn.Linear(16, 3)).eval())


def unnormalised() -> Tensor:
    """Return CIFAR-10's and ImageNet's normalisation of all 256 levels, undone in float32."""
    level = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    out = []
    for mean, std in (
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ):
        m, s = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
        out += [(level - m) / s * s + m, ((level - m) / s - (-m / s)) / (1 / s)]
    return torch.cat(out)


USES: dict[str, Callable[[Tensor], object]] = {
    "flip_images": lambda x: fsb.pixels.flip_images(space(), x, max_steps=2),
    "amplification": lambda x: fsb.pixels.amplification(
        space(), x, radius=0.1, directions=2, max_steps=2
    ),
    "morph": lambda x: fsb.pixels.morph(space(), x, x.flip(0), steps=2, max_steps=2),
}


@pytest.mark.parametrize("name", USES)
def test_undone_normalisations_are_pixels(name: str) -> None:
    x = unnormalised()
    assert x.min() < 0
    assert x.max() > 1
    USES[name](x)


@pytest.mark.parametrize("bounds", RANGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rounding_is_clipped_and_nothing_else_is(
    dtype: torch.dtype, bounds: tuple[float, float]
) -> None:
    low, high = bounds
    width = high - low
    x = torch.linspace(low, high, 12, dtype=torch.float64).view(1, 3, 2, 2)
    slack = max(1e-6, 4 * torch.finfo(dtype).eps) * width
    x[0, 0, 0], x[0, 1, 1] = low - 0.4 * slack, high + 0.4 * slack
    x[0, 2, 1, 0], x[0, 2, 1, 1] = torch.nan, torch.inf
    given = x.to(dtype)
    clipped = check_pixels(given, bounds)
    edges = torch.tensor(bounds, dtype=dtype)
    finite = torch.isfinite(given)
    assert torch.equal(finite, torch.isfinite(clipped))
    assert (clipped[finite] >= edges[0]).all()
    assert (clipped[finite] <= edges[1]).all()
    kept = finite & (given >= edges[0]) & (given <= edges[1])
    assert torch.equal(clipped[kept], given[kept])
    assert torch.equal(given.nan_to_num(), x.to(dtype).nan_to_num())  # the argument is not changed


@pytest.mark.parametrize("bounds", RANGES)
@pytest.mark.parametrize("excess", [3e-6, 1e-4, 0.5])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_refused_differs_from_what_is_wanted(
    side: int, excess: float, bounds: tuple[float, float]
) -> None:
    width = bounds[1] - bounds[0]
    x = torch.full((1, 1, 2, 2), bounds[side]).double()
    x += (2 * side - 1) * excess * width
    with pytest.raises(fsb.ArgumentError) as error:
        check_pixels(x, bounds)
    found = re.search(
        r"got pixels from (\S+) to (\S+); wanted pixels from (\S+) to (\S+)\. ", str(error.value)
    )
    assert found is not None
    assert found[1 + side] != found[3 + side]
    assert float(found[1 + side]) != float(found[3 + side])
