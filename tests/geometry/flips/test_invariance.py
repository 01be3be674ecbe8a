"""Invariance of answers under the order of classes, shifts, rotations, units and batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fsboundary import Status
from support.flips.case import Array, Case
from support.flips.run_family import draw, examine, examine_flips

SEEDS = range(12)
NORMS = ("l2", "linf")


def problem(seed: int, kind: str = "unbounded") -> Case:
    """Return a well-conditioned case."""
    g = np.random.default_rng(seed)
    k, d = int(g.integers(2, 8)), int(g.integers(2, 8))
    z = 2 * g.standard_normal((5, d))
    return Case(
        weight=g.standard_normal((k, d)),
        bias=g.standard_normal(k),
        features=np.maximum(z, 0) if kind == "nonnegative" else z,
        kind=kind,  # type: ignore[arg-type]  # one of the three by the callers below
        targets="all",
    )


def distances(case: Case) -> tuple[dict[tuple[int, int], float], list[list[float]]]:
    """Return distances by row and target, and radii by norm."""
    answer = case.flips()
    assert np.isin(answer["status"], [Status.CONVERGED, Status.INFEASIBLE]).all()
    table = {
        (row, int(answer["target"][row, column])): float(answer["distance"][row, column])
        for row, column in np.ndindex(*answer["target"].shape)
    }
    return table, [case.balls(norm)["radius"].tolist() for norm in NORMS]  # type: ignore[arg-type]


def same(first: Any, second: Any, factor: float = 1.0) -> None:
    """Compare two answers within the tolerance of a certificate."""
    assert first[0] == pytest.approx(
        {key: value / factor for key, value in second[0].items()}, rel=1e-7, abs=1e-8
    )
    for mine, other in zip(first[1], second[1], strict=True):
        assert mine == pytest.approx([v / factor for v in other], rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("kind", ["unbounded", "nonnegative"])
def test_the_order_of_classes(kind: str) -> None:
    for seed in SEEDS:
        case = problem(seed, kind)
        order = np.random.default_rng(seed).permutation(len(case.bias))
        table, radii = distances(replace(case, weight=case.weight[order], bias=case.bias[order]))
        same(distances(case), ({(r, int(order[t])): v for (r, t), v in table.items()}, radii))


def test_a_shift() -> None:
    for seed in SEEDS:
        case = problem(seed)
        shift = np.random.default_rng(seed).standard_normal(case.weight.shape[1])
        moved = replace(case, bias=case.bias - case.weight @ shift, features=case.features + shift)
        same(distances(case), distances(moved))


def test_a_rotation() -> None:
    for seed in SEEDS:
        case = problem(seed)
        g = np.random.default_rng(seed)
        turn = np.linalg.qr(g.standard_normal((case.weight.shape[1],) * 2))[0]
        turned = replace(case, weight=case.weight @ turn, features=case.features @ turn)
        (table, (radii, _)), (other, (others, _)) = distances(case), distances(turned)
        same((table, [radii]), (other, [others]))  # Linf balls are not invariant


@pytest.mark.parametrize("kind", ["unbounded", "nonnegative"])
@pytest.mark.parametrize("power", [-30, -7, 9, 40])
def test_units(kind: str, power: int) -> None:
    factor = 2.0**power
    for seed in SEEDS:
        case = problem(seed, kind)
        scaled = replace(case, bias=case.bias * factor, features=case.features * factor)
        same(distances(case), distances(scaled), factor)
        same(
            distances(case),
            distances(replace(case, weight=case.weight * factor, bias=case.bias * factor)),
        )


@pytest.mark.parametrize("name", ["gaussian", "wide", "corners", "bad_rows", "sparse_features"])
def test_a_batch_is_its_rows(name: str) -> None:
    for seed in SEEDS:
        case = draw(name, seed)
        batch = case.flips()
        for row in range(len(case.features)):
            targets = case.targets if isinstance(case.targets, str) else case.targets[row : row + 1]
            alone = replace(case, features=case.features[row : row + 1], targets=targets).flips()
            for field in ("status", "source", "target"):
                assert (alone[field][0] == batch[field][row]).all(), (seed, row, field)
            np.testing.assert_allclose(
                alone["distance"][0], batch["distance"][row], rtol=1e-7, atol=1e-8
            )


def test_a_bad_row_changes_no_other() -> None:
    case = draw("gaussian", 3)
    spoilt = case.features.copy()
    spoilt[1] = np.nan
    with_it, without = (
        replace(case, features=z, targets="all").flips() for z in (spoilt, case.features)
    )
    others = np.arange(len(spoilt)) != 1
    np.testing.assert_allclose(with_it["distance"][others], without["distance"][others], rtol=1e-9)


def numbers(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    """Return arrays of numbers that are integers, ordinary, tiny or huge."""
    whole = st.integers(-3, 3).map(float)
    return arrays.arrays(
        np.float64, shape, elements=whole | st.floats(-1e3, 1e3) | st.floats(-1e160, 1e160)
    )


@st.composite
def cases(choose: st.DrawFn) -> Case:
    """Return any case of up to four classes and three features."""
    k, d = choose(st.integers(2, 4)), choose(st.integers(1, 3))
    kind = choose(st.sampled_from(["unbounded", "nonnegative", "box"]))
    z = choose(numbers((2, d)))
    sides = choose(numbers((2, d)))
    if kind == "nonnegative":
        z = np.abs(z)
    return Case(
        weight=choose(numbers((k, d))),
        bias=choose(numbers((k,))),
        features=z,
        kind=kind,
        lower=z.min(axis=0) - np.abs(sides[0]),
        upper=z.max(axis=0) + np.abs(sides[1]),
        targets=choose(st.sampled_from(["nearest", "all"])),
    )


@settings(max_examples=150)
@given(cases())
def test_no_case_has_a_false_certificate(case: Case) -> None:
    _, faults = examine(case, 0)
    assert not faults


@settings(max_examples=60)
@given(cases(), st.floats(1e-12, 0.9), st.sampled_from([1, 2, 40]))
def test_no_tolerance_makes_a_certificate_false(case: Case, tolerance: float, steps: int) -> None:
    case = replace(case, tolerance=tolerance)
    _, faults = examine_flips(case, max_steps=steps)
    assert not faults
