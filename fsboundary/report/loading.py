"""Loading of a user's images, model and weights.

Images come from an ``.npz`` file, read without pickle, or from a folder whose subfolders, if any,
are the classes. The model comes from the name of a factory function, the weights from a
safetensors file.
"""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError, DataError


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images with their labels and names.

    Attributes
    ----------
    images : Tensor (N, C, H, W), float32
        Pixels in [0, 1].
    labels : Tensor (N,), int64, or None
    class_names : tuple of str or None
    file_names : tuple of str or None
        File of each image, if the images came from a folder.
    train_images, train_labels : Tensor or None
        Training images and their labels, like `images` and `labels`.
    """

    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    file_names: tuple[str, ...] | None = None
    train_images: Tensor | None = None
    train_labels: Tensor | None = None

    def verify_classes(self, classes: int, source: Path) -> None:
        """Raise DataError unless labels and names fit a model with this number of classes."""
        if self.class_names is not None and len(self.class_names) != classes:
            raise DataError(
                f"{source}: {len(self.class_names)} class names ({', '.join(self.class_names[:5])}"
                f", ...) for a model of {classes} classes. Give one name (one subfolder) per "
                "class, in the model's order, or leave names and subfolders out"
            )
        for name, labels in (("labels", self.labels), ("train_labels", self.train_labels)):
            if labels is not None and len(labels) and int(labels.max()) >= classes:
                raise DataError(
                    f"{source}: {name} go up to {int(labels.max())}, but the model has {classes} "
                    f"classes. Number the classes from 0 to {classes - 1} in the model's order"
                )


KEYS = ("images", "labels", "class_names", "train_images", "train_labels")


def _read_archive(path: Path) -> ImageSet:
    """Read an ``.npz`` file as described in :func:`~fsboundary.report.loading.load_images`."""
    arrays = _read_arrays(path)
    if "images" not in arrays:
        names = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path}: contains {names}; wanted an array 'images'. Save it with "
            "numpy.savez(path, images=...)"
        )
    images, labels = _images_and_labels(arrays, "", path)
    assert images is not None  # its key was checked above
    train_images, train_labels = _images_and_labels(arrays, "train_", path)
    return ImageSet(
        images=images,
        labels=labels,
        class_names=_names(arrays, path),
        train_images=train_images,
        train_labels=train_labels,
    )


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


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: not an .npz file; wanted an .npz file or a folder of images. Save it with "
            "numpy.savez(path, images=...)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in KEYS}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read without pickle ({error}). Save arrays of numbers, and "
            "class_names as an array of str"
        ) from error


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
    if low < 0 or high > 1:
        raise DataError(
            f"{where} range from {low:.6g} to {high:.6g}; wanted pixels in [0, 1]. Undo the "
            "normalisation (put it in the model), or divide by 255"
        )
    return torch.from_numpy(array.astype(np.float32))


def _labels(array: NDArray[Any], rows: int, where: str) -> Tensor:
    if array.shape != (rows,) or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        lowest = f", the smallest {array.min()}" if array.size and array.dtype.kind in "if" else ""
        raise DataError(
            f"{where} have the shape {array.shape} and the type {array.dtype}{lowest}; wanted "
            f"{rows} whole numbers from 0, one per image. Number the classes from 0"
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
    return tuple(str(name) for name in names)


SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
)

GREY = frozenset({"1", "L"})
DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


def _read_folder(path: Path) -> ImageSet:
    """Read a folder as described in :func:`~fsboundary.report.loading.load_images`."""
    top_level = _image_files(path)
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    by_class = [_image_files(folder) for folder in classes]
    if top_level and any(by_class):
        raise DataError(
            f"{path}: contains images and subfolders with images; wanted only one of the two. "
            f"Move {top_level[0].name} into the subfolder of its class"
        )
    files = top_level or [file for group in by_class for file in group]
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{path}: contains no image; wanted files that end in {kinds}. Add some")
    names = tuple(str(file.relative_to(path)) for file in files)
    if top_level:
        return ImageSet(images=_read_pixels(files), file_names=names)
    labels = [k for k, group in enumerate(by_class) for _ in group]
    return ImageSet(
        images=_read_pixels(files),
        labels=torch.tensor(labels),
        class_names=tuple(folder.name for folder in classes),
        file_names=names,
    )


def _image_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)


def _read_pixels(files: list[Path]) -> Tensor:
    """Return all images (N, C, H, W): grey if all are grey, else red, green and blue."""
    pictures = [_open_picture(file) for file in files]
    first = pictures[0].size
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != first:
            raise DataError(
                f"{file}: is {picture.width} x {picture.height} pixels, but {files[0].name} is "
                f"{first[0]} x {first[1]}; wanted the same size for all. Resize or crop them "
                "first, as for training"
            )
    mode = "L" if all(picture.mode in GREY for picture in pictures) else "RGB"
    arrays = [np.asarray(picture.convert(mode)) for picture in pictures]
    pixels = torch.from_numpy(np.stack(arrays)).float() / 255
    return pixels[:, None] if mode == "L" else pixels.movedim(-1, 1).contiguous()


def _open_picture(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: cannot be read as an image ({error}). Fix or remove it"
        ) from error
    if picture.mode in DEEP:
        raise DataError(
            f"{file}: has more than 8 bits per channel (mode {picture.mode}); wanted 8 bits. Save "
            "it with 8 bits, or save all images as floating point in an .npz file"
        )
    return picture


def load_images(path: Path) -> ImageSet:
    """Read images.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``images`` (N,C,H,W) or (N,H,W), uint8 or floating point in [0, 1],
        and optionally ``labels``, ``class_names``, ``train_images`` and ``train_labels``; or a
        folder of image files of one size, whose subfolders, if any, are the classes in sorted
        order.

    Raises
    ------
    DataError
        The file or folder does not exist or is not as above; the message says what to fix.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder. Check the path")
    return _read_archive(path)


