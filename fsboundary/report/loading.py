"""Loading of a user's images.

Images come from an ``.npz`` file, read without pickle, or from a folder whose subfolders, if any,
are the classes. The files are not trusted: sizes are compared with limits before anything is
allocated, a picture is read by the decoder of its suffix only, and what a decoder raises becomes a
DataError that names the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.files import printable


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
        File of each image, if the images came from a folder, as printable text.
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


@contextlib.contextmanager
def _damage_named(where: Path, problem: str, fix: str) -> Iterator[None]:
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


def _check_memory(needed: int, where: str) -> None:
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

_FLOAT_BYTES = 4
"""Size of a pixel in memory, beside the array that it was read from."""


def _read_archive(path: Path) -> ImageSet:
    """Read an ``.npz`` file as described in :func:`~fsboundary.report.loading.load_images`."""
    fix = "Save arrays of numbers, and class_names as an array of str"
    with _damage_named(path, "cannot be read without pickle", fix):
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
        for member in archive.infolist():
            archive.open(member).close()  # its name must be the same in both places
            key = member.filename.removesuffix(".npy")
            if key in found:
                raise DataError(f"{path}: contains {key} twice. Save it again with numpy.savez")
            if key in KEYS:
                found[key] = member
        room = path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(-_END - len(archive.comment), os.SEEK_END)
            listed = int.from_bytes(stream.read(12)[10:], "little")
        if listed not in (len(archive.infolist()), _MANY):  # zipfile does not compare them
            raise DataError(f"{path}: lists {listed} arrays but contains others. Save it again")
        return {key: _read_array(archive, member, path, room) for key, member in found.items()}


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
    _check_memory(math.prod(shape) * (dtype.itemsize + _FLOAT_BYTES), f"{where}: these {shape}")
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


_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".gif": "GIF",
}
"""Decoder of each suffix. No other may read it: some start programs, such as that of EPS."""

SUFFIXES = frozenset(_FORMATS)

MAX_PIXELS = 2**24
"""Largest number of pixels of one image: 4096 x 4096, far more than classifiers take."""

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _COLOUR_MAP = 258, 339, 320
"""Tags of TIFF files."""


def source_files(path: Path) -> Iterator[Path]:
    """Yield the files that :func:`load_images` would read: the file itself, or the images."""
    if not path.is_dir():
        yield path
        return
    for pattern in ("*", "*/*"):
        yield from (p for p in path.glob(pattern) if p.suffix.lower() in SUFFIXES)


def _read_folder(path: Path) -> ImageSet:
    """Read a folder as described in :func:`~fsboundary.report.loading.load_images`."""
    with _damage_named(path, "cannot be listed", "Check its permissions"):
        top_level = _image_files(path, path)
        entries = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        classes, numbers = _class_numbers(sorted(entries))
        by_class = [_image_files(folder, path) for folder in classes]
    if top_level and any(by_class):
        raise DataError(
            f"{path}: contains images and subfolders with images; wanted only one of the two. "
            f"Move {top_level[0].name} into the subfolder of its class"
        )
    files = top_level or [file for group in by_class for file in group]
    if not files:
        wanted = f"wanted files that end in {', '.join(sorted(SUFFIXES))}. Add some"
        raise DataError(f"{path}: contains no image; {wanted}")
    names = tuple(printable(str(file.relative_to(path))) for file in files)
    if top_level:
        return ImageSet(images=_read_pixels(files), file_names=names)
    labels = [k for k, group in zip(numbers, by_class, strict=True) for _ in group]
    complete = numbers == list(range(len(numbers)))
    return ImageSet(
        images=_read_pixels(files),
        labels=torch.tensor(labels),
        class_names=tuple(printable(folder.name) for folder in classes) if complete else None,
        file_names=names,
    )


def _class_numbers(folders: list[Path]) -> tuple[list[Path], list[int]]:
    """Return the folders and their classes, ascending: numbers as names are the class numbers."""
    numbers = [int(f.name) for f in folders if f.name.isascii() and f.name.isdecimal()]
    if len(set(numbers)) < len(folders):
        return folders, list(range(len(folders)))
    order = sorted(range(len(folders)), key=numbers.__getitem__)
    return [folders[k] for k in order], sorted(numbers)


def _image_files(folder: Path, root: Path) -> list[Path]:
    """Return the images in `folder`, sorted; hidden files and folders are none.

    Raises DataError for a link that leaves `root` and for what is no file, such as a pipe.
    """
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.suffix.lower() not in SUFFIXES or entry.is_dir():
            continue
        linked = entry.is_symlink() or folder.is_symlink()
        if linked and not entry.resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{entry}: is a link to {entry.resolve()}, outside of {root}. Copy the file into "
                "the folder, or name the folder that contains it"
            )
        if not entry.is_file():
            raise DataError(f"{entry}: is no file, or a link to nothing. Remove it")
        found.append(entry)
    return found


def _read_pixels(files: list[Path]) -> Tensor:
    """Return all images (N, C, H, W): grey if all are grey, else red, green and blue."""
    arrays: list[NDArray[np.uint8]] = []
    for file in files:
        array = _read_picture(file)
        first = arrays[0] if arrays else array
        if array.shape[:2] != first.shape[:2]:
            (height, width), (rows, columns) = array.shape[:2], first.shape[:2]
            raise DataError(
                f"{file}: is {width} x {height} pixels, but {files[0].name} is "
                f"{columns} x {rows}; wanted the same size for all. Resize or crop them "
                "first, as for training"
            )
        if not arrays:
            size = first.size * (1 + _FLOAT_BYTES)
            _check_memory(len(files) * size, f"{file.parent}: {len(files)} images")
        arrays.append(array)
    channels = 1 if all(array.ndim == 2 for array in arrays) else 3
    pixels = torch.empty(len(arrays), channels, *arrays[0].shape[:2])
    for image, array in zip(pixels, arrays, strict=True):
        values = torch.from_numpy(array)  # grey is equal red, green and blue
        image.copy_((values.movedim(-1, 0) if array.ndim == 3 else values) / 255)
    return pixels


def _read_picture(file: Path) -> NDArray[np.uint8]:
    """Return a picture of 8 bits per channel: (H, W) if it is grey, else (H, W, 3)."""
    wanted = _FORMATS[file.suffix.lower()]
    with _damage_named(file, f"cannot be read as an image of type {wanted}", "Fix or remove it"):
        with file.open("rb") as stream:
            actual = _format_of(stream.read(12))
        if actual is not None and actual != wanted:
            raise DataError(
                f"{file}: is named as {wanted} but contains {actual}. Give it the suffix of its "
                "contents"
            )
        with Image.open(file, formats=[wanted]) as picture:
            _check_header(file, picture)
            picture.load()
            turned = ImageOps.exif_transpose(picture)  # as the camera was held
        return _opaque(file, turned)


def _format_of(start: bytes) -> str | None:
    """Return the format that the first twelve bytes of a file announce; None for another one."""
    if start.startswith(b"RIFF"):
        return "WEBP" if start[8:12] == b"WEBP" else None
    starts = {
        b"\x89PNG": "PNG",
        b"\xff\xd8": "JPEG",
        b"BM": "BMP",
        b"GIF8": "GIF",
        b"II": "TIFF",
        b"MM": "TIFF",
    } | {f"P{k}".encode(): "PPM" for k in range(1, 7)}
    return next((name for mark, name in starts.items() if start.startswith(mark)), None)


def _check_header(file: Path, picture: ImageFile.ImageFile) -> None:
    """Raise DataError for a picture that is too large, or that 8 bits of one frame do not hold."""
    width, height = picture.size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(
            f"{file}: is {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read. Resize "
            "or crop it first, as for training"
        )
    # the further pictures of an MPO file, which cameras write as .jpg, are previews
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise DataError(
            f"{file}: has more than one frame; wanted one. Save the frames as files of their own"
        )
    deep = _deep(picture)
    if deep:
        raise DataError(
            f"{file}: has more than 8 bits per channel ({deep}); wanted 8 bits. Save "
            "it with 8 bits, or save all images as floating point in an .npz file"
        )


def _deep(picture: ImageFile.ImageFile) -> str | None:
    """Return what shows that a picture has other than up to 8 unsigned bits per channel, or None.

    Pillow would cut some of them to 8 bits, or take signed numbers for unsigned ones.
    """
    if picture.mode in _DEEP:
        return f"mode {picture.mode}"
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]  # pictures of this format have it
        bits = np.max(tags.get(_BITS_PER_SAMPLE, 1))
        colours = np.asarray(tags.get(_COLOUR_MAP, 0))
        if bits > 8 or np.any(tags.get(_SAMPLE_FORMAT, 1) != np.array(1)):
            return f"{bits} bits, sample format {tags.get(_SAMPLE_FORMAT, 1)}"
        # a colour map has 16 bits; those of 8 are written as c * 257 or c * 256
        return (
            "a colour map of 16 bits" if np.any(colours % 257) and np.any(colours % 256) else None
        )
    if picture.format in ("PNG", "PPM") and picture.tile:
        arguments = picture.tile[0][3]
        raw, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
        if ";16" in str(raw):
            return f"mode {raw}"
        if picture.format == "PPM" and rest and rest[0] > 255:
            return f"largest value {rest[0]}"
    return None


def _opaque(file: Path, picture: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a grey or coloured picture, or raise DataError if it is neither."""
    mode = picture.mode
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        raise DataError(
            f"{file}: has the colour space {mode}; wanted grey or RGB. Convert it, as for training"
        )
    if picture.has_transparency_data:
        alpha = picture.convert("LA" if mode == "La" else "RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise DataError(
                f"{file}: has transparent pixels; wanted opaque ones, because what is behind them "
                "is unknown. Put it on a background, as for training"
            )
    array: NDArray[np.uint8] = np.array(picture.convert("L" if mode[0] in "1L" else "RGB"))
    return array


def load_images(path: Path) -> ImageSet:
    """Read images.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``images`` (N,C,H,W) or (N,H,W), uint8 or floating point in [0, 1],
        and optionally ``labels``, ``class_names``, ``train_images`` and ``train_labels``; or a
        folder of image files of one size, whose subfolders, if any, are the classes: that of their
        number if all names are numbers, else in sorted order. The suffix of a file must be that of
        its format; its orientation (EXIF) is applied. Hidden files and folders are left out.

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
