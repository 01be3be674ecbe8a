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
        How many stages there will be.
    show_progress : bool
    """

    def __init__(self, total: int, *, show_progress: bool = False) -> None:
        self._seconds: list[tuple[str, float]] = []
        layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}]"
        self._bar = tqdm(total=total, disable=not show_progress, bar_format=layout)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage."""
        self._bar.set_description(f"{name:<{NAME_WIDTH}}")
        start = time.perf_counter()
        yield
        self._seconds.append((name, time.perf_counter() - start))
        self._bar.update()

    def stages(self) -> list[dict[str, str | float]]:
        """Return name and wall time in seconds of the stages that have ended."""
        return [{"name": name, "seconds": seconds} for name, seconds in self._seconds]

    def close(self) -> None:
        """Take the bar away."""
        self._bar.set_description(f"{'done':<{NAME_WIDTH}}")
        self._bar.close()
