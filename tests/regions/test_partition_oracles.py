"""Partitions against enumeration, exact fractions and each other's invariances."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fsboundary as fsb
from fsboundary import Partition, Status
from support.flips.oracles import make_domain
from support.regions.enumeration import exact_faults
from support.regions.partition_hunt import examine

KINDS = ["unbounded", "nonnegative", "box"]


@pytest.mark.parametrize("first", [0, 40, 80])
def test_agrees_with_enumeration_qhull_and_fractions(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + 40):
        faults, seen = examine(seed)
        assert faults == [], seed
        total += seen
    assert total["CONVERGED"] > 20
    assert total["INFEASIBLE"] > 10


def random_head(seed: int, k: int, d: int, kind: str) -> fsb.LinearHead:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64)
    bias = 0.5 * torch.randn(k, generator=g, dtype=torch.float64)
    return fsb.LinearHead(weight, bias, make_domain(kind, d))


def assert_same(got: Partition, want: Partition, factor: float = 1.0, rtol: float = 1e-7) -> None:
    """The same tables, radii times `factor`."""
    for name in ("nonempty", "adjacency", "bounded", "redundant", "status", "region_status"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    for name in ("facet_radius", "chebyshev_radius"):
        torch.testing.assert_close(
            getattr(got, name), factor * getattr(want, name), rtol=rtol, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("kind", KINDS)
def test_invariances(kind: str) -> None:
    for seed in range(2):
        head = random_head(seed, 6, 3, kind)
        want = fsb.partition(head)
        assert (want.status != Status.UNDECIDED).all()
        for scale in (1e-6, 1e6, 3e-150, 7e120):
            scaled = fsb.LinearHead(scale * head.weight, scale * head.bias, head.domain)
            assert_same(fsb.partition(scaled), want)
        for scale in (1e-6, 1e6):
            low, high = head.domain.limits(head.weight)
            domain = fsb.Domain.box(scale * low, scale * high)
            wide = fsb.LinearHead(head.weight / scale, head.bias, domain)
            assert_same(fsb.partition(wide), want, factor=scale)
        shift = torch.tensor([3.0, -2.0, 700.0], dtype=torch.float64)
        low, high = head.domain.limits(head.weight)
        moved = fsb.LinearHead(
            head.weight, head.bias - head.weight @ shift, fsb.Domain.box(low + shift, high + shift)
        )
        assert_same(fsb.partition(moved), want)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        mixed = fsb.LinearHead(head.weight[order], head.bias[order], head.domain)
        assert_same(fsb.partition(mixed), want.take(order))


def test_far_from_the_origin() -> None:
    head = random_head(5, 5, 3, "unbounded")
    want = fsb.partition(head)
    shift = torch.full((3,), 1e6, dtype=torch.float64)
    moved = fsb.LinearHead(head.weight, head.bias - head.weight @ shift)
    assert_same(fsb.partition(moved), want, rtol=1e-4)


def test_rotation_on_an_unbounded_domain() -> None:
    head = random_head(3, 7, 3, "unbounded")
    basis, _ = torch.linalg.qr(random_head(8, 3, 3, "unbounded").weight)
    turned = fsb.LinearHead(head.weight @ basis, head.bias)
    assert_same(fsb.partition(turned), fsb.partition(head))


@given(st.data())
@settings(max_examples=25)
def test_certificates_hold_for_hostile_heads(data: st.DataObject) -> None:
    k, d = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4))
    small = st.integers(-2, 2).map(float)
    entry = data.draw(
        st.sampled_from([small, st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 1.0 + 2**-52])])
    )
    numbers = data.draw(st.lists(entry, min_size=k * (d + 1), max_size=k * (d + 1)))
    table = torch.tensor(numbers, dtype=torch.float64).reshape(k, d + 1)
    head = fsb.LinearHead(
        table[:, :d], table[:, d], make_domain(data.draw(st.sampled_from(KINDS)), d)
    )
    found = fsb.partition(head)
    assert exact_faults(head, None, found) == []
    assert (found.facet_radius <= found.facet_upper)[found.adjacency].all()
    assert (found.chebyshev_radius <= found.chebyshev_upper)[found.nonempty].all()
    assert not (found.adjacency & (found.status == Status.INFEASIBLE)).any()
