"""Attempts to obtain a false certificate, or a worse result, from the cached passes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary.builtin.hull_solvers.min_norm_point import min_norm_weights, simplex_weights
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