MODEL_FORMAT = (
    "package.module:factory, a function that returns the model when called without arguments"
)

MAX_KEYS_SHOWN = 3
"""Largest number of keys that an error about weights lists."""


def build_model(spec: str) -> nn.Module:
    """Import and call a factory.

    Parameters
    ----------
    spec : str
        ``package.module:factory``; the factory may be a dotted name, such as ``Class.method``.

    Returns
    -------
    nn.Module
        The model, unchanged.

    Raises
    ------
    ArgumentError
        The module or the factory does not exist or raises, or the result is not a module.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise ArgumentError(
            "model", repr(spec), MODEL_FORMAT, "put a colon before the function's name"
        )
    factory = _get_attribute(_import(module_name), module_name, path)
    if isinstance(factory, nn.Module) or not callable(factory):
        got = f"{spec}, {_describe_type(factory)}"
        raise ArgumentError(
            "model", got, MODEL_FORMAT, "wrap it in a function that returns the model"
        )
    try:
        model = factory()
    except Exception as error:
        got = f"{spec}, which raised {type(error).__name__}: {error}"
        fix = "give every argument a default, or name a function that does"
        raise ArgumentError("model", got, MODEL_FORMAT, fix) from error
    if not isinstance(model, nn.Module):
        got = f"{spec}, which returned {_describe_type(model)}"
        raise ArgumentError("model", got, MODEL_FORMAT, "return a torch.nn.Module")
    return model


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        got = f"the module {name!r}, but there is no {error.name!r}"
        fix = "install it, or run this command in the folder that contains it"
        raise ArgumentError("model", got, "a module that can be imported", fix) from error
    except Exception as error:
        raise _import_error(name, error) from error


def _import_error(name: str, error: Exception) -> ArgumentError:
    got = f"the module {name!r}, whose import raised {type(error).__name__}: {error}"
    fix = "fix the module or install what it needs"
    return ArgumentError("model", got, "a module that can be imported", fix)


def _get_attribute(owner: Any, module_name: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(owner, name):
            close = get_close_matches(name, dir(owner), n=1)
            fix = f"use {close[0]!r}, the closest name" if close else "check the name"
            got = f"{module_name}:{path}, but there is no {name!r}"
            raise ArgumentError("model", got, MODEL_FORMAT, fix)
        owner = getattr(owner, name)
    return owner


def _describe_type(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a model from a safetensors file; every key must match.

    Raises
    ------
    DataError
        The file cannot be read, or its keys or the shapes of its tensors differ from the model's.
    """
    try:
        missing, unexpected = load_model(model, path, strict=False)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Save the weights with "
            "safetensors.torch.save_model(model, path)"
        ) from error
    except RuntimeError as error:  # torch lists the tensors whose shapes differ
        raise DataError(
            f"{path}: these weights do not fit the model: {error}. Make the model with the "
            "arguments that it was trained with"
        ) from error
    if missing or unexpected:
        problems = [
            f"{what} {_join_keys(keys)}"
            for what, keys in (("lacks", missing), ("has but the model does not", unexpected))
            if keys
        ]
        raise DataError(
            f"{path}: {'; '.join(problems)}. Save the state of the model that the factory "
            "returns, without a wrapper (which adds a prefix such as 'module.')"
        )


def _join_keys(keys: Any) -> str:
    shown = ", ".join(sorted(keys)[:MAX_KEYS_SHOWN])
    return shown + (f" and {len(keys) - MAX_KEYS_SHOWN} more" if len(keys) > MAX_KEYS_SHOWN else "")
