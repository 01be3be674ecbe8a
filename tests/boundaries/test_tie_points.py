from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fsboundary as fsb
from fsboundary import Status
from support.flips.oracles import constraints, make_domain, make_problem, tie_distance

KINDS = ["unbounded", "nonnegative", "box"]


def random_classes(k: int, size: int, rows: int, seed: int) -> torch.Tensor:
    """Return `rows` random sets of `size` classes."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(rows, k, generator=g).argsort(dim=1)[:, :size]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(3, 2), (3, 8), (5, 2), (5, 8), (5, 64), (10, 2), (10, 64)])
def test_agrees_with_clarabel(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=3, seed=k + d)
    for size in {1, 2, 3, k}:
        classes = random_classes(k, size, 3, seed=size)
        ties = fsb.tie_points(head, z, classes)
        assert ties.ok.all()
        for row in range(3):
            want = tie_distance(head, z[row].numpy(), classes[row].tolist())
            # Clarabel's own tolerance
            assert float(ties.distance[row]) == pytest.approx(want, rel=1e-5, abs=1e-5)
            assert bool(ties.status[row] == Status.INFEASIBLE) == (want == float("inf"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_one_of_them_the_own_give_the_flip_point(kind: str) -> None:
    head, z = make_problem(8, 6, kind, rows=40, seed=2)
    flips = fsb.flip_points(head, z, "all")
    for column in range(7):
        pair = torch.stack([flips.source, flips.target[:, column]], dim=1)
        ties = fsb.tie_points(head, z, pair)
        assert torch.equal(ties.status, flips.status[:, column])
        torch.testing.assert_close(ties.distance, flips.distance[:, column], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            ties.points, flips.points[:, column], rtol=1e-7, atol=1e-8, equal_nan=True
        )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_without_a_domain_and_slacks_it_is_least_squares(size: int) -> None:
    head, z = make_problem(5, 9, "unbounded", rows=60, seed=size)
    classes = random_classes(5, size, 60, seed=0)
    ties = fsb.tie_points(head, z, classes)
    met = 0
    for row in range(60):
        a, c, rows, offsets = constraints(head, classes[row].tolist())
        step = np.linalg.lstsq(a, -(c + a @ z[row].numpy()), rcond=None)[0]
        x = z[row].numpy() + step
        exact = float(np.linalg.norm(step))
        if (rows @ x + offsets >= 0).all():
            met += 1
            assert float(ties.distance[row]) == pytest.approx(exact, rel=1e-9)
            np.testing.assert_allclose(ties.points[row].numpy(), x, rtol=1e-8, atol=1e-9)
        else:
            assert float(ties.distance[row]) > exact
    assert met >= 5


def test_one_class_is_the_projection_on_its_region() -> None:
    head, z = make_problem(6, 7, "nonnegative", rows=50, seed=3)
    source = head.predict(z)
    own = fsb.tie_points(head, z, source[:, None])
    assert (own.status == Status.CONVERGED).all()
    assert (own.distance == 0).all()
    assert torch.equal(own.points, z)
    other = fsb.tie_points(head, z, ((source + 1) % 6)[:, None])
    done = other.status == Status.CONVERGED
    assert done.any()
    lead = head.margins(other.points[done]).gather(1, other.classes[done])
    assert (lead <= 1e-8).all()


def test_all_classes_tie_where_all_logits_agree() -> None:
    head, z = make_problem(5, 12, "unbounded", rows=10, seed=4)
    ties = fsb.tie_points(head, z, torch.arange(5))
    logits = ties.points @ head.weight.T + head.bias
    torch.testing.assert_close(logits, logits[:, :1].expand(-1, 5), rtol=1e-9, atol=1e-9)
    # in the plane four lines do not meet
    head, z = make_problem(5, 2, "unbounded", rows=10, seed=4)
    ties = fsb.tie_points(head, z, torch.arange(5))
    assert (ties.status == Status.INFEASIBLE).all()
    assert torch.isinf(ties.distance).all()
    assert torch.isnan(ties.points).all()


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_loop(kind: str) -> None:
    head, z = make_problem(7, 5, kind, rows=30, seed=3)
    classes = random_classes(7, 4, 30, seed=1)
    ragged = torch.where(torch.arange(4) < torch.randint(1, 5, (30, 1)), classes, -1)
    together = fsb.tie_points(head, z, ragged)
    for row in range(30):
        alone = fsb.tie_points(head, z[row : row + 1], ragged[row][ragged[row] >= 0])
        assert torch.equal(alone.status, together.status[row : row + 1])
        torch.testing.assert_close(
            alone.distance, together.distance[row : row + 1], rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(
            alone.points, together.points[row : row + 1], rtol=1e-7, atol=1e-8, equal_nan=True
        )


def test_the_order_of_classes_and_padding_does_not_matter() -> None:
    head, z = make_problem(7, 9, "nonnegative", rows=20, seed=5)
    want = fsb.tie_points(head, z, torch.tensor([4, 0, 2]))
    for classes in ([0, 2, 4], [2, -1, 4, 0], [-1, -1, 0, 4, 2]):
        got = fsb.tie_points(head, z, torch.tensor(classes))
        assert torch.equal(got.anchor, want.anchor)
        assert torch.equal(got.distance, want.distance)


def test_translation_and_rotation_leave_distances_alone() -> None:
    head, z = make_problem(6, 9, "unbounded", rows=30, seed=4)
    classes = random_classes(6, 3, 30, seed=2)
    want = fsb.tie_points(head, z, classes).distance
    g = torch.Generator().manual_seed(0)
    shift = torch.randn(9, generator=g, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=g, dtype=torch.float64))
    moved = fsb.LinearHead(head.weight, head.bias - head.weight @ shift)
    turned = fsb.LinearHead(head.weight @ turn, head.bias)
    for other, rows in ((moved, z + shift), (turned, z @ turn)):
        got = fsb.tie_points(other, rows, classes).distance
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
@pytest.mark.parametrize("kind", ["unbounded", "nonnegative"])
def test_scale(scale: float, kind: str) -> None:
    head, z = make_problem(6, 9, kind, rows=30, seed=5)
    classes = random_classes(6, 3, 30, seed=3)
    want = fsb.tie_points(head, z, classes)
    features = fsb.LinearHead(head.weight, head.bias * scale, head.domain)
    logits = fsb.LinearHead(head.weight * scale, head.bias * scale, head.domain)
    for other, factor in ((features, scale), (logits, 1.0)):
        got = fsb.tie_points(other, z * factor, classes)
        assert torch.equal(got.status, want.status)
        torch.testing.assert_close(got.distance, want.distance * factor, rtol=1e-7, atol=0.0)


def test_permuting_classes_and_features_permutes_the_answer() -> None:
    head, z = make_problem(6, 9, "nonnegative", rows=30, seed=6)
    want = fsb.tie_points(head, z, torch.tensor([0, 3, 5]))
    classes = torch.tensor([3, 1, 5, 0, 2, 4])
    columns = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    other = fsb.LinearHead(head.weight[classes][:, columns], head.bias[classes], head.domain)
    got = fsb.tie_points(other, z[:, columns], torch.tensor([3, 0, 2]))
    assert torch.equal(got.status, want.status)
    torch.testing.assert_close(got.distance, want.distance, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        got.points, want.points[:, columns], rtol=1e-8, atol=1e-9, equal_nan=True
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_keep_valid_bounds(steps: int) -> None:
    head, z = make_problem(10, 16, "nonnegative", rows=60, seed=9)
    exact = fsb.tie_points(head, z, torch.arange(4))
    hurried = fsb.tie_points(head, z, torch.arange(4), max_steps=steps)
    assert (hurried.lower_bound <= exact.distance * (1 + 1e-12)).all()
    unfinished = hurried.status == Status.MAX_STEPS
    assert unfinished.any()
    assert torch.isnan(hurried.distance[unfinished]).all()


@settings(max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(2, 6),
    d=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    spread=st.sampled_from([0.0, 2.0**-30, 1.0]),
)
def test_no_point_of_the_tie_is_nearer_than_the_bound(
    seed: int, k: int, d: int, kind: str, spread: float
) -> None:
    # small numbers, multiples of 2**-30: classes 0..m-1 tie at x without any rounding
    g = np.random.default_rng(seed)
    domain = make_domain(kind, d)
    weight = g.integers(-2, 3, d) + spread * g.integers(-2, 3, (k, d))
    size = int(g.integers(1, k + 1))
    x = domain.clip(torch.from_numpy(0.5 * g.integers(-2, 5, (1, d)))).numpy()[0]
    bias = 0.5 * g.integers(-4, 5) - weight @ x
    bias[size:] -= 0.5 * spread * g.integers(0, 3, k - size)
    tied = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), domain)
    z = domain.clip(torch.from_numpy(2 * g.standard_normal((20, d))))
    ties = fsb.tie_points(tied, z, torch.arange(size))
    true = np.linalg.norm(z.numpy() - x, axis=1)
    assert (ties.lower_bound.numpy() <= true * (1 + 1e-15)).all()
    done = ties.status == Status.CONVERGED
    assert (ties.lower_bound[done] <= ties.distance[done]).all()
    assert (ties.gap[done] >= 0).all()
