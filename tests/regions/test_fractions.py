from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError
from support.flips.oracles import make_problem

# class 0 for x + y < 1, class 1 elsewhere
CUT = fsb.LinearHead(torch.tensor([[-1.0, -1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
SQUARE = fsb.Domain.box(torch.zeros(2), torch.ones(2))


def test_fractions_agree_with_the_area() -> None:
    found = fsb.region_fractions(CUT, SQUARE, samples=40_000)
    assert found.samples == 40_000
    assert float(found.fractions.sum()) == pytest.approx(1)
    assert found.standard_error.tolist() == pytest.approx([0.5 / 200] * 2, rel=1e-3)
    assert ((found.fractions - 0.5).abs() < 4 * found.standard_error).all()
    # a third of the area: (1 - y) over y in [1/3, 1] lies below the cut, (2/3)² / 2 / (2/3)
    upper = fsb.Domain.box(torch.tensor([0.0, 1 / 3]), torch.ones(2))
    found = fsb.region_fractions(CUT, upper, samples=40_000)
    assert abs(float(found.fractions[0]) - 1 / 3) < 4 * float(found.standard_error[0])


def test_the_domain_of_the_head_counts_and_constants_stay() -> None:
    head = fsb.LinearHead(CUT.weight, CUT.bias, fsb.Domain.nonnegative())
    wide = fsb.Domain.box(-torch.ones(2), torch.ones(2))
    found = fsb.region_fractions(head, wide, samples=20_000)
    assert abs(float(found.fractions[0]) - 0.5) < 4 * float(found.standard_error[0])
    line = fsb.Domain.box(torch.tensor([0.0, 0.75]), torch.tensor([1.0, 0.75]))
    found = fsb.region_fractions(head, line, samples=20_000)
    assert abs(float(found.fractions[0]) - 0.25) < 4 * float(found.standard_error[0])


def test_seeds_and_the_global_generator() -> None:
    before = torch.get_rng_state()
    one, same = (fsb.region_fractions(CUT, SQUARE, samples=500, seed=3) for _ in range(2))
    assert torch.equal(one.fractions, same.fractions)
    other = fsb.region_fractions(CUT, SQUARE, samples=500, seed=4)
    assert not torch.equal(one.fractions, other.fractions)
    assert torch.equal(torch.get_rng_state(), before)


def test_fractions_of_features() -> None:
    head, z = make_problem(4, 3, "nonnegative", rows=200, seed=0)
    want = head.predict(z).bincount(minlength=4).double() / 200
    found = fsb.feature_fractions(head, z)
    torch.testing.assert_close(found.fractions, want)
    torch.testing.assert_close(found.standard_error, (want * (1 - want) / 200).sqrt())
    bad = z[:2].clone()
    bad[0, 0], bad[1, 1] = torch.nan, -1.0
    again = fsb.feature_fractions(head, torch.cat([bad, z]))
    assert again.samples == 200
    assert torch.equal(again.fractions, found.fractions)
    none = fsb.feature_fractions(head, bad)
    assert none.samples == 0
    assert torch.isnan(none.fractions).all()


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="finite limits for every feature"):
        fsb.region_fractions(CUT)
    endless = fsb.Domain.box(torch.zeros(2), torch.tensor([1.0, torch.inf]))
    with pytest.raises(ArgumentError, match=r"feature 1 from 0\.0 to inf"):
        fsb.region_fractions(CUT, endless)
    with pytest.raises(ArgumentError, match="a box of width 3"):
        fsb.region_fractions(CUT, fsb.Domain.box(torch.zeros(3), torch.ones(3)))
    for samples in (0, 1.5, True):
        with pytest.raises(ArgumentError, match="an integer, at least 1"):
            fsb.region_fractions(CUT, SQUARE, samples=samples)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ArgumentError, match=r"shape \(2, 3\)"):
        fsb.feature_fractions(CUT, torch.zeros(2, 3))
