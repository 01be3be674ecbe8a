"""Keep what a plugin prints while it loads out of the program's output."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, final


@final
class _Capture:
    """Stands in for ``sys.stdout``; keeps the text of one thread, and passes on all other.

    A plugin may keep the stream (a logging handler does), so it passes everything on once it is
    closed.
    """

    def __init__(self, stream: TextIO, parts: list[str]) -> None:
        self._stream, self._parts = stream, parts
        self.owner: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        """Write as text streams do."""
        if threading.get_ident() != self.owner:
            return self._stream.write(text)
        self._parts.append(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write as text streams do."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def captured_stdout(parts: list[str]) -> Iterator[None]:
    """Append what this thread prints to `parts`, while other threads print as before."""
    capture: Any = _Capture(sys.stdout, parts)
    try:
        with contextlib.redirect_stdout(capture):
            yield
    finally:
        capture.owner = None
