from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.geometry.regions import guaranteed_sets
from fsboundary.geometry.regions.guaranteed_sets import containing_ball
from support.flips.oracles import make_problem

KINDS = ["unbounded", "nonnegative", "box"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (4, 3), (6, 20)])
def test_agrees_with_every_ball_and_every_hull(k: int, d: int, kind: str) -> None:
    head, every = make_problem(k, d, kind, rows=140, seed=k + d)
    z, v = every[:60], every[60:]
    z[::2] = v[:30] + 0.05 * (v[30:60] - v[:30])
    bank = fsb.FeatureBank(v)
    found = fsb.coverage(head, bank, z)
    radius = fsb.guaranteed_balls(head, v).radius
    inside = torch.cdist(z, v) < radius
    assert torch.equal(found.ball >= 0, inside.any(dim=1))
    covered = found.ball >= 0
    assert inside[covered, found.ball[covered]].all()
    assert torch.equal(head.predict(v)[found.ball[covered]], found.predicted[covered])
    assert torch.equal(found.hull, fsb.guaranteed_hulls(head, bank).certify(z))
    assert (found.labels == -1).all()
    assert 0 < int(covered.sum()) <= 60
    larger = fsb.guaranteed_hulls(head, bank).inflated(0.5)
    again = fsb.coverage(head, bank, z, hulls=larger)
    assert torch.equal(again.hull, larger.certify(z))


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1.0, 1e6), (1e-30, 0.0), (1e-160, 0.0), (1e140, 0.0)]
)
def test_balls_at_any_scale(scale: float, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guaranteed_sets, "_PAIRS", 300)
    g = torch.Generator().manual_seed(0)
    v = scale * torch.randn(80, 4, generator=g, dtype=torch.float64) + shift
    z = scale * torch.randn(50, 4, generator=g, dtype=torch.float64) + shift
    # points of one size, some of them far smaller
    z[:10] = (z[:10] - shift) * 1e-12 + shift
    radius = scale * torch.rand(80, generator=g, dtype=torch.float64) * 1.5
    inside = torch.cdist((z - shift) / scale, (v - shift) / scale) < radius / scale
    cover = containing_ball(v, radius, z)
    assert torch.equal(cover >= 0, inside.any(dim=1))
    assert inside[torch.arange(50), cover][cover >= 0].all()
    assert 0 < int((cover >= 0).sum()) < 50


def test_borders_of_balls_are_not_covered() -> None:
    v, radius = torch.zeros(1, 2).double(), torch.tensor([5.0]).double()
    z = torch.tensor([[3.0, 4.0], [3.0, 4.0 - 1e-13], [0.0, 0.0]]).double()
    z[1, 1] = 4.0 - 1e-13
    assert containing_ball(v, radius, z).tolist() == [-1, 0, 0]
    assert containing_ball(v, torch.tensor([torch.inf]).double(), 1e200 * z).tolist() == [0, 0, 0]
    assert containing_ball(v, 0 * radius, 0 * z).tolist() == [-1, -1, -1]
    assert containing_ball(v, radius, z[:0]).shape == (0,)
    assert containing_ball(v[:0], radius[:0], z).tolist() == [-1, -1, -1]


def test_fractions_by_hand() -> None:
    # class 0 for x > 0, class 1 for x < 0; training rows at x = 1, 3 and -2
    head = fsb.LinearHead(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), None)
    bank = fsb.FeatureBank(torch.tensor([[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0]]))
    z = torch.tensor([[2.0, 0.5], [0.5, 0.0], [3.0, 2.5], [9.0, 9.0], [-0.5, 0.0], [-9.0, 0.0]])
    labels = torch.tensor([0, 1, 0, 1, 1, -1])
    found = fsb.coverage(head, bank, z, labels)
    assert found.hull.tolist() == [0, 0, -1, -1, 1, -1]
    assert found.ball.tolist() == [1, 1, 1, -1, 2, -1]
    assert found.predicted.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.labels.tolist() == labels.tolist()
    fractions = fsb.coverage_fractions(found)
    assert fractions.kinds == ("hull", "ball", "both", "either")
    assert fractions.covered.tolist() == [3, 4, 3, 4]
    assert fractions.fraction.tolist() == pytest.approx([3 / 6, 4 / 6, 3 / 6, 4 / 6])
    assert fractions.accuracy_covered.tolist() == pytest.approx([2 / 3, 3 / 4, 2 / 3, 3 / 4])
    # the row without a label counts nowhere
    assert fractions.accuracy_uncovered.tolist() == pytest.approx([1 / 2, 0, 1 / 2, 0])
    none = fsb.coverage_fractions(fsb.coverage(head, bank, z[:0]))
    assert torch.isnan(none.accuracy_covered).all()


def test_rows_that_fail_fail_alone() -> None:
    head, z = make_problem(3, 4, "nonnegative", rows=30, seed=1)
    rows = z[:4].clone()
    rows[1, 0], rows[2, 0] = torch.nan, -1.0
    found = fsb.coverage(head, fsb.FeatureBank(z), rows, torch.zeros(4).long())
    assert found.status.tolist() == [0, Status.NOT_FINITE, Status.OUTSIDE_DOMAIN, 0]
    assert (found.ball >= 0).tolist() == [True, False, False, True]
    assert found.hull.tolist()[1:3] == [-1, -1]
    assert found.predicted[1] == -1


def test_rows_of_the_bank_outside_the_domain_cover_nothing() -> None:
    head = fsb.LinearHead(torch.tensor([[1.0], [0.0]]), None, fsb.Domain.nonnegative())
    bank = fsb.FeatureBank(torch.tensor([[-0.5], [2.0]]))
    assert fsb.coverage(head, bank, torch.tensor([[1.0], [9.0]])).ball.tolist() == [1, -1]
    alone = fsb.FeatureBank(torch.tensor([[-0.5]]))
    assert fsb.coverage(head, alone, torch.tensor([[1.0]])).ball.tolist() == [-1]


def test_bad_arguments() -> None:
    head, z = make_problem(3, 4, "nonnegative", rows=9, seed=2)
    bank = fsb.FeatureBank(z)
    with pytest.raises(ArgumentError, match=r"shape \(8,\)"):
        fsb.coverage(head, bank, z, torch.zeros(8).long())
    with pytest.raises(ArgumentError, match="GuaranteedHulls"):
        fsb.coverage(head, bank, z, hulls=bank)  # type: ignore[arg-type]  # wrong on purpose
    other = fsb.LinearHead(head.weight, head.bias)
    with pytest.raises(ArgumentError, match="make them with this head"):
        fsb.coverage(head, bank, z, hulls=fsb.guaranteed_hulls(other, bank))
    with pytest.raises(ArgumentError, match="width 2"):
        fsb.coverage(head, fsb.FeatureBank(z[:, :2]), z)
