"""Models that drop the batch dimension of a batch of one, as ``.squeeze()`` does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fsboundary import FeatureBatch, FeatureSpace, HeadError, pixels


class Squeezed(nn.Module):
    """A classifier whose forward ends in ``.squeeze()``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x)).squeeze()
        return out


X = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def space(classes: int) -> FeatureSpace:
    return FeatureSpace(Squeezed(classes).eval())


LAST_BATCH_OF_ONE: list[Callable[[], object]] = [
    lambda: space(5).extract(X[:1]),
    lambda: space(5).extract(X, batch_size=3),
    lambda: pixels.flip_images(space(5), X[:1], max_steps=2),
    lambda: pixels.check_accuracy(space(5), X, torch.zeros(7).long(), batch_size=3),
]


@pytest.mark.parametrize("use", LAST_BATCH_OF_ONE)
def test_the_lost_dimension_is_named(use: Callable[[], object]) -> None:
    with pytest.raises(HeadError, match=r"shape \(5,\) for one example.*batch dimension") as error:
        use()
    assert "binary" not in str(error.value)
    assert ".squeeze()" in str(error.value)


def test_other_batches_work() -> None:
    batch = space(5).extract(X)
    assert isinstance(batch, FeatureBatch)
    assert batch.logits.shape == (7, 5)


def test_a_single_logit_is_still_a_binary_head() -> None:
    for rows in (1, 3):
        with pytest.raises(HeadError):
            FeatureSpace(Squeezed(1).eval()).extract(X[:rows])
    with pytest.raises(HeadError, match="binary head"):
        FeatureSpace(Squeezed(1).eval()).extract(X[:3])
