"""Use of the plugin: a linear surrogate of a model, with its fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from fsboundary_wavelets.extractor import Wavelets
from fsboundary_wavelets.transform import coefficients
from torch import Tensor, nn

import fsboundary as fsb


def images(rows: int, seed: int) -> Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class BrighterHalf(nn.Module):
    """Classifies which half is brighter: a rule linear in wavelets, without a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[..., :4].mean(dim=(1, 2, 3)), x[..., 4:].mean(dim=(1, 2, 3))
        return torch.stack([left, right], dim=1).exp()


def test_a_linear_rule_is_found_and_its_flip_points_cross_the_models_boundary() -> None:
    model = BrighterHalf().eval()
    space = fsb.FeatureSpace(model, extractor=Wavelets()).fit(images(600, 0).split(100))
    assert space.fidelity is not None
    assert space.fidelity > 0.95
    assert space.notes()["fidelity"].startswith(f"{space.fidelity:.4g}: fraction of ")
    batch = space.extract(images(20, 1))
    assert int(batch.disagrees.sum()) <= 2
    flips = fsb.flip_points(space.head, batch.features)
    assert flips.ok.all()
    # the transform is orthogonal, so a step in features is a step of pixels: a longer one flips
    crossed = batch.features + 3 * (flips.points[:, 0].float() - batch.features)
    back = np.stack([pywt.waverec2(_nested(row), "haar", mode="periodization") for row in crossed])
    classes = model(torch.from_numpy(back)[:, None]).argmax(dim=1)
    assert (classes != batch.predicted).float().mean() > 0.8


def _nested(row: Tensor) -> list[object]:
    """Return PyWavelets' nested form of two levels of haar of an 8 x 8 image."""
    grid = row.reshape(8, 8).numpy()
    first = (grid[2:4, :2], grid[:2, 2:4], grid[2:4, 2:4])
    return [grid[:2, :2], first, (grid[4:, :4], grid[:4, 4:], grid[4:, 4:])]


def test_what_no_linear_rule_can_classify_has_a_low_fidelity() -> None:
    model = nn.Sequential(nn.Flatten(), _Parity()).eval()
    space = fsb.FeatureSpace(model, extractor=Wavelets(keep=10)).fit(images(600, 2).split(100))
    assert space.fidelity is not None
    assert space.fidelity < 0.8
    assert space.head.num_features == 10


class _Parity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        odd = (x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)
        return torch.stack([odd, ~odd], dim=1).float()


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
def test_one_level_is_that_of_pywavelets(wavelet: str) -> None:
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    low, (down, across, both) = pywt.dwt2(x.numpy(), wavelet, mode="periodization")
    want = np.block([[low, across], [down, both]])
    np.testing.assert_allclose(coefficients(x, wavelet, 1), want.reshape(2, -1), atol=1e-12)


def test_not_fitted_and_unknown_are_reported() -> None:
    space = fsb.FeatureSpace(BrighterHalf().eval(), extractor=Wavelets())
    with pytest.raises(fsb.HeadError, match=r"fit\(loader\)"):
        space.extract(images(2, 0))
    with pytest.raises(fsb.ArgumentError, match="got 'no_such'"):
        Wavelets("no_such")
    with pytest.raises(fsb.ArgumentError, match="too few examples"):
        space.fit([images(1, 0)])
