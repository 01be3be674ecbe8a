from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary.attr.comparison.metrics import METRICS, all_pairs, bootstrap, metric

SHARE = 0.25


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.hypot(*a) / math.hypot(*b)


def spearman(a: list[float], b: list[float]) -> float:
    return float(scipy.stats.spearmanr(a, b).statistic)


def kendall(a: list[float], b: list[float]) -> float:
    """Return tau-b by counting all pairs."""
    agree = tied_a = tied_b = 0
    pairs = list(itertools.combinations(range(len(a)), 2))
    for i, j in pairs:
        agree += int(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]))
        tied_a += a[i] == a[j]
        tied_b += b[i] == b[j]
    return agree / math.sqrt((len(pairs) - tied_a) * (len(pairs) - tied_b))


def top_k(a: list[float], b: list[float]) -> float:
    k = max(1, round(SHARE * len(a)))
    largest = [set(sorted(range(len(x)), key=lambda i, x=x: -abs(x[i]))[:k]) for x in (a, b)]
    return len(largest[0] & largest[1]) / k


def sign(a: list[float], b: list[float]) -> float:
    signs = [(np.sign(x), np.sign(y)) for x, y in zip(a, b, strict=True) if x or y]
    return sum(x == y for x, y in signs) / len(signs)


def ssim(a: Tensor, b: Tensor) -> float:
    """Return the mean over channels and windows (7 x 7, or the largest odd that fits)."""
    a, b = a / a.abs().max(), b / b.abs().max()
    channels, height, width = a.shape
    side = max(s for s in (1, 3, 5, 7) if s <= min(height, width))
    c1, c2 = 0.02**2, 0.06**2
    values = []
    for c, top, left in itertools.product(
        range(channels), range(height - side + 1), range(width - side + 1)
    ):
        x, y = (m[c, top : top + side, left : left + side].flatten().numpy() for m in (a, b))
        light = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        values.append(light * (2 * covariance + c2) / (x.var() + y.var() + c2))
    return float(np.mean(values))


SLOW = {"cosine": cosine, "spearman": spearman, "kendall": kendall, "top_k": top_k, "sign": sign}


def maps(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def with_ties(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return (2 * maps(count, shape, seed)).round()


CASES = [(name, maps) for name in SLOW] + [(n, with_ties) for n in SLOW if n != "top_k"]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_metrics_are_those_of_slow_loops(name: str, make: Callable[..., Tensor]) -> None:
    a = make(3, (4, 2, 3, 4))
    values = all_pairs(metric(name, SHARE), a)
    for row, i, j in itertools.product(range(4), range(3), range(3)):
        expected = SLOW[name](a[i, row].flatten().tolist(), a[j, row].flatten().tolist())
        assert float(values[row, i, j]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 9, 8), (1, 7, 7), (1, 4, 6), (3, 2, 5), (1, 1, 1)])
def test_ssim_is_that_of_slow_windows(shape: tuple[int, ...]) -> None:
    a = maps(3, (2, *shape))
    a[1] = 0.3 * a[1] + a[0]
    values = all_pairs(metric("ssim", SHARE), a)
    for row, i, j in itertools.product(range(2), range(3), range(3)):
        assert float(values[row, i, j]) == pytest.approx(ssim(a[i, row], a[j, row]), abs=1e-12)


