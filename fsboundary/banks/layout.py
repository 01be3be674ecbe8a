"""How a bank lies on disk: a Zarr v3 group of `features`, `labels` and `ids`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from fsboundary.banks.info import BankInfo
from fsboundary.core.errors import DataError

VERSION = 1
_ATTRIBUTES = "fsboundary"
_ROWS = 4096
_BYTES = 2**20
"""Rows, and bytes, of a chunk: what a killed extraction has to compute again at most."""

NOTHING = {"features": float("nan"), "labels": int(np.iinfo(np.int64).min), "ids": -1}
"""What Zarr reads where a chunk is missing. No bank holds these numbers."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """What is fixed before the first row is written.

    Attributes
    ----------
    num_features : int
        d.
    dtype : str
        "float32" or "float64".
    chunk_rows : int
        Rows of a chunk, the same for all arrays.
    labelled : bool
        Whether there are labels.
    info : BankInfo
        Where the features came from.
    """

    num_features: int
    dtype: str
    chunk_rows: int
    labelled: bool
    info: BankInfo


def rows_of_chunk(num_features: int, dtype: str, batch: int = 1) -> int:
    """Return how many rows a chunk holds: whole batches, and about 1 MiB or 4,096 rows."""
    rows = min(_ROWS, _BYTES // (num_features * np.dtype(dtype).itemsize))
    return batch * max(1, rows // batch)


def create(path: Path, layout: Layout) -> None:
    """Write an incomplete group without rows."""
    about = {"version": VERSION, "complete": False, "labelled": layout.labelled}
    group = zarr.create_group(
        store=str(path),
        zarr_format=3,
        attributes={_ATTRIBUTES: about | {"dtype": layout.dtype} | asdict(layout.info)},
    )
    kinds = {"features": layout.dtype, "ids": "int64"}
    if layout.labelled:
        kinds["labels"] = "int64"
    for name, dtype in kinds.items():
        wide = (layout.num_features,) if name == "features" else ()
        group.create_array(
            name,
            shape=(0, *wide),
            chunks=(layout.chunk_rows, *wide),
            dtype=dtype,
            fill_value=NOTHING[name],
            compressors=[Crc32cCodec()],  # a checksum alone: features hardly compress
        )


def set_complete(path: Path) -> None:
    """Mark a group as holding all its rows, in one atomic step."""
    group = zarr.open_group(str(path), mode="r+")
    about: Any = group.attrs[_ATTRIBUTES]
    group.attrs.update({_ATTRIBUTES: about | {"complete": True}})


def open_arrays(path: Path, mode: Any = "r") -> tuple[dict[str, zarr.Array[Any]], Layout, bool]:
    """Return the arrays by name, the layout, and whether the bank is complete.

    Raises
    ------
    DataError
        The folder is missing, is no bank, or was written by a newer version.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bank. Make it with FeatureSpace.bank(loader, path)")
    try:
        group = zarr.open_group(str(path), mode=mode)
        about: Any = group.attrs[_ATTRIBUTES]
        version = about["version"]
    except Exception as error:  # not a group, broken JSON, other attributes: one cause for a user
        raise DataError(f"{path}: not a feature bank ({error})") from error
    if version != VERSION:
        raise DataError(
            f"{path}: format {version} of a feature bank; this version reads {VERSION}. "
            "Update fsboundary, or make the bank again"
        )
    try:
        info = BankInfo(**{field.name: about[field.name] for field in fields(BankInfo)})
        names = ["features", "ids"] + ["labels"] * about["labelled"]
        arrays = {name: _array(group, name) for name in names}
        width = arrays["features"].shape[1]
        rows = arrays["features"].chunks[0]
        layout = Layout(width, about["dtype"], rows, about["labelled"], info)
        return arrays, layout, about["complete"]
    except Exception as error:  # as above
        raise DataError(f"{path}: a damaged feature bank ({error!r}). Make it again") from error


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array
