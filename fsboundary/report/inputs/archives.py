"""Arrays of a user's images in an ``.npz`` file, which is not trusted.

It is read without pickle. Sizes are compared with limits before anything is allocated, and what a
decoder raises becomes a DataError that names the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.files import printable


@contextlib.contextmanager
def damage_named(where: Path, problem: str, fix: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a DataError about the file `where`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of decoders on old or odd files
            yield
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DataError(f"{where}: {problem} ({reason}). {fix}") from error


def check_memory(needed: int, where: str) -> None:
    """Raise DataError if images need more bytes than this machine has memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 2**36  # the system does not tell: more than most machines have
    if needed > memory:
        raise DataError(
            f"{where} need {needed / 1e9:,.1f} GB as floating point; this machine has "
            f"{memory / 1e9:,.1f} GB. Use fewer or smaller images"
        )


KEYS = ("images", "labels", "class_names", "train_images", "train_labels")

_DEFLATE_RATIO = 1032
"""Largest factor by which a deflated file can grow."""

FLOAT_BYTES = 4
"""Size of a pixel in memory, beside the array that it was read from."""


def read_archive(path: Path) -> dict[str, Any]:
    """Return the fields of an ``ImageSet``, from a file as ``load_images`` describes it."""
    fix = "Save arrays of numbers, and class_names as an array of str"
    with damage_named(path, "cannot be read without pickle", fix):
        arrays = _read_arrays(path)
        images, labels = _images_and_labels(arrays, "", path)
        train_images, train_labels = _images_and_labels(arrays, "train_", path)
        return {
            "images": images,
            "labels": labels,
            "class_names": _names(arrays, path),
            "train_images": train_images,
            "train_labels": train_labels,
        }


def _images_and_labels(
    arrays: dict[str, NDArray[Any]], prefix: str, path: Path
) -> tuple[Tensor | None, Tensor | None]:
    """Return the images and labels whose keys start with `prefix`, None where missing."""
    images, labels = f"{prefix}images", f"{prefix}labels"
    if images not in arrays:
        return None, None
    pixels = _images(arrays[images], f"{path}: {images}")
    if labels not in arrays:
        return pixels, None
    return pixels, _labels(arrays[labels], len(pixels), f"{path}: {labels}")


_END, _MANY = 22, 0xFFFF
"""Size of the record that ends a zip file, and its number of members if they are too many."""


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: not an .npz file; wanted an .npz file or a folder of images. Save it with "
            "numpy.savez(path, images=...)"
        )
    with zipfile.ZipFile(path) as archive:
        found: dict[str, zipfile.ZipInfo] = {}
        others: list[str] = []
        for member in archive.infolist():
            archive.open(member).close()  # its name must be the same in both places
            key = member.filename.removesuffix(".npy")
            if key in found:
                raise DataError(f"{path}: contains {key} twice. Save it again with numpy.savez")
            if key in KEYS:
                found[key] = member
            else:
                others.append(key)
        room = path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(-_END - len(archive.comment), os.SEEK_END)
            listed = int.from_bytes(stream.read(12)[10:], "little")
        if listed not in (len(archive.infolist()), _MANY):  # zipfile does not compare them
            raise DataError(f"{path}: lists {listed} arrays but contains others. Save it again")
        _check_keys(path, list(found), others)
        return {key: _read_array(archive, member, path, room) for key, member in found.items()}


def _check_keys(path: Path, found: list[str], others: list[str]) -> None:
    """Raise DataError unless there are images, and no key that is probably misspelt."""
    names = ", ".join(map(printable, [*found, *others])) or "nothing"
    for key in KEYS:
        alike = [] if key in found else get_close_matches(key, others, n=1, cutoff=0.8)
        fix = f"Rename {printable(alike[0])!r} to {key!r}" if alike else ""
        if key == "images" and key not in found:
            fix = fix or "Save it with numpy.savez(path, images=...)"
            raise DataError(f"{path}: contains {names}; wanted an array 'images'. {fix}")
        if alike:
            wanted = "of these names, " + ", ".join(KEYS)
            raise DataError(
                f"{path}: contains {names}; wanted {wanted}. {fix}, or give it a name that is "
                "less like it"
            )


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, room: int
) -> NDArray[Any]:
    """Return an array of the archive at `path`, a file of `room` bytes, if its header is honest."""
    where = f"{path}: {member.filename}"
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_RATIO}.get(member.compress_type)
    if ratio is None:
        raise DataError(
            f"{where} is compressed by method {member.compress_type}; wanted that of "
            "numpy.savez_compressed. Save it again with it"
        )
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} of the header, which only structured arrays need")
        if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
            raise ValueError(f"objects of type {dtype}")
        declared = stream.tell() + math.prod(shape) * dtype.itemsize
    limit = min(member.compress_size, room) * ratio
    if min(shape, default=0) < 0 or declared != member.file_size or declared > limit:
        raise DataError(
            f"{where} declares the shape {shape} and the type {dtype}, {declared:,} bytes, which "
            f"the file does not contain. It is damaged: save it again"
        )
    check_memory(math.prod(shape) * (dtype.itemsize + FLOAT_BYTES), f"{where}: these {shape}")
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at the end, zipfile compares the checksum
    return array


_ROUNDING = 1e-6
"""Distance from [0, 1] that counts as rounding of float32, and is clipped."""


def _images(array: NDArray[Any], where: str) -> Tensor:
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.size == 0:
        raise DataError(
            f"{where} have the shape {array.shape}; wanted (N, C, H, W) or (N, H, W), not empty. "
            "Save images in one of these shapes"
        )
    if array.shape[1] > 4 and array.shape[3] in (1, 3, 4):
        raise DataError(
            f"{where} have the shape {array.shape}, with channels last; wanted (N, C, H, W). "
            "Save images.transpose(0, 3, 1, 2)"
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(array).float() / 255
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{where} have the type {array.dtype}; wanted uint8 or floating point in [0, 1]. "
            "Convert them with images.astype('uint8') or divide them by their largest value"
        )
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise DataError(
            f"{where} range from {low:.9g} to {high:.9g}; wanted pixels in [0, 1]. Undo the "
            "normalisation (put it in the model), or divide by 255"
        )
    return torch.from_numpy(array.astype(np.float32)).clamp_(0, 1)


def _labels(array: NDArray[Any], rows: int, where: str) -> Tensor:
    whole = array.shape == (rows,) and array.dtype.kind in "iu"  # np.integer has durations too
    if not whole or array.min() < -1 or array.max() > np.iinfo(np.int64).max:  # of unsigned ones
        lowest = f", the smallest {array.min()}" if array.size and array.dtype.kind in "if" else ""
        raise DataError(
            f"{where} have the shape {array.shape} and the type {array.dtype}{lowest}; wanted "
            f"{rows} whole numbers from 0, one per image, -1 for no label. Number classes from 0"
        )
    return torch.from_numpy(array.astype(np.int64))


def _names(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: class_names have the shape {names.shape} and the type {names.dtype}; wanted "
            "a list of str, one per class. Save numpy.array(['cat', 'dog', ...])"
        )
    return tuple(printable(str(name)) for name in names)
