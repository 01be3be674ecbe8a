from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.geometry.regions.guaranteed_sets import hull_distance_bound
from support.flips.oracles import make_problem
from support.regions.attacks import changed, wide

KINDS = ["unbounded", "nonnegative", "box"]


def make(
    k: int, d: int, kind: str, n: int, seed: int
) -> tuple[fsb.LinearHead, fsb.FeatureBank, torch.Tensor]:
    """Return a head, a bank of n rows and 40 query rows, all in the domain."""
    head, z = make_problem(k, d, kind, rows=n + 40, seed=seed)
    # every other row between two of the bank
    z[n::2] = (z[torch.arange(20) % n] + z[torch.arange(1, 21) % n]) / 2
    return head, fsb.FeatureBank(z[:n]), z[n:]


def half_space_distances(head: fsb.LinearHead, v: torch.Tensor, i: int) -> torch.Tensor:
    """Return the distance (n,K-1) of each row to each half-space of another class."""
    others = [k for k in range(head.num_classes) if k != i]
    normal = head.weight[i] - head.weight[others]
    return (v @ normal.T + head.bias[i] - head.bias[others]) / normal.norm(dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d", "n"), [(2, 1, 5), (3, 2, 40), (5, 4, 60), (4, 30, 12)])
def test_clearance_is_the_smallest_half_space_distance(k: int, d: int, n: int, kind: str) -> None:
    head, bank, _ = make(k, d, kind, n, seed=k + d)
    hulls = fsb.guaranteed_hulls(head, bank)
    own = head.predict(bank.features)
    for i in range(k):
        rows = bank.features[own == i]
        assert int(hulls.counts[i]) == len(rows)
        if not len(rows):
            assert torch.isnan(hulls.clearance[i])
            continue
        want = float(half_space_distances(head, rows, i).min())
        assert float(hulls.clearance[i]) == pytest.approx(want, rel=1e-9, abs=1e-12)
        assert float(hulls.clearance[i]) <= want
        assert torch.equal(hulls.generators[i].features, rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d", "n"), [(2, 1, 6), (3, 2, 30), (4, 3, 60), (3, 6, 40)])
def test_certify_agrees_with_projecting_on_every_hull(k: int, d: int, n: int, kind: str) -> None:
    head, bank, z = make(k, d, kind, n, seed=10 * k + d)
    hulls = fsb.guaranteed_hulls(head, bank)
    certified = hulls.certify(z)
    want = torch.full_like(certified, -1)
    for i, part in enumerate(hulls.generators):
        if part is not None:
            holds = fsb.hull_projection(part, z).distance < hulls.clearance[i] * (1 - 1e-6)
            # no row lies in two hulls
            assert (want[holds] == -1).all()
            want[holds] = i
    assert torch.equal(certified, want)
    assert (certified >= 0).any()
    assert torch.equal(certified[certified >= 0], head.predict(z)[certified >= 0])
    # training rows strictly inside their region lie in their own hull
    assert torch.equal(hulls.certify(bank.features), head.predict(bank.features))


def test_a_triangle_by_hand() -> None:
    # class 0 wins for x > 0; the nearest generator is at x = 1
    head = fsb.LinearHead(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), None)
    bank = fsb.FeatureBank(torch.tensor([[1.0, 0.0], [3.0, 2.0], [3.0, -2.0], [-5.0, 0.0]]))
    hulls = fsb.guaranteed_hulls(head, bank)
    assert hulls.clearance.tolist() == pytest.approx([1.0, 5.0])
    z = torch.tensor([[2.0, 0.0], [0.01, 0.0], [3.9, 0.0], [4.1, 0.0], [-1.0, 0.0], [-0.1, 0.0]])
    result = hulls.check(z)
    assert result.certified.tolist() == [0, 0, 0, -1, 1, 1]
    assert result.distance.tolist() == pytest.approx(
        [0, 0.99, 0.9, 1.1, 4, 4.9], rel=1e-6, abs=1e-9
    )
    assert (result.lower_bound <= result.distance).all()
    assert result.clearance.tolist() == pytest.approx([1, 1, 1, 1, 5, 5])
    assert result.ok.all()


def test_invariances() -> None:
    head, bank, z = make(4, 3, "unbounded", 60, seed=3)
    want = fsb.guaranteed_hulls(head, bank)
    classes = want.certify(z)
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    shift, scale = 1e3 * torch.randn(3, generator=g, dtype=torch.float64), 1e-4
    points = bank.features.double()
    weight = head.weight @ turn.T / scale
    moved = fsb.LinearHead(weight, head.bias - weight @ shift)
    there = fsb.guaranteed_hulls(moved, fsb.FeatureBank(points @ turn.T * scale + shift))
    torch.testing.assert_close(there.clearance, want.clearance * scale, rtol=1e-6, atol=1e-12)
    assert torch.equal(there.certify(z @ turn.T * scale + shift), classes)
    order, rows = torch.randperm(4, generator=g), torch.randperm(60, generator=g)
    shuffled = fsb.LinearHead(head.weight[order], head.bias[order])
    other = fsb.guaranteed_hulls(shuffled, fsb.FeatureBank(points[rows]))
    torch.testing.assert_close(other.clearance, want.clearance[order])
    back = torch.cat([order, torch.tensor([-1])])
    assert torch.equal(back[other.certify(z)], classes)
    alone = [int(want.certify(z[r : r + 1])) for r in range(len(z))]
    assert alone == classes.tolist()


def test_degenerate_heads() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-9.0, 0.0]])
    bias = torch.tensor([0.0, 0.0, 0.0, -1.0, -1e9])
    head = fsb.LinearHead(weight, bias)
    z = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    hulls = fsb.guaranteed_hulls(head, fsb.FeatureBank(z))
    status = [Status.DUPLICATE, Status.DUPLICATE, Status.CONVERGED, Status.INFEASIBLE]
    assert hulls.status.tolist() == [*status, Status.INFEASIBLE]
    # (0, 1) lies on the tie, so it is no generator
    assert hulls.counts.tolist() == [0, 0, 1, 0, 0]
    assert torch.isnan(hulls.clearance).tolist() == [True, True, False, True, True]
    result = hulls.check(z)
    assert result.certified.tolist() == [-1, 2, -1]
    assert result.status.tolist() == [Status.INFEASIBLE, Status.CONVERGED, Status.INFEASIBLE]
    equal = fsb.LinearHead(torch.ones(2, 2), torch.tensor([0.0, 1.0]))
    hulls = fsb.guaranteed_hulls(equal, fsb.FeatureBank(z))
    assert hulls.clearance[1] == torch.inf
    assert hulls.status.tolist() == [Status.INFEASIBLE, Status.UNBOUNDED]
    assert hulls.certify(100 * z).tolist() == [1, 1, 1]


