"""Bounds from samples: exact binomial sums, and frequencies of failure."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm

from fsboundary.geometry.bounds.confidence import (
    gaussian_shift,
    lower_probability,
    quantile_rank,
)


def tail(hits: int, total: int, p: Fraction) -> Fraction:
    """Return the exact probability of `hits` or more among `total`."""
    terms = (math.comb(total, j) * p**j * (1 - p) ** (total - j) for j in range(hits, total + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-3, 1e-9])
@pytest.mark.parametrize("total", [1, 7, 60])
def test_lower_probability_is_the_exact_one_lowered_by_a_billionth(
    total: int, alpha: float
) -> None:
    found = lower_probability(torch.arange(total + 1), total, alpha)
    assert float(found[0]) == 0
    for hits in range(1, total + 1):
        p = Fraction(float(found[hits]))
        assert tail(hits, total, p) <= Fraction(alpha)
        # 2e-9 is more than the billionth by which it is lowered
        assert tail(hits, total, p * (1 + Fraction(2, 10**9))) > Fraction(alpha)


@pytest.mark.parametrize("total", [1000, 100_000])
def test_lower_probability_is_that_of_scipy(total: int) -> None:
    hits = torch.tensor([1, total // 2, total - 3, total])
    found = lower_probability(hits, total, 0.01)
    for k, p in zip(hits.tolist(), found.tolist(), strict=True):
        # an interval at confidence 98 % has an error of 1 % at each end
        right = binomtest(k, total).proportion_ci(0.98, "exact").low
        assert p == pytest.approx(right, rel=1e-8)  # the billionth, and scipy's root finder
        assert p < right


def test_gaussian_shift_is_the_quantile() -> None:
    p = torch.tensor([0.01, 0.5, 0.99, 0.999999], dtype=torch.float64)
    torch.testing.assert_close(gaussian_shift(p), torch.from_numpy(norm.ppf(p.numpy())))
    assert float(gaussian_shift(torch.tensor([0.0]))) == -math.inf


@pytest.mark.parametrize("total", [1, 50, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.5, 40.0])
def test_quantile_rank_is_the_largest_that_the_binomial_allows(shift: float, total: int) -> None:
    alpha, p = 0.02, norm.cdf(-shift)
    rank = quantile_rank(shift, total, alpha)
    right = max(k for k in range(total + 1) if k == 0 or binom.cdf(k - 1, total, p) <= alpha / 2)
    assert rank == right
    assert rank <= total // 2 + 1


def test_order_statistics_fail_as_rarely_as_promised() -> None:
    # medians of Gaussians whose means are moved by the shift, seen from samples without it
    shift, total, alpha, rounds = 0.8, 200, 0.1, 4000
    rank = quantile_rank(shift, total, alpha)
    draws = np.sort(np.random.default_rng(0).standard_normal((rounds, total)), axis=1)
    failed = (draws[:, rank - 1] > -shift) | (draws[:, total - rank] < shift)
    # four standard deviations of a frequency
    assert failed.mean() <= alpha + 4 * math.sqrt(alpha / rounds)
    assert failed.mean() > alpha / 10, "the ranks are far too careful"
