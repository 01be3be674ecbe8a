"""Loading of a user's images.

Images come from an ``.npz`` file, read without pickle, or from a folder whose subfolders, if any,
are the classes. The files are not trusted: sizes are compared with limits before anything is
allocated, a picture is read by the decoder of its suffix only, and what a decoder raises becomes a
DataError that names the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.files import printable
from fsboundary.report.inputs.archives import FLOAT_BYTES, check_memory, damage_named, read_archive
from fsboundary.report.inputs.sizes import Size


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
    remark : str
        What may surprise about the channels; often empty.
    """

    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    file_names: tuple[str, ...] | None = None
    train_images: Tensor | None = None
    train_labels: Tensor | None = None
    remark: str = ""

    def verify_classes(self, classes: int, source: Path) -> None:
        """Raise DataError unless labels and names fit a model with this number of classes."""
        if self.class_names is not None and len(self.class_names) != classes:
            raise DataError(
                f"{source}: {len(self.class_names)} class names ({', '.join(self.class_names[:5])}"
                f", ...) for a model of {classes} classes. Give the names of all classes, in the "
                "model's order, with --class-names, or leave names and subfolders out"
            )
        self.verify_labels(classes, source)

    def verify_labels(self, classes: int, source: Path) -> None:
        """Raise DataError for a label that is none of this number of classes."""
        for name, labels in (("labels", self.labels), ("train_labels", self.train_labels)):
            if labels is not None and len(labels) and int(labels.max()) >= classes:
                raise DataError(
                    f"{source}: {name} go up to {int(labels.max())}, but the model has {classes} "
                    f"classes. Number the classes from 0 to {classes - 1} in the model's order"
                )


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

MAX_PHOTO = 2**27
"""The same for images that are resized, one after the other: more than cameras take."""

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


def _read_folder(path: Path, size: Size | None) -> ImageSet:
    """Read a folder as described in :func:`~fsboundary.report.inputs.loading.load_images`."""
    with damage_named(path, "cannot be listed", "Check its permissions"):
        top_level = _image_files(path, path)
        entries = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        classes, numbers = _class_numbers(sorted(entries))
        by_class = [_image_files(folder, path) for folder in classes]
        deeper = _first_deeper(classes)
    if top_level and any(by_class):
        raise DataError(
            f"{path}: contains images and subfolders with images; wanted only one of the two. "
            f"Move {top_level[0].name} into the subfolder of its class"
        )
    if deeper is not None:
        raise DataError(
            f"{path}: contains images in folders of its subfolders, such as "
            f"{deeper.relative_to(path)}; wanted images in it or in its subfolders, which are the "
            f"classes. Name the folder whose subfolders are the classes, perhaps "
            f"{deeper.parent.parent}, or move the images up"
        )
    files = top_level or [file for group in by_class for file in group]
    if not files:
        wanted = f"wanted files that end in {', '.join(sorted(SUFFIXES))}. Add some"
        raise DataError(f"{path}: contains no image; {wanted}")
    names = tuple(printable(str(file.relative_to(path))) for file in files)
    pixels, remark = _read_pixels(files, size)
    if top_level:
        return ImageSet(images=pixels, file_names=names, remark=remark)
    labels = [k for k, group in zip(numbers, by_class, strict=True) for _ in group]
    complete = numbers == list(range(len(numbers)))
    return ImageSet(
        images=pixels,
        labels=torch.tensor(labels),
        class_names=tuple(printable(folder.name) for folder in classes) if complete else None,
        file_names=names,
        remark=remark,
    )


def _class_numbers(folders: list[Path]) -> tuple[list[Path], list[int]]:
    """Return the folders and their classes, ascending: numbers as names are the class numbers."""
    numbers = [int(f.name) for f in folders if f.name.isascii() and f.name.isdecimal()]
    if len(set(numbers)) < len(folders):
        return folders, list(range(len(folders)))
    order = sorted(range(len(folders)), key=numbers.__getitem__)
    return [folders[k] for k in order], sorted(numbers)


def _first_deeper(folders: list[Path]) -> Path | None:
    """Return an image in a folder of one of the `folders`, which would not be read."""
    for folder in folders:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                images = (p for p in entry.rglob("*") if p.suffix.lower() in SUFFIXES)
                found = next((p for p in images if p.is_file()), None)
                if found is not None:
                    return found
    return None


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


