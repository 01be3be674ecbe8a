"""Names of the classes in the order of the model, and labels that are mapped to it by name."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.files import printable
from fsboundary.report.inputs.archives import damage_named
from fsboundary.report.inputs.loading import ImageSet

MAX_BYTES = 2**26
"""Largest size of a file of names or labels: far more than a million of them need."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNames:
    """Names of the classes, in the order of the model's outputs.

    Attributes
    ----------
    names : tuple of str
        Name of each class, as the report shows it.
    numbers : dict of str to int
        Class of each name and of each further name of a class.
    source : Path
    """

    names: tuple[str, ...]
    numbers: dict[str, int]
    source: Path

    def number(self, name: str, where: str) -> int:
        """Return the class with this name, or raise DataError with the closest one."""
        if name in self.numbers:
            return self.numbers[name]
        close = get_close_matches(name, self.numbers, n=1)
        fix = f"Rename it to {close[0]!r}, the closest, or add" if close else "Add"
        raise DataError(
            f"{where}: {name!r} is none of the {len(self.names)} names in {self.source}. {fix} it "
            "to that file, in the place of its class"
        )

    def map_labels(self, images: ImageSet, source: Path) -> ImageSet:
        """Return `images` with the labels numbered as here.

        Labels with names (subfolders, or ``class_names`` of an npz file) are mapped by name.
        Numbers without names are those of the model already, and so are subfolders whose names are
        numbers unless these are names here.
        """
        given = images.class_names
        if given is None or all(n.isdecimal() and n not in self.numbers for n in given):
            return dataclasses.replace(images, class_names=self.names)
        order = torch.tensor([self.number(name, str(source)) for name in given])
        if len(order.unique()) < len(order):
            counts = Counter(order.tolist())
            twice = [name for name in given if counts[self.numbers[name]] > 1]
            raise DataError(
                f"{source}: {' and '.join(twice[:2])} are names of one class in {self.source}. "
                "Merge these classes, or give each a name of its own"
            )
        labels, training = (
            None if old is None else torch.where(old >= 0, order[old.clamp_min(0)], -1)
            for old in (images.labels, images.train_labels)
        )
        return dataclasses.replace(
            images, class_names=self.names, labels=labels, train_labels=training
        )


def read_class_names(path: Path) -> ClassNames:
    """Read the names of the classes.

    Parameters
    ----------
    path : Path
        Text file with one name per line, in the order of the model's outputs; tabs separate
        further names of a class. Or a JSON file: a list of names, an object from name to number,
        or one from number to name or to a list of names of a class, such as
        ``imagenet_class_index.json``.

    Raises
    ------
    DataError
        The file is not as above, a name is empty or names two classes.
    """
    fix = "Write one name per line, in the order of the model's outputs"
    with damage_named(path, "cannot be read as class names", fix):
        text = _read_text(path)
        if path.suffix.lower() == ".json":
            groups = _groups_of(json.loads(text))
        else:
            groups = [line.split("\t") for line in text.rstrip("\r\n").splitlines()]
        groups = [[name.strip() for name in group] for group in groups]
        numbers: dict[str, int] = {}
        for k, group in enumerate(groups):
            for name in group:
                if not name:
                    raise ValueError(f"class {k} has an empty name")
                if numbers.setdefault(name, k) != k:
                    raise ValueError(f"{name!r} names the classes {numbers[name]} and {k}")
        if not groups:
            raise ValueError("it contains no name")
    return ClassNames(
        # of several names, the last is for people where the first is a code such as n01440764
        names=tuple(printable(group[-1]) for group in groups),
        numbers=numbers,
        source=path,
    )


def _groups_of(content: Any) -> list[list[str]]:
    """Return the names of each class from the content of a JSON file."""
    if isinstance(content, dict):
        if all(isinstance(value, int) for value in content.values()):  # from name to number
            content = {str(number): name for name, number in content.items()}
        numbers = sorted(content, key=int)
        if [int(key) for key in numbers] != list(range(len(numbers))):
            raise ValueError("its classes are not numbered from 0")
        content = [content[key] for key in numbers]
    groups = [group if isinstance(group, list) else [group] for group in content]
    if not all(group and all(isinstance(name, str) for name in group) for group in groups):
        raise ValueError("a name is not a text")
    return groups


