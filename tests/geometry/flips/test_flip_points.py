from __future__ import annotations

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary import Status
from support.flips.oracles import flip_distance, make_problem

KINDS = ["unbounded", "nonnegative", "box"]
SIZES = [
    (2, 2),
    (2, 64),
    (3, 2),
    (3, 8),
    (10, 2),
    (10, 8),
    (10, 64),
    (10, 512),
    (100, 8),
    (100, 64),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [*SIZES, (2, 512), (100, 2), (100, 512)])
def test_agrees_with_clarabel(k: int, d: int, kind: str) -> None:
    head, z = make_problem(k, d, kind, rows=2 if k * d > 5000 else 4, seed=k + d)
    source = head.predict(z)
    targets = torch.stack([(source + 1) % k, (source + k - 1) % k], dim=1)
    flips = fsb.flip_points(head, z, targets)
    assert flips.ok.all()
    for row in range(len(z)):
        for column in range(2):
            i, j = int(source[row]), int(targets[row, column])
            want = flip_distance(head, z[row].numpy(), i, j)
            got = float(flips.distance[row, column])
            # Clarabel's own tolerance is 1e-8 of the objective
            assert got == pytest.approx(want, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize(("k", "d"), SIZES)
def test_nearest_on_an_unbounded_domain_is_the_closed_form(k: int, d: int) -> None:
    head, z = make_problem(k, d, "unbounded", rows=50, seed=1)
    flips = fsb.flip_points(head, z)
    logits = z @ head.weight.T + head.bias
    source = logits.argmax(dim=1)
    norms = (head.weight[source][:, None] - head.weight).norm(dim=2)
    ratio = (logits.amax(dim=1, keepdim=True) - logits) / norms
    ratio[torch.arange(50), source] = torch.inf
    assert (flips.status == Status.CONVERGED).all()
    torch.testing.assert_close(flips.distance[:, 0], ratio.amin(dim=1), rtol=1e-9, atol=1e-12)
    assert torch.equal(flips.target[:, 0], ratio.argmin(dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_smallest_of_all(kind: str) -> None:
    head, z = make_problem(10, 16, kind, rows=200, seed=2)
    nearest, every = fsb.flip_points(head, z), fsb.flip_points(head, z, "all")
    assert nearest.ok.all()
    assert every.ok.all()
    torch.testing.assert_close(nearest.distance[:, 0], every.distance.amin(dim=1))
    first = every.distance.argmin(dim=1, keepdim=True)
    assert torch.equal(nearest.target, every.target.gather(1, first))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_loop(kind: str) -> None:
    head, z = make_problem(7, 5, kind, rows=40, seed=3)
    together = fsb.flip_points(head, z, "all")
    for row in range(len(z)):
        alone = fsb.flip_points(head, z[row : row + 1], "all")
        assert torch.equal(alone.status, together.status[row : row + 1])
        torch.testing.assert_close(
            alone.distance, together.distance[row : row + 1], rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(
            alone.points, together.points[row : row + 1], rtol=1e-7, atol=1e-8, equal_nan=True
        )


def test_translation_and_rotation_leave_distances_alone() -> None:
    head, z = make_problem(6, 9, "unbounded", rows=30, seed=4)
    want = fsb.flip_points(head, z, "all").distance
    g = torch.Generator().manual_seed(0)
    shift = torch.randn(9, generator=g, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=g, dtype=torch.float64))
    moved = fsb.LinearHead(head.weight, head.bias - head.weight @ shift)
    turned = fsb.LinearHead(head.weight @ turn, head.bias)
    for other, rows in ((moved, z + shift), (turned, z @ turn)):
        got = fsb.flip_points(other, rows, "all").distance
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("kind", ["unbounded", "nonnegative"])
def test_scale(scale: float, kind: str) -> None:
    head, z = make_problem(6, 9, kind, rows=30, seed=5)
    want = fsb.flip_points(head, z, "all")
    features = fsb.LinearHead(head.weight, head.bias * scale, head.domain)
    logits = fsb.LinearHead(head.weight * scale, head.bias * scale, head.domain)
    for other, factor in ((features, scale), (logits, 1.0)):
        got = fsb.flip_points(other, z * factor, "all")
        assert torch.equal(got.status, want.status)
        torch.testing.assert_close(got.distance, want.distance * factor, rtol=1e-7, atol=0.0)


def test_permuting_classes_and_features_permutes_the_answer() -> None:
    head, z = make_problem(6, 9, "nonnegative", rows=30, seed=6)
    want = fsb.flip_points(head, z)
    classes = torch.tensor([3, 1, 5, 0, 2, 4])
    columns = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    other = fsb.LinearHead(head.weight[classes][:, columns], head.bias[classes], head.domain)
    got = fsb.flip_points(other, z[:, columns])
    torch.testing.assert_close(got.distance, want.distance, rtol=1e-9, atol=1e-12)
    assert torch.equal(classes[got.target], want.target)
    torch.testing.assert_close(got.points, want.points[..., columns], rtol=1e-8, atol=1e-9)


def test_the_reference_finder_agrees() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=8, seed=7)
    fast = fsb.flip_points(head, z, "all", tolerance=1e-6)
    slow = fsb.flip_points(head, z, "all", finder="cvxpy", tolerance=1e-6)
    finite = torch.isfinite(fast.distance)
    assert (slow.status[finite] == Status.CONVERGED).all()
    torch.testing.assert_close(slow.distance[finite], fast.distance[finite], rtol=1e-6, atol=1e-8)


def test_the_closed_form_finder_is_exact_without_a_domain_and_graded_with_one() -> None:
    head, z = make_problem(5, 6, "unbounded", rows=20, seed=8)
    assert (fsb.flip_points(head, z, finder="closed_form").status == 0).all()
    head, z = make_problem(5, 6, "nonnegative", rows=20, seed=8)
    exact = fsb.flip_points(head, z, "all")
    rough = fsb.flip_points(head, z, "all", finder="closed_form")
    wrong = rough.status == Status.INACCURATE
    assert wrong.any()
    assert torch.isnan(rough.distance[wrong]).all()
    assert torch.isnan(rough.points[wrong]).all()
    assert (rough.lower_bound <= exact.distance + 1e-12).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_keep_valid_bounds(steps: int) -> None:
    head, z = make_problem(10, 16, "nonnegative", rows=60, seed=9)
    exact = fsb.flip_points(head, z, "all")
    hurried = fsb.flip_points(head, z, "all", max_steps=steps)
    assert (hurried.lower_bound <= exact.distance * (1 + 1e-12)).all()
    unfinished = hurried.status == Status.MAX_STEPS
    if steps == 1:
        assert unfinished.any()
    assert torch.isnan(hurried.distance[unfinished]).all()


def test_points_can_be_rechecked_by_hand() -> None:
    head, z = make_problem(10, 16, "nonnegative", rows=20, seed=10)
    flips = fsb.flip_points(head, z, "all")
    logits = flips.points @ head.weight.T + head.bias
    i = flips.source[:, None, None].expand(-1, 9, 1)
    at_source = logits.gather(2, i)[..., 0]
    at_target = logits.gather(2, flips.target[..., None])[..., 0]
    torch.testing.assert_close(at_source, at_target, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits.amax(dim=2), at_target, rtol=1e-9, atol=1e-9)
    assert (flips.points >= 0).all()
    moved = flips.points - z[:, None]
    torch.testing.assert_close(moved.norm(dim=2), flips.distance, rtol=1e-12, atol=0.0)
    assert (flips.gap >= 0).all()


def test_memory_is_streamed_for_many_classes() -> None:
    head, z = make_problem(300, 20, "nonnegative", rows=3, seed=11)
    flips = fsb.flip_points(head, z)
    brute = min(
        flip_distance(head, z[0].numpy(), int(flips.source[0]), j)
        for j in range(300)
        if j != int(flips.source[0])
    )
    assert float(flips.distance[0, 0]) == pytest.approx(brute, rel=1e-6)


def test_float32_features_are_solved_exactly() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=20, seed=12)
    narrow = z.float()
    flips = fsb.flip_points(head, narrow)
    assert flips.points.dtype == torch.float64
    want = fsb.flip_points(head, narrow.double())
    assert torch.equal(flips.distance, want.distance)
    assert np.isfinite(flips.gap.numpy()).all()
