"""Seals of banks on disk: the SHA-256 of every file, written last."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fsboundary.banks.disk.files import read_file, sha256
from fsboundary.core.errors import DataError

SEAL = "features/seal.sha256"
"""Path in the folder of a bank; inside an array, because Zarr warns of unknown files in a group."""


@final
@dataclass(frozen=True, slots=True)
class Seal:
    """Record of a complete bank: its number of rows, and the SHA-256 of each of its files.

    It is written last, so a bank without a seal is unfinished. Its lines are those of the program
    sha256sum, which can check them: ``cd bank && sha256sum -c features/seal.sha256``.

    Attributes
    ----------
    rows : int
        Number of rows.
    checksums : dict
        SHA-256 by path: the metadata, the journal if there is one, and the chunks in order.
    """

    rows: int
    checksums: dict[str, str]

    def encode(self) -> bytes:
        """Return the content of the file; the last line is the digest of all before it."""
        lines = [f"# feature bank of {self.rows} rows"]
        lines += [f"{checksum}  {path}" for path, checksum in self.checksums.items()]
        text = "".join(f"{line}\n" for line in lines).encode()
        return text + f"# sha256 of all lines above: {sha256(text)}\n".encode()

    @property
    def digest(self) -> str:
        """SHA-256 of rows, metadata and all chunks in their order."""
        return self.encode()[-65:-1].decode()


_SEAL = re.compile(
    rb"(# feature bank of ([1-9][0-9]{0,17}) rows\n(?:[0-9a-f]{64}  [!-~]+\n)+)"
    rb"# sha256 of all lines above: ([0-9a-f]{64})\n"
)


def read_seal(folder: Path) -> Seal | None:
    """Return the seal of a bank, or None if there is none.

    Raises
    ------
    DataError
        The seal is damaged.
    """
    fix = "Restore it from a copy, or create the bank again"
    try:
        content = read_file(folder, SEAL)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{folder}: a damaged feature bank: {SEAL}: {error}. {fix}") from error
    match = _SEAL.fullmatch(content)
    if match is None or sha256(match[1]) != match[3].decode():
        raise DataError(f"{folder}: a damaged feature bank: {SEAL} was changed. {fix}")
    lines = match[1].decode().splitlines()[1:]
    return Seal(int(match[2]), {line[66:]: line[:64] for line in lines})
