"""Output files and streams of the command line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import typer

from fsboundary.core.errors import ArgumentError, ReportWarning
from fsboundary.core.files import check_outputs, is_foreign, printable


def may_replace(force: bool, out: Path, json_path: Path | None, *inputs: Path) -> bool:
    """Check the outputs, and return whether files that fsboundary did not write may be replaced.

    On a terminal, the user decides about each; elsewhere they are refused without --force.
    """
    outputs = {"--out": out, "--json": json_path}
    check_outputs(outputs, inputs=inputs, force=True)  # nothing to ask if they cannot be written
    existing = {
        name: path
        for name, path in outputs.items()
        if path is not None and path.is_file() and path.stat().st_size
    }
    if not force and sys.stdin.isatty() and sys.stderr.isatty():
        for path in existing.values():
            foreign = is_foreign(path)
            what = "was not written by fsboundary" if foreign else "is an earlier result"
            typer.confirm(f"{printable(str(path))} {what}. Replace it?", abort=True, err=True)
            force |= foreign
    elif not force:
        check_outputs(outputs, inputs=inputs)
        for name, path in existing.items():
            fix = "name another file, or add --force to replace it"
            raise ArgumentError(name, f"{path}, which exists", "a new file", fix)
    check_outputs(outputs, inputs=inputs, force=force)
    return force


def finish(path: Path, open_it: bool) -> None:
    """Name the file that was written and, if wanted, open it in the browser."""
    typer.echo(f"Wrote {printable(str(path))}")
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def open_closed_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise a file that is opened later gets the stream's number, and what libraries print is
    written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  # stays open
            setattr(sys, name, stream)


def is_from_printing(error: OSError) -> bool:
    """Return whether typer, which prints all output and help, raised `error` as it printed."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is typer.echo.__code__:
            return True
        trace = trace.tb_next
    return False


def discard_unprinted() -> None:
    """Discard text that cannot be printed; Python would try again, and complain, at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[Callable[[str], None]]:
    """Redirect to stderr what third-party code, including C code, writes to file descriptor 1.

    Yields a function that writes a line to the real standard output.
    """
    sys.stdout.flush()
    saved = open(os.dup(1), "w", encoding="utf-8", newline="\n")  # noqa: SIM115  # closed below

    def show(line: str) -> None:
        typer.echo(printable(line), file=saved)

    try:
        os.dup2(2, 1)
        yield show
    finally:
        sys.stdout.flush()
        os.dup2(saved.fileno(), 1)
        with contextlib.suppress(OSError):  # of a line that could not be written, reported already
            saved.close()


_show_other = warnings.showwarning


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning about a report as one line, and others as Python does."""
    if issubclass(category, ReportWarning):
        typer.echo(f"fsboundary: warning: {printable(' '.join(str(message).split()))}", err=True)
    else:
        _show_other(message, category, filename, lineno, file, line)
