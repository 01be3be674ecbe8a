"""Banks on disk give the same results as banks in memory, and damage is reported."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsboundary.banks import BankInfo, FeatureBank, zarr_store
from fsboundary.banks.memory import MemoryStore
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.protocols import PointSet
from support.banks import oracle

ROWS = 50


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_store, "_ROWS", 8)


def _labels() -> torch.Tensor:
    return torch.arange(ROWS) % 7


@pytest.fixture
def bank() -> FeatureBank:
    return FeatureBank(oracle.whole_numbers(ROWS, 3), _labels())


@pytest.fixture
def path(bank: FeatureBank, tmp_path: Path, _small_chunks: None) -> Path:
    bank.save(tmp_path / "bank")
    return tmp_path / "bank"


def _same(one: FeatureBank, other: FeatureBank) -> None:
    """Assert that all methods of two banks return the same."""
    assert (len(one), one.num_features) == (len(other), other.num_features)
    assert one.features.dtype == other.features.dtype
    assert torch.equal(one.features, other.features)
    assert torch.equal(one.ids, other.ids)
    assert (one.labels is None) == (other.labels is None)
    if one.labels is not None and other.labels is not None:
        assert torch.equal(one.labels, other.labels)
    assert one.info == other.info
    for mine, theirs in zip(one.range(), other.range(), strict=True):
        assert torch.equal(mine, theirs)
    count = len(one)
    generator = torch.Generator().manual_seed(count)
    directions = oracle.whole_numbers(6, one.num_features, seed=1)
    exclude = torch.randint(-1, count, (6, 2), generator=generator)
    for k in (1, 5, count + 2):
        for mine, theirs in zip(
            one.price(directions, k, exclude), other.price(directions, k, exclude), strict=True
        ):
            assert torch.equal(mine, theirs)
    indices = torch.randint(0, count, (3, 20), generator=generator)
    assert torch.equal(one.take(indices), other.take(indices))


def test_saved_and_opened(bank: FeatureBank, path: Path) -> None:
    opened = FeatureBank.open(path)
    assert isinstance(opened, PointSet)
    assert repr(opened) == "FeatureBank(n=50, d=3, zarr)"
    _same(opened, bank)
    _same(FeatureBank.open(str(path)), bank)


@pytest.mark.usefixtures("_small_chunks")
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 4),
    double=st.booleans(),
    labelled=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has its own folder
)
def test_any_bank_survives_the_disk(
    tmp_path: Path, rows: int, width: int, double: bool, labelled: bool, seed: int
) -> None:
    points = oracle.whole_numbers(rows, width, seed=seed)
    points = points.double() if double else points
    bank = FeatureBank(points, torch.arange(rows) % 3 if labelled else None)
    shutil.rmtree(tmp_path / "any", ignore_errors=True)
    bank.save(tmp_path / "any")
    opened = FeatureBank.open(tmp_path / "any")
    _same(opened, bank)
    if labelled:
        _same(opened.subset(labels=0), bank.subset(labels=0))


@pytest.mark.parametrize("labels", [3, [0, 6], list(range(7))])
def test_a_subset_on_disk_is_that_in_memory(
    bank: FeatureBank, path: Path, tmp_path: Path, labels: int | list[int]
) -> None:
    part = FeatureBank.open(path).subset(labels=labels)
    _same(part, bank.subset(labels=labels))
    part.save(tmp_path / "part")
    _same(FeatureBank.open(tmp_path / "part"), part)


def test_a_subset_of_a_subset_on_disk(bank: FeatureBank, path: Path) -> None:
    part = FeatureBank.open(path).subset(labels=[0, 3, 6])
    _same(part.subset(labels=3), bank.subset(labels=3))


def test_labels_without_rows_are_rejected_on_disk_too(path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"got \[9\], which no row has"):
        FeatureBank.open(path).subset(labels=9)


def test_the_origin_of_features_is_stored(tmp_path: Path) -> None:
    info = BankInfo("0123", "an.Extractor", "fc", "nonnegative")
    store = MemoryStore(oracle.normal(3, 2), None, torch.arange(3), info)
    FeatureBank.of(store).save(tmp_path / "bank")
    opened = FeatureBank.open(tmp_path / "bank")
    assert opened.info == info
    assert opened.fingerprint == "0123"


def test_an_open_bank_travels_to_another_process(bank: FeatureBank, path: Path) -> None:
    _same(pickle.loads(pickle.dumps(FeatureBank.open(path))), bank)


def test_the_arrays_are_plain_zarr(bank: FeatureBank, path: Path) -> None:
    group = zarr.open_group(str(path), mode="r")
    assert sorted(name for name, _ in group.members()) == ["features", "ids", "labels"]
    features = group["features"]
    assert isinstance(features, zarr.Array)
    assert features.chunks == (8, 3)
    assert features.metadata.zarr_format == 3
    assert any("crc32c" in type(codec).__name__.lower() for codec in features.compressors)
    assert torch.equal(torch.from_numpy(features[:]), bank.features)


def test_save_never_writes_over_anything(bank: FeatureBank, path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ArgumentError, match=r"path: got .*which exists; wanted.*delete it first"):
        bank.save(path)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_leftovers_of_a_killed_save_are_replaced(bank: FeatureBank, tmp_path: Path) -> None:
    leftover = tmp_path / ".bank.unfinished" / "features"
    leftover.mkdir(parents=True)
    (leftover / "zarr.json").write_text("{")
    bank.save(tmp_path / "bank")
    _same(FeatureBank.open(tmp_path / "bank"), bank)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bank"]


def test_price_and_take_hold_one_chunk_at_a_time(tmp_path: Path) -> None:
    """The buffers of NumPy and Zarr are traced: the bank has 16 MB, a chunk has 1 MB."""
    points = oracle.normal(2000, 2000)
    FeatureBank(points).save(tmp_path / "bank")
    bank = FeatureBank.open(tmp_path / "bank")
    directions, indices = points[:2].clone(), torch.arange(0, 2000, 200)
    bank.price(directions, 1)
    tracemalloc.start()
    bank.price(directions, 3)
    bank.take(indices)
    bank.range()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # a chunk as bytes and as an array, once while being read and once in use
    assert 2**20 / 2 < peak < 6 * 2**20


DAMAGE: list[tuple[str, Callable[[bytes], bytes | None], str]] = [
    ("features/c/2/0", lambda raw: raw[:10] + bytes([raw[10] ^ 1]) + raw[11:], "is damaged:"),
    ("features/c/2/0", lambda raw: raw[:-20], "is damaged:"),
    ("features/c/2/0", lambda _: b"", "is damaged:"),
    ("features/c/2/0", lambda _: None, "is missing"),
    ("labels/c/2", lambda raw: raw[:9], "is damaged:"),
    ("labels/c/2", lambda _: None, "is missing"),
    ("ids/c/2", lambda raw: bytes([raw[0] ^ 8]) + raw[1:], "is damaged:"),
    ("ids/c/2", lambda _: None, "is missing"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_a_damaged_chunk_is_named(
    path: Path, file: str, change: Callable[[bytes], bytes | None], message: str
) -> None:
    changed = change((path / file).read_bytes())
    if changed is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(changed)
    bank = FeatureBank.open(path)
    name = file.split("/")[0]
    message = rf"array '{name}', chunk 2 \(rows 16 to 23\) {message}.*Restore it from a copy"
    readers: dict[str, list[Callable[[], object]]] = {
        "features": [
            lambda: bank.price(torch.ones(1, 3), 1),
            lambda: bank.take(torch.tensor([17])),
            lambda: bank.features,
            bank.range,
        ],
        "labels": [lambda: bank.labels, lambda: bank.subset(labels=1)],
        "ids": [lambda: bank.ids],
    }
    for read in readers[name]:
        with pytest.raises(DataError, match=message):
            read()
    if name == "features":  # the other chunks can still be read
        assert bank.take(torch.tensor([3, 30, 49])).shape == (3, 3)


def _attributes(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"]["fsboundary"])
    (path / "zarr.json").write_text(json.dumps(metadata))


FOLDERS: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "no such bank"),
    (lambda p: (p / "zarr.json").write_text("{"), "not a feature bank"),
    (lambda p: (p / "zarr.json").unlink(), "not a feature bank"),
    (lambda p: shutil.rmtree(p / "ids"), "a damaged feature bank"),
    (lambda p: (p / "labels" / "zarr.json").write_text("[]"), "a damaged feature bank"),
    (lambda p: _attributes(p, lambda a: a.update(version=3)), "format 3 of a feature bank.*Update"),
    (lambda p: _attributes(p, lambda a: a.pop("layer")), "a damaged feature bank.*'layer'"),
    (
        lambda p: zarr.open_array(str(p / "labels"), mode="r+").resize((40,)),
        "labels/zarr.json was changed after the bank was complete",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), FOLDERS)
def test_folders_that_are_not_a_complete_bank(
    path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(path)
    with pytest.raises(DataError, match=message):
        FeatureBank.open(path)


def test_chunks_are_whole_batches() -> None:
    assert zarr_store.rows_per_chunk(64, "float32") == 4096
    assert zarr_store.rows_per_chunk(64, "float32", 100) == 4000
    assert zarr_store.rows_per_chunk(2048, "float32", 256) == 256
    assert zarr_store.rows_per_chunk(2048, "float64", 10) == 60
    assert zarr_store.rows_per_chunk(2**20, "float64") == 1
