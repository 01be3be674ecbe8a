"""The command line: ``fsboundary demo``, ``report``, ``compare``, ``triage`` and ``plugins``."""

from __future__ import annotations

import contextlib
import os
import warnings

import typer

from fsboundary.cli.commands import app
from fsboundary.cli.output import (
    discard_unprinted,
    is_from_printing,
    open_closed_streams,
    show_warning,
)
from fsboundary.core.errors import FsboundaryError
from fsboundary.core.files import printable
from fsboundary.cores import num_cores, quota_cores

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an FsboundaryError is shown as one line, with exit code 2.

    So is output that cannot be written because, for example, a disk is full.
    """
    open_closed_streams()
    # Read when torch is loaded. Threads that wait for work otherwise keep a core busy, so on cores
    # that other programs use too, each of a network's small operations waits for a time slice.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Likewise: torch counts the cores that it may run on, but knows of no container's quota.
    if quota_cores() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cores()))
    warnings.showwarning = show_warning
    try:
        app()
    except (FsboundaryError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            if not is_from_printing(error):
                raise
            message = (
                f"output cannot be written ({error.strerror}). Free space, or redirect it to "
                "another file"
            )
        with contextlib.suppress(OSError):  # then the exit code is all that can be seen
            typer.echo(f"fsboundary: error: {printable(' '.join(message.split()))}", err=True)
        discard_unprinted()
        raise SystemExit(2) from error
