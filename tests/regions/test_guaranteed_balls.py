from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import linf_radius, make_problem

KINDS = ["unbounded", "nonnegative", "box"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 2), (3, 8), (10, 64), (20, 5)])
def test_l2_radius_is_the_smallest_flip_distance(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=60, seed=k + d)
    balls = fsb.guaranteed_balls(head, z)
    every = fsb.flip_points(head, z, "all")
    want = every.distance.amin(dim=1)
    assert (balls.radius <= want).all()
    torch.testing.assert_close(balls.radius, want, rtol=1e-9, atol=1e-11)
    reached = torch.isfinite(want)
    first = every.distance.argmin(dim=1, keepdim=True)
    assert torch.equal(balls.active_class[reached], every.target.gather(1, first)[reached, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 2), (3, 8), (10, 16)])
def test_linf_radius_agrees_with_bisection(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=30, seed=k * d)
    balls = fsb.guaranteed_balls(head, z, "linf")
    assert torch.equal(balls.source, head.predict(z))
    for row in range(len(z)):
        want = linf_radius(head, z[row].numpy(), int(balls.source[row]))
        assert float(balls.radius[row]) == pytest.approx(want, rel=1e-9, abs=1e-12)
        assert float(balls.radius[row]) <= want


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_sampled_point_changes_class(kind: str, norm: str) -> None:
    head, z = make_problem(8, 6, kind, rows=50, seed=3)
    balls = fsb.guaranteed_balls(head, z, norm)
    g = torch.Generator().manual_seed(0)
    step = torch.randn(50, 400, 6, generator=g, dtype=torch.float64)
    size = step.norm(dim=2) if norm == "l2" else step.abs().amax(dim=2)
    radius = balls.radius.clamp_max(1e3)[:, None] * (1 - 1e-9)
    ends = head.domain.clip(z[:, None] + step / size[..., None] * radius[..., None])
    assert torch.equal(head.predict(ends.reshape(-1, 6)), head.predict(z).repeat_interleave(400))


@pytest.mark.parametrize("kind", KINDS)
def test_points_just_inside_and_just_outside(kind: str) -> None:
    head, z = make_problem(8, 6, kind, rows=80, seed=4)
    flips, balls = fsb.flip_points(head, z), fsb.guaranteed_balls(head, z)
    reached = torch.isfinite(balls.radius)
    away = (flips.points[:, 0] - z)[reached] / flips.distance[reached]
    for factor, keeps in ((1 - 1e-6, True), (1 + 1e-6, False)):
        moved = z[reached] + factor * balls.radius[reached, None] * away
        # beyond the flip point the straight line may leave the domain; the class is what counts
        same = head.predict(moved) == flips.source[reached]
        assert same.all() if keeps else not same.any()


def test_statuses() -> None:
    head = fsb.LinearHead(
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]), fsb.Domain.nonnegative()
    )
    z = torch.tensor([[0.5, 0.5], [torch.nan, 0.0], [-1.0, 0.0]])
    for norm in ("l2", "linf"):
        balls = fsb.guaranteed_balls(head, z, norm)
        assert balls.status.tolist() == [
            Status.UNBOUNDED,
            Status.NOT_FINITE,
            Status.OUTSIDE_DOMAIN,
        ]
        assert torch.isinf(balls.radius[0])
        assert torch.isnan(balls.radius[1:]).all()
        assert balls.active_class.tolist() == [-1, -1, -1]
        assert balls.source.tolist() == [0, -1, 0]


def test_malformed_arguments() -> None:
    head, z = make_problem(3, 2, "unbounded", rows=2, seed=0)
    with pytest.raises(ArgumentError, match="norm: got 'l1'; wanted one of 'l2', 'linf'"):
        fsb.guaranteed_balls(head, z, "l1")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match=r"shape \(2, 3\)"):
        fsb.guaranteed_balls(head, torch.zeros(2, 3))
    assert fsb.guaranteed_balls(head, z[:0]).radius.shape == (0,)
