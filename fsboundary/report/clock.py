"""Stages of a long computation: shown while they run, timed for the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from tqdm import tqdm

NAME_WIDTH = 34
"""Room for a stage's name, so that the bar stands still."""


@final
class Clock:
    """Shows a bar of `total` stages and keeps the wall time of each.

    Parameters
    ----------
    total : int
        How many stages there will be, those within others not counted.
    show_progress : bool
    """

    def __init__(self, total: int, *, show_progress: bool = False) -> None:
        self._seconds: list[tuple[str, float]] = []
        self._open: list[str] = []
        self._within = 0.0
        layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}]"
        self._bar = tqdm(total=total, disable=not show_progress, bar_format=layout)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage; it may hold others, which are timed for themselves.

        The time of a stage leaves out that of the stages within, and only the outermost ones count
        in the total.
        """
        self._open.append(name)
        self._show(name)
        before, self._within, start = self._within, 0.0, time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._seconds.append((name, seconds - self._within))
        self._within = before + seconds
        self._open.pop()
        if self._open:
            self._show(self._open[-1])
        else:
            self._bar.update()

    def _show(self, name: str) -> None:
        self._bar.set_description(f"{name:<{NAME_WIDTH}}")

    def stages(self) -> list[dict[str, str | float]]:
        """Return name and wall time in seconds of the stages that have ended."""
        return [{"name": name, "seconds": seconds} for name, seconds in self._seconds]

    def close(self) -> None:
        """Take the bar away."""
        self._show("done")
        self._bar.close()
