"""Locks: one holder at a time, whatever ends it, on file systems with and without flock."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fsboundary.core import files
from fsboundary.core.errors import DataError
from fsboundary.core.files import hold_lock, lock_path

HOLD = """
import sys, time
from pathlib import Path
from fsboundary.core.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COUNT = """
import sys, time
from pathlib import Path
from fsboundary.core.errors import DataError
from fsboundary.core.files import hold_lock
path, done = Path(sys.argv[1]), 0
while done < 40:
    try:
        with hold_lock(path):
            number = int(path.read_text())
            time.sleep(0.0002)
            path.write_text(str(number + 1))
            done += 1
    except DataError:
        pass
"""


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make flock fail as on a file system that does not implement it."""

    def missing(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_flock", missing)


def start(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)


def start_holder(path: Path) -> subprocess.Popen[str]:
    holder = start(HOLD, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught, hold_lock(path):
        pass
    return str(caught.value)


def test_a_lock_is_held_in_the_block_only_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    for _ in range(2):
        with hold_lock(path):
            assert lock_path(path).is_file()
            message = refused(path)
            assert f"{path} is being written by process {os.getpid()} on" in message
            assert message.endswith("Wait until that process ends or choose another path")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), hold_lock(path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_paths_of_one_file_have_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with hold_lock(tmp_path / "bank"):
        assert "written by" in refused(Path("bank"))
        assert "written by" in refused(Path("x") / ".." / "bank")


def test_another_thread_is_refused(tmp_path: Path) -> None:
    messages: list[str] = []
    with hold_lock(tmp_path / "bank"):
        thread = threading.Thread(target=lambda: messages.append(refused(tmp_path / "bank")))
        thread.start()
        thread.join()
    assert len(messages) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_counts_until_it_ends(tmp_path: Path, number: int) -> None:
    path = tmp_path / "bank"
    holder = start_holder(path)
    assert f"process {holder.pid} on" in refused(path)
    end(holder, number)
    assert lock_path(path).exists()  # stale, and not in the way
    with hold_lock(path):
        pass


def test_a_forked_child_does_not_release_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    context = hold_lock(path)
    with context:
        child = os.fork()
        if child == 0:
            context.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert "written by" in refused(path)


def test_processes_that_race_never_hold_it_together(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    racers = [start(COUNT, path) for _ in range(4)]
    for racer in racers:
        racer.communicate()
    assert [racer.returncode for racer in racers] == [0] * 4
    assert path.read_text() == "160"


@pytest.mark.usefixtures("no_flock")
def test_without_flock_an_existing_lock_is_refused_with_the_way_on(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    for _ in range(2):
        with hold_lock(path):
            assert f"or delete {lock_path(path)} if that process no longer" in refused(path)
        assert list(tmp_path.iterdir()) == []
    holder = start_holder(path)
    assert "is being written by process" in refused(path)
    end(holder)
    assert refused(path).endswith(f"by itself. Delete {lock_path(path)} and run again")
    lock_path(path).write_text("")  # ended before it wrote its number
    assert f"or delete {lock_path(path)} if" in refused(path)


def test_a_link_in_place_of_the_lock_overwrites_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    lock_path(tmp_path / "bank").symlink_to(target)
    assert "cannot be written" in refused(tmp_path / "bank")
    assert target.read_text() == "precious"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert "its lock" in refused(tmp_path / "missing" / "bank")


@pytest.mark.parametrize(
    ("host", "boot", "allowed"),
    [
        ("elsewhere", "other", False),
        ("elsewhere", "", False),
        ("elsewhere", "this", True),  # another container on this machine
        ("here", "other", True),  # this machine, before it was restarted
        ("here", "this", True),
    ],
)
def test_a_lock_that_another_machine_left_is_refused(
    tmp_path: Path, host: str, boot: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bank"
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    monkeypatch.setattr(files, "_boot", lambda: "this")
    record = {"pid": 7, "host": host, "boot": boot, "since": "2026-01-01"}
    lock_path(path).write_text(json.dumps(record))
    if allowed:
        with hold_lock(path):
            assert json.loads(lock_path(path).read_text())["pid"] == os.getpid()
        assert not lock_path(path).exists()
    else:
        message = refused(path)
        assert "process 7 on 'elsewhere', since 2026-01-01" in message
        assert message.endswith(f"or delete {lock_path(path)} if that process no longer runs")
        assert json.loads(lock_path(path).read_text()) == record


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "elsewhere"}'])
def test_a_lock_whose_holder_was_killed_while_it_wrote_its_name(
    tmp_path: Path, content: str
) -> None:
    lock_path(tmp_path / "bank").write_text(content)
    with hold_lock(tmp_path / "bank"):
        pass
    assert list(tmp_path.iterdir()) == []


FORK = """
import os, sys, time
from pathlib import Path
from fsboundary.core.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print("held", flush=True)
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_forked_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    """As the workers of a data loader, which notice some seconds later that they are alone."""
    path = tmp_path / "bank"
    holder = start(FORK, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    child = int(holder.stdout.readline())
    assert "written by" in refused(path)
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 20
    try:
        while True:
            try:
                with hold_lock(path):
                    break
            except DataError:  # the child has perhaps not run yet
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_a_lock_that_was_deleted_or_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    with hold_lock(path) as verify:
        verify()
        lock_path(path).unlink()
        with pytest.raises(DataError, match="was deleted while this process was writing"):
            verify()
        with hold_lock(path) as other:  # what the deletion allows
            other()
            with pytest.raises(DataError, match="Make sure that only one does"):
                verify()
    assert list(tmp_path.iterdir()) == []
    with hold_lock(path), hold_lock(path.with_name("other")):
        lock_path(path).unlink()
        lock_path(path).write_text("of another process")
    assert lock_path(path).read_text() == "of another process"
