"""Feature batches in place of features, loaders in place of inputs, arrays in place of images."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import fsboundary as fsb
from fsboundary import (
    ArgumentError,
    DataError,
    FeatureBank,
    HeadMismatchError,
    attr,
    pixels,
    scores,
)
from fsboundary.core.results import Table
from support.results import assert_equal


def _model(seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.7)
    return model


MODEL = _model()
IMAGES = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(7) % 3
SPACE = fsb.FeatureSpace(MODEL)
BATCH = SPACE.extract(IMAGES)
Z, HEAD = BATCH.features, SPACE.head
ML = fsb.MultiLabelHead(HEAD.weight, HEAD.bias, HEAD.domain)
BANK = FeatureBank(Z, LABELS)
TIED = torch.arange(2)


def exported(features: Any) -> str:
    """Return the file of certificates of flip points of `features`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "certificates.json"
        flips = fsb.flip_points(HEAD, Z)
        return fsb.export_certificates(file, flips, head=HEAD, features=features).read_text()


OF_FEATURES: dict[str, Callable[[Any], Any]] = {
    "flip_points": lambda z: fsb.flip_points(HEAD, z, "all"),
    "label_flips": lambda z: fsb.label_flips(ML, z),
    "label_balls": lambda z: fsb.label_balls(ML, z),
    "tie_points": lambda z: fsb.tie_points(HEAD, z, TIED),
    "largest_ties": lambda z: fsb.largest_ties(HEAD, z),
    "ambiguity": lambda z: fsb.ambiguity(HEAD, z, reference=z),
    "region_distances": lambda z: fsb.region_distances(HEAD, z),
    "class_path": lambda z: fsb.class_path(HEAD, z, z),
    "hull_projection": lambda z: fsb.hull_projection(BANK, z),
    "class_hull_distances": lambda z: fsb.class_hull_distances(BANK, z),
    "nearest_hulls": lambda z: fsb.nearest_hulls(BANK, z),
    "affine_residuals": lambda z: fsb.affine_residuals(BANK, z),
    "guaranteed_balls": lambda z: fsb.guaranteed_balls(HEAD, z),
    "guaranteed_boxes": lambda z: fsb.guaranteed_boxes(HEAD, z),
    "guaranteed_hulls": lambda z: fsb.guaranteed_hulls(HEAD, BANK).check(z),
    "coverage": lambda z: fsb.coverage(HEAD, BANK, z, LABELS),
    "feature_fractions": lambda z: fsb.feature_fractions(HEAD, z),
    "map_rows": lambda z: next(fsb.map_rows(fsb.guaranteed_balls, HEAD, z))[1],
    "export_certificates": exported,
    "logistic_head": lambda z: fsb.logistic_head(z, LABELS, 3).weight,
    "FeatureBank": lambda z: FeatureBank(z, LABELS).digests(),
    "angles": lambda z: fsb.flip_points(HEAD, Z).angles(z),
    "inverse_images": lambda z: pixels.inverse_images(SPACE, z, IMAGES, max_steps=2),
}


def leaves(value: Any) -> list[Tensor | Any]:
    """Return the tensors and plain values of an answer."""
    if isinstance(value, Table):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))  # type: ignore[arg-type]  # every subclass is a dataclass
    return [leaf for one in value for leaf in leaves(one)] if isinstance(value, tuple) else [value]


