"""Script that builds banks in processes killed by SIGKILL: python killed.py FOLDER SEED TIMES.

Each round forks a child that builds the bank at FOLDER/<round> and is killed at a seeded moment:
in even rounds at its n-th file operation, in odd rounds after a fraction of the time that an
uninterrupted run takes. Every second pair of rounds is killed again while resuming. Then another
child finishes the bank. The script prints how many kills interrupted a child.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from fsboundary.banks.disk import layout
from support.banks.small import CHUNK, loader, space

_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.truncate")

_OPERATIONS = 180
"""Approximate number of such operations in an uninterrupted run."""


def _build(path: Path, operations: int | None) -> None:
    """Build the bank in this process, which kills itself at a file operation."""
    remaining, folder = operations, str(path.parent)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal remaining
        if remaining is not None and event in _EVENTS and folder in str(arguments[0]):
            remaining -= 1
            if remaining < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    space().bank(loader(), path)


def _child(path: Path, operations: int | None = None, seconds: float | None = None) -> bool:
    """Build in a child; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            _build(path, operations)
        except BaseException as error:
            print(f"{path}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # a child that ended waits for its parent, so it exists
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"{path}: the child failed")
    return os.WIFSIGNALED(status)


def main(folder: Path, seed: int, times: int) -> None:
    """Print how many kills interrupted a child, first for new banks, then for resumed ones."""
    torch.set_num_threads(1)
    layout._ROWS = CHUNK
    # SIGKILL loses nothing that was written, so waiting for the disk is not needed
    os.fsync = lambda fd: None
    rng = random.Random(seed)
    begin = time.perf_counter()
    _child(folder / "whole")
    duration = time.perf_counter() - begin
    num_killed = [0, 0]
    for number in range(times):
        path = folder / str(number)
        for resumed in range(1 + number % 4 // 2):
            if number % 2:
                killed = _child(path, seconds=rng.uniform(0, 0.9 * duration))
            else:
                killed = _child(path, operations=rng.randrange(_OPERATIONS))
            num_killed[resumed] += killed
        _child(path)
    print(*num_killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
