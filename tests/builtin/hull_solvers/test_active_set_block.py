"""Parts of the default solver, compared with plain implementations."""

from __future__ import annotations

import pytest
import torch

from fsboundary.builtin.hull_solvers.active_set_block import _groups_ahead, _leftmost


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