def read_labels(path: Path, images: ImageSet, names: Sequence[str] | ClassNames | None) -> Tensor:
    """Read a label for each image.

    Parameters
    ----------
    path : Path
        ``.npy`` file of N whole numbers, in the order of the images. Or a text file: one label per
        line in that order, or lines ``file,label`` (CSV), of which images may be missing. A label
        is a number from 0, a name, or empty for none.
    images : ImageSet
    names : ClassNames, sequence of str or None
        Names that labels may be.

    Returns
    -------
    Tensor (N,), int64
        -1 for an image without a label.

    Raises
    ------
    DataError
        The file is not as above.
    """
    count = len(images.images)
    with damage_named(path, "cannot be read as labels", "Write one label per line"):
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.shape != (count,) or array.dtype.kind not in "iu":
                raise DataError(
                    f"{path}: has the shape {array.shape} and the type {array.dtype}; wanted "
                    f"{count} whole numbers, one per image. Save numpy.array(labels)"
                )
            return _checked(torch.from_numpy(array.astype(np.int64)), path)
        lines = [line for line in csv.reader(_read_text(path).splitlines()) if line]
    widths = {len(line) for line in lines}
    if widths == {1}:
        if len(lines) != count:
            raise DataError(
                f"{path}: has {len(lines)} labels for {count} images. Write one per image, in the "
                "order of their names, or lines of file,label"
            )
        found = [_label(line[0], names, path) for line in lines]
        return _checked(torch.tensor(found), path)
    if widths != {2}:
        raise DataError(
            f"{path}: has lines of {', '.join(map(str, sorted(widths))) or 'no'} columns; wanted "
            "one (label) or two (file,label) in all"
        )
    return _checked(_by_file(lines, images, names, path), path)


def _by_file(
    lines: list[list[str]], images: ImageSet, names: Sequence[str] | ClassNames | None, path: Path
) -> Tensor:
    if images.file_names is None:
        raise DataError(
            f"{path}: names files, but the images come from an npz file and have none. Write one "
            "label per line, in the order of the images"
        )
    rows = {name: row for row, name in enumerate(images.file_names)}
    labels = torch.full((len(rows),), -1)
    if lines and lines[0][1].strip().lower() == "label" and lines[0][0].strip() not in rows:
        lines = lines[1:]  # the heading
    for file, text in lines:
        name = file.strip().removeprefix("./")
        if name not in rows:
            close = get_close_matches(name, rows, n=1)
            hint = f"Write {close[0]!r}, the closest" if close else "Name it relative to the folder"
            raise DataError(f"{path}: there is no image {name!r}. {hint}")
        labels[rows[name]] = _label(text, names, path)
    return labels


def _label(text: str, names: Sequence[str] | ClassNames | None, path: Path) -> int:
    """Return the class that a label names; -1 for an empty one."""
    text = text.strip()
    if isinstance(names, ClassNames) and text in names.numbers:
        return names.numbers[text]
    if names is not None and not isinstance(names, ClassNames) and text in names:
        return list(names).index(text)
    if not text or text == "-1":
        return -1
    if text.isascii() and text.isdecimal():
        return int(text)
    if isinstance(names, ClassNames):
        return names.number(text, str(path))
    raise DataError(
        f"{path}: {text!r} is no number, and no class has this name. Number the classes from 0 in "
        "the model's order, or give their names with --class-names"
    )


def _checked(labels: Tensor, path: Path) -> Tensor:
    if len(labels) and int(labels.min()) < -1:
        raise DataError(f"{path}: has the label {int(labels.min())}; wanted -1 (none) or more")
    return labels


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")  # a pipe would never end
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    return path.read_text("utf-8-sig")
