"""Attempts to obtain a false certificate, or a worse result, from the cached passes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary.builtin.hull_solvers import active_set
from fsboundary.builtin.hull_solvers.min_norm_point import min_norm_weights, simplex_weights
from fsboundary.geometry.hulls.pricing import price_exact
from support.hulls.oracles import cloud
from support.hulls.sly import Sly


@pytest.mark.parametrize("sly", [Sly(True, 0.0), Sly(True, 1e-7), Sly(False, 1e-7)])
def test_a_pass_stands_in_for_no_other_than_itself(sly: Sly) -> None:
    points, queries = cloud(30, 4, 1), 3 * cloud(200, 4, 2)
    bank = fsb.FeatureBank(points)
    # a loose tolerance, so that a pass nearly in the row's direction can stand in for it
    found = fsb.hull_projection(bank, queries, solver=sly, tolerance=0.5)
    exact = fsb.hull_projection(bank, queries)
    assert exact.ok.all()
    assert (found.lower_bound <= exact.distance).all()
    beyond = (queries - points[0]) @ points.T - found.offset[:, None] * torch.linalg.vector_norm(
        queries - points[0], dim=1, keepdim=True
    )
    assert (beyond[found.membership == -1] <= 1e-9).all()


def test_more_points_than_dimensions_are_solved_to_the_end() -> None:
    # exchanges of dependent points cycled and left a wrong projection
    shifted = cloud(400 * 8, 3, 3).reshape(400, 8, 3) + 2 * cloud(400, 3, 4)[:, None]
    every = torch.ones(400, 8, dtype=torch.bool)
    weights = min_norm_weights(shifted, every, every)
    assert torch.allclose(weights.sum(dim=1), torch.ones(400).double())
    norms = torch.linalg.vector_norm((weights[:, None] @ shifted)[:, 0], dim=1)
    for row in range(400):
        y = shifted[row].numpy()
        want = np.linalg.norm(simplex_weights(y, np.zeros(3)) @ y)
        assert float(norms[row]) == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_threads_of_torch_are_left_as_they_were() -> None:
    def torch_threads() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fsb.hull_projection(fsb.FeatureBank(cloud(50, 3, 1)), cloud(5, 3, 2))
        assert (torch.get_num_threads(), torch_threads()) == (2, 2)
    finally:
        torch.set_num_threads(before)


def test_a_thread_born_during_a_projection_has_all_threads_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def threads_of_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    born, set_threads, changes = [], torch.set_num_threads, []

    def watched(*args: Any, **options: Any) -> Any:
        born.append(threads_of_a_new_thread())
        return price_exact(*args, **options)

    def record(count: int) -> None:
        changes.append(count)
        set_threads(count)

    bank, rows = fsb.FeatureBank(cloud(50, 3, 1)), 2 * cloud(5, 3, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(active_set, "price_exact", watched)
        fsb.hull_projection(bank, rows)
        monkeypatch.setattr(torch, "set_num_threads", record)
        fsb.hull_projection(bank, rows)
    finally:
        set_threads(before)
    assert len(born) >= 2
    assert set(born) == {2}
    assert changes == []  # the solver's own threads are started once


def test_projections_in_many_threads_at_once_agree() -> None:
    bank, rows = fsb.FeatureBank(cloud(300, 4, 1)), 2 * cloud(40, 4, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        exact = fsb.hull_projection(bank, rows)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: fsb.hull_projection(bank, rows), range(8)))
            assert set(pool.map(lambda _: torch.get_num_threads(), range(4))) == {2}
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one.membership, exact.membership) for one in found)
    assert all(torch.allclose(one.distance, exact.distance, rtol=1e-9) for one in found)
