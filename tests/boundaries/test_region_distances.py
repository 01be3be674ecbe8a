from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_domain, make_problem, tie_distance

KINDS = ["unbounded", "nonnegative", "box"]

SMALL: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 10**6),
    "k": st.integers(2, 7),
    "d": st.integers(1, 4),
    "kind": st.sampled_from(KINDS),
}
"""Heads that are small enough for an oracle."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(3, 2), (5, 8), (10, 2), (10, 64)])
def test_agrees_with_clarabel(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=2, seed=k + d)
    found = fsb.region_distances(head, z)
    assert found.ok.all()
    for row in range(2):
        i = int(found.source[row])
        away = [
            float("nan") if c == i else tie_distance(head, z[row].numpy(), [c]) for c in range(k)
        ]
        for c in range(k):
            # a path that leaves a region enters another one at the same point
            want = float(np.nanmin(away)) if c == i else -away[c]
            assert float(found.distance[row, c]) == pytest.approx(want, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_column_is_the_nearest_flip_point(kind: str) -> None:
    head, z = make_problem(10, 16, kind, rows=100, seed=2)
    found, flips = fsb.region_distances(head, z), fsb.flip_points(head, z)
    own = found.source[:, None]
    torch.testing.assert_close(found.distance.gather(1, own), flips.distance)
    # the other columns are those of a tie of one class, and at most the flip distance
    for c in range(10):
        ties = fsb.tie_points(head, z, torch.tensor([c]))
        others = found.source != c
        torch.testing.assert_close(
            -found.distance[others, c], ties.distance[others], rtol=1e-9, atol=1e-12
        )
        to = torch.full((100,), c)
        flip = fsb.flip_points(head, z, to).distance[others, 0]
        assert (-found.distance[others, c] <= flip * (1 + 1e-8)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_predicted_class_is_the_only_column_above_zero(kind: str) -> None:
    head, z = make_problem(6, 5, kind, rows=80, seed=3)
    found = fsb.region_distances(head, z)
    above = (found.distance > 0).sum(dim=1)
    assert (above == 1).all()
    assert torch.equal(found.distance.argmax(dim=1), found.source)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_continuous_where_the_class_changes(kind: str) -> None:
    head, z = make_problem(6, 5, kind, rows=60, seed=4)
    start, end = z[:30], z[30:]
    path = fsb.class_path(head, start, end)
    crossed = torch.isfinite(path.crossings[:, 0])
    assert crossed.sum() >= 10
    t = path.crossings[crossed, 0][:, None]
    start, step = start[crossed], (end - start)[crossed]
    before = fsb.region_distances(head, start + (t - 1e-7) * step)
    after = fsb.region_distances(head, start + (t + 1e-7) * step)
    assert (before.source != after.source).all()
    # distances change no faster than the row moves
    moved = 2.001e-7 * step.norm(dim=1, keepdim=True)
    finite = torch.isfinite(before.distance)
    assert torch.equal(finite, torch.isfinite(after.distance))
    change = torch.where(finite, (after.distance - before.distance).abs(), 0.0)
    assert (change <= moved).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    head, z = make_problem(5, 4, kind, rows=12, seed=6)
    low, high = head.domain.limits(z)
    step = 1e-6
    z = z.clamp(low + 2 * step, high - 2 * step)
    found = fsb.region_distances(head, z)
    finite = torch.isfinite(found.distance)
    assert finite.any(dim=1).all()
    for m in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[m] = step
        up, down = (fsb.region_distances(head, z + s * shift).distance for s in (1, -1))
        slope = (up - down) / (2 * step)
        torch.testing.assert_close(
            slope[finite], found.gradient[..., m][finite], rtol=1e-4, atol=1e-4
        )
    # on the segment to the region the distance shrinks as fast as the row moves
    lengths = found.gradient[finite].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-12, atol=0.0)


def test_batch_equals_loop_and_classes_permute() -> None:
    head, z = make_problem(7, 5, "nonnegative", rows=25, seed=3)
    together = fsb.region_distances(head, z)
    for row in range(25):
        alone = fsb.region_distances(head, z[row : row + 1])
        torch.testing.assert_close(
            alone.distance, together.distance[row : row + 1], rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(
            alone.gradient, together.gradient[row : row + 1], rtol=1e-7, atol=1e-7
        )
    order = torch.tensor([3, 1, 5, 0, 2, 4, 6])
    other = fsb.LinearHead(head.weight[order], head.bias[order], head.domain)
    got = fsb.region_distances(other, z)
    torch.testing.assert_close(got.distance, together.distance[:, order], rtol=1e-9, atol=1e-12)


def test_invariance() -> None:
    head, z = make_problem(6, 9, "unbounded", rows=30, seed=4)
    want = fsb.region_distances(head, z)
    g = torch.Generator().manual_seed(0)
    shift = torch.randn(9, generator=g, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=g, dtype=torch.float64))
    moved = fsb.LinearHead(head.weight, head.bias - head.weight @ shift)
    turned = fsb.LinearHead(head.weight @ turn, head.bias)
    grown = fsb.LinearHead(head.weight * 1e9, head.bias * 1e9)
    for other, rows, rotation in (
        (moved, z + shift, None),
        (turned, z @ turn, turn),
        (grown, z, None),
    ):
        got = fsb.region_distances(other, rows)
        torch.testing.assert_close(got.distance, want.distance, rtol=1e-8, atol=1e-10)
        gradient = want.gradient if rotation is None else want.gradient @ rotation
        torch.testing.assert_close(got.gradient, gradient, rtol=1e-6, atol=1e-6)


def test_empty_regions_duplicates_and_no_other_class() -> None:
    # class 2 is the mean of the others less 1, class 3 repeats class 0
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    head = fsb.LinearHead(weight, torch.tensor([0.0, 0.0, -1.0, 0.0]))
    found = fsb.region_distances(head, torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
    assert found.ok.all()
    assert (found.status[:, 2] == Status.INFEASIBLE).all()
    assert (found.distance[:, 2] == -torch.inf).all()
    assert (found.gradient[:, 2] == 0).all()
    # the row's region is also that of class 3, so it ends where the row is
    assert found.distance[0, [0, 3]].tolist() == [0.0, 0.0]
    assert (found.gradient[0, [0, 3]] == 0).all()
    assert float(found.distance[0, 1]) == pytest.approx(-(0.5**0.5))
    assert found.distance[1, [0, 3]].tolist() == [pytest.approx(-(4.5**0.5))] * 2
    alone = fsb.LinearHead(torch.ones(3, 2), torch.tensor([2.0, 1.0, 0.0]))
    found = fsb.region_distances(alone, torch.ones(1, 2))
    assert found.status.tolist() == [[Status.UNBOUNDED, Status.INFEASIBLE, Status.INFEASIBLE]]
    assert found.distance.tolist() == [[torch.inf, -torch.inf, -torch.inf]]
    assert torch.isinf(found.lower_bound).all()
    assert (found.gap == 0).all()


def test_a_row_on_the_tie() -> None:
    head = fsb.LinearHead(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    found = fsb.region_distances(head, torch.tensor([[1.0, 1.0]]))
    assert found.distance.tolist() == [[0.0, 0.0]]
    assert (found.gradient == 0).all()
    assert found.ok.all()


def test_bad_rows_fail_alone_and_few_steps_have_a_status() -> None:
    head, z = make_problem(10, 16, "nonnegative", rows=30, seed=9)
    want = fsb.region_distances(head, z)
    broken = z.clone()
    broken[1, 2], broken[3, 0] = torch.nan, -0.25
    got = fsb.region_distances(head, broken)
    assert (got.status[1] == Status.NOT_FINITE).all()
    assert (got.status[3] == Status.OUTSIDE_DOMAIN).all()
    assert got.source[1] == -1
    assert torch.isnan(got.distance[[1, 3]]).all()
    assert torch.isnan(got.gradient[[1, 3]]).all()
    assert (got.lower_bound[[1, 3]] == 0).all()
    torch.testing.assert_close(got.distance[4:], want.distance[4:], rtol=1e-9, atol=1e-12)
    hurried = fsb.region_distances(head, z, max_steps=1)
    assert (hurried.lower_bound <= want.distance.abs() * (1 + 1e-12)).all()
    late = hurried.status == Status.MAX_STEPS
    assert late.any()
    assert torch.isnan(hurried.distance[late]).all()


@settings(max_examples=60, derandomize=True)
@given(**SMALL, whole=st.booleans())
def test_no_point_of_a_region_is_nearer_than_its_bound(
    seed: int, k: int, d: int, kind: str, whole: bool
) -> None:
    g = np.random.default_rng(seed)
    weight = g.integers(-2, 3, (k, d)) * 1.0 if whole else g.standard_normal((k, d))
    bias = g.integers(-2, 3, k) * 1.0 if whole else g.standard_normal(k)
    domain = make_domain(kind, d)
    head = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), domain)
    z = domain.clip(torch.from_numpy(2 * g.standard_normal((5, d))))
    found = fsb.region_distances(head, z)
    x = domain.clip(torch.from_numpy(3 * g.standard_normal((2000, d))))
    lead = head.logits(x)
    lead = lead - lead.amax(dim=1, keepdim=True)
    away = torch.cdist(z, x)
    for row in range(5):
        for c in range(k):
            own = int(found.source[row]) == c
            # strictly inside, or outside, by more than rounding
            others = lead[:, c] < -1e-9 if own else lead[:, c] == 0
            if bool(others.any()):
                nearest = float(away[row, others].min())
                assert float(found.lower_bound[row, c]) <= nearest + 1e-9


def check_chosen_columns(head: fsb.LinearHead, z: torch.Tensor, *, unique: bool) -> None:
    """Check that chosen columns are those of all regions, in any order, with repetitions.

    Gradients of the own column are compared if the nearest point of other regions is `unique`.
    """
    every = fsb.region_distances(head, z)
    k = head.num_classes
    assert torch.equal(every.target, torch.arange(k).expand(len(z), k))
    g = torch.Generator().manual_seed(0)
    chosen = torch.randint(-1, k, (len(z), 4), generator=g)
    bad = every.source < 0
    own = every.source[:, None]
    for targets in (chosen, chosen[:, 0], "own"):
        found = fsb.region_distances(head, z, targets)
        target = own if isinstance(targets, str) else targets.reshape(len(z), -1)
        assert torch.equal(found.target, target)
        assert torch.equal(found.source, every.source)
        none = target < 0
        index = target.clamp_min(0)
        status = torch.where(none, int(Status.UNDECIDED), every.status.gather(1, index))
        status = torch.where(bad[:, None], every.status[:, :1], status)
        assert torch.equal(found.status, status)
        blank = none | bad[:, None]
        assert torch.isnan(found.distance[blank]).all()
        assert torch.isnan(found.gradient[blank]).all()
        assert (found.lower_bound[blank] == 0).all()
        torch.testing.assert_close(
            found.distance,
            every.distance.gather(1, index).where(~none, torch.nan),
            rtol=1e-8,
            atol=1e-9,
            equal_nan=True,
        )
        # how far an empty region is proved to be away depends on where the solver stopped
        solved = found.status == Status.CONVERGED
        for name in ("lower_bound", "gap", "violation"):
            wanted = getattr(every, name).gather(1, index)[solved]
            got = getattr(found, name)[solved]
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9, equal_nan=True)
        # the direction to a point at distance 1e-7 has lost digits
        clear = ~blank & (found.distance.abs() > 1e-7)
        if not unique:
            clear &= target != own
        wanted = every.gradient.gather(1, index[..., None].expand_as(found.gradient))
        torch.testing.assert_close(found.gradient[clear], wanted[clear], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (6, 5), (10, 64), (40, 3)])
def test_chosen_columns_are_those_of_all_regions(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=30, seed=k)
    z[3] = torch.nan
    check_chosen_columns(head, z, unique=True)


@settings(max_examples=60, derandomize=True)
@given(**SMALL)
def test_chosen_columns_with_ties_copies_and_empty_regions(
    seed: int, k: int, d: int, kind: str
) -> None:
    g = np.random.default_rng(seed)
    weight, bias = g.integers(-1, 2, (k, d)) * 1.0, g.integers(-1, 2, k) * 1.0
    head = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), make_domain(kind, d))
    z = head.domain.clip(torch.from_numpy(g.integers(-2, 3, (6, d)) * 1.0))
    check_chosen_columns(head, z, unique=False)


def test_a_region_entered_by_rounding_is_at_distance_zero() -> None:
    # float64 logits of classes 0 and 1 agree, so 0 is the source; exactly, 1 is larger by 1e-30
    weight = torch.tensor([[0.0], [1e-30], [1.0]], dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.tensor([1.0, 1.0, -0.5], dtype=torch.float64))
    for targets in ("own", "all"):
        found = fsb.region_distances(head, torch.tensor([[1.0]]), targets)
        assert found.source.tolist() == [0]
        # and not 0.5, the distance to class 2
        assert found.distance[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": "nearest"}, 'targets: got .nearest.; wanted .*"all", "own"'),
        ({"targets": torch.tensor([4, 0])}, "count classes from 0"),
        ({"features": torch.zeros(3)}, "single row"),
        ({"head": "head"}, "head: got 'head'"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_malformed_arguments(change: dict[str, object], message: str) -> None:
    head, _ = make_problem(4, 3, "unbounded", rows=1, seed=2)
    given = {"head": head, "features": torch.zeros(2, 3), **change}
    with pytest.raises(ArgumentError, match=message):
        fsb.region_distances(**given)  # type: ignore[arg-type]  # wrong on purpose
