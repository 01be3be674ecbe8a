from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem
from support.flips.tie_oracles import exact_class

KINDS = ["unbounded", "nonnegative", "box"]


def stretches(path: fsb.ClassPath, row: int) -> list[tuple[int, float, float]]:
    """Return (class, from, to) of each visit of a row."""
    classes = [c for c in path.classes[row].tolist() if c >= 0]
    stops = [0.0, *path.crossings[row, : len(classes) - 1].tolist(), 1.0]
    return [(c, stops[s], stops[s + 1]) for s, c in enumerate(classes)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2), (10, 2), (10, 30), (40, 3)])
def test_every_stretch_has_its_class_exactly(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=24, seed=k + d)
    start, end = z[:12], z[12:]
    path = fsb.class_path(head, start, end)
    assert (path.status == Status.CONVERGED).all()
    for row in range(12):
        parts = stretches(path, row)
        for c, left, right in parts:
            assert left < right
            middle = (Fraction(left) + Fraction(right)) / 2
            assert exact_class(head, start[row].numpy(), end[row].numpy(), middle) == c
        assert all(p[0] != q[0] for p, q in pairwise(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_dense_sampling_meets_the_same_classes(kind: str) -> None:
    head, z = make_problem(12, 4, kind, rows=60, seed=5)
    start, end = 3 * z[:30], 3 * z[30:]
    start, end = head.domain.clip(start), head.domain.clip(end)
    path = fsb.class_path(head, start, end)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    for row in range(30):
        points = start[row] + t[:, None] * (end[row] - start[row])
        seen = head.predict(points)
        for c, left, right in stretches(path, row):
            inner = (t > left + 1e-9) & (t < right - 1e-9)
            assert (seen[inner] == c).all()
    assert path.classes.shape[1] >= 4


def test_two_classes_tie_on_a_crossing_and_no_other_is_above() -> None:
    head, z = make_problem(10, 6, "nonnegative", rows=80, seed=6)
    path = fsb.class_path(head, z[:40], z[40:])
    real = torch.isfinite(path.crossings)
    assert real.sum() > 20
    row, column = real.nonzero().unbind(1)
    x = path.points[row, column]
    t = path.crossings[row, column][:, None]
    torch.testing.assert_close(x, z[row] + t * (z[40:][row] - z[row]), rtol=1e-14, atol=1e-14)
    logits = head.logits(x)
    before = logits.gather(1, path.classes[row, column][:, None])
    after = logits.gather(1, path.classes[row, column + 1][:, None])
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits.amax(dim=1, keepdim=True), before, rtol=1e-12, atol=1e-12)
    assert torch.isnan(path.points[~real]).all()


def test_backwards_is_the_same_path_reversed() -> None:
    head, z = make_problem(10, 6, "unbounded", rows=40, seed=7)
    there, back = fsb.class_path(head, z[:20], z[20:]), fsb.class_path(head, z[20:], z[:20])
    for row in range(20):
        a, b = stretches(there, row), stretches(back, row)[::-1]
        assert [c for c, _, _ in a] == [c for c, _, _ in b]
        np.testing.assert_allclose([p[1] for p in a], [1 - q[2] for q in b], atol=1e-12)


def test_batch_equals_loop_and_pads() -> None:
    head, z = make_problem(10, 3, "unbounded", rows=20, seed=8)
    together = fsb.class_path(head, z[:10], z[10:])
    for row in range(10):
        alone = fsb.class_path(head, z[row : row + 1], z[10 + row : 11 + row])
        width = alone.classes.shape[1]
        assert torch.equal(alone.classes[0], together.classes[row, :width])
        assert (together.classes[row, width:] == -1).all()
        torch.testing.assert_close(
            alone.crossings[0], together.crossings[row, : width - 1], rtol=1e-12, atol=1e-12
        )
        assert torch.isnan(together.crossings[row, width - 1 :]).all()


def test_touching_duplicates_and_standing_still() -> None:
    # logits 0, x, 2x: class 1 is largest at x = 0 only; class 3 repeats class 0
    weight = torch.tensor([[0.0], [1.0], [2.0], [0.0]])
    head = fsb.LinearHead(weight, torch.zeros(4))
    start = torch.tensor([[-1.0], [0.0], [-1.0], [1.0], [0.0]])
    end = torch.tensor([[3.0], [1.0], [0.0], [1.0], [0.0]])
    path = fsb.class_path(head, start, end)
    assert path.classes.tolist() == [[0, 2], [2, -1], [0, -1], [2, -1], [0, -1]]
    assert path.crossings[0].tolist() == [0.25]
    assert path.points[0, 0].tolist() == [0.0]
    # on a tie no class is largest
    assert path.status.tolist() == [0, 0, 0, 0, Status.UNDECIDED]
    # a lower bias with equal weights is never met, regardless of rounding
    apart = fsb.LinearHead(torch.full((3, 1), 1e8), torch.tensor([0.0, 1e-9, 0.0]))
    assert fsb.class_path(apart, start, end).classes.tolist() == [[1]] * 5


def test_one_bad_row_fails_alone() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=8, seed=0)
    start, end = z[:4].clone(), z[4:].clone()
    want = fsb.class_path(head, start, end)
    start[0, 0], end[1, 1] = torch.nan, -1.0
    got = fsb.class_path(head, start, end)
    assert got.status.tolist() == [Status.NOT_FINITE, Status.OUTSIDE_DOMAIN, 0, 0]
    assert (got.classes[:2] == -1).all()
    assert torch.isnan(got.crossings[:2]).all()
    assert torch.isnan(got.points[:2]).all()
    width = got.classes.shape[1]
    assert torch.equal(got.classes[2:], want.classes[2:, :width])


