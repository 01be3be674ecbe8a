"""Locks: one holder at a time, whatever ends it, on file systems with and without flock."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsboundary.core import locks
from fsboundary.core.errors import DataError
from fsboundary.core.locks import hold_lock, lock_path

HOLD = """
import sys, time
from pathlib import Path
from fsboundary.core.locks import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COUNT = """
import sys, time
from pathlib import Path
from fsboundary.core.errors import DataError
from fsboundary.core.locks import hold_lock
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

    monkeypatch.setattr(locks, "_flock", missing)


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
