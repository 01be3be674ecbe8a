from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem
from support.regions.attacks import box_points, changed, wide

KINDS = ["unbounded", "nonnegative", "box"]
SIZES = [(2, 1), (3, 2), (5, 4), (8, 6), (4, 12)]
Array = NDArray[np.float64]


def program(head: fsb.LinearHead, z: torch.Tensor) -> tuple[Array, Array, Array]:
    """Return A (K-1,2d), margins (K-1,) and room (2d,) of one row's box."""
    i = int(head.predict(z[None])[0])
    others = [k for k in range(head.num_classes) if k != i]
    a = (head.weight[i] - head.weight[others]).numpy()
    margin = a @ z.numpy() + (head.bias[i] - head.bias[others]).numpy()
    low, high = (t.numpy() for t in head.domain.limits(z))
    room = np.concatenate([z.numpy() - low, high - z.numpy()])
    return np.hstack([np.maximum(a, 0), np.maximum(-a, 0)]), margin, room


def fair_sides(cost: Array, margin: Array, room: Array) -> Array:
    """Return the sides by linear programs: raise the smallest, fix those that cannot grow."""
    count = len(room)
    fixed = np.full(count, np.nan)
    fixed[(cost == 0).all(axis=0)] = room[(cost == 0).all(axis=0)]
    while np.isnan(fixed).any():
        free = np.isnan(fixed)
        used = cost[:, ~free] @ np.where(np.isinf(fixed[~free]), 0, fixed[~free])
        level = np.inf
        # side j is min(t, room_j): t as high as possible
        ends = np.sort(np.append(room[free & np.isfinite(room)], np.inf))
        for end in ends:
            full = free & (room < end)
            slope = cost[:, free & ~full].sum(axis=1)
            rest = margin - used - cost[:, full] @ room[full]
            level = np.where(slope > 0, rest / np.where(slope > 0, slope, 1), np.inf).min()
            if level <= end:
                break
        sides = np.where(free, np.minimum(room, level), np.where(np.isnan(fixed), 0, fixed))
        for j in np.flatnonzero(free):
            # the largest value of this side while all free ones are at least at the level
            limits = [
                (s, s if not free[m] else room[m]) for m, s in enumerate(sides) if np.isfinite(s)
            ]
            finite = np.isfinite(sides)
            goal = np.where(np.arange(count)[finite] == j, -1.0, 0.0)
            found = linprog(goal, A_ub=cost[:, finite], b_ub=margin + 1e-9, bounds=limits)
            if room[j] <= level or -found.fun <= sides[j] + 1e-6:
                fixed[j] = sides[j]
    return fixed


def sides_of(boxes: fsb.GuaranteedBoxes, z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z - boxes.lower, boxes.upper - z], dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2), (5, 4)])
def test_fair_boxes_agree_with_linear_programs(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=5, seed=k + d)
    sides = sides_of(fsb.guaranteed_boxes(head, z), z)
    for row in range(len(z)):
        want = torch.from_numpy(fair_sides(*program(head, z[row])))
        torch.testing.assert_close(sides[row], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2), (6, 8)])
def test_no_corner_changes_class(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=6, seed=5 * k)
    boxes = fsb.guaranteed_boxes(head, z)
    assert boxes.ok.all()
    assert ((boxes.lower <= z) & (z <= boxes.upper)).all()
    assert head.domain.contains(boxes.lower.clamp_min(-1e9)).all()
    assert head.domain.contains(boxes.upper.clamp_max(1e9)).all()
    ends = torch.stack([boxes.lower.clamp_min(-1e9), boxes.upper.clamp_max(1e9)])
    for pick in product((0, 1), repeat=d):
        corner = ends[torch.tensor(pick), :, torch.arange(d)].T
        assert not changed(head, wide(corner), boxes.source.numpy(), strict=True).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_no_side_can_be_moved_alone_and_the_cube_is_inside(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=12, seed=2 * k + d)
    boxes = fsb.guaranteed_boxes(head, z)
    radius = fsb.guaranteed_balls(head, z, "linf").radius
    low, high = head.domain.limits(z)
    inner = torch.maximum(z - radius[:, None], low), torch.minimum(z + radius[:, None], high)
    assert (boxes.lower <= inner[0] + 1e-12).all()
    assert (boxes.upper >= inner[1] - 1e-12).all()
    # stays between the limits of the domain, so only sides that a class limits are compared
    rows, side = (sides_of(boxes, z) < torch.cat([z - low, high - z], 1) - 1e-9).nonzero(
        as_tuple=True
    )
    for row, m in zip(rows.tolist(), side.tolist(), strict=True):
        cost, margin, _ = program(head, z[row])
        moved = sides_of(boxes, z)[row].clone()
        moved[m] += 1e-7 * (1 + moved[m])
        finite = torch.isfinite(moved).numpy()
        assert (margin - cost[:, finite] @ moved.numpy()[finite]).min() < 0


