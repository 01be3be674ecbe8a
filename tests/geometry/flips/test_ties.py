"""Tie points and signed distances: no certificate is false, and small problems are exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary import Status
from fsboundary.geometry.flips.certify import grade_solutions
from fsboundary.geometry.flips.tie_problems import tie_problems
from geometry.flips.test_exact_answers import KINDS, problem
from support.flips.run_family import FAMILIES, draw
from support.flips.tie_checker import examine_ties, random_classes, ties
from support.numbers import halfspace_distance_squared, lift
from support.rational import tie_distance_squared

SEEDS = range(4)
ORDINARY = ("gaussian", "wide", "single_precision", "sparse_features", "corners", "near_ties")


@pytest.mark.parametrize("name", FAMILIES)
def test_no_certificate_is_false(name: str) -> None:
    for seed in SEEDS:
        # the script tests/benchmarks/hunt_flips.py continues from here
        counts, faults = examine_ties(draw(name, seed), seed)
        assert not faults, (seed, faults)
        if name in ORDINARY:
            assert not counts["INACCURATE"] + counts["MAX_STEPS"], (seed, counts)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tie_distances_are_exact(kind: str, whole: bool) -> None:
    for seed in range(25):
        case = problem(kind, seed, whole)
        k = len(case.bias)
        for size in range(1, k + 1):
            g = np.random.default_rng([seed, size])
            classes = g.permutation(k)[:size]
            answer = ties(case, classes[None])
            truth = tie_distance_squared(case, 0, classes.tolist())
            status, bound, distance = (answer[n][0] for n in ("status", "lower_bound", "distance"))
            where = (seed, size)
            if truth is None:
                assert status == Status.INFEASIBLE, where
                assert bound == np.inf or bound > 1e6, where
            else:
                assert status == Status.CONVERGED, where
                assert Fraction(float(bound)) ** 2 <= truth, where
                assert distance == pytest.approx(float(truth) ** 0.5, rel=1e-7, abs=1e-8), where


@pytest.mark.parametrize("kind", KINDS)
def test_signed_distances_are_exact(kind: str) -> None:
    for seed in range(25):
        case = problem(kind, seed, True)
        features = torch.tensor(case.features)
        result = fsb.region_distances(case.head(), features)
        alone = fsb.region_distances(case.head(), features, "own")
        source, k = int(result.source[0]), len(case.bias)
        away = [tie_distance_squared(case, 0, [c]) for c in range(k)]
        others = [a for c, a in enumerate(away) if c != source and a is not None]
        columns = [(result, c, c) for c in range(k)] + [(alone, 0, source)]
        for found, column, c in columns:
            truth = (min(others) if others else None) if c == source else away[c]
            status = int(found.status[0, column])
            value = abs(float(found.distance[0, column]))
            bound = float(found.lower_bound[0, column])
            if truth is None:
                assert status == (Status.UNBOUNDED if c == source else Status.INFEASIBLE), seed
                assert value == np.inf, seed
            else:
                assert status == Status.CONVERGED, seed
                assert Fraction(bound) ** 2 <= truth, seed
                assert value == pytest.approx(float(truth) ** 0.5, rel=1e-7, abs=1e-8), seed


@pytest.mark.parametrize("name", FAMILIES)
def test_any_admissible_multipliers_prove_only_what_is_true(name: str) -> None:
    case = draw(name, 0)
    classes = random_classes(np.random.default_rng(0), len(case.bias), len(case.features))
    z = torch.tensor(case.features).double()
    rows = (torch.isfinite(z).all(dim=1) & case.head().domain.contains(z)).nonzero()[:, 0]
    problems = tie_problems(case.head(), z[rows], torch.from_numpy(classes)[rows])
    g = torch.Generator().manual_seed(0)
    shape = problems.free.shape
    low, high = case.limits()
    for spread in (0, 20, 140):
        size = 10 ** (2 * spread * torch.rand(shape, generator=g, dtype=torch.float64) - spread)
        lam = problems.project(torch.randn(shape, generator=g, dtype=torch.float64) * size)
        lam = lam.scatter(1, problems.anchor[:, None], 0.0)
        steps = torch.zeros(len(rows), dtype=torch.int64)
        grade = grade_solutions(problems, z[rows], lam, steps, rtol=1e-8, max_steps=9)
        matrix, offset = (lift(case.weight, True), lift(case.bias, True))
        for p, row in enumerate(rows.tolist()):
            r = int(problems.anchor[p])
            exact = lift(lam[p].numpy(), True)
            u = (exact[:, None] * (matrix[r] - matrix)).sum(axis=0)
            h = (exact * (offset[r] - offset)).sum()
            start = (lift(v, True)[None] for v in (case.features[row], low, high))
            squared, none = halfspace_distance_squared(u[None], np.array([h]), *start)
            bound = float(grade.lower_bound[p])
            if np.isinf(bound):
                assert none[0]
            else:
                assert none[0] or Fraction(bound) ** 2 <= squared[0]