def test_logits_that_overflow_are_not_answered() -> None:
    head = fsb.LinearHead(1e300 * torch.eye(2, dtype=torch.float64), torch.zeros(2))
    far = torch.full((1, 2), 1e300, dtype=torch.float64)
    path = fsb.class_path(head, far, torch.zeros(1, 2))
    assert path.status.tolist() == [Status.INACCURATE]
    assert (path.classes == -1).all()


@settings(max_examples=80, derandomize=True)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 7), d=st.integers(1, 3), whole=st.booleans())
def test_paths_of_small_numbers(seed: int, k: int, d: int, whole: bool) -> None:
    g = np.random.default_rng(seed)
    weight, bias = g.integers(-2, 3, (k, d)) * 1.0, g.integers(-2, 3, k) * 1.0
    z = g.integers(-3, 4, (8, d)) * 1.0 if whole else g.standard_normal((8, d))
    head = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias))
    start, end = torch.from_numpy(z[:4]), torch.from_numpy(z[4:])
    path = fsb.class_path(head, start, end)
    for row in range(4):
        assert path.status[row] in (Status.CONVERGED, Status.UNDECIDED)
        for c, left, right in stretches(path, row):
            middle = (Fraction(left) + Fraction(right)) / 2
            if path.status[row] == Status.CONVERGED:
                assert exact_class(head, z[row], z[4 + row], middle) == c


def test_differences_below_rounding_are_undecided() -> None:
    # classes 0 and 1 differ by 1e-17 of their logits
    weight = torch.tensor([[1.0, 1e-17], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.zeros(3))
    start = torch.tensor([[1.0, -1.0], [-2.0, 0.0]], dtype=torch.float64)
    end = torch.tensor([[2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    path = fsb.class_path(head, start, end)
    assert path.status.tolist() == [Status.UNDECIDED, Status.CONVERGED]
    assert path.classes[1].tolist() == [2]
    assert path.classes[0, 0] in (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": torch.zeros(3)}, r"start: got shape \(3,\).*single row needs \[None\]"),
        ({"end": torch.zeros(3)}, r"end: got shape \(3,\).*single row needs \[None\]"),
        ({"end": torch.zeros(1, 3)}, r"end: got shape \(1, 3\); wanted"),
        ({"start": [[0.0] * 3]}, "start: got a list"),
        ({"head": None}, "head: got None"),
    ],
)
def test_malformed_arguments(change: dict[str, object], message: str) -> None:
    head, _ = make_problem(4, 3, "unbounded", rows=1, seed=2)
    given = {"head": head, "start": torch.zeros(2, 3), "end": torch.zeros(2, 3), **change}
    with pytest.raises(ArgumentError, match=message):
        fsb.class_path(**given)  # type: ignore[arg-type]  # wrong on purpose