def test_top_k_shares_the_places_left_among_ties() -> None:
    a = torch.tensor([5.0, -2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    b = torch.tensor([5.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    values = all_pairs(metric("top_k", 0.25), torch.stack([a, b]).reshape(2, 1, 1, 2, 4))
    # of the two places of a, one is certain and four entries share the other
    assert values[0].tolist() == [[1.0, (1 + 1 / 4) / 2], [(1 + 1 / 4) / 2, 1.0]]


@given(seed=st.integers(0, 10**6), name=st.sampled_from(METRICS), ties=st.booleans())
@settings(max_examples=40)
def test_metrics_are_symmetric_scale_free_and_1_with_oneself(
    seed: int, name: str, ties: bool
) -> None:
    a = (with_ties if ties else maps)(3, (2, 1, 4, 5), seed)
    values = all_pairs(metric(name, SHARE), a)
    assert torch.equal(values, values.mT)
    own = values.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(own, torch.ones_like(own), rtol=0, atol=1e-12)
    assert float(values.abs().max()) <= 1 + 1e-12
    scale = 2.0 ** torch.arange(-3, 3).reshape(3, 2, 1, 1, 1)
    torch.testing.assert_close(all_pairs(metric(name, SHARE), scale * a), values)
    other = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        all_pairs(metric(name, SHARE), a[other]), values[:, other][:, :, other]
    )
    if name != "ssim":  # the only metric that depends on the positions of the pixels
        mixed = a.flatten(3)[
            ..., torch.randperm(20, generator=torch.Generator().manual_seed(seed))
        ].reshape(a.shape)
        torch.testing.assert_close(all_pairs(metric(name, SHARE), mixed), values)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cosine", -1), ("spearman", -1), ("kendall", -1), ("top_k", 1), ("sign", 0)],
)
def test_of_an_attribution_and_its_opposite(name: str, value: float) -> None:
    a = maps(1, (2, 1, 4, 5))
    found = all_pairs(metric(name, SHARE), torch.cat([a, -a]))[:, 0, 1]
    assert found.tolist() == pytest.approx([value, value], abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("size", [1e-300, 1e-150, 1e150, 1e300])
def test_sizes_far_from_1(name: str, size: float) -> None:
    a = maps(2, (2, 1, 4, 5))
    expected = all_pairs(metric(name, SHARE), a)
    a[0] *= size
    torch.testing.assert_close(all_pairs(metric(name, SHARE), a), expected)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 0.0])
def test_a_row_without_a_value_leaves_the_others_alone(name: str, bad: float) -> None:
    a = maps(3, (4, 1, 4, 5))
    expected = all_pairs(metric(name, SHARE), a)
    if bad == 0.0:
        a[1, 2] = 0.0
    else:
        a[1, 2, 0, 3, 3] = bad
    values = all_pairs(metric(name, SHARE), a)
    expected[2, 1], expected[2, :, 1] = torch.nan, torch.nan
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_of_a_constant_attribution(name: str) -> None:
    a = maps(2, (1, 1, 4, 5))
    a[1] = 3.0
    value = float(all_pairs(metric(name, SHARE), a)[0, 0, 1])
    assert math.isnan(value) == (name in ("spearman", "kendall"))
    if name == "top_k":
        assert value == pytest.approx(SHARE)  # what chance gives


def test_bootstrap_is_that_of_slow_resamples() -> None:
    values = maps(2, (7, 2, 2))
    values[0, 3, 0, 1] = torch.nan
    mean, low, high = bootstrap(values, resamples=50, confidence=0.8, seed=4)
    drawn = torch.randint(7, (50, 7), generator=torch.Generator().manual_seed(4))
    for q, i, j in itertools.product(range(2), repeat=3):
        column = values[q, :, i, j].numpy()
        means = [np.nanmean(column[rows]) for rows in drawn.numpy()]
        edges = np.nanquantile(means, [0.1, 0.9])
        found = [float(t[q, i, j]) for t in (mean, low, high)]
        assert found == pytest.approx([np.nanmean(column), *edges], abs=1e-6)


def test_bootstrap_agrees_with_scipy() -> None:
    values = maps(1, (60, 1, 1))
    _, low, high = bootstrap(values, resamples=4000, confidence=0.9, seed=0)
    found = scipy.stats.bootstrap(
        (values.flatten().numpy(),),
        np.mean,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        random_state=np.random.default_rng(1),  # SciPy before 1.15 has no `rng`
    ).confidence_interval
    # both are estimates: their own spread is some hundredths of the standard error of the mean
    assert [float(low), float(high)] == pytest.approx(list(found), abs=0.02)


def test_bootstrap_of_one_image_and_of_none_known() -> None:
    values = (
        torch.tensor([0.5, torch.nan], dtype=torch.float64).reshape(1, 1, 1, 2).expand(1, 1, 2, 2)
    )
    mean, low, high = bootstrap(values, resamples=20, confidence=0.95, seed=0)
    assert float(mean[0, 0, 0]) == 0.5
    for found in (low, high):
        assert torch.isnan(found[0, 0, 0])
    for found in (mean, low, high):
        assert bool(found[0, 0, 1].isnan())
