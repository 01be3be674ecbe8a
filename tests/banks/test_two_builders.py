"""Two processes that write to one path, and disks that are full: no row is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fsboundary.banks import FeatureBank
from fsboundary.banks.disk import folder, layout, writer
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock, lock_path
from support.banks.small import CHUNK, ROWS, content, loader, space

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_ROWS", CHUNK)


@pytest.fixture
def _no_pending_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a builder publish each chunk before it reads more: the second begins at a known row."""
    monkeypatch.setattr(writer, "_WAITING", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of a bank that one uninterrupted process built."""
    space().bank(loader(), tmp_path / "whole")
    return content(tmp_path / "whole")


def _interleave(others: dict[int, Callable[[], object]]) -> Batches:
    """Yield the batches; before some of them, call what another process does meanwhile."""
    for number, batch in enumerate(loader()):
        others.get(number, lambda: None)()
        yield batch


@pytest.mark.parametrize("number", range(12))
def test_a_second_builder_is_refused_and_the_first_loses_nothing(
    path: Path, whole: dict[str, bytes], number: int
) -> None:
    def second() -> None:
        with pytest.raises(DataError, match=r"bank is being written by process \d+ on .*Wait"):
            space().bank(loader(), path)
        with pytest.raises(DataError, match=r"unfinished bank|no such bank"):
            FeatureBank.open(path)

    space().bank(_interleave({number: second}), path)
    assert content(path) == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork and no SIGKILL")
def test_two_builders_that_are_killed(root: Path) -> None:
    """A sample of tests/benchmarks/hunt_banks.py."""
    script = str(root / "tests" / "benchmarks" / "hunt_banks.py")
    options = ["--builders", "5", "--flips", "0", "--edits", "0", "--seed", "1"]
    process = subprocess.run(
        [sys.executable, script, *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(process.stdout)["builders"]
    assert found["killed"] > 0
    assert found["refused"] > 0


@pytest.mark.usefixtures("_no_pending_chunks")
def test_a_lock_that_was_deleted_ends_both_builders_before_harm(
    path: Path, whole: dict[str, bytes]
) -> None:
    """The second builder runs because somebody deleted the lock of the first."""

    def second() -> None:
        lock_path(path).unlink()
        space().bank(loader(), path)
        assert content(path) == whole

    with pytest.raises(DataError, match=r"its lock .* was deleted while this process was writing"):
        space().bank(_interleave({9: second}), path)
    assert content(path) == whole


@pytest.mark.usefixtures("_no_pending_chunks")
def test_another_writer_is_seen_in_the_journal(
    path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not reach, as if this folder were mounted at two places."""

    def second() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(folder, "hold_lock", lambda _: hold_lock(path.with_name("other")))
            space().bank(loader(), path)

    with pytest.raises(DataError, match="another process writes to this bank"):
        space().bank(_interleave({9: second}), path)
    assert len(FeatureBank.open(path)) == ROWS
    assert FeatureBank.open(path).features.isfinite().all()
    assert content(path) == whole


def test_a_bank_of_two_names_has_one_lock(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"

    def second() -> None:
        link.symlink_to(path)
        with pytest.raises(DataError, match="is being written by"):
            space().bank(loader(), link)

    space().bank(_interleave({5: second}), path)


def test_a_complete_bank_needs_no_lock(path: Path, whole: dict[str, bytes]) -> None:
    space().bank(loader(), path)
    with hold_lock(path):
        assert len(space().bank(loader(), path)) == ROWS
    assert content(path) == whole


def test_leftovers_of_killed_builders_are_removed(path: Path, whole: dict[str, bytes]) -> None:
    for _ in range(2):  # for a new bank, then for a complete one
        lock_path(path).write_text("")
        leftover = path.with_name(".bank.unfinished") / "features"
        leftover.mkdir(parents=True, exist_ok=True)
        (leftover / "zarr.json").write_text("{")
        space().bank(loader(), path)
        assert content(path) == whole
        assert not lock_path(path).exists()
        shutil.rmtree(path.with_name(".bank.unfinished"), ignore_errors=True)


def test_two_savers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = space().bank(loader())
    finish, calls = writer.ChunkWriter.finish, []

    def interrupted(self: writer.ChunkWriter) -> None:
        calls.append(None)
        if len(calls) == 1:
            with pytest.raises(DataError, match="is being written by"):
                bank.save(path)
            with pytest.raises(DataError, match="is being written by"):
                space().bank(loader(), path)
        finish(self)

    monkeypatch.setattr(writer.ChunkWriter, "finish", interrupted)
    bank.save(path)
    assert torch.equal(FeatureBank.open(path).features, bank.features)
    with pytest.raises(ArgumentError, match="which exists"):
        bank.save(path)
    assert len(calls) == 1


def _fail_at(number: int, operation: str, code: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the call `number` of a function of `os` fail; return a list that counts the calls."""
    real, count = getattr(os, operation), [0]

    def failing(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] > number:  # a full disk stays full
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, operation, failing)
    return count


def _message(call: Callable[[], object]) -> str:
    """Return the message of the DataError that the call raises, "" if it does not."""
    try:
        call()
    except DataError as error:
        return str(error)
    return ""


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EIO]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_full_disk_is_a_data_error_and_the_rows_before_are_kept(
    tmp_path: Path, whole: dict[str, bytes], operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment of a build: the next call continues, and the bank is bit for bit the same."""
    number = 0
    while True:
        path, code = tmp_path / f"{operation}{number}", FULL[number % 3]
        with monkeypatch.context() as patch:
            count = _fail_at(number, operation, code, patch)
            message = _message(partial(space().bank, loader(), path))
        if count[0] <= number:
            assert message == ""
            break
        problem = "it cannot be written" if code == errno.EIO else "the disk is full"
        assert f"{path}: {problem} ([Errno {code}] {os.strerror(code)}" in message
        assert "rows are on the disk and are kept. Free some space" in message
        assert not list(tmp_path.glob(".*"))
        assert not list(tmp_path.rglob("*.partial"))
        space().bank(loader(), path)
        assert content(path) == whole
        number += 5  # a sixth of all moments
    assert number > 20


def test_a_full_disk_leaves_no_saved_bank(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = space().bank(loader())
    for number in (0, 3, 20):
        with monkeypatch.context() as patch:
            _fail_at(number, "replace", errno.ENOSPC, patch)
            with pytest.raises(DataError, match=r"the disk is full.*Nothing was left there. Free"):
                bank.save(path)
        assert list(path.parent.iterdir()) == []
    bank.save(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
def test_a_real_limit_of_the_system(path: Path, root: Path) -> None:
    """Files of more than 300 bytes cannot be written."""
    code = (
        "import resource, sys; from pathlib import Path; from fsboundary.banks.disk import layout;"
        "from support.banks.small import loader, space;"
        "layout._ROWS = 64; bank = space(); bank.extract(loader()[0][0]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900));"
        "bank.bank(loader(), Path(sys.argv[1]))"
    )
    paths = os.pathsep.join([str(root), str(root / "tests")])
    process = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DataError" in process.stderr.splitlines()[-1]
    assert "File too large" in process.stderr
    space().bank(loader(), path)
    assert len(FeatureBank.open(path)) == ROWS


def test_a_path_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in place of a folder, because permissions do not stop an administrator."""
    (tmp_path / "file").write_text("words")
    feature_space = space()
    monkeypatch.setattr(feature_space, "extract", lambda *_, **__: pytest.fail("worked first"))
    with pytest.raises(DataError, match="cannot be written"):
        feature_space.bank(loader(), tmp_path / "file" / "bank")
