"""Progress bar and timer of the stages of a long computation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from tqdm import tqdm

NAME_WIDTH = 34
"""Width of a stage's name in characters, so that the bar does not move."""


@final
class Clock:
    """A progress bar of `total` stages that records the wall time of each.

    Parameters
    ----------
    total : int
        Number of stages, without nested ones.
    show_progress : bool
    """

    def __init__(self, total: int, *, show_progress: bool = False) -> None:
        self._seconds: list[tuple[str, float]] = []
        self._running: list[str] = []
        self._nested = 0.0
        layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}]"
        self._bar = tqdm(total=total, disable=not show_progress, bar_format=layout)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage; nested stages are timed separately.

        The time of a stage excludes that of the stages nested in it, and only the outermost stages
        count towards the total.
        """
        self._running.append(name)
        self._show(name)
        before, self._nested, start = self._nested, 0.0, time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._seconds.append((name, seconds - self._nested))
        self._nested = before + seconds
        self._running.pop()
        if self._running:
            self._show(self._running[-1])
        else:
            self._bar.update()

    def _show(self, name: str) -> None:
        self._bar.set_description(f"{name:<{NAME_WIDTH}}")

    def stages(self) -> list[dict[str, str | float]]:
        """Return name and wall time in seconds of the finished stages."""
        return [{"name": name, "seconds": seconds} for name, seconds in self._seconds]

    def close(self) -> None:
        """Close the progress bar."""
        self._show("done")
        self._bar.close()
