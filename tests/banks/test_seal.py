"""Banks on disk whose files were changed, exchanged or linked are refused, or give the answer."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fsboundary.banks import FeatureBank
from fsboundary.banks.disk import contents, layout
from fsboundary.banks.disk.seal import SEAL, Seal, read_seal
from fsboundary.core.errors import DataError
from support.banks import damage
from support.banks.oracle import normal
from support.banks.small import CHUNK, ROWS, loader, space


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_ROWS", CHUNK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    space().bank(loader(), tmp_path / "bank")
    return tmp_path / "bank"


def test_changed_bytes_are_refused_or_change_nothing(path: Path, tmp_path: Path) -> None:
    found = damage.flips(path, tmp_path / "work" / "bank", 60, seed=0)
    assert set(found) == {"refused", "same"}
    assert found["same"] < 20  # those in the journal, which only FeatureSpace.bank reads


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", damage.NAMED)
def test_edits_are_refused_before_an_answer(path: Path, name: str) -> None:
    right = damage.answer(path)
    damage.NAMED[name](path)
    expected = "same" if name in damage.HARMLESS else "refused"
    assert damage.verdict(path, right) == expected


def test_random_edits_of_the_metadata(path: Path, tmp_path: Path) -> None:
    count = len(damage.NAMED) + 40
    found, passed = damage.edits(path, tmp_path / "work" / "bank", count, seed=0)
    assert set(found) == {"refused", "same"}
    assert passed == list(damage.HARMLESS)


def test_the_damage_that_is_looked_for_is_seen(path: Path) -> None:
    right = damage.answer(path)
    assert damage.equal(right, damage.answer(path))
    for number, value in enumerate(right):
        if isinstance(value, torch.Tensor):
            changed = value.clone()
            changed.flatten()[0] += 1
        else:
            changed = value * 2 if value else "x"
        other = [*right[:number], changed, *right[number + 1 :]]
        assert not damage.equal(right, other)


READS: dict[str, Callable[[FeatureBank], object]] = {
    "price": lambda bank: bank.price(torch.ones(1, 4), 2),
    "take": lambda bank: bank.take(torch.tensor([17])),
    "features": lambda bank: bank.features,
    "range": lambda bank: bank._store.range(),
    "digests": lambda bank: bank.digests(),
    "moments": lambda bank: bank.moments(),
    "subset": lambda bank: bank.select(torch.tensor([3, 18])).features,
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", READS)
def test_exchanged_chunks_are_noticed_by_every_read(path: Path, name: str, first: bool) -> None:
    """Also if the bank was open and had read these chunks before they were exchanged."""
    bank = FeatureBank.open(path)
    if first:
        READS[name](bank)
    damage.swap("features/c/1/0", "features/c/2/0")(path)
    message = r"'features', chunk [12] \(rows \d+ to \d+\) is damaged: it is not the chunk"
    with pytest.raises(DataError, match=message):
        READS[name](bank)


@pytest.mark.parametrize("file", ["features/c/1/0", "labels/c/1", "ids/c/1"])
def test_a_bit_that_changes_after_the_first_read_is_noticed(path: Path, file: str) -> None:
    bank = FeatureBank.open(path)
    for _ in range(2):
        _read_all(bank)
    raw = (path / file).read_bytes()
    (path / file).write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    with pytest.raises(DataError, match=r"chunk 1 \(rows 8 to 15\) is damaged"):
        _read_all(bank)


def _read_all(bank: FeatureBank) -> list[object]:
    return [bank.features, bank.labels, bank.ids]


def _seal_again(path: Path, rows: int, **attributes: int) -> None:
    """Change the shapes and compute the seal again, as nothing but a program on purpose does."""
    damage.resize(rows)(path)
    damage.change("zarr.json", lambda j: j["attributes"]["fsboundary"].update(attributes))(path)
    seal = read_seal(path)
    assert seal is not None
    sums = {f: hashlib.sha256((path / f).read_bytes()).hexdigest() for f in seal.checksums}
    (path / SEAL).write_bytes(Seal(rows, sums).encode())


@pytest.mark.parametrize(
    ("rows", "attributes"),
    [
        (0, {}),
        (8, {}),
        (49, {}),
        (10**15, {}),
        (10**15, {"chunk_rows": 2 * 10**14}),
        (6 * 10**15, {"chunk_rows": 10**15}),
        (47, {"num_features": 10**15}),
        (47, {"num_features": 0}),
        (47, {"chunk_rows": 9}),
        (-47, {}),
    ],
)
def test_absurd_shapes_are_refused_before_memory_is_allocated(
    path: Path, rows: int, attributes: dict[str, int]
) -> None:
    """Even under a seal that was computed again."""
    _seal_again(path, rows, **attributes)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a damaged feature bank|is damaged"):
        FeatureBank.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_the_seal_lists_every_file_as_sha256sum_does(path: Path) -> None:
    lines = (path / SEAL).read_text().splitlines()
    assert lines[0] == f"# feature bank of {ROWS} rows"
    listed = dict(reversed(line.split("  ")) for line in lines[1:-1])
    files = {f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file()}
    assert set(listed) == files - {SEAL}
    for file, checksum in listed.items():
        assert hashlib.sha256((path / file).read_bytes()).hexdigest() == checksum
    above = "".join(f"{line}\n" for line in lines[:-1]).encode()
    assert lines[-1].split(": ")[1] == hashlib.sha256(above).hexdigest()
    assert FeatureBank.open(path).seal == hashlib.sha256(above).hexdigest()


def test_the_seal_names_a_bank(path: Path, tmp_path: Path) -> None:
    bank = FeatureBank.open(path)
    shutil.copytree(path, tmp_path / "copy")
    assert FeatureBank.open(tmp_path / "copy").seal == bank.seal
    assert bank.subset(labels=1).seal == bank.seal
    seals = {bank.seal}
    points, labels = bank.features, bank.labels
    assert labels is not None
    for number, other in enumerate(
        [
            FeatureBank(points, labels),
            FeatureBank(points),
            FeatureBank(points, labels.flip(0)),
            FeatureBank(points.flip(0), labels),
            FeatureBank(points.double(), labels),
            FeatureBank(points[:46], labels[:46]),
        ]
    ):
        assert other.seal == ""
        other.save(tmp_path / str(number))
        seals.add(FeatureBank.open(tmp_path / str(number)).seal)
    assert len(seals) == 7


def test_a_link_to_the_whole_bank_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    bank = FeatureBank.open(tmp_path / "link")
    assert torch.equal(bank.features, FeatureBank.open(path).features)


def test_an_open_bank_stays_the_same_in_another_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    bank = FeatureBank.open("bank")
    wanted = bank.features
    (path.parent / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert torch.equal(bank.features, wanted)
    assert torch.equal(pickle.loads(pickle.dumps(bank)).features, wanted)


def test_a_pickled_bank_is_not_exchanged_for_another(path: Path) -> None:
    part = FeatureBank.open(path).subset(labels=1)
    pickled = pickle.dumps(part)
    assert torch.equal(pickle.loads(pickled).features, part.features)
    shutil.rmtree(path)
    with pytest.raises(DataError, match="no such bank"):
        pickle.loads(pickled)
    FeatureBank(normal(ROWS, 4), torch.arange(ROWS) % 3).save(path)
    with pytest.raises(DataError, match="another bank than the one that was pickled"):
        pickle.loads(pickled)


def test_a_bank_of_the_first_format_is_refused_with_the_way_on(path: Path) -> None:
    (path / SEAL).unlink()
    damage.NAMED["version 1"](path)
    message = "format 1 of a feature bank; this version reads 2.*no seal.*create the bank again"
    with pytest.raises(DataError, match=message):
        FeatureBank.open(path)
    with pytest.raises(DataError, match=message):
        space().bank(loader(), path)


def test_a_bank_without_its_seal_is_finished_again(path: Path) -> None:
    seal = (path / SEAL).read_bytes()
    (path / SEAL).unlink()
    with pytest.raises(DataError, match=rf"an unfinished bank \({ROWS} rows so far\)"):
        FeatureBank.open(path)
    space().bank(loader(), path)
    assert (path / SEAL).read_bytes() == seal


@pytest.mark.parametrize("name", ["fingerprint []", "chunks of 1 row", "dtype float64"])
def test_edited_metadata_of_an_unfinished_bank_are_refused(path: Path, name: str) -> None:
    (path / SEAL).unlink()
    damage.NAMED[name](path)
    with pytest.raises(DataError, match="a damaged feature bank"):
        space().bank(loader(), path)


def test_a_changed_journal_of_a_complete_bank_is_refused(path: Path) -> None:
    journal = path / "features" / "batches.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match="its journal were changed"):
        space().bank(loader(), path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_journal_line_of_another_place_is_refused(path: Path, number: int) -> None:
    """Each line carries a checksum of all before it: none can be edited, moved or left out."""
    (path / SEAL).unlink()
    journal = path / "features" / "batches.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for other in (
        [*lines[:number], *lines[number + 1 :]],
        [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]],
        [*lines[:number], lines[number].replace(b'"rows": ', b'"rows": 1'), *lines[number + 1 :]],
    ):
        journal.write_bytes(b"".join(other))
        with pytest.raises(DataError, match="a damaged line"):
            space().bank(loader(), path)
    assert json.loads(lines[1])["rows"] == CHUNK


def test_opening_reads_no_chunk_and_each_chunk_is_hashed_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, hashed = [], []
    fill, sha256 = contents._fill, hashlib.sha256
    monkeypatch.setattr(contents, "_fill", lambda *a: (read.append(len(a[0])), fill(*a))[1])
    monkeypatch.setattr(hashlib, "sha256", lambda *a: (hashed.append(a), sha256(*a))[1])
    bank = FeatureBank.open(path)
    assert not read
    hashed.clear()
    for _ in range(3):
        bank.price(torch.ones(1, 4), 2)
    part = bank.subset(labels=1)  # reads the labels; the chunks of features are verified already
    assert torch.equal(part.features, bank.features[bank.labels == 1])
    assert len(hashed) == 2 * -(-ROWS // CHUNK)
    assert len(read) > 3 * -(-ROWS // CHUNK)


POLYNOMIAL = 0x1EDC6F41
"""That of CRC-32C, without its leading term."""


def _invisible(raw: bytes, place: int) -> bytes:
    """Return other bytes of the same CRC-32C: they differ by a multiple of its polynomial."""
    # the lowest bit of a byte has the highest power
    bits = int(f"{(1 << 32 | POLYNOMIAL):033b}"[::-1], 2)
    number = int.from_bytes(raw, "little") ^ bits << 8 * place
    return number.to_bytes(len(raw), "little")


def test_a_change_that_no_crc_shows_is_an_invisible_one(path: Path) -> None:
    raw = (path / "features" / "c" / "1" / "0").read_bytes()
    other = _invisible(raw, 20)
    assert other != raw
    assert contents.crc32c(other[:-4]) == contents.crc32c(raw[:-4]) == raw[-4:]


@pytest.mark.parametrize("name", READS)
def test_a_file_that_was_written_to_is_verified_by_its_sha256(path: Path, name: str) -> None:
    """Also where the CRC-32C, by which later reads are usually verified, shows nothing."""
    file = path / "features" / "c" / "1" / "0"
    for chunk in path.glob("features/c/*/0"):
        os.utime(chunk, ns=(0, 10**18))  # so that the clock has moved on by the time of the change
    bank = FeatureBank.open(path)
    for _ in range(2):
        READS[name](bank)
    raw = file.read_bytes()
    file.write_bytes(raw)  # the same: read again, and accepted
    READS[name](bank)
    file.write_bytes(_invisible(raw, 20))
    with pytest.raises(DataError, match=r"chunk 1 \(rows 8 to 15\) is damaged"):
        READS["price"](bank)
    file.write_bytes(raw)
    READS[name](bank)


def _flip(file: Path, place: int) -> None:
    """Change a bit as a failing disk would, so that the state of the file says nothing of it."""
    raw = file.read_bytes()
    file.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])


@pytest.mark.parametrize("wanted", [[0, 1], [7], [399], [250, 399], [130]])
def test_a_bit_that_changes_in_a_piece_is_noticed_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[int]
) -> None:
    """Single rows are verified by checksums of their own, even if the file seems unchanged."""
    monkeypatch.setattr(layout, "_ROWS", 200)
    monkeypatch.setattr(contents, "_PIECE", 64)  # two rows of 32 bytes
    monkeypatch.setattr(contents, "_state", lambda _: (0,))
    points = normal(400, 8)
    FeatureBank(points).save(tmp_path / "bank")
    bank = FeatureBank.open(tmp_path / "bank")
    part = bank.select(torch.tensor(wanted))
    indices = torch.tensor(wanted)
    for _ in range(2):
        assert torch.equal(bank.take(indices), points[indices].double())
    row = wanted[-1]
    _flip(tmp_path / "bank" / "features" / "c" / str(row // 200) / "0", row % 200 * 32 + 9)
    for read in (lambda: bank.take(indices), lambda: part.features, lambda: bank.features):
        with pytest.raises(DataError, match="is damaged: it is not the chunk that was written"):
            read()
    other = torch.tensor([row // 200 * 200 + 20])
    assert torch.equal(bank.take(other), points[other].double())


@pytest.mark.parametrize("stop", [0, 100, 32 * 200, 32 * 200 + 3])
def test_a_chunk_that_is_cut_off_after_it_was_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(layout, "_ROWS", 200)
    monkeypatch.setattr(contents, "_PIECE", 64)
    FeatureBank(normal(400, 8)).save(tmp_path / "bank")
    bank = FeatureBank.open(tmp_path / "bank")
    for _ in range(2):
        bank.take(torch.tensor([250]))
        bank.price(torch.ones(1, 8), 1)
    file = tmp_path / "bank" / "features" / "c" / "1" / "0"
    file.write_bytes(file.read_bytes()[:stop])
    for read in (
        lambda: bank.take(torch.tensor([250])),
        lambda: bank.price(torch.ones(1, 8), 1),
    ):
        with pytest.raises(DataError, match=f"is damaged: it has {stop} bytes instead of 6404"):
            read()
