"""Banks on disk give the same results as banks in memory, and damage is reported."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.banks.disk import contents, layout, zarr_store
from fsboundary.banks.memory import MemoryStore
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.protocols import PointSet
from support.banks import oracle, small

ROWS = 50


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_ROWS", 8)


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


def test_all_passes_read_to_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank has 16 MB, a block has 2 MB, which torch allocates; NumPy's memory is traced."""
    monkeypatch.setattr(layout, "_BYTES", 2**20)
    monkeypatch.setattr(zarr_store, "_BLOCK", 2**21)
    points = oracle.normal(2000, 2000)
    FeatureBank(points).save(tmp_path / "bank")
    bank = FeatureBank.open(tmp_path / "bank")
    directions, indices = points[:2].clone(), torch.arange(0, 2000, 200)
    bank.price(directions, 1)
    tracemalloc.start()
    for _ in range(2):
        bank.price(directions, 3)
        bank.take(indices)
        bank.range()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    blocks = [(len(block), block.data_ptr()) for _ in range(2) for _, block in bank._store.chunks()]
    assert {rows for rows, _ in blocks} == {262, 2000 % 262}
    assert len({address for _, address in blocks}) == 1


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
    assert layout.rows_per_chunk(64, "float32") == 4096
    assert layout.rows_per_chunk(64, "float32", 100) == 4000
    assert layout.rows_per_chunk(2048, "float32", 256) == 1024
    assert layout.rows_per_chunk(2048, "float64", 10) == 510
    assert layout.rows_per_chunk(2**21, "float64") == 1


@pytest.mark.parametrize("number", range(8))
def test_pieces_of_chunks_are_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Few rows are read in pieces, which end anywhere in a chunk, and the last chunk is filled."""
    monkeypatch.setattr(layout, "_ROWS", (100, 64, 33)[number % 3])
    monkeypatch.setattr(contents, "_PIECE", (1, 50, 100, 128)[number % 4])
    points = oracle.normal(230, (3, 5)[number % 2], seed=number)
    points = points.double() if number // 4 else points
    bank = FeatureBank(points, torch.arange(230) % 90)
    bank.save(tmp_path / "bank")
    opened = FeatureBank.open(tmp_path / "bank")
    part, part_in_memory = opened.subset(labels=7), bank.subset(labels=7)
    generator = torch.Generator().manual_seed(number)
    for _ in range(20):
        rows = torch.randint(0, 230, (5,), generator=generator)
        assert torch.equal(opened.take(rows), points[rows].double())
        assert torch.equal(part.features, part_in_memory.features)
        assert torch.equal(part.ids, part_in_memory.ids)


def test_few_rows_are_read_without_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(FileIO):
        """A file that counts the bytes that are read."""

        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            Counting.count += len(content)
            return content

        def readinto(self, buffer: Any, /) -> int:
            Counting.count += len(buffer)
            return super().readinto(buffer)

    points = oracle.normal(4000, 256)
    FeatureBank(points).save(tmp_path / "bank")
    bank = FeatureBank.open(tmp_path / "bank")
    monkeypatch.setattr(contents, "open_file", lambda folder, name: Counting(folder / name))
    rows = torch.tensor([3999, 5, 1234, 6])
    counts = []
    for _ in range(3):
        Counting.count = 0
        assert torch.equal(bank.take(rows), points[rows].double())
        counts.append(Counting.count)
    chunk = bank._store._layout.chunk_bytes("features")  # type: ignore[attr-defined] # a ZarrStore
    assert counts == [chunk, 3 * 4096, 3 * 4096]  # rows 5 and 6 are in one piece of four rows


EARLIER = "676b7a401baecb208a708b1fedc25ed70ec8b60202b2a9a7aff31b5ddee40b49"
"""SHA-256 of the paths and bytes of all chunks, as the version with chunks of 1 MiB wrote them."""


def test_chunks_are_those_of_earlier_versions(path: Path) -> None:
    digest = hashlib.sha256()
    for file, raw in small.content(path).items():
        if "/c/" in file:
            digest.update(file.encode() + raw)
    assert digest.hexdigest() == EARLIER


def test_chunks_of_another_size_are_read_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As banks that were begun by a version with smaller chunks."""
    build = small.space().bank
    monkeypatch.setattr(layout, "_ROWS", small.CHUNK)
    build(small.loader(), tmp_path / "old")
    old, whole = FeatureBank.open(tmp_path / "old"), small.content(tmp_path / "old")
    for number in range(1, 6):
        monkeypatch.setattr(layout, "_ROWS", small.CHUNK)
        path = tmp_path / str(number)
        batches = small.loader()
        batches[2 * number] = (batches[2 * number][0] * torch.nan, batches[2 * number][1])
        with pytest.raises(DataError, match="NaN or infinite features"):
            build(batches, path)
        monkeypatch.setattr(layout, "_ROWS", 4 * small.CHUNK)
        build(small.loader(), path)
        assert small.content(path) == whole
    build(small.loader(), tmp_path / "old")  # recognised, and left as it is
    assert small.content(tmp_path / "old") == whole
    build(small.loader(), tmp_path / "new")
    assert small.content(tmp_path / "new") != whole
    new = FeatureBank.open(tmp_path / "new")
    assert torch.equal(new.features, old.features)
    assert torch.equal(new.ids, old.ids)
