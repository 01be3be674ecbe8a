from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fsboundary.geometry.flips import certify
from support.flips.hostile import LIES, Hostile
from support.flips.run_family import FAMILIES, draw, examine, examine_flips

# the script tests/benchmarks/hunt_flips.py continues from here
SEEDS = range(5)
ORDINARY = ("gaussian", "wide", "single_precision", "sparse_features", "corners", "near_ties")


@pytest.mark.parametrize("name", FAMILIES)
def test_no_certificate_is_false(name: str) -> None:
    for seed in SEEDS:
        _, faults = examine(draw(name, seed), seed)
        assert not faults, (seed, faults)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_problems_are_decided(name: str) -> None:
    for seed in SEEDS:
        counts, _ = examine_flips(draw(name, seed))
        assert not counts["INACCURATE"] + counts["MAX_STEPS"], (seed, counts)


def test_far_flip_points_with_nearly_parallel_constraints_are_certified() -> None:
    # multipliers of 1e7: the points were off by their rounding and the gap did not close
    counts, faults = examine_flips(draw("gaussian", 1013))
    assert not faults
    assert not counts["INACCURATE"] + counts["MAX_STEPS"]


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_finder_gets_no_false_certificate(lie: str) -> None:
    for name in FAMILIES:
        _, faults = examine_flips(draw(name, 0), Hostile(lie))
        assert not faults, (name, faults)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_closed_form_gets_no_false_certificate(name: str) -> None:
    for seed in SEEDS:
        _, faults = examine_flips(draw(name, seed), "closed_form")
        assert not faults, (seed, faults)


@pytest.mark.parametrize("finder", ["dual_newton", "closed_form"])
@pytest.mark.parametrize("name", FAMILIES)
def test_points_that_no_rounding_excuses_gain_nothing_from_another_look(
    name: str, finder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade = certify._grade

    def look_at_all(*args: Any) -> tuple[certify.Grade, torch.Tensor]:
        found, hopeless = grade(*args)
        return found, torch.zeros_like(hopeless)

    for seed in SEEDS:
        case = draw(name, seed)
        found = case.flips(finder=finder)
        with monkeypatch.context() as patch:
            patch.setattr(certify, "_grade", look_at_all)
            wanted = case.flips(finder=finder)
        # of points that are not certified, only the reason may differ
        failed = ~np.isin(wanted["status"], (0, 1))
        assert np.array_equal(~np.isin(found["status"], (0, 1)), failed), seed
        for field in ("status", "distance", "points", "gap"):
            assert np.array_equal(found[field][~failed], wanted[field][~failed], equal_nan=True)
