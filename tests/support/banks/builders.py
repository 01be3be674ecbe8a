"""Two processes that build one bank at the same path, and are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.banks.disk import layout
from fsboundary.core.errors import DataError
from support.banks.small import CHUNK, ROWS, content, loader, space

_REFUSED = 3


def _slow_loader(seconds: float) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in loader():
        time.sleep(seconds)
        yield batch


def _start(path: Path, delay: float, pause: float) -> int:
    """Fork a child that builds the bank; it exits with 0, or with _REFUSED because of the lock."""
    child = os.fork()
    if child:
        return child
    try:
        time.sleep(delay)
        space().bank(_slow_loader(pause), path)
    except BaseException as error:
        if isinstance(error, DataError) and "is being written by" in str(error):
            os._exit(_REFUSED)
        print(f"{path}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _end(child: int) -> str:
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return {0: "finished", _REFUSED: "refused"}.get(os.WEXITSTATUS(status), "FAILED")


def build_twice(folder: Path, rounds: int, seed: int) -> Counter[str]:
    """Return how the builders of `rounds` banks ended; a key in capitals is a fault.

    The builders of a round start and are killed at random moments, or are not killed. Then the bank
    can be opened only if it is complete, and one more call completes it. Its files must be those of
    a bank that one process built.
    """
    torch.set_num_threads(1)
    layout._ROWS = CHUNK
    os.fsync = lambda _: None  # SIGKILL loses nothing that was written
    begin = time.perf_counter()
    space().bank(loader(), folder / "whole")
    duration = time.perf_counter() - begin
    whole, rng = content(folder / "whole"), random.Random(seed)
    found: Counter[str] = Counter()
    for number in range(rounds):
        path = folder / str(number)
        children = [
            _start(path, rng.uniform(0, duration / 2), rng.uniform(0, duration / 12))
            for _ in range(2)
        ]
        for child in rng.sample(children, rng.randrange(3)):
            time.sleep(rng.uniform(0, duration))
            os.kill(child, signal.SIGKILL)  # a child that ended waits for its parent, so it exists
        ends = [_end(child) for child in children]
        found.update(ends)
        found["both " + ends[0]] += ends[0] == ends[1]
        found[_opened(path, "finished" in ends)] += 1
        if _end(_start(path, 0, 0)) != "finished" or content(path) != whole:
            found["DIFFERENT"] += 1
    left = [entry.name for entry in folder.iterdir() if not entry.name.isdigit()]
    found["LEFT " + ", ".join(sorted(left))] += left != ["whole"]
    return +found


def _opened(path: Path, complete: bool) -> str:
    try:
        bank = fsb.FeatureBank.open(path)
    except DataError as error:
        expected = "unfinished bank" in str(error) or "no such bank" in str(error)
        return "left unfinished" if expected and not complete else "DAMAGED"
    return "left complete" if len(bank) == ROWS else "TRUNCATED"
