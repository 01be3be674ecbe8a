"""Use of the plugin: second opinions, by name, from any installed solver."""

from __future__ import annotations

import pytest
import qpsolvers
import torch
from fsboundary_qpsolvers.finder import QpFinder
from fsboundary_qpsolvers.hull import QpHull

import fsboundary as fsb
from fsboundary import plugins

KNOWN = {"clarabel", "highs", "osqp", "proxqp", "scs"} & set(qpsolvers.available_solvers)


@pytest.mark.parametrize("solver", sorted(KNOWN))
def test_every_solver_gives_the_same_results(solver: str) -> None:
    draw = torch.Generator().manual_seed(0)
    bank = fsb.FeatureBank(torch.randn(40, 6, generator=draw))
    queries = 3 * torch.randn(4, 6, generator=draw)
    head = fsb.LinearHead(torch.randn(5, 6, generator=draw), torch.randn(5, generator=draw))
    # first-order methods give few digits, so the certificate is loose as well
    loose = 1e-3 if solver in ("osqp", "scs", "highs") else None
    hulls = fsb.hull_projection(bank, queries, solver=QpHull(solver, 1e-9), tolerance=loose)
    assert hulls.ok.all()
    exact = fsb.hull_projection(bank, queries)
    torch.testing.assert_close(hulls.distance, exact.distance, rtol=loose or 1e-6, atol=1e-9)
    flips = fsb.flip_points(
        head, queries, finder=QpFinder(solver), tolerance=loose, max_steps=10**5
    )
    assert flips.ok.all()
    nearest = fsb.flip_points(head, queries).distance
    torch.testing.assert_close(flips.distance, nearest, rtol=loose or 1e-6, atol=1e-9)


def test_by_name_with_options() -> None:
    solver = plugins.create("hull_solver", "qpsolvers", options={"solver": "clarabel"})
    assert plugins.identify(solver)[1] == "fsboundary-qpsolvers"
    assert repr(solver) == "QpHull(solver='clarabel', accuracy=1e-11)"
    finder = plugins.create("boundary_finder", "qpsolvers")
    assert isinstance(finder, QpFinder)


def test_absent_solver_is_reported() -> None:
    with pytest.raises(fsb.ArgumentError, match=r"got 'no_such'; wanted one of .*clarabel"):
        QpHull("no_such")
