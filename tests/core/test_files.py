"""Output files: nothing is lost, whatever fails, and what cannot be written is found first."""

from __future__ import annotations

import io
import os
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsboundary.core import files
from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError
from fsboundary.core.files import (
    GENERATOR,
    check_outputs,
    is_foreign,
    printable,
    write_file,
    write_files,
)
from fsboundary.core.results.comparison import write_csv
from fsboundary.pixels import write_gif
from fsboundary.testing.scaffold import write_template

PAGE = f'<!doctype html>\n<meta name="generator" content="{GENERATOR}">\n'.encode()
NUMBERS = f'{{\n "generator": "{GENERATOR}",\n "schema": 1}}\n'.encode()


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".fsboundary")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "a cat"),
        ("año – 猫\u3000\u00a0🐈", "año – 猫\u3000\u00a0🐈"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("\u2066x\u2069\u200e\ufeff\u00ad", r"\u2066x\u2069\u200e\ufeff\xad"),
        ("a\nb\tc\r\x1b[31m\x00", r"a\nb\tc\r\x1b[31m\x00"),
        ("a\u2028b\u2029\x85", r"a\u2028b\u2029\x85"),
        (os.fsdecode(b"a\xff\xfe.png"), r"a\xff\xfe.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected
    expected.encode("utf-8")


@pytest.mark.parametrize(
    ("content", "foreign"),
    [
        (b"", False),
        (PAGE, False),
        (NUMBERS, False),
        (b"PK\x03\x04" + NUMBERS, True),
        (b"notes on " + PAGE, True),
        (b"<!doctype html>\n" + b" " * 2000 + PAGE, True),
        (b'{\n "schema": 1}', True),
        (b"\xff", True),
    ],
)
def test_what_is_foreign(content: bytes, foreign: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not is_foreign(path)
    path.write_bytes(content)
    assert is_foreign(path) == foreign
    (tmp_path / "link").symlink_to(path)
    assert is_foreign(tmp_path / "link") == foreign
    if foreign:
        with pytest.raises(ArgumentError, match=r"out: .*was not written by fsboundary.*--force"):
            check_outputs({"out": path})
        with pytest.raises(DataError, match="another program has written it meanwhile"):
            write_files({path: b"new"})
        assert path.read_bytes() == content
        (kept,) = _leftovers(tmp_path)
        assert (tmp_path / kept).read_bytes() == b"new"
    check_outputs({"out": path}, force=True)
    write_files({path: b"new"}, force=True)
    assert path.read_bytes() == b"new"


def _same(path: Path) -> Path:
    return path


def _symbolic(path: Path) -> Path:
    link = path.with_name("symbolic")
    link.symlink_to(path.name)
    return link


def _hard(path: Path) -> Path:
    path.with_name("hard").hardlink_to(path)
    return path.with_name("hard")


def _through_a_folder(path: Path) -> Path:
    path.with_name("folder").symlink_to(path.parent)
    return path.with_name("folder") / path.name


def _around(path: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


ALIASES = [_same, _symbolic, _hard, _through_a_folder, _around]


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("content", [b"data", PAGE])
def test_an_input_is_never_an_output(
    alias: Callable[[Path], Path], content: bytes, tmp_path: Path
) -> None:
    source = tmp_path / "d.npz"
    source.write_bytes(content)
    for force in (False, True):
        with pytest.raises(ArgumentError, match=r"which is the input .*d\.npz"):
            check_outputs(
                {"out": alias(source) if not force else source}, inputs=[source], force=force
            )


@pytest.mark.parametrize("alias", ALIASES)
def test_outputs_differ(alias: Callable[[Path], Path], tmp_path: Path) -> None:
    first = tmp_path / "r.html"
    first.write_bytes(PAGE)
    with pytest.raises(ArgumentError, match=r"json_path: got .*which is also out"):
        check_outputs({"out": first, "json_path": alias(first)}, force=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [("r.html", "r.html"), ("r.html", "R.HTML"), ("\u00e9", "e\u0301"), ("ß", "SS")],
)
def test_new_outputs_differ_on_every_file_system(first: str, second: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="which is also out"):
        check_outputs({"out": tmp_path / first, "json_path": tmp_path / second})
    check_outputs({"out": tmp_path / "r.html", "json_path": tmp_path / "r.json"})
    check_outputs({"out": tmp_path / "r.html", "json_path": None})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/r.html", "create .*gone first"),
        ("file/r.html", "create .*file first"),
        (".", "the folder"),
        ("r" * 300, "File name too long"),
        ("nul\0", "null byte|null character"),
        ("loop", "symbolic links"),
        ("dangling", "create .*nowhere first"),
    ],
)
def test_paths_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/r.html")
    with pytest.raises(ArgumentError, match=message):
        check_outputs({"out": tmp_path / name}, force=True)


def test_protected_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_bytes(PAGE)
    with monkeypatch.context() as patch:  # the superuser may write everywhere
        patch.setattr(os, "access", lambda file, mode: file != path)
        with pytest.raises(ArgumentError, match="write-protected"):
            check_outputs({"out": path}, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _full)
        with pytest.raises(ArgumentError, match=r"no file can be created in .*No space"):
            check_outputs({"out": path}, force=True)
    check_outputs({"out": path})
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"")
    old.chmod(0o640)
    previous = os.umask(0o027)
    try:
        write_files({old: b"1", new: b"2"})
    finally:
        os.umask(previous)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert (old.read_bytes(), new.read_bytes()) == (b"1", b"2")


def test_links_are_followed_and_other_names_keep_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(PAGE)
    link, other = _symbolic(target), _hard(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert other.read_bytes() == PAGE
    (tmp_path / "ahead").symlink_to("later")
    write_file(tmp_path / "ahead", b"new")
    assert (tmp_path / "later").read_bytes() == b"new"


def test_pipes_and_devices_are_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_outputs({"out": pipe, "json_path": Path(os.devnull)})
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_files({pipe: b"new", Path(os.devnull): b"gone"})
    reader.join()
    assert found == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    with pytest.raises(DataError, match="/dev/full: cannot be written"):
        write_file("/dev/full", b"new")


def _gif(path: Path) -> None:
    write_gif(torch.rand(2, 1, 4, 4), path)


def _csv(path: Path) -> None:
    write_csv({"a": [1, 2]}, path)


def _page(path: Path) -> None:
    write_files({path: b"new"}, force=True)


WRITERS = [_gif, _csv, _page]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("failing", ["fsync", "chmod", "replace"])
def test_a_full_disk_leaves_the_old_file(
    writer: Callable[[Path], None], failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old content")
    owner = os if failing == "fsync" else Path
    monkeypatch.setattr(owner, failing, _full)
    with pytest.raises(FsboundaryError, match="No space left on device"):
        writer(path)
    assert path.read_bytes() == b"old content"
    # a finished file that could not be moved is not thrown away
    assert len(_leftovers(tmp_path)) == (failing == "replace")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_stops_half_way_leaves_the_old_file(
    writer: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old content")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, hard))  # the size that a file may reach
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large"):
            writer(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old content"
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_an_interruption_leaves_the_old_file(
    writer: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "old"
    path.write_bytes(b"old content")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer(path)
    assert path.read_bytes() == b"old content"
    assert _leftovers(tmp_path) == []


def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = os.fsync

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        return _full() if len(calls) == 2 else real(descriptor)

    monkeypatch.setattr(files.os, "fsync", second_fails)
    with pytest.raises(DataError, match="b: cannot be written"):
        write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_gifs_and_tables_are_complete(tmp_path: Path) -> None:
    frames = torch.rand(2, 1, 4, 4)
    stream = io.BytesIO()
    write_gif(frames, stream)
    write_gif(frames, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == stream.getvalue()
    write_csv({"name": ["\udcff", "é"], "value": [np.nan, 1.5]}, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().decode() == "name,value\r\n\\udcff,\r\né,1.5\r\n"
    with pytest.raises(ArgumentError, match=r"file: .*create .*gone first"):
        write_gif(frames, tmp_path / "gone" / "a.gif")


def test_half_a_template_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = Path.write_text, []

    def third_fails(path: Path, *given: Any) -> int:
        written.append(path)
        return _full() or 0 if len(written) == 3 else real(path, *given)

    monkeypatch.setattr(Path, "write_text", third_fails)
    with pytest.raises(DataError, match="No space left on device"):
        write_template("my_solver", "hull-solver", tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "fsboundary-my-solver").symlink_to("nowhere")
    with pytest.raises(ArgumentError, match="exists already"):
        write_template("my_solver", "hull-solver", tmp_path)
