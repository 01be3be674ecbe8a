"""Layout of banks on disk: the properties that are fixed before the first row is written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from fsboundary.banks.disk.files import read_file, sha256
from fsboundary.banks.store import BankInfo
from fsboundary.core.errors import DataError

GROUP = "zarr.json"
"""Path of the metadata of the group in the folder of a bank."""

_VERSION = 2
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**23
"""Maximal rows and bytes of a chunk, which a killed extraction has to recompute. A disk is slower
with smaller files."""

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Dtypes of the features. Zarr and NumPy have no bfloat16, so its bits are stored as uint16."""

_NAN = {"bfloat16": 0x7FC0}
"""NaN of the dtypes whose bits are stored as integers."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Properties of a bank on disk that are fixed before the first row is written.

    Attributes
    ----------
    num_features : int
        Width d.
    dtype : str
        Dtype of the features, one of :data:`DTYPES`.
    chunk_rows : int
        Number of rows per chunk, the same for all arrays.
    labelled : bool
        Whether there are labels.
    info : BankInfo
        Origin of the features.
    """

    num_features: int
    dtype: str
    chunk_rows: int
    labelled: bool
    info: BankInfo

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return ["features", *["labels"] * self.labelled, "ids"]

    def torch_dtype(self, name: str) -> torch.dtype:
        """Return the dtype of the numbers of an array."""
        dtype: torch.dtype = getattr(torch, self.dtype if name == "features" else "int64")
        return dtype

    def array_dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of NumPy that has the bits of these numbers."""
        dtype = self.dtype if name == "features" else "int64"
        return np.dtype("uint16" if dtype == "bfloat16" else dtype)

    def stored_dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the numbers in the chunk files of an array, which are little-endian.

        Arrays of it are those of :meth:`array_dtype` on nearly all machines.
        """
        return self.array_dtype(name).newbyteorder("<")

    def fill_value(self, name: str) -> float | int:
        """Return the value after the last row of the last chunk, which no bank contains."""
        if name == "features":
            return _NAN.get(self.dtype, float("nan"))
        return int(np.iinfo(np.int64).min) if name == "labels" else -1

    def chunk_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the chunks of an array; the last one is filled up."""
        return (self.chunk_rows, *[self.num_features] * (name == "features"))

    def chunk_bytes(self, name: str) -> int:
        """Return the number of bytes of each chunk file of an array."""
        return math.prod(self.chunk_shape(name)) * self.array_dtype(name).itemsize + 4

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group, from which :func:`read_layout` reads the layout."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        origin = values.pop("info")
        values |= {field.name: getattr(origin, field.name) for field in fields(origin)}
        return {_ATTRIBUTES: {"version": _VERSION} | values}


def rows_per_chunk(num_features: int, dtype: str, batch: int = 1) -> int:
    """Return the number of rows per chunk: whole batches, and about 8 MiB or 4,096 rows."""
    itemsize: int = getattr(torch, dtype).itemsize
    rows = min(_ROWS, _BYTES // (num_features * itemsize))
    return batch * max(1, rows // batch)


def chunk_file(name: str, number: int) -> str:
    """Return the path of a chunk in the folder of its bank, as Zarr names it."""
    return f"{name}/c/{number}" + "/0" * (name == "features")


def read_layout(path: Path) -> tuple[Layout, str]:
    """Return the layout of a bank, and the SHA-256 of the file that contains it.

    Raises
    ------
    DataError
        The folder is missing, is not a bank, or was written in another format.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bank. Create it with FeatureSpace.bank(loader, path)")
    try:
        raw = read_file(path, GROUP)
        attributes = json.loads(raw)["attributes"][_ATTRIBUTES]
        version = attributes["version"]
    except Exception as error:  # not a group, broken JSON, other attributes: the same to a user
        raise DataError(f"{path}: not a feature bank ({error})") from error
    if type(version) is not int or version != _VERSION:
        fix = "Update fsboundary, or create the bank again"
        if version == 1:
            fix = "That format has no seal, by which damage is recognised: create the bank again"
        raise DataError(
            f"{path}: format {version} of a feature bank; this version reads {_VERSION}. {fix}"
        )
    try:
        origin = {field.name: attributes[field.name] for field in fields(BankInfo)}
        names = [field.name for field in fields(Layout) if field.name != "info"]
        values = {name: attributes[name] for name in names}
        _verify_layout(values, origin)
        return Layout(**values, info=BankInfo(**origin)), sha256(raw)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: a damaged feature bank ({error!r}). Create it again") from error


def _verify_layout(values: dict[str, Any], origin: dict[str, Any]) -> None:
    """Raise ValueError unless the metadata describe a bank."""
    for name in ("num_features", "chunk_rows"):
        if type(values[name]) is not int or values[name] < 1:
            raise ValueError(f"{name}={values[name]!r}")
    if values["dtype"] not in DTYPES:
        raise ValueError(f"dtype={values['dtype']!r}")
    if type(values["labelled"]) is not bool:
        raise ValueError(f"labelled={values['labelled']!r}")
    for name, value in origin.items():
        if type(value) is not str:
            raise ValueError(f"{name}={value!r}")
