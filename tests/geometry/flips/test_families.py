from __future__ import annotations

import pytest

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
