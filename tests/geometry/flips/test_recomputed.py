"""Points and gradients that are computed when they are read: the same answers, in less memory."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys

import pytest
import torch

import fsboundary as fsb
from fsboundary.builtin.boundary_finders import dual_newton
from fsboundary.core.results.deferred import Deferred, stored
from support.flips.run_family import FAMILIES, draw, examine_flips

REGIONS = importlib.import_module("fsboundary.boundaries.region_distances")
"""The module, which a function of its package hides."""


def always(count: int, width: int) -> bool:
    """Return that points are computed when they are read, however few there are."""
    return True


@pytest.fixture
def defer_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no point be kept, however few there are."""
    monkeypatch.setattr(dual_newton, "defers", always)
    monkeypatch.setattr(REGIONS, "defers", always)


def problem(classes: int = 30, d: int = 12, rows: int = 6) -> tuple[fsb.LinearHead, torch.Tensor]:
    """Return a nonnegative head and features, of which one is NaN and one outside the domain."""
    g = torch.Generator().manual_seed(classes)
    head = fsb.LinearHead(
        torch.randn(classes, d, generator=g),
        torch.randn(classes, generator=g) / 10,
        fsb.Domain.nonnegative(),
    )
    z = torch.randn(rows, d, generator=g).abs() * (torch.rand(rows, d, generator=g) > 0.3)
    z[1], z[3, 0] = torch.nan, -1.0
    return head, z


def numbers(result: fsb.FlipPoints) -> dict[str, torch.Tensor]:
    return {name: value.nan_to_num(-7.0) for name, value in result.to_dict().items()}


@pytest.mark.usefixtures("defer_all")
@pytest.mark.parametrize("name", FAMILIES)
def test_no_certificate_of_a_recomputed_point_is_false(name: str) -> None:
    """The checker reads the points, which are then computed a second time."""
    for seed in range(2):
        _, faults = examine_flips(draw(name, seed))
        assert not faults, (seed, faults)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_less_is_decided_than_with_the_points_of_the_finder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points that the finder moved are kept; sums by term decide some that products leave open."""
    for seed in range(2):
        kept, _ = examine_flips(draw(name, seed))
        monkeypatch.setattr(dual_newton, "defers", always)
        recomputed, _ = examine_flips(draw(name, seed))
        monkeypatch.undo()
        for status in ("CONVERGED", "INFEASIBLE"):
            assert recomputed[status] >= kept[status], (seed, status)


def test_points_are_those_of_a_result_that_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the rounding of a sum; the distance is that of the points themselves."""
    head, z = problem()
    targets = torch.arange(30).repeat(len(z), 1)  # the source and NaN rows too
    for wanted in ("nearest", "all", targets):
        kept = fsb.flip_points(head, z, wanted)
        monkeypatch.setattr(dual_newton, "defers", always)
        found = fsb.flip_points(head, z, wanted)
        monkeypatch.undo()
        assert isinstance(stored(found, "points"), Deferred)
        assert torch.equal(found.status, kept.status)
        assert found.points.shape == kept.points.shape
        assert torch.allclose(found.points, kept.points, rtol=1e-12, atol=1e-12, equal_nan=True)
        far = torch.linalg.vector_norm(found.points - z.double()[:, None], dim=2)
        done = found.status == fsb.Status.CONVERGED
        assert found.distance[done] == pytest.approx(far[done], rel=1e-14)
        assert found.points[~done].isnan().all()


@pytest.mark.usefixtures("defer_all")
def test_rows_that_are_taken_have_the_same_bits() -> None:
    """However the rows are chosen, batched or copied."""
    head, z = problem()
    found = fsb.flip_points(head, z, "all")
    for index in ([4, 0], slice(2, 5), torch.tensor([5]), found.ok.all(dim=1)):
        part = fsb.flip_points(head, z, "all").take(index)
        assert isinstance(stored(part, "points"), Deferred)
        assert torch.equal(part.points.nan_to_num(-7.0), found.points[index].nan_to_num(-7.0))
    again = fsb.flip_points(head, z, "all")
    for other in (copy.copy(again), pickle.loads(pickle.dumps(again)), again.to("cpu")):
        for name, value in numbers(other).items():
            assert torch.equal(value, numbers(found)[name]), name


@pytest.mark.usefixtures("defer_all")
def test_statuses_are_read_without_the_points() -> None:
    """Neither ``ok`` nor the error of a failed row computes them."""
    head, z = problem()
    found = fsb.flip_points(head, z, "all")
    assert not found.ok.all()
    with pytest.raises(fsb.StatusError):
        found.raise_for_status()
    assert isinstance(stored(found, "points"), Deferred)
    assert found.points is found.points


@pytest.mark.usefixtures("defer_all")
def test_writing_to_rows_or_fields_changes_no_point() -> None:
    """Before they are read: a result owns its numbers."""
    head, z = problem()
    z = z.double()
    flips, regions = fsb.flip_points(head, z, "all"), fsb.region_distances(head, z)
    wanted = fsb.flip_points(head, z, "all").points, fsb.region_distances(head, z).gradient
    z += 1.0
    for result in (flips, regions):
        for name in ("distance", "status", "active", "multipliers", "source", "target"):
            if hasattr(result, name):
                getattr(result, name).zero_()
    for found, value in zip((flips.points, regions.gradient), wanted, strict=True):
        assert torch.equal(found.nan_to_num(-7.0), value.nan_to_num(-7.0))


@pytest.mark.parametrize("targets", ["all", "own", "some"])
def test_gradients_are_those_of_a_result_that_keeps_them(
    targets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all regions, a row's own and chosen ones with none among them."""
    head, z = problem()
    some = torch.tensor([[0, 3, -1]]).repeat(len(z), 1)
    some[0, 0] = int(head.predict(z[:1].double())[0])
    wanted = some if targets == "some" else targets
    kept = fsb.region_distances(head, z, wanted)
    monkeypatch.setattr(REGIONS, "defers", always)
    found = fsb.region_distances(head, z, wanted)
    assert isinstance(stored(found, "gradient"), Deferred)
    part = found.take([2, 0]).gradient.nan_to_num(-7.0)
    assert torch.equal(part, found.gradient[[2, 0]].nan_to_num(-7.0))
    for name, value in kept.to_dict().items():
        # a point and its recomputation differ by the rounding of a sum
        assert torch.allclose(getattr(found, name), value, rtol=1e-9, atol=1e-12, equal_nan=True)


MEASURE = """
import resource, sys, torch
import fsboundary as fsb
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
d = 1280
head = fsb.LinearHead(torch.randn(1000, d, generator=g) / d**0.5, None, fsb.Domain.unbounded())
z = torch.randn(10, d, generator=g)
call = getattr(fsb, sys.argv[1])
call(head, z[:1], "all")  # imports, and the norms of all pairs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
call(head, z, "all")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.parametrize("call", ["flip_points", "region_distances"])
def test_memory_at_a_thousand_classes_is_not_that_of_the_points(call: str) -> None:
    """The points of 10 rows are 98 MiB; kept, they took more than twice as much.

    The limit is far above what the multipliers need: peaks between 27 and 104 MiB were measured,
    and what makes the difference is not known. It only excludes that all points are kept.
    """
    command = [sys.executable, "-c", MEASURE, call]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150
