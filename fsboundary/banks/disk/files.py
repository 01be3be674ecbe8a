"""Files of banks on disk: their digests, and reading them without following links."""

from __future__ import annotations

import hashlib
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any

_LARGEST = 2**28
"""Maximal bytes of a file that is read completely, whatever size it declares; a seal of this size
lists three million chunks."""

_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# a link is an error, and a pipe is not waited for; Windows has neither flag
_OPEN |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def sha256(*contents: Any) -> str:
    """Return the SHA-256 of bytes or arrays of bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def read_file(folder: Path, name: str) -> bytes:
    """Return the bytes of the file `name` of a bank.

    Raises
    ------
    OSError
        The file is too large, or for a reason of :func:`open_file`.
    """
    with open_file(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise OSError(f"it has {size} bytes instead of at most {_LARGEST}")
        return file.read(size)


def open_file(folder: Path, name: str) -> FileIO:
    """Open the file `name` of a bank for reading, without a buffer.

    Raises
    ------
    OSError
        The file is missing, a link, inside a linked folder, or not a plain file.
    """
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise OSError(f"{path.relative_to(folder).as_posix()} is a link")
    file = FileIO(os.open(path, _OPEN))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{name} is not a plain file")
    return file
