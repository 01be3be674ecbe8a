"""References: sampling, saving, opening, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from fsboundary import ArgumentError, DataError, Status
from fsboundary.scores import Reference, label_issues, novelty, trust
from fsboundary.scores.training_rows import file_names, ordered_batches
from support.scores import CLASSES, reference_of, rows_and_labels, space_of_features

TRAIN, LABELS = rows_and_labels(90, 3)
SPACE = space_of_features()
QUERIES, GIVEN = rows_and_labels(8, 4)


class Folder(Dataset[tuple[Tensor, int]]):
    """A dataset with the attribute of torchvision's ImageFolder."""

    def __init__(self) -> None:
        self.samples = [(f"train/{i:02d}.png", int(y)) for i, y in enumerate(LABELS)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return TRAIN[index], self.samples[index][1]


def test_a_saved_reference_gives_the_same_scores(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    fitted = Reference.fit(SPACE, Folder(), path=path)
    opened = Reference.open(path)
    assert opened.digest == fitted.digest
    assert opened.fingerprint == SPACE.fingerprint
    assert opened.names == [f"train/{i:02d}.png" for i in range(90)]
    for one, other in (
        (novelty(fitted, QUERIES), novelty(opened, QUERIES)),
        (trust(fitted, QUERIES), trust(opened, QUERIES)),
        (label_issues(fitted, QUERIES, GIVEN), label_issues(opened, QUERIES, GIVEN)),
    ):
        assert torch.equal(one.score, other.score)
        assert torch.equal(one.p_value, other.p_value)
        assert torch.equal(one.support, other.support)
    with pytest.raises(ArgumentError, match=r"path: got .*which exists.*Reference\.open"):
        fitted.save(path)
    with pytest.raises(ArgumentError, match="which exists"):
        Reference.fit(SPACE, Folder(), path=path)
    with pytest.raises(ArgumentError, match="a folder that exists"):
        fitted.save(tmp_path / "none" / "reference")


def test_damage_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    reference_of(TRAIN, LABELS).save(path)
    raw = path.read_bytes()
    for position in (len(raw) - 3, len(raw) // 2, len(raw) - 4000):
        other = bytearray(raw)
        other[position] ^= 1
        path.write_bytes(other)
        with pytest.raises(DataError, match="damaged reference"):
            Reference.open(path)
    for content in (b"", raw[:2000], b"\x00" * 64):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no readable reference"):
            Reference.open(path)
    save_file({"features": TRAIN}, path)
    with pytest.raises(DataError, match="its format is 'none'"):
        Reference.open(path)
    with pytest.raises(DataError, match="no readable reference"):
        Reference.open(tmp_path / "missing")
    path.write_bytes(raw)
    assert len(load_file(path)["features"]) == 90


def test_the_sample_depends_on_the_seed_and_not_on_the_batches() -> None:
    def fit(batch: int, seed: int) -> Reference:
        loader = DataLoader(TensorDataset(TRAIN, LABELS), batch_size=batch)
        return Reference.fit(SPACE, loader, sample=40, seed=seed)

    one, other, new = fit(90, 0), fit(7, 0), fit(90, 1)
    assert one.ids.tolist() == other.ids.tolist() == sorted(set(one.ids.tolist()))
    assert one.ids.tolist() != new.ids.tolist()
    assert (len(one), one.notes()["rows"].split(",")[0]) == (40, "40 of 90")
    assert torch.equal(one.bank.features, TRAIN[one.ids])
    assert len(Reference.fit(SPACE, [(TRAIN, LABELS)], sample=None)) == 90


def test_every_row_has_the_same_chance() -> None:
    counts = torch.zeros(90)
    for seed in range(60):
        fitted = Reference.fit(SPACE, [(TRAIN, LABELS)], sample=30, calibration=1, seed=seed)
        counts[fitted.ids] += 1
    # binomial of 60 draws with chance 1/3: mean 20, deviation 3.7; 4.2 deviations for 90 rows
    assert (counts - 20).abs().max() < 4.2 * 3.7


def test_labels_given_predicted_or_both() -> None:
    predicted = SPACE.extract(TRAIN).predicted
    some = torch.where(torch.arange(90) % 4 == 0, -1, LABELS)
    assert torch.equal(reference_of(TRAIN, some, labels="given").group, some)
    assert torch.equal(reference_of(TRAIN, some, labels="predicted").group, predicted)
    both = reference_of(TRAIN, some)
    assert torch.equal(both.group, torch.where(some == predicted, some, -1))
    assert (both.fold[some < 0] == -1).all()
    found = label_issues(both, TRAIN, some, leave_out=torch.arange(90))
    assert (found.status[some < 0] == Status.UNDECIDED).all()
    assert found.ok[some >= 0].all()


def test_rows_with_nan_are_left_out_alone() -> None:
    rows = TRAIN.clone()
    rows[4, 2] = torch.nan
    fitted = reference_of(rows, LABELS)
    assert 4 not in fitted.ids.tolist()
    assert fitted.notes()["skipped"] == "1 rows with NaN or infinite features"
    SPACE.extract(TRAIN)  # finds the head, which rows of NaN cannot show
    with pytest.raises(DataError, match="all 3 rows have NaN"):
        Reference.fit(SPACE, [torch.full((3, 4), torch.nan, dtype=torch.float64)], "predicted")


def test_a_feature_vector_of_zero_has_no_direction() -> None:
    rows = torch.cat([TRAIN, torch.zeros(1, 4, dtype=torch.float64)])
    predicted = SPACE.extract(rows).predicted
    fitted = reference_of(rows, predicted)
    assert fitted.directions.labels is not None
    assert fitted.directions.labels[90] == -1
    assert fitted.group[90] == predicted[90]
    assert torch.isfinite(fitted.distribution("novelty").scores).all()


def test_what_is_refused() -> None:
    for labels, message in (
        (LABELS + 1, r"labels from 1 to 3; wanted classes 0 to 2.*or -1 for no label"),
        (LABELS - 2, "labels from -2"),
        (torch.full((90,), -1), "'both' and no row with a label"),
    ):
        with pytest.raises(ArgumentError, match=message):
            reference_of(TRAIN, labels)
    shuffled = DataLoader(TensorDataset(TRAIN, LABELS), batch_size=9, shuffle=True)
    for call, message in (
        (lambda: Reference.fit(SPACE, shuffled), "loader: got a DataLoader with a RandomSampler"),
        (lambda: Reference.fit(SPACE, TRAIN), "loader: got a Tensor; wanted a dataset, a loader"),
        (lambda: Reference.fit(SPACE, []), "loader: got no examples"),
        (lambda: Reference.fit(SPACE.model, []), "space: got a Linear; wanted a FeatureSpace"),  # type: ignore[arg-type]
        (lambda: Reference.fit(SPACE, [], "all"), "labels: got 'all'; wanted one of"),  # type: ignore[arg-type]
        (lambda: Reference.fit(SPACE, [], sample=1), "sample: got 1"),
        (lambda: Reference.fit(SPACE, [], calibration=0), "calibration: got 0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


def test_names_of_files() -> None:
    folder = Folder()
    assert file_names(DataLoader(folder))[3] == "train/03.png"  # type: ignore[index]
    assert file_names(Subset(folder, [5, 2])) == ["train/05.png", "train/02.png"]
    assert file_names(TensorDataset(TRAIN)) is None
    assert SPACE.head.num_classes == CLASSES


def test_an_iterable_dataset_yields_batches_as_for_a_bank() -> None:
    class Batches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            yield torch.rand(4, 2), torch.tensor([0, 0, 1, 1])

    [batch] = ordered_batches("loader", Batches())
    assert batch[0].shape == (4, 2)