def test_rows_within_rounding_of_a_tie_are_no_generators() -> None:
    head = fsb.LinearHead(torch.tensor([[1e8, 1.0], [1e8, 0.0]]), None)
    z = torch.tensor([[1e8, 1e-3], [0.0, 1.0]], dtype=torch.float64)
    assert head.predict(z).tolist() == [0, 0]
    assert fsb.guaranteed_hulls(head, fsb.FeatureBank(z)).counts.tolist() == [1, 0]


def test_labels_are_not_used_and_banks_on_disk_answer_alike(tmp_path: Path) -> None:
    head, bank, z = make(4, 3, "nonnegative", 50, seed=8)
    want = fsb.guaranteed_hulls(head, bank)
    wrong = fsb.FeatureBank(bank.features, torch.zeros(50).long())
    wrong.save(tmp_path / "bank")
    for other in (wrong, fsb.FeatureBank.open(tmp_path / "bank")):
        hulls = fsb.guaranteed_hulls(head, other)
        torch.testing.assert_close(hulls.clearance, want.clearance, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(hulls.certify(z), want.certify(z))


@pytest.mark.parametrize("seed", range(3))
def test_points_of_the_rim_are_decided_by_exact_distances(seed: int) -> None:
    # one generator per class: the distance is known exactly
    g = np.random.default_rng(seed)
    head = fsb.LinearHead(torch.from_numpy(g.standard_normal((2, 3))), None)
    v = torch.from_numpy(g.standard_normal((1, 3)))
    hulls = fsb.guaranteed_hulls(head, fsb.FeatureBank(v))
    i = int(head.predict(v))
    radius = float(hulls.clearance[i])
    ways = torch.from_numpy(g.standard_normal((200, 3)))
    ways = ways / ways.norm(dim=1, keepdim=True)
    ulps = torch.from_numpy(g.integers(-400, 400, (200, 1)) * 2.0**-53)
    z = v + radius * (1 + ulps) * ways
    result = hulls.certify(z) >= 0
    for row in range(200):
        pairs = zip(z[row].tolist(), v[0].tolist(), strict=True)
        square = sum(((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs), Fraction(0))
        assert not result[row] or square < Fraction(radius) ** 2
    assert 0 < int(result.sum()) < 200
    assert not changed(
        head, wide(z)[result.numpy()], np.full(int(result.sum()), i), strict=True
    ).any()


def test_rows_that_fail_fail_alone() -> None:
    head, bank, z = make(3, 4, "nonnegative", 40, seed=5)
    hulls = fsb.guaranteed_hulls(head, bank)
    rows = torch.cat([bank.features[:1].double(), z[:1], z[:1], bank.features[1:2].double()])
    rows[1, 2], rows[2, 0] = torch.nan, -1.0
    result = hulls.check(rows)
    assert result.status.tolist()[1:3] == [Status.NOT_FINITE, Status.OUTSIDE_DOMAIN]
    assert result.certified.tolist()[1:3] == [-1, -1]
    assert (result.certified[[0, 3]] >= 0).all()
    assert torch.isnan(result.distance[1:3]).all()
    assert hulls.certify(rows[:0]).shape == (0,)
    outside = bank.features.double().clone()
    outside[0, 0] = -1e-3
    fewer = fsb.guaranteed_hulls(head, fsb.FeatureBank(outside))
    assert int(fewer.counts.sum()) == int(hulls.counts.sum()) - 1


def test_bad_arguments() -> None:
    head, bank, z = make(3, 4, "nonnegative", 10, seed=6)
    with pytest.raises(ArgumentError, match="width 3"):
        fsb.guaranteed_hulls(head, fsb.FeatureBank(torch.ones(2, 3)))
    with pytest.raises(ArgumentError, match="a FeatureBank"):
        fsb.guaranteed_hulls(head, z)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match="a LinearHead"):
        fsb.guaranteed_hulls(z, bank)  # type: ignore[arg-type]  # wrong on purpose
    hulls = fsb.guaranteed_hulls(head, bank)
    with pytest.raises(ArgumentError, match=r"shape \(40, 3\)"):
        hulls.certify(z[:, :3])
    for fraction, limit in ((1.0, 2.0), (-0.1, 2.0), (0.5, 0.9), (0.5, np.inf), (np.nan, 2.0)):
        with pytest.raises(ArgumentError, match="number"):
            hulls.inflated(fraction, limit=limit)


def test_distance_bound_is_above_the_exact_distance() -> None:
    g = np.random.default_rng(0)
    for scale, shift in ((1.0, 0.0), (1e-8, 1e3), (1e-160, 0.0), (1e150, 0.0)):
        v = torch.from_numpy(scale * g.standard_normal((30, 4, 3)) + shift)
        weights = torch.from_numpy(g.dirichlet(np.ones(4), 30))
        weights = weights * torch.from_numpy(1 + 1e-12 * g.standard_normal((30, 1)))
        near = (weights[:, None] @ v)[:, 0]
        z = torch.where(
            torch.rand(30, 1, generator=torch.Generator().manual_seed(1)) < 0.5, near, 0
        )
        bound = hull_distance_bound(v, weights, z)
        for row in range(30):
            a = [Fraction(x) for x in weights[row].tolist()]
            total = sum(a)
            square = Fraction(0)
            for m in range(3):
                p = sum(x * Fraction(float(v[row, s, m])) for s, x in enumerate(a)) / total
                square += (Fraction(float(z[row, m])) - p) ** 2
            assert Fraction(float(bound[row])) ** 2 >= square
        far = z[:, 0] == 0
        torch.testing.assert_close(bound[far], near.div(scale).norm(dim=1)[far] * scale)
    nothing = hull_distance_bound(v, torch.zeros(30, 4).double(), z)
    assert (nothing == torch.inf).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_inflated_hulls(kind: str, fraction: float) -> None:
    head, bank, z = make(4, 3, kind, 80, seed=7)
    hulls = fsb.guaranteed_hulls(head, bank)
    larger = hulls.inflated(fraction)
    result = hulls.counts > 0
    assert (larger.clearance >= (1 - fraction) * hulls.clearance * (1 - 1e-9))[result].all()
    assert torch.isnan(larger.clearance[~result]).all()
    for k, (old, new) in enumerate(zip(hulls.generators, larger.generators, strict=True)):
        if old is None or new is None:
            assert old is new
            continue
        assert (fsb.hull_projection(new, old.features).distance < 1e-8).all()
        source = np.full(len(new), k)
        assert not changed(head, wide(new.features), source, strict=True).any()
        if fraction == 0:
            torch.testing.assert_close(new.features, old.features, rtol=0, atol=1e-12)
    grown = larger.certify(z) >= 0
    if fraction == 0.5:
        assert int(grown.sum()) > int((hulls.certify(z) >= 0).sum())
    assert torch.equal(larger.certify(z)[grown], head.predict(z)[grown])


def test_inflating_keeps_the_width_of_the_numbers_and_stops_at_the_limit() -> None:
    # class 0 wins for x > 0, so rays to the right never meet a border
    head = fsb.LinearHead(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), None)
    hulls = fsb.guaranteed_hulls(head, fsb.FeatureBank(torch.tensor([[1.0, 0.0], [3.0, 0.0]])))
    larger = hulls.inflated(0.5, limit=5).generators[0]
    assert larger is not None
    assert larger.features.dtype == torch.float32
    # to the left half of the segment from 1 to 0, to the right half of the segment to the limit, 7
    assert larger.features.tolist() == [[0.5, 0.0], [5.0, 0.0]]
    single = fsb.guaranteed_hulls(head, fsb.FeatureBank(torch.tensor([[1.0, 0.0]])))
    only = single.inflated().generators[0]
    assert only is not None
    assert only.features.tolist() == [[1.0, 0.0]]
