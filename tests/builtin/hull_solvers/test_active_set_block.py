"""Parts of the default solver, compared with plain implementations."""

from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary.builtin.hull_solvers.active_set_block import Sample, _groups_ahead, _leftmost


@pytest.mark.parametrize("width", [1, 15, 256, 257, 300, 1000, 2048])
def test_the_best_of_all_are_among_the_groups_ahead(width: int) -> None:
    g = torch.Generator().manual_seed(width)
    scores = torch.randn(20, width, generator=g)
    scores[0], scores[1, ::3] = 0.0, -torch.inf
    columns = _groups_ahead(scores)
    for row, (found, own) in enumerate(zip(columns, scores, strict=True)):
        assert len(found.unique()) == len(found) <= width
        best = own.topk(min(16, width))
        # each group ahead holds a score that no group left behind exceeds
        assert torch.equal(own[found].topk(len(best.values)).values, best.values), row


def test_leftmost_keeps_the_order() -> None:
    table = torch.tensor([[5, 3, 9, 1], [7, 8, 2, 4]])
    mask = torch.tensor([[False, True, False, True], [True, True, True, True]])
    assert _leftmost(table, mask).tolist() == [[3, 1, 5, 9], [7, 8, 2, 4]]


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 40])
def test_the_first_directions_are_those_of_the_whole_covariance(count: int) -> None:
    d = 8
    g = torch.Generator().manual_seed(count)
    points = 3 + torch.randn(count, d, generator=g, dtype=torch.float64)
    queries = torch.randn(4, d, generator=g, dtype=torch.float64)
    bank = fsb.FeatureBank(points)
    sample = Sample(bank)
    middle = points.mean(dim=0)
    spread = (points - middle).T @ (points - middle) / count
    # 1 in place of the ridge of a single point, whose covariance is 0
    ridge = 0.01 * spread.diagonal().mean() if count > 1 else torch.tensor(1.0)
    inverse = torch.linalg.inv(spread + ridge * torch.eye(d))
    wanted = torch.nn.functional.normalize((queries - middle) @ inverse, dim=1)
    found = torch.nn.functional.normalize(sample.outward(queries), dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_few_points_in_many_dimensions_keep_no_table_of_the_dimensions() -> None:
    bank = fsb.FeatureBank(torch.rand(3, 500, generator=torch.Generator().manual_seed(0)))
    sample = Sample(bank)
    kept = [t.numel() for t in vars(sample).values() if isinstance(t, torch.Tensor)]
    assert max(kept) <= 3 * 500
