"""Certificates of ball programs: wrong proposals prove nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary.geometry.exact_arithmetic import correction_bound
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import BallProgram, facet_program, region_program
from fsboundary.geometry.regions.ball_proposals import propose_ball
from fsboundary.geometry.regions.certify import ball_radius, proves_unbounded, radius_bound
from support.flips.oracles import make_domain


def program(kind: str, seed: int, *, facet: bool) -> BallProgram:
    g = torch.Generator().manual_seed(seed)
    # the first class is in the middle, and twelve others around it
    weight, bias = torch.randn(13, 3, generator=g), torch.zeros(13)
    weight[0], bias[0] = 0.0, 1.0
    head = fsb.LinearHead(weight, bias, make_domain(kind, 3))
    space = Arrangement.of(head, *(limit.numpy() for limit in head.domain.limits(head.weight)))
    result = facet_program(space, 0, 1) if facet else region_program(space, 0)
    assert isinstance(result, BallProgram)
    return result


@pytest.mark.parametrize("facet", [False, True])
@pytest.mark.parametrize("kind", ["unbounded", "nonnegative", "box"])
def test_bounds_hold_for_any_point_and_multipliers(kind: str, facet: bool) -> None:
    g = np.random.default_rng(0)
    compared = 0
    for seed in range(12):
        some = program(kind, seed, facet=facet)
        best = propose_ball(some, np.zeros(3), 1.0, cap=1e3)
        if best is None or best.capped:
            continue
        upper = radius_bound(some, best)
        lower = ball_radius(some, np.clip(best.centre, some.lower, some.upper))
        if not lower > 0:
            assert not upper > 1e-9
            continue
        for size in (1e-14, 1e-9, 1e-3, 1.0):
            noise = size * g.standard_normal(3)
            point = np.clip(best.centre + noise, some.lower, some.upper)
            assert ball_radius(some, point) <= upper
            wrong = dataclasses.replace(
                best,
                multipliers=best.multipliers * (1 + size * g.random(len(best.multipliers))),
                tie=best.tie + size * g.standard_normal(),
                low=best.low + size * g.random(3) * np.isfinite(some.lower),
                high=best.high + size * g.random(3) * np.isfinite(some.upper),
                centre=point,
            )
            assert radius_bound(some, wrong) >= lower
            compared += 1
    assert compared >= 8


def test_nothing_follows_from_numbers_that_are_not_finite() -> None:
    some = program("box", 0, facet=False)
    best = propose_ball(some, np.zeros(3), 1.0, cap=None)
    assert best is not None
    with np.errstate(all="ignore"):
        for bad in (np.nan, np.inf):
            assert not ball_radius(some, np.full(3, bad)) > 0
            assert not proves_unbounded(some, np.full(3, bad))
            spoilt = dataclasses.replace(best, multipliers=best.multipliers * bad)
            assert radius_bound(some, spoilt) == np.inf
    none = dataclasses.replace(best, multipliers=0 * best.multipliers, low=0 * best.low,
                               high=0 * best.high)  # fmt: skip
    assert radius_bound(some, none) == np.inf


@pytest.mark.parametrize("facet", [False, True])
@pytest.mark.parametrize("kind", ["unbounded", "nonnegative", "box"])
def test_inadmissible_multipliers_prove_nothing(kind: str, facet: bool) -> None:
    some = program(kind, 0, facet=facet)
    best = propose_ball(some, np.zeros(3), 1.0, cap=None)
    assert best is not None
    assert np.isfinite(radius_bound(some, best))
    one = np.eye(1, 3)[0]
    changes: list[dict[str, object]] = [
        {"multipliers": best.multipliers - best.multipliers.max() / 2},
        {"low": best.low - (best.low + 1e-3) * one},
        {"high": best.high - (best.high + 1e-3) * one},
        {"tie": np.nan},
        {"centre": np.full(3, np.inf)},
    ]
    # a face that does not exist would only add to the divisor
    changes += [{"low": best.low + one}] if kind == "unbounded" else []
    changes += [] if kind == "box" else [{"high": best.high + one}]
    with np.errstate(all="ignore"):
        for change in changes:
            wrong = dataclasses.replace(best, **change)  # type: ignore[arg-type]  # by name
            assert radius_bound(some, wrong) == np.inf, change


def test_corrections_are_no_longer_than_claimed() -> None:
    g = np.random.default_rng(0)
    for _ in range(20):
        columns, residual = g.standard_normal((3, 5)), 1e-9 * g.standard_normal(3)
        bound = correction_bound(columns, residual, np.zeros(3))
        shortest = np.linalg.lstsq(columns, -residual, rcond=None)[0]
        assert np.linalg.norm(shortest) <= bound < 100 * np.linalg.norm(shortest)
    flat = np.ones((2, 5))
    assert correction_bound(flat, np.ones(2), np.zeros(2)) == np.inf