def assert_same(got: Any, want: Any) -> None:
    for one, other in zip(leaves(got), leaves(want), strict=True):
        if isinstance(other, Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other


@pytest.mark.parametrize("name", OF_FEATURES)
def test_a_batch_gives_what_its_features_give(name: str) -> None:
    assert_same(OF_FEATURES[name](BATCH), OF_FEATURES[name](Z))


def test_every_public_function_of_features_takes_a_batch() -> None:
    for name in fsb.__all__:
        value = getattr(fsb, name)
        if inspect.isfunction(value):
            names = set(inspect.signature(value).parameters) & {"features", "start"}
            assert not names or name in OF_FEATURES, name


def test_a_bank_of_a_batch_knows_its_origin() -> None:
    bank = FeatureBank(BATCH, LABELS)
    assert bank.fingerprint == BATCH.fingerprint
    other = fsb.FeatureSpace(_model(1)).extract(IMAGES)
    with pytest.raises(HeadMismatchError, match="of another head"):
        fsb.hull_projection(bank, other)
    with pytest.raises(ArgumentError, match="features: got shape"):
        fsb.flip_points(fsb.LinearHead(torch.eye(4), None), BATCH)


class Images(Dataset[Any]):
    """Examples with labels."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return IMAGES[index], int(LABELS[index])


class Stream(IterableDataset[Any]):
    """Examples as they come."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(IMAGES)


def as_arrays(rows: list[tuple[Tensor, Tensor]]) -> tuple[Any, ...]:
    """Return a batch of arrays."""
    return tuple(np.stack([part.numpy() for part in one]) for one in zip(*rows, strict=True))


LOADERS: dict[str, Callable[[], Any]] = {
    "loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3),
    "loader without labels": lambda: DataLoader(TensorDataset(IMAGES), batch_size=4),
    "loader of arrays": lambda: DataLoader(
        TensorDataset(IMAGES, LABELS),
        batch_size=3,
        collate_fn=as_arrays,
    ),
    "dataset": Images,
    "stream": Stream,
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("batch_size", [2, 256])
def test_a_loader_gives_what_its_inputs_give(name: str, batch_size: int) -> None:
    found = SPACE.extract(LOADERS[name](), batch_size=batch_size)
    assert found.fingerprint == BATCH.fingerprint
    assert len(found) == len(BATCH)
    # batches of other sizes may round products of float32 otherwise
    torch.testing.assert_close(found.features, BATCH.features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.logits, BATCH.logits, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.predicted, BATCH.predicted)
    assert torch.equal(found.status, BATCH.status)


def test_a_row_that_is_not_finite_fails_alone_in_a_loader() -> None:
    images = IMAGES.clone()
    images[4] = torch.nan
    found = SPACE.extract(DataLoader(TensorDataset(images), batch_size=3))
    assert (~found.ok).nonzero()[:, 0].tolist() == [4]


def test_loaders_that_cannot_be_read_are_refused() -> None:
    loader = DataLoader(TensorDataset(IMAGES), batch_size=3)
    with pytest.raises(ArgumentError, match="got no examples"):
        SPACE.extract(DataLoader(TensorDataset(IMAGES[:0])))
    with pytest.raises(ArgumentError, match="inputs: got a DataLoader"):
        SPACE.extract(loader, mask=torch.ones(7))
    with pytest.raises(ArgumentError, match="batch_size"):
        SPACE.extract(loader, batch_size=0)


REFERENCE = fsb.Reference.fit(SPACE, [(IMAGES, LABELS)], "given")
NEXT = (LABELS + 1) % 3
OF_IMAGES: dict[str, Callable[[Callable[[Tensor], Any]], Any]] = {
    "extract": lambda c: SPACE.extract(c(IMAGES)),
    "extract, mapping": lambda c: SPACE.extract({"input": c(IMAGES)}),
    "features": lambda c: SPACE.features(c(IMAGES)),
    "logits": lambda c: SPACE.logits(c(IMAGES)),
    "bank": lambda c: SPACE.bank([(c(IMAGES), c(LABELS))]).digests(),
    "Reference.fit": lambda c: fsb.Reference.fit(SPACE, [(c(IMAGES), c(LABELS))], "given").digest,
    "triage": lambda c: tuple(
        row["novelty"] for row in fsb.triage(SPACE, [(c(IMAGES), c(LABELS))], REFERENCE)
    ),
    "compare_models": lambda c: fsb.compare_models({"a": SPACE}, c(IMAGES), c(LABELS)).share,
    "pixel_margin": lambda c: scores.pixel_margin(SPACE, c(IMAGES)).score,
    "flip_images": lambda c: pixels.flip_images(
        MODEL, c(IMAGES), c(NEXT), max_steps=2, labels=c(BATCH.predicted)
    ),
    "certify": lambda c: pixels.certify(MODEL, c(IMAGES), upper=c(IMAGES)),
    "inverse_images": lambda c: pixels.inverse_images(SPACE, Z, c(IMAGES), max_steps=2),
    "morph": lambda c: pixels.morph(SPACE, c(IMAGES[:2]), c(IMAGES[2:4]), steps=3, max_steps=1),
    "morph, classes": lambda c: pixels.morph(
        SPACE, c(IMAGES[:2]), c(NEXT[:2]), steps=3, max_steps=1
    ),
    "amplification": lambda c: pixels.amplification(
        SPACE, c(IMAGES), radius=0.1, flips=c(IMAGES.flip(0)), labels=c(BATCH.predicted)
    ),
    "check_accuracy": lambda c: pixels.check_accuracy(SPACE, c(IMAGES), c(BATCH.predicted)),
    "BoundaryDistance": lambda c: attr.BoundaryDistance(SPACE)(c(IMAGES)),
    "BoundaryDirection": lambda c: attr.BoundaryDirection(SPACE).attribute(c(IMAGES)),
    "LayerBoundaryDirection": lambda c: attr.LayerBoundaryDirection(MODEL, MODEL[2]).attribute(  # type: ignore[index]  # a Sequential
        c(IMAGES)
    ),
    "BoundaryPush": lambda c: attr.BoundaryPush(SPACE).perturb(c(IMAGES), 0.5),
    "HullInfluence": lambda c: attr.HullInfluence(SPACE, BANK).influence(c(IMAGES)),
    "smoothed": lambda c: pixels.smoothed(MODEL, c(IMAGES), sigma=0.1, samples=20),
    "smoothed_distances": lambda c: pixels.smoothed_distances(
        attr.BoundaryDistance(SPACE), c(IMAGES), sigma=0.1, radius=0.1, samples=20
    ),
    "compare": lambda c: attr.compare(
        c(IMAGES), {"a": c(IMAGES), "b": c(IMAGES.flip(3))}, reference="a"
    ),
    "predict": lambda c: HEAD.predict(c(Z)),
    "margins": lambda c: HEAD.margins(c(Z)),
    "labels": lambda c: ML.predict(c(Z)),
    "contains": lambda c: HEAD.domain.contains(c(Z)),
    "clip": lambda c: HEAD.domain.clip(c(Z - 0.1)),
    "violation": lambda c: HEAD.domain.violation(c(Z - 0.1)),
}


@pytest.mark.filterwarnings("ignore:.*confidence intervals:UserWarning")
@pytest.mark.parametrize("name", OF_IMAGES)
def test_arrays_of_images_give_what_their_tensors_give(name: str) -> None:
    want = OF_IMAGES[name](lambda tensor: tensor)
    got = OF_IMAGES[name](lambda tensor: tensor.numpy())
    assert_same(got, want)


def test_arrays_that_are_no_images_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"dtype torch.uint8.*divide by 255"):
        SPACE.extract((IMAGES * 255).numpy().astype("uint8"))
    with pytest.raises(ArgumentError, match="inputs: got a ndarray"):
        SPACE.extract(np.array([object()]))


def test_a_bank_on_disk_notices_other_arrays(tmp_path: Path) -> None:
    rows = IMAGES.numpy()
    whole = SPACE.bank([rows[:4], rows[4:]], tmp_path / "bank")
    again = SPACE.bank([rows[:4], rows[4:]], tmp_path / "bank")
    assert torch.equal(whole.features, again.features)
    with pytest.raises(DataError):
        SPACE.bank([rows[:4], rows[4:] + np.float32(0.01)], tmp_path / "bank")


def test_results_do_not_follow_the_array() -> None:
    rows = IMAGES.numpy().copy()
    found = SPACE.extract(rows)
    flips = pixels.flip_images(MODEL, rows, max_steps=2)
    rows[:] = 0
    assert_equal(found, BATCH)
    assert torch.equal(flips.images, pixels.flip_images(MODEL, IMAGES, max_steps=2).images)
