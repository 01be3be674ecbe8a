"""Progress bar, in time, and timer of the stages of a long computation."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from fsboundary.progress import tqdm

TICK = 0.5
"""Seconds between two drawings of the bar."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A stage that is expected, without the stages nested in it.

    Attributes
    ----------
    name : str
    seconds : float
        Its time on the machine and with the model where it was measured.
    kind : str
        Stages of a kind are slower or faster here by about the same factor, which those that are
        finished show.
    limit : float
        Largest factor: a kind that makes its own work smaller has one.
    """

    name: str
    seconds: float
    kind: str = ""
    limit: float = float("inf")


@final
class Clock:
    """A progress bar in time that records the wall time of each stage.

    Parameters
    ----------
    expected : sequence of Expected
        The stages, from which the remaining time is estimated. Others may run too, and expected
        ones may not.
    show_progress : bool
    on_alert : callable, optional
        Called with the text of each alert.
    """

    def __init__(
        self,
        expected: Sequence[Expected] = (),
        *,
        show_progress: bool = False,
        on_alert: Callable[[str], None] | None = None,
    ) -> None:
        self._expected = list(expected)
        self._seconds: list[tuple[str, float]] = []
        self._running: list[tuple[str, float]] = []
        self._nested = 0.0
        self._on_alert = on_alert
        self._start: float | None = None
        self._shown = 0.0
        hidden = not show_progress
        layout = "{percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=100, disable=hidden, bar_format=layout)
        self._task = tqdm(disable=hidden, bar_format="{desc}", leave=False)
        self._stopped = threading.Event()
        self._ticks = threading.Thread(target=self._tick, daemon=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage; nested stages are timed separately.

        The time of a stage excludes that of the stages nested in it.
        """
        before, self._nested, start = self._nested, 0.0, time.perf_counter()
        if self._start is None:
            self._start = start
            if not self._bar.disable:
                self._ticks.start()
        self._running.append((name, start))
        self._draw()
        yield
        seconds = time.perf_counter() - start
        self._seconds.append((name, seconds - self._nested))
        self._nested = before + seconds
        self._running.pop()
        self._draw()

    def alert(self, text: str) -> None:
        """Pass on a text that a user should read before the work is finished."""
        if self._on_alert is not None:
            self._task.clear()
            self._bar.clear()
            self._on_alert(text)

    def stages(self) -> list[dict[str, str | float]]:
        """Return name and wall time in seconds of the finished stages."""
        return [{"name": name, "seconds": seconds} for name, seconds in self._seconds]

    def remaining(self, now: float) -> float:
        """Return the estimated seconds from `now` (of ``time.perf_counter``) to the end."""
        finished = dict(self._seconds)
        spent, planned = defaultdict[str, float](float), defaultdict[str, float](float)
        for stage in self._expected:
            if stage.name in finished:
                spent[stage.kind] += finished[stage.name]
                planned[stage.kind] += stage.seconds
        everywhere = _factor(sum(spent.values()), sum(planned.values()), 1.0)
        running = list(self._running)  # a stage may end while the bar is drawn
        total = 0.0
        for stage in self._expected:
            if stage.name not in finished:
                factor = _factor(spent[stage.kind], planned[stage.kind], everywhere)
                seconds = stage.seconds * min(factor, stage.limit)
                if running and stage.name == running[-1][0]:
                    seconds = max(0.0, seconds - (now - running[-1][1] - self._nested))
                total += seconds
        return total

    def fraction(self, now: float) -> float:
        """Return the part of the time that has passed, between 0 and 1, as estimated."""
        passed = 0.0 if self._start is None else now - self._start
        return passed / max(passed + self.remaining(now), 1e-9)

    def close(self) -> None:
        """Close the progress bar; it is full only if no stage is left running."""
        self._stopped.set()
        if self._ticks.is_alive():
            self._ticks.join()
        if not self._running:
            self._bar.n = 100
            self._bar.set_postfix_str("")
        self._task.close()
        self._bar.close()

    def _tick(self) -> None:
        while not self._stopped.wait(TICK):
            self._draw()

    def _draw(self) -> None:
        if self._bar.disable:
            return
        now = time.perf_counter()
        # an estimate that grows holds the bar still; it does not go back
        self._shown = max(self._shown, min(100 * self.fraction(now), 99.0))
        self._bar.n = self._shown
        self._bar.set_postfix_str(f"about {_words(self.remaining(now))} left")
        names = [name for name, _ in list(self._running)]
        self._task.set_description_str(" > ".join(names))


PRIOR_SECONDS = 0.5
"""Weight of what is known before any stage of a kind is finished, in expected seconds."""


def _factor(spent: float, planned: float, before: float) -> float:
    """Return how many times slower stages are than expected, from those that are finished."""
    return (spent + before * PRIOR_SECONDS) / (planned + PRIOR_SECONDS)


def _words(seconds: float) -> str:
    """Return a time in words, as coarse as an estimate deserves."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