def _read_pixels(files: list[Path], size: Size | None) -> tuple[Tensor, str]:
    """Return all images (N, C, H, W): grey if all are grey, else red, green and blue.

    The text says which files are in colour where others are grey; it is empty otherwise.
    """
    arrays: list[NDArray[np.uint8]] = []
    for file in files:
        array = _read_picture(file, size)
        first = arrays[0] if arrays else array
        if array.shape[:2] != first.shape[:2]:
            (height, width), (rows, columns) = array.shape[:2], first.shape[:2]
            raise DataError(
                f"{file}: is {width} x {height} pixels, but {files[0].name} is "
                f"{columns} x {rows}; wanted the same size for all. Let --size SIDE resize "
                "and crop them, as for training"
            )
        if not arrays:
            each = first.size * (1 + FLOAT_BYTES)
            check_memory(len(files) * each, f"{file.parent}: {len(files)} images")
        arrays.append(array)
    coloured = [file for file, array in zip(files, arrays, strict=True) if array.ndim == 3]
    channels = 3 if coloured else 1
    pixels = torch.empty(len(arrays), channels, *arrays[0].shape[:2])
    for image, array in zip(pixels, arrays, strict=True):
        values = torch.from_numpy(array)  # grey is equal red, green and blue
        image.copy_((values.movedim(-1, 0) if array.ndim == 3 else values) / 255)
    if len(coloured) in (0, len(files)):
        return pixels, ""
    shown = ", ".join(printable(file.name) for file in coloured[:3])
    more = ", .." if len(coloured) > 3 else ""
    return pixels, (
        f"{len(coloured)} of {len(files)} images are in colour ({shown}{more}), so the grey ones "
        "too are read as red, green and blue"
    )


def _read_picture(file: Path, size: Size | None) -> NDArray[np.uint8]:
    """Return a picture of 8 bits per channel: (H, W) if it is grey, else (H, W, 3)."""
    wanted = _FORMATS[file.suffix.lower()]
    with damage_named(file, f"cannot be read as an image of type {wanted}", "Fix or remove it"):
        with file.open("rb") as stream:
            actual = _format_of(stream.read(12))
        if actual is not None and actual != wanted:
            raise DataError(
                f"{file}: is named as {wanted} but contains {actual}. Give it the suffix of its "
                "contents"
            )
        with Image.open(file, formats=[wanted]) as picture:
            _check_header(file, picture, MAX_PIXELS if size is None else MAX_PHOTO)
            picture.load()
            turned = ImageOps.exif_transpose(picture)  # as the camera was held
        pixels = _opaque(file, turned)
        return pixels if size is None else size.of_picture(pixels)


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


def _check_header(file: Path, picture: ImageFile.ImageFile, most: int) -> None:
    """Raise DataError for a picture that is too large, or that 8 bits of one frame do not hold."""
    width, height = picture.size
    if not 0 < width * height <= most:
        raise DataError(
            f"{file}: is {width:,} x {height:,} pixels; at most {most:,} are read. "
            + ("Let --size SIDE resize and crop it" if most == MAX_PIXELS else "Resize it first")
            + ", as for training"
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


def load_images(path: Path, size: Size | None = None) -> ImageSet:
    """Read images.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``images`` (N,C,H,W) or (N,H,W), uint8 or floating point in [0, 1],
        and optionally ``labels``, ``class_names``, ``train_images`` and ``train_labels``; or a
        folder of image files of one size, whose subfolders, if any, are the classes: that of their
        number if all names are numbers, else in sorted order. Images in further folders of these
        are refused. The suffix of a file must be that of
        its format; its orientation (EXIF) is applied. Hidden files and folders are left out.
    size : Size, optional
        Size to which all images are resized and cropped; then those of a folder may have any.

    Raises
    ------
    DataError
        The file or folder does not exist or is not as above; the message says what to fix.
    """
    if path.is_dir():
        return _read_folder(path, size)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder. Check the path")
    found = read_archive(path)
    for name in ("images", "train_images"):
        if size is not None and found[name] is not None:
            found[name] = size.of_images(found[name])
    return ImageSet(**found)
