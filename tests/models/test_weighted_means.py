"""Means over tokens whose weights the inputs determine, as an attention mask after the head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb

Pool = Callable[[Tensor, Tensor], Tensor]


class LateMean(nn.Module):
    """Classifier of tokens whose logits are averaged over positions."""

    def __init__(self, pool: Pool, bias: bool = True) -> None:
        super().__init__()
        self.embedding, self.mixed = nn.Embedding(20, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3, bias=bias)
        self.pool = pool

    def tokens(self, ids: Tensor) -> Tensor:
        """Return the inputs (B,T,6) of the head."""
        return nn.functional.relu(self.mixed(self.embedding(ids)))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits (B,3)."""
        return self.pool(self.head(self.tokens(ids)), mask)


def in_place(logits: Tensor, mask: Tensor) -> Tensor:
    logits = (logits * mask.unsqueeze(-1)).sum(dim=1)
    logits /= mask.sum(dim=1, keepdim=True)
    return logits


def clamped(logits: Tensor, mask: Tensor) -> Tensor:
    wide = mask.unsqueeze(-1).expand(logits.shape).float()
    return (logits * wide).sum(dim=1) / wide.sum(dim=1).clamp(min=1e-9)


def batch(seed: int, lengths: list[int], steps: int = 7) -> tuple[Tensor, Tensor]:
    """Return token ids and masks (B,T)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(20, (len(lengths), steps), generator=generator)
    return ids, (torch.arange(steps) < torch.tensor(lengths)[:, None]).long()


def build(pool: Pool, bias: bool = True) -> LateMean:
    torch.manual_seed(0)
    return LateMean(pool, bias).eval()


@pytest.mark.parametrize("pool", [in_place, clamped])
@pytest.mark.parametrize("lengths", [[7, 4, 1, 5], [3, 3], [5]])
def test_features_are_the_means_that_the_mask_gives(pool: Pool, lengths: list[int]) -> None:
    model = build(pool)
    space = fsb.FeatureSpace(model)
    space.extract(batch(0, lengths))
    assert space.notes()["layer"] == "head"
    torch.testing.assert_close(space.head.weight, model.head.weight.double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(space.head.bias, model.head.bias.double(), rtol=1e-12, atol=0)
    assert bool((space.domain.limits(space.head.weight)[0] >= 0).all())  # of a ReLU
    for seed, others in ((1, [2, 7, 6]), (2, [1]), (3, lengths)):
        ids, mask = batch(seed, others, steps=7 + seed)
        found = space.extract((ids, mask))
        tokens = model.tokens(ids)
        means = torch.stack([t[:n].mean(dim=0) for t, n in zip(tokens, others, strict=True)])
        torch.testing.assert_close(found.features, means.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.logits, model(ids, mask).detach())
        assert bool(space.domain.contains(found.features).all())


def test_gradients_of_the_features_are_those_of_the_means() -> None:
    model, (ids, mask) = build(in_place), batch(0, [7, 3])
    space = fsb.FeatureSpace(model)
    direction = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    weight = model.embedding.weight
    (found,) = torch.autograd.grad((space.features((ids, mask)) * direction).sum(), weight)
    tokens = model.tokens(ids)
    means = torch.stack([tokens[0].mean(dim=0), tokens[1, :3].mean(dim=0)])
    (wanted,) = torch.autograd.grad((means * direction).sum(), weight)
    torch.testing.assert_close(found, wanted)


def summed(logits: Tensor, mask: Tensor) -> Tensor:
    return (logits * mask[..., None]).sum(dim=1)


def signed(logits: Tensor, mask: Tensor) -> Tensor:
    signs = 2 * mask - 1
    return (logits * signs[..., None]).sum(dim=1) / signs.sum(dim=1, keepdim=True)


def by_class(logits: Tensor, mask: Tensor) -> Tensor:
    return (logits * mask[:, :3].unsqueeze(1)).mean(dim=1)


def attended(logits: Tensor, mask: Tensor) -> Tensor:
    weights = logits[..., :1].masked_fill(mask[..., None] == 0, -torch.inf).softmax(dim=1)
    return (logits * weights).sum(dim=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pool", [summed, signed, by_class, attended])
def test_other_weights_are_rejected(pool: Pool, bias: bool) -> None:
    space = fsb.FeatureSpace(build(pool, bias))
    with pytest.raises(fsb.HeadError):
        space.extract(batch(0, [7, 5, 2]))
    assert_no_head_of_one_row(build(pool, bias))


def assert_no_head_of_one_row(model: LateMean) -> None:
    """Check that a head that one row has is not used for others."""
    space = fsb.FeatureSpace(model)
    with pytest.raises(fsb.HeadError):  # noqa: PT012  # at the first or the second batch
        space.extract(batch(0, [2]))
        space.extract(batch(1, [7, 5]))


def test_a_padded_batch_gives_the_features_of_its_rows_one_by_one() -> None:
    model, (ids, mask) = build(in_place), batch(0, [7, 3, 5])
    space = fsb.FeatureSpace(model)
    together = space.extract((ids, mask)).features
    alone = [
        space.extract((i[None, :n], m[None, :n])).features
        for i, m, n in zip(ids, mask, (7, 3, 5), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
