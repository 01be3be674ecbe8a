"""Images from an ``.npz`` file, without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.report.image_set import ImageSet

KEYS = ("images", "labels", "class_names", "train_images", "train_labels")


def read_archive(path: Path) -> ImageSet:
    """Read an ``.npz`` file; :func:`~fsboundary.report.images.load_images` says how."""
    arrays = _arrays(path)
    if "images" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path}: holds {found}; wanted an array 'images'. Save it with "
            "numpy.savez(path, images=...)"
        )
    images, labels = _pair(arrays, "", path)
    assert images is not None  # its key is there
    train_images, train_labels = _pair(arrays, "train_", path)
    return ImageSet(
        images=images,
        labels=labels,
        class_names=_names(arrays, path),
        train_images=train_images,
        train_labels=train_labels,
    )


def _pair(
    arrays: dict[str, NDArray[Any]], prefix: str, path: Path
) -> tuple[Tensor | None, Tensor | None]:
    """Return images and labels whose keys start with `prefix`, where they are there."""
    images, labels = f"{prefix}images", f"{prefix}labels"
    if images not in arrays:
        return None, None
    pixels = _images(arrays[images], f"{path}: {images}")
    if labels not in arrays:
        return pixels, None
    return pixels, _labels(arrays[labels], len(pixels), f"{path}: {labels}")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: not an .npz file. Wanted one, or a folder of images; save it with "
            "numpy.savez(path, images=...)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in KEYS}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read without pickle ({error}). Save plain arrays of numbers, and "
            "class_names as an array of str"
        ) from error


def _images(array: NDArray[Any], where: str) -> Tensor:
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.size == 0:
        raise DataError(
            f"{where} have the shape {array.shape}; wanted (N, C, H, W) or (N, H, W), not empty"
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
            f"{where} have the type {array.dtype}; wanted uint8, or floating point in [0, 1]. "
            "Convert them with images.astype('uint8') or divide them by their largest value"
        )
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    if low < 0 or high > 1:
        raise DataError(
            f"{where} go from {low:.6g} to {high:.6g}; wanted pixels in [0, 1]. Undo the "
            "normalisation (put it in the model), or divide by 255"
        )
    return torch.from_numpy(array.astype(np.float32))


def _labels(array: NDArray[Any], rows: int, where: str) -> Tensor:
    if array.shape != (rows,) or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        lowest = f", the smallest {array.min()}" if array.size and array.dtype.kind in "if" else ""
        raise DataError(
            f"{where} have the shape {array.shape} and the type {array.dtype}{lowest}; wanted "
            f"{rows} whole numbers from 0, one an image"
        )
    return torch.from_numpy(array.astype(np.int64))


def _names(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: class_names have the shape {names.shape} and the type {names.dtype}; wanted "
            "a list of str, one a class"
        )
    return tuple(str(name) for name in names)
