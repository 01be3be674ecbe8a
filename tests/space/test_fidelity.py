"""Fitted heads and their fidelity, and checks of the heads that extractors claim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fsboundary as fsb
from fsboundary.models.new_heads import logistic_head
from support.models.nets import CLASSES, Net, images


class Pixels(fsb.FeatureExtractor):
    """Pixels as features, with a fitted head; records the batches that it is fitted on."""

    surrogate = True

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self._head: fsb.LinearHead | None = None

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        return images.flatten(1), model(images)

    def head(self, model: nn.Module) -> fsb.LinearHead | None:
        return self._head

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> Self:
        self.shown = list(loader)
        seen = [batch[0] if isinstance(batch, tuple) else batch for batch in self.shown]
        z = torch.cat(seen).flatten(1)
        with torch.no_grad():
            self._head = logistic_head(z, model(torch.cat(seen)).argmax(dim=1), CLASSES)
        return self


def rows(tensors: Iterable[Tensor]) -> set[bytes]:
    return {row.numpy().tobytes() for batch in tensors for row in batch}


def test_held_out_images_are_never_shown_and_are_counted() -> None:
    every, extractor = images(300), Pixels()
    space = fsb.FeatureSpace(Net(), extractor=extractor)
    assert (space.surrogate, space.fidelity) == (True, None)
    assert space.fit(every.split(40)) is space
    shown = rows(extractor.shown)
    held_out = torch.stack([row for row in every if row.numpy().tobytes() not in shown])
    assert 0.1 * len(every) < len(held_out) < 0.3 * len(every)
    batch = space.extract(held_out)
    # the definition: the model's class compared with that of the fitted head
    fidelity = (batch.logits.argmax(dim=1) == batch.predicted).float().mean()
    assert space.fidelity == pytest.approx(float(fidelity), abs=1e-6)
    assert torch.equal(batch.disagrees, batch.logits.argmax(dim=1) != batch.predicted)
    assert f"fraction of {len(held_out)} held-out examples" in space.notes()["fidelity"]


def test_order_and_repetition_do_not_move_an_image_across() -> None:
    every = images(200)
    data = TensorDataset(every, torch.arange(200))
    shown = []
    for order in (0, 1):
        generator = torch.Generator().manual_seed(order)
        loader = DataLoader(data, batch_size=32, shuffle=True, generator=generator)
        extractor = Pixels()
        fsb.FeatureSpace(Net(), extractor=extractor).fit(loader)
        shown.append(rows(x for x, _ in extractor.shown))
        for x, labels in extractor.shown:  # labels stay with their images
            assert torch.equal(x, every[labels])
    assert shown[0] == shown[1]
    extractor = Pixels()
    fsb.FeatureSpace(Net(), extractor=extractor).fit([every, every.flip(0)])
    assert rows(extractor.shown) == shown[0]


def test_an_iterator_that_can_be_used_once_is_enough() -> None:
    def once() -> Iterator[Tensor]:
        yield from images(100).split(30)

    space = fsb.FeatureSpace(Net(), extractor=Pixels()).fit(once())
    again = fsb.FeatureSpace(Net(), extractor=Pixels()).fit(images(100).split(30))
    assert space.fidelity == again.fidelity


def test_preprocessing_comes_before_fitting() -> None:
    extractor = Pixels()
    space = fsb.FeatureSpace(Net(), extractor=extractor, preprocess=lambda x: 2 * x)
    space.fit([images(100)])
    assert rows(extractor.shown) <= rows([2 * images(100)])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_rejected(count: int) -> None:
    space = fsb.FeatureSpace(Net(), extractor=Pixels())
    with pytest.raises(fsb.ArgumentError, match="loader: got too few examples"):
        space.fit([images(3)[:count]])


def test_a_surrogate_that_is_not_fitted_is_an_error() -> None:
    space = fsb.FeatureSpace(Net(), extractor=Pixels())
    with pytest.raises(fsb.HeadError, match=r"not fitted yet. Call fit\(loader\)"):
        space.extract(images())


def test_other_extractors_have_no_fidelity() -> None:
    space = fsb.FeatureSpace(Net()).fit([images()])
    assert (space.surrogate, space.fidelity) == (False, None)
    space.extract(images())
    assert "fidelity" not in space.notes()


class Claims(fsb.FeatureExtractor):
    """Correct features and logits, with a head whose bias is wrong by `error`."""

    def __init__(self, error: float) -> None:
        self._error = error

    def features(self, model: Any, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        z = model.body(images)
        return z, model.fc(z)

    def head(self, model: Any) -> fsb.LinearHead:
        return fsb.LinearHead(model.fc.weight, model.fc.bias + self._error)

    def __repr__(self) -> str:
        return f"Claims({self._error})"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_claimed_head_is_checked(dtype: torch.dtype) -> None:
    model, batch = Net().to(dtype), images().to(dtype)
    fsb.FeatureSpace(model, extractor=Claims(0.0)).extract(batch)
    error = 1e-8 if dtype == torch.float64 else 1.0 if dtype == torch.bfloat16 else 1e-3
    space = fsb.FeatureSpace(model, extractor=Claims(error))
    with pytest.raises(fsb.HeadMismatchError, match=r"extractor Claims\(.*: W z \+ b differs"):
        space.extract(batch)


def test_rows_that_are_not_finite_do_not_hide_a_wrong_head() -> None:
    batch = images()
    batch[0] = torch.nan
    result = fsb.FeatureSpace(Net(), extractor=Claims(0.0)).extract(batch)
    assert result.status.tolist() == [int(fsb.Status.NOT_FINITE), 0, 0, 0, 0]
    with pytest.raises(fsb.HeadMismatchError, match="W z"):
        fsb.FeatureSpace(Net(), extractor=Claims(1e-3)).extract(batch)


def test_logistic_head_finds_a_linear_rule_whatever_the_units() -> None:
    rng = torch.Generator().manual_seed(3)
    z = torch.randn(400, 4, generator=rng, dtype=torch.float64)
    truth = fsb.LinearHead(torch.randn(3, 4, generator=rng), torch.randn(3, generator=rng))
    classes = truth.predict(z)
    head = logistic_head(z, classes, 3, penalty=1e-5)
    assert (head.predict(z) == classes).double().mean() > 0.97
    units = torch.tensor([1e-4, 1.0, 1e4, 1.0], dtype=torch.float64)
    other = logistic_head(z * units + 100 * units, classes, 3, penalty=1e-5)
    assert (other.predict(z * units + 100 * units) == classes).double().mean() > 0.97


def test_logistic_head_ignores_constant_features_and_keeps_absent_classes() -> None:
    z = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    head = logistic_head(z, torch.tensor([0, 0, 2, 2]), 3)
    assert head.num_classes == 3
    assert (head.weight[:, 1] == 0).all()
    assert head.predict(z.double()).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, dtype=torch.float32)}, r"features: got shape \(3,\)"),
        ({"features": torch.zeros(0, 2), "classes": torch.zeros(0).long()}, "not empty"),
        ({"classes": torch.zeros(3)}, "classes: got dtype torch.float32"),
        ({"classes": torch.tensor([0, 1, 3])}, "classes: got classes from 0 to 3"),
        ({"num_classes": 1}, "num_classes: got 1"),
    ],
)
def test_logistic_head_refuses(change: dict[str, Any], message: str) -> None:
    good = {"features": torch.rand(3, 2), "classes": torch.tensor([0, 1, 2]), "num_classes": 3}
    with pytest.raises(fsb.ArgumentError, match=message):
        logistic_head(**(good | change))
