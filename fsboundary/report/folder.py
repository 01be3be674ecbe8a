"""Images from a folder; its subfolders, if any, are the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.report.image_set import ImageSet

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
)

GREY = frozenset({"1", "L"})
DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


def read_folder(path: Path) -> ImageSet:
    """Read a folder; :func:`~fsboundary.report.images.load_images` says how."""
    own = _files(path)
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    of_class = [_files(folder) for folder in classes]
    if own and any(of_class):
        raise DataError(
            f"{path}: holds images and subfolders with images; wanted either. Move {own[0].name} "
            "into the subfolder of its class"
        )
    files = own or [file for group in of_class for file in group]
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{path}: holds no image. Wanted files that end in {kinds}")
    names = tuple(str(file.relative_to(path)) for file in files)
    if own:
        return ImageSet(images=_read(files), file_names=names)
    labels = [k for k, group in enumerate(of_class) for _ in group]
    return ImageSet(
        images=_read(files),
        labels=torch.tensor(labels),
        class_names=tuple(folder.name for folder in classes),
        file_names=names,
    )


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)


def _read(files: list[Path]) -> Tensor:
    """Return all images (N, C, H, W): grey if all are, else red, green and blue."""
    pictures = [_open(file) for file in files]
    first = pictures[0].size
    for file, picture in zip(files, pictures, strict=True):
        if picture.size != first:
            raise DataError(
                f"{file}: is {picture.width} x {picture.height} pixels, but {files[0].name} is "
                f"{first[0]} x {first[1]}; wanted one size. Resize or crop them first, as for "
                "training"
            )
    mode = "L" if all(picture.mode in GREY for picture in pictures) else "RGB"
    arrays = [np.asarray(picture.convert(mode)) for picture in pictures]
    pixels = torch.from_numpy(np.stack(arrays)).float() / 255
    return pixels[:, None] if mode == "L" else pixels.movedim(-1, 1).contiguous()


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: cannot be read as an image ({error}). Mend or remove it"
        ) from error
    if picture.mode in DEEP:
        raise DataError(
            f"{file}: has more than 8 bits a pixel (mode {picture.mode}), which would be cut off. "
            "Save it with 8 bits, or all of them as floating point in an .npz file"
        )
    return picture
