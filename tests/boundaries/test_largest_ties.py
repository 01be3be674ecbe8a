from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem, tie_distance


@pytest.mark.parametrize("kind", ["unbounded", "nonnegative", "box"])
@pytest.mark.parametrize(("k", "d"), [(4, 2), (6, 3), (6, 12)])
def test_the_first_class_that_cannot_join_stops_the_row(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=6, seed=k + d)
    found = fsb.largest_ties(head, z)
    order = head.logits(z).argsort(dim=1, descending=True)
    assert (found.status == Status.CONVERGED).all()
    for row in range(6):
        count = int(found.count[row])
        top = order[row].tolist()
        assert found.classes[row, :count].tolist() == top[:count]
        assert (found.classes[row, count:] == -1).all()
        want = tie_distance(head, z[row].numpy(), top[:count])
        assert float(found.distance[row]) == pytest.approx(want, rel=1e-5, abs=1e-5)
        if count < k:
            assert found.stopped[row] == Status.INFEASIBLE
            assert tie_distance(head, z[row].numpy(), top[: count + 1]) == float("inf")
        else:
            assert found.stopped[row] == Status.CONVERGED


def test_without_a_domain_d_plus_one_classes_tie_at_most() -> None:
    head, z = make_problem(9, 3, "unbounded", rows=40, seed=0)
    assert int(fsb.largest_ties(head, z).count.max()) == 4
    head, z = make_problem(5, 20, "unbounded", rows=40, seed=0)
    assert (fsb.largest_ties(head, z).count == 5).all()


def test_a_row_whose_class_meets_no_other() -> None:
    head = fsb.LinearHead(torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
    found = fsb.largest_ties(head, torch.ones(1, 2))
    assert found.count.tolist() == [1]
    assert found.distance.tolist() == [0.0]
    assert found.stopped.tolist() == [Status.INFEASIBLE]
    assert found.classes.tolist() == [[0]]


def test_too_few_steps_differ_from_a_proof() -> None:
    head, z = make_problem(10, 16, "nonnegative", rows=30, seed=9)
    full, hurried = fsb.largest_ties(head, z), fsb.largest_ties(head, z, max_steps=2)
    assert (hurried.count <= full.count).all()
    early = hurried.count < full.count
    assert early.any()
    assert (hurried.stopped[early] == Status.MAX_STEPS).all()
    assert torch.isfinite(hurried.distance[hurried.count > 0]).all()


def test_one_bad_row_fails_alone() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=4, seed=0)
    want = fsb.largest_ties(head, z)
    z[1, 2], z[2, 0] = torch.nan, -0.25
    got = fsb.largest_ties(head, z)
    assert got.status[1:3].tolist() == [Status.NOT_FINITE, Status.OUTSIDE_DOMAIN]
    assert got.count[1:3].tolist() == [0, 0]
    assert (got.classes[1:3] == -1).all()
    assert torch.isnan(got.distance[1:3]).all()
    assert torch.isnan(got.points[1:3]).all()
    assert torch.equal(got.count[[0, 3]], want.count[[0, 3]])


def test_a_limit_of_classes_ends_the_same_search_earlier() -> None:
    head, z = make_problem(6, 8, "nonnegative", rows=40, seed=2)
    full = fsb.largest_ties(head, z)
    for limit in (1, 2, 3, 7):
        found = fsb.largest_ties(head, z, max_classes=limit)
        assert torch.equal(found.count, full.count.clamp_max(limit))
        capped = found.count == limit
        assert (found.stopped[capped] == Status.CONVERGED).all()
        assert torch.equal(found.stopped[~capped], full.stopped[~capped])
        top = head.logits(z).topk(limit if limit < 7 else 6, dim=1).indices
        tie = fsb.tie_points(head, z[capped], top[capped]) if capped.any() else found.take([])
        torch.testing.assert_close(found.distance[capped], tie.distance)
        assert torch.equal(found.points[~capped], full.points[~capped])


def test_the_limit_of_classes_is_checked() -> None:
    head, z = make_problem(3, 2, "unbounded", rows=2, seed=0)
    with pytest.raises(ArgumentError, match="max_classes"):
        fsb.largest_ties(head, z, max_classes=0)