def test_a_box_by_hand() -> None:
    # class 0 while x + y < 6, in the nonnegative quadrant; class 2 does not depend on y
    weight = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    head = fsb.LinearHead(weight, torch.tensor([0.0, -6.0, -1.5]), fsb.Domain.nonnegative())
    z = torch.tensor([[1.0, 1.0, 3.0]])
    boxes = fsb.guaranteed_boxes(head, z)
    # x may grow by 0.5 only; the rest of the 4 remains for y
    assert boxes.lower.tolist() == [[0.0, 0.0, 0.0]]
    assert boxes.upper.tolist()[0] == pytest.approx([1.5, 4.5, float("inf")])
    assert boxes.status.tolist() == [Status.CONVERGED]


def test_batch_scale_and_permutation() -> None:
    head, z = make_problem(6, 5, "nonnegative", rows=40, seed=9)
    boxes = fsb.guaranteed_boxes(head, z)
    alone = [fsb.guaranteed_boxes(head, z[r : r + 1]) for r in range(8)]
    for name in ("lower", "upper"):
        one = torch.cat([getattr(a, name) for a in alone])
        torch.testing.assert_close(one, getattr(boxes, name)[:8], rtol=1e-9, atol=1e-12)
    for scale in (1e-100, 1e-6, 1e6, 1e100):
        small = fsb.LinearHead(head.weight, head.bias * scale, head.domain)
        other = fsb.guaranteed_boxes(small, z * scale)
        torch.testing.assert_close(other.upper / scale, boxes.upper, rtol=1e-9, atol=1e-12)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    turned = fsb.LinearHead(head.weight[:, order], head.bias, head.domain)
    other = fsb.guaranteed_boxes(turned, z[:, order])
    torch.testing.assert_close(other.upper, boxes.upper[:, order], rtol=1e-9, atol=1e-12)


def test_degenerate_rows() -> None:
    weight = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    bias = torch.tensor([1.0, 0.0, -1.0])
    head = fsb.LinearHead(weight, bias, fsb.Domain.nonnegative())
    z = torch.tensor([[0.5, 0.5], [torch.nan, 0.0], [-1.0, 0.0]])
    boxes = fsb.guaranteed_boxes(head, z)
    failed = [Status.NOT_FINITE, Status.OUTSIDE_DOMAIN]
    assert boxes.status.tolist() == [Status.UNBOUNDED, *failed]
    assert boxes.lower.tolist()[0] == [0.0, 0.0]
    assert boxes.upper.tolist()[0] == [torch.inf, torch.inf]
    assert torch.isnan(boxes.lower[1:]).all()
    assert boxes.source.tolist() == [0, -1, 0]
    tied = fsb.LinearHead(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), None)
    rows = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    boxes = fsb.guaranteed_boxes(tied, rows)
    assert boxes.status.tolist() == [Status.UNDECIDED, Status.UNDECIDED, Status.CONVERGED]
    assert torch.isnan(boxes.upper[:2]).all()
    assert boxes.upper[2].tolist() == [pytest.approx(0.0, abs=1e-7), torch.inf]
    assert float(boxes.upper[2, 0]) < 0


@pytest.mark.parametrize("weight", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("size", [1e-300, 1e-100, 1.0, 1e100])
def test_numbers_near_the_ends_of_float64(weight: float, size: float) -> None:
    for kind in ("unbounded", "nonnegative"):
        head, z = make_problem(4, 3, kind, rows=12, seed=1)
        bias = (head.bias * weight * size).clamp(-1e308, 1e308)
        head = fsb.LinearHead(head.weight * weight, bias, head.domain)
        boxes = fsb.guaranteed_boxes(head, z * size)
        assert not (boxes.lower > z * size).any()
        assert not (boxes.upper < z * size).any()
        points, rows = box_points(head, boxes, 2, np.random.default_rng(0))
        assert not changed(head, points, boxes.source.numpy()[rows], strict=True).any()
        lost = boxes.status[~boxes.ok]
        assert set(lost.tolist()) <= {Status.UNDECIDED, Status.INACCURATE}
        if 1e-200 < weight * size < 1e200:
            assert len(lost) == 0


def test_bad_arguments() -> None:
    head, z = make_problem(3, 2, "unbounded", rows=2, seed=0)
    with pytest.raises(ArgumentError, match="a LinearHead"):
        fsb.guaranteed_boxes(z, z)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match=r"shape \(2, 3\)"):
        fsb.guaranteed_boxes(head, torch.zeros(2, 3))
    assert fsb.guaranteed_boxes(head, z[:0]).lower.shape == (0, 2)
