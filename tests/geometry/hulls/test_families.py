from __future__ import annotations

import pytest

from support.hulls.hostile import LIES, HostileHull
from support.hulls.run_family import HULL_FAMILIES, draw_hulls, examine_hulls

# the script tests/benchmarks/hunt_hulls.py continues from here
SEEDS = range(2)
ORDINARY = ("gaussian", "sphere", "simplex", "cross_polytope_and_cube", "lattice", "polygon")
LIES_EACH = 4
"""Each lie is tested on a quarter of the families, and each family on a quarter of the lies."""


@pytest.mark.parametrize("name", HULL_FAMILIES)
def test_no_certificate_is_false(name: str) -> None:
    for seed in SEEDS:
        _, faults = examine_hulls(draw_hulls(name, seed))
        assert not faults, (seed, faults)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_problems_are_decided(name: str) -> None:
    total = left = 0
    for seed in SEEDS:
        counts, _ = examine_hulls(draw_hulls(name, seed))
        total, left = total + counts["rows"], left + counts["INACCURATE"] + counts["MAX_STEPS"]
    # queries very close to the hull and tolerances of 1e-10 are drawn too
    assert left <= 0.1 * total


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_solver_gets_no_false_certificate(lie: str) -> None:
    for name in list(HULL_FAMILIES)[LIES.index(lie) % LIES_EACH :: LIES_EACH]:
        _, faults = examine_hulls(draw_hulls(name, 0), HostileHull(lie))
        assert not faults, (name, faults)
