"""Label flips and balls of multi-label heads, against closed forms, cvxpy and all other sets."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import product
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, Domain, LabelFlips, MultiLabelHead, Status
from support.flips.label_checker import examine_labels
from support.flips.run_family import FAMILIES, draw

# the package's name of the module is that of its function
label_flips_module = importlib.import_module("fsboundary.boundaries.label_flips")

D, L, B = 4, 3, 12
DOMAINS: dict[str, Callable[[], Domain]] = {
    "unbounded": Domain.unbounded,
    "nonnegative": Domain.nonnegative,
    "box": lambda: Domain.box(torch.full((D,), -0.2), torch.full((D,), 1.1)),
}


def make_head(kind: str, seed: int = 0, labels: int = L) -> MultiLabelHead:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(labels, D, generator=generator, dtype=torch.float64)
    bias = torch.randn(labels, generator=generator, dtype=torch.float64) / 4
    return MultiLabelHead(weight, bias, DOMAINS[kind]())


def make_rows(seed: int = 1) -> Tensor:
    return torch.rand(B, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sets(labels: int) -> Tensor:
    return torch.tensor(list(product([False, True], repeat=labels)))


def by_cvxpy(
    head: MultiLabelHead, z: Tensor, *, label: int | None = None, wanted: Tensor | None = None
) -> float:
    """Return the distance by a conic solver, from the definition; inf where there is no point."""
    x = cp.Variable(D)
    values = head.weight.numpy() @ x + head.bias.numpy()
    low, high = (t.numpy() for t in head.domain.limits(z))
    limits = [x[m] >= low[m] for m in range(D) if np.isfinite(low[m])]
    limits += [x[m] <= high[m] for m in range(D) if np.isfinite(high[m])]
    if label is not None:
        limits.append(values[label] == 0)
    else:
        assert wanted is not None
        sign = np.where(wanted.numpy(), 1.0, -1.0)
        limits.append(cp.multiply(sign, values) >= 0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - z.numpy())), limits)
    problem.solve(solver=cp.CLARABEL)
    if problem.status == "infeasible":
        return float("inf")
    return float(np.linalg.norm(x.value - z.numpy()))


def recheck(head: MultiLabelHead, z: Tensor, flips: LabelFlips, wanted: Tensor | None) -> None:
    """Recompute bound and violation of every certified entry from its multipliers and points."""
    weight, bias = head.weight, head.bias
    for r, t in (flips.status == Status.CONVERGED).nonzero().tolist():
        used = flips.active[r, t] >= 0
        k, lam = flips.active[r, t][used], flips.multipliers[r, t][used]
        values = weight @ flips.points[r, t] + bias
        if wanted is None:
            assert k.tolist() in ([], [int(flips.label[r, t])])
            assert abs(values[flips.label[r, t]]) < 1e-8
        else:
            sign = torch.where(wanted[r], 1.0, -1.0)
            assert (lam * sign[k] >= 0).all()
            assert (values * sign >= -1e-8).all()
        p = head.domain.clip(z[r] + lam @ weight[k])
        g = 0.5 * (p - z[r]).square().sum() - lam @ (weight[k] @ p + bias[k])
        bound = float((2 * g.clamp_min(0)).sqrt())
        distance = float((flips.points[r, t] - z[r]).norm())
        assert bound == pytest.approx(float(flips.lower_bound[r, t]), rel=1e-6, abs=1e-9)
        assert distance == pytest.approx(float(flips.distance[r, t]), rel=1e-12)
        assert head.domain.violation(flips.points[r, t]) <= 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_closed_form_without_a_domain(seed: int) -> None:
    head, z = make_head("unbounded", seed), make_rows(seed) * 3
    expected = head.logits(z).abs() / head.weight.norm(dim=1)
    flips = fsb.label_flips(head, z, "all")
    assert flips.label.tolist() == [list(range(L))] * B
    torch.testing.assert_close(flips.distance, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(flips.predicted, head.logits(z) > 0)
    nearest = fsb.label_flips(head, z)
    torch.testing.assert_close(nearest.distance[:, 0], expected.amin(dim=1), rtol=1e-9, atol=1e-12)
    assert torch.equal(nearest.label[:, 0], expected.argmin(dim=1))
    radius = fsb.label_balls(head, z).radius
    torch.testing.assert_close(radius, expected.amin(dim=1), rtol=1e-9, atol=1e-12)
    linf = (head.logits(z).abs() / head.weight.abs().sum(dim=1)).amin(dim=1)
    torch.testing.assert_close(fsb.label_balls(head, z, "linf").radius, linf, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", DOMAINS)
def test_labels_by_cvxpy(kind: str) -> None:
    head, z = make_head(kind), make_rows()[:5]
    flips = fsb.label_flips(head, z, "all")
    assert flips.ok.all()
    for r, k in product(range(5), range(L)):
        expected = by_cvxpy(head, z[r], label=k)
        assert float(flips.distance[r, k]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    recheck(head, z, flips, None)


@pytest.mark.parametrize("kind", DOMAINS)
def test_sets_by_cvxpy(kind: str) -> None:
    head, z = make_head(kind, 3), make_rows()[:3]
    found: list[Status] = []
    for wanted in sets(L):
        flips = fsb.label_flips(head, z, wanted)
        for r in range(len(z)):
            code = Status(int(flips.status[r, 0]))
            found.append(code)
            expected = by_cvxpy(head, z[r], wanted=wanted)
            if torch.equal(wanted, flips.predicted[r]):
                assert code == Status.TARGET_IS_SOURCE
                assert expected < 1e-4
                assert flips.distance[r].isnan().all()
            else:
                assert code == (Status.INFEASIBLE if expected == float("inf") else Status.CONVERGED)
                assert float(flips.distance[r, 0]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        recheck(head, z, flips, wanted.expand(len(z), -1))
    assert {Status.CONVERGED, Status.TARGET_IS_SOURCE} <= set(found)


def test_a_set_that_no_point_has() -> None:
    # the second label needs a smaller first feature than the first label does
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    head = MultiLabelHead(weight, torch.tensor([-2.0, 1.0]))
    flips = fsb.label_flips(head, torch.zeros(1, 2), torch.tensor([True, True]))
    assert flips.status.tolist() == [[Status.INFEASIBLE]]
    assert flips.distance.tolist() == [[torch.inf]]
    assert (flips.lower_bound > 1e6).all()
    assert flips.points.isnan().all()


@pytest.mark.parametrize("kind", DOMAINS)
@pytest.mark.parametrize("seed", range(3))
def test_nearest_is_the_nearest_of_all_labels_and_of_all_other_sets(kind: str, seed: int) -> None:
    head, z = make_head(kind, seed), make_rows(seed)
    nearest, every = fsb.label_flips(head, z), fsb.label_flips(head, z, "all")
    others = torch.stack(
        [fsb.label_flips(head, z, wanted).distance[:, 0] for wanted in sets(L)], dim=1
    ).nan_to_num(nan=torch.inf, posinf=torch.inf)
    assert nearest.ok.all()
    smallest = every.distance.amin(dim=1)
    torch.testing.assert_close(nearest.distance[:, 0], smallest, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(nearest.distance[:, 0], others.amin(dim=1), rtol=1e-7, atol=1e-9)
    assert (nearest.lower_bound[:, 0] <= every.distance.amin(dim=1) * (1 + 1e-12)).all()
    radius = fsb.label_balls(head, z).radius
    torch.testing.assert_close(radius, nearest.distance[:, 0], rtol=1e-7, atol=1e-9)
    recheck(head, z, nearest, None)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("kind", DOMAINS)
def test_no_label_changes_inside_a_ball(kind: str, norm: str) -> None:
    head, z = make_head(kind, 5), make_rows(5)
    balls = fsb.label_balls(head, z, norm)  # type: ignore[arg-type]  # parametrised
    assert balls.ok.all()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        step = torch.randn(B, D, generator=generator, dtype=torch.float64)
        length = step.norm(dim=1) if norm == "l2" else step.abs().amax(dim=1)
        step *= (0.9999 * balls.radius.clamp_max(1e3) / length)[:, None]
        moved = head.domain.clip(z + step)
        assert torch.equal(head.predict(moved), head.predict(z))
    # and a little beyond the nearest flip, a label has changed
    flips = fsb.label_flips(head, z)
    limited = flips.status[:, 0] == Status.CONVERGED
    beyond = flips.points[:, 0] + 1e-6 * head.weight[flips.label[:, 0]] * torch.where(
        flips.predicted.gather(1, flips.label), -1.0, 1.0
    )
    changed = (head.predict(beyond) != flips.predicted).any(dim=1)
    assert changed[limited].all()


def test_a_label_that_never_changes() -> None:
    weight = torch.tensor([[0.0, 0.0], [-1.0, -1.0]])
    head = MultiLabelHead(weight, torch.tensor([1.0, -1.0]), Domain.nonnegative())
    z = torch.ones(2, 2)
    for targets in ("nearest", "all", torch.tensor([0, 1])):
        flips = fsb.label_flips(head, z, targets)  # type: ignore[arg-type]  # each kind
        assert (flips.status == Status.INFEASIBLE).all()
        assert (flips.distance == torch.inf).all()
        assert (flips.lower_bound == torch.inf).all()
    balls = fsb.label_balls(head, z)
    assert balls.status.tolist() == [Status.UNBOUNDED] * 2
    assert balls.label.tolist() == [-1, -1]
    assert torch.equal(balls.predicted, head.predict(z))


TARGETS: dict[str, Callable[[], object]] = {
    "nearest": lambda: "nearest",
    "all": lambda: "all",
    "label": lambda: torch.arange(B) % L,
    "labels": lambda: torch.stack([torch.arange(B) % L, torch.full((B,), -1)], dim=1),
    "set": lambda: torch.tensor([True, False, True]),
    "sets": lambda: torch.rand(B, L, generator=torch.Generator().manual_seed(2)) > 0.5,
}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", DOMAINS)
def test_a_batch_is_its_rows_and_arrays_are_tensors(kind: str, targets: str) -> None:
    head, z = make_head(kind, 7), make_rows(7)
    z[3], z[5] = torch.nan, -50.0
    chosen = TARGETS[targets]()
    whole = fsb.label_flips(head, z, chosen)  # type: ignore[arg-type]  # each kind
    assert whole.distance.shape == whole.label.shape == whole.status.shape
    for r in range(B):
        own = chosen
        if isinstance(chosen, Tensor) and targets != "set":
            own = chosen[r : r + 1]
        one = fsb.label_flips(head, z[r : r + 1], own)  # type: ignore[arg-type]  # each kind
        for name in ("distance", "lower_bound", "points", "status", "label", "predicted"):
            got, expected = getattr(one, name)[0], getattr(whole, name)[r]
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    as_array = chosen.numpy() if isinstance(chosen, Tensor) else chosen
    again = fsb.label_flips(head, z.numpy(), as_array)  # type: ignore[arg-type]  # each kind
    for name, value in whole.to_dict().items():
        assert torch.equal(getattr(again, name).nan_to_num(7.0), value.nan_to_num(7.0)), name
    bad = Status.CONVERGED if kind == "unbounded" else Status.OUTSIDE_DOMAIN
    assert (whole.status[3] == Status.NOT_FINITE).all()
    assert not whole.predicted[3].any()
    assert whole.points[3].isnan().all()
    if targets in ("nearest", "all"):
        assert (whole.status[5] == bad).all()
    if targets == "labels":
        assert whole.status[0, 1] == Status.UNDECIDED


@pytest.mark.parametrize("kind", DOMAINS)
def test_order_and_signs_of_labels_and_the_unit_of_logits(kind: str) -> None:
    head, z = make_head(kind, 11), make_rows(11)
    order, sign = torch.tensor([2, 0, 1]), torch.tensor([1.0, -1.0, 1.0])
    scale = sign * torch.tensor([1.0, 8.0, 0.25])
    other = MultiLabelHead(
        (head.weight * scale[:, None])[order], (head.bias * scale)[order], head.domain
    )
    first, second = fsb.label_flips(head, z), fsb.label_flips(other, z)
    torch.testing.assert_close(second.distance, first.distance, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(second.points, first.points, rtol=1e-6, atol=1e-6)
    assert torch.equal(order[second.label], first.label)
    wanted = ~fsb.label_flips(head, z).predicted
    theirs = (wanted ^ (sign < 0))[:, order]
    a, b = fsb.label_flips(head, z, wanted), fsb.label_flips(other, z, theirs)
    torch.testing.assert_close(b.distance, a.distance, rtol=1e-7, atol=1e-9)


def test_one_label_is_a_two_class_head() -> None:
    head, z = make_head("nonnegative", labels=1), make_rows()
    two = head.label_head(0)
    assert torch.equal(two.predict(z).bool(), head.predict(z)[:, 0])
    flips, points = fsb.label_flips(head, z), fsb.flip_points(two, z)
    torch.testing.assert_close(flips.distance, points.distance, rtol=1e-9, atol=1e-12)
    assert torch.equal(flips.status, points.status)


def test_no_rows() -> None:
    head, z = make_head("box"), make_rows()[:0]
    for targets in ("nearest", "all", torch.tensor([True, False, True])):
        flips = fsb.label_flips(head, z, targets)  # type: ignore[arg-type]  # each kind
        assert flips.points.shape == (0, L if targets == "all" else 1, D)
    assert fsb.label_balls(head, z).radius.shape == (0,)


def test_rows_on_a_boundary_have_distance_0() -> None:
    head = MultiLabelHead(torch.eye(2), None)
    z = torch.tensor([[0.0, 5.0]])
    assert head.predict(z).tolist() == [[False, True]]
    flips = fsb.label_flips(head, z)
    assert flips.distance.tolist() == [[0.0]]
    assert flips.label.tolist() == [[0]]
    assert fsb.label_flips(head, z, torch.tensor([True, True])).distance.tolist() == [[0.0]]
    assert fsb.label_balls(head, z).radius.tolist() == [0.0]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("nearst", "targets: got 'nearst'"),
        (torch.zeros(B, dtype=torch.int64) + L, "labels 3 to 3|labels from 3 to 3"),
        (torch.zeros(B), "dtype torch.float32"),
        (torch.ones(B, L, dtype=torch.int64), "a bool tensor for a set"),
        (torch.ones(L + 1, dtype=torch.bool), "one truth value per label"),
        (torch.zeros(B, 2, 2, dtype=torch.int64), r"shape \(12, 2, 2\)"),
    ],
)
def test_malformed_targets(targets: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        fsb.label_flips(make_head("unbounded"), make_rows(), targets)  # type: ignore[arg-type]  # that


def test_heads_of_the_other_kind() -> None:
    head, z = make_head("unbounded"), make_rows()
    with pytest.raises(ArgumentError, match=r"call fsboundary\.flip_points"):
        fsb.label_flips(head.label_head(0), z)  # type: ignore[arg-type]  # that
    with pytest.raises(ArgumentError, match=r"call fsboundary\.guaranteed_balls"):
        fsb.label_balls(head.label_head(0), z)  # type: ignore[arg-type]  # that
    with pytest.raises(ArgumentError, match="one of 'l2', 'linf'"):
        fsb.label_balls(head, z, "l3")  # type: ignore[arg-type]  # that


@pytest.mark.parametrize("name", FAMILIES)
def test_no_certificate_of_labels_is_false(name: str) -> None:
    for seed in range(2):
        # the script tests/benchmarks/hunt_flips.py --labels continues from here
        counts, faults = examine_labels(draw(name, seed), seed)
        assert not faults, (seed, faults)
        assert counts["CONVERGED"] + counts["INFEASIBLE"] + counts["INACCURATE"] > 0


def test_the_choice_of_the_nearest_label_is_certified_too(monkeypatch: pytest.MonkeyPatch) -> None:
    head, z = make_head("nonnegative", 4), make_rows(4)
    right = fsb.label_flips(head, z)
    solve = label_flips_module._solve_label

    def fail_label_0(head: MultiLabelHead, k: int, *args: Any) -> dict[str, Tensor]:
        found = solve(head, k, *args)
        if k == 0:  # as if no step were left
            found["status"] = torch.full_like(found["status"], int(Status.MAX_STEPS))
            found["lower_bound"] = torch.zeros_like(found["lower_bound"])
            for name in ("points", "distance", "gap", "violation"):
                found[name] = torch.full_like(found[name], torch.nan)
        return found

    def no_bounds(head: MultiLabelHead, z: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(z[:, :L]), torch.zeros_like(z[:, :L])

    monkeypatch.setattr(label_flips_module, "_solve_label", fail_label_0)
    monkeypatch.setattr(label_flips_module, "_closed_form_bounds", no_bounds)
    flips = fsb.label_flips(head, z)
    assert (flips.status == Status.MAX_STEPS).all()
    assert flips.distance.isnan().all()
    assert flips.points.isnan().all()
    assert (flips.lower_bound <= right.distance).all()
