"""Checks of arguments that several plots take, and texts about rows that a plot leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from fsboundary.core.checks import check_instance, check_integer, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import printable
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.space import FeatureSpace

MAX_NAME_LENGTH = 16
"""Largest number of letters of a name in a figure."""


def shorten(name: str, max_length: int) -> str:
    """Return `name`, cut to at most `max_length` letters."""
    return name if len(name) <= max_length else name[: max_length - 1].rstrip() + "…"


def head_of(head: object) -> LinearHead:
    """Return the head, on the CPU, of a LinearHead or a FeatureSpace, or raise ArgumentError."""
    if isinstance(head, FeatureSpace):
        head = head.head
    fix = "pass space.head, or the FeatureSpace itself"
    found = check_instance("head", head, LinearHead, "a LinearHead or a FeatureSpace", fix)
    return found.to(torch.device("cpu"))


def check_names(class_names: object, num_classes: int | None) -> list[str]:
    """Return a printable name per class, its number by default, or raise ArgumentError.

    Without a number of classes, there may be any number of names.
    """
    if class_names is None:
        return [str(k) for k in range(num_classes or 0)]
    wanted = "names" if num_classes is None else f"{num_classes} names"
    fix = "pass one name per class, in the order of the classes"
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise ArgumentError("class_names", describe(class_names), wanted, fix)
    if num_classes is not None and len(class_names) != num_classes:
        raise ArgumentError("class_names", f"{len(class_names)} names", wanted, fix)
    for name in class_names:
        check_instance("class_names", name, str, "names as text", fix)
    return [printable(name) for name in class_names]


def check_rows(rows: object, total: int, most: int) -> list[int]:
    """Return the rows to draw, by default the first `most`, or raise ArgumentError."""
    if rows is None:
        return list(range(min(total, most)))
    if isinstance(rows, Tensor):
        rows = rows.tolist()
    wanted, fix = "a list of rows", "pass rows=[0, 1], for example"
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise ArgumentError("rows", describe(rows), wanted, fix)
    if not 1 <= len(rows) <= most:
        raise ArgumentError(
            "rows", f"{len(rows)} rows", f"1 to {most} rows", "draw several figures"
        )
    return [check_integer("rows", row, 0, total - 1, fix="count rows from 0") for row in rows]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 row" or "2 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_left_out(status: Tensor) -> str:
    """Return the number and the statuses of rows that are not drawn, "" if there are none.

    Parameters
    ----------
    status : Tensor (N,)
        Status codes of these rows; of a row that only has no number, CONVERGED.
    """
    if not len(status):
        return ""
    counts = Counter(status.tolist())
    reasons = [f"{number:,} {Status(code).name}" for code, number in sorted(counts.items()) if code]
    shown = f" ({', '.join(reasons)})" if reasons else ""
    return f"{count(len(status), 'row')} left out{shown}"


MAX_CLASSES = 20
"""A picture of more classes is unreadable."""


def check_classes(classes: object, num_classes: int) -> list[int]:
    """Return the classes to draw, by default all, or raise ArgumentError."""
    wanted, fix = f"1 to {MAX_CLASSES} different classes", "pass classes=[0, 1, 2], for example"
    if classes is None:
        if num_classes > MAX_CLASSES:
            raise ArgumentError("classes", f"None, with {num_classes} classes", wanted, fix)
        return list(range(num_classes))
    if isinstance(classes, Tensor):
        classes = classes.tolist()
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ArgumentError("classes", describe(classes), wanted, fix)
    found = [
        check_integer("classes", k, 0, num_classes - 1, fix="count classes from 0") for k in classes
    ]
    if not 1 <= len(found) <= MAX_CLASSES or len(set(found)) < len(found):
        raise ArgumentError("classes", f"{found}", wanted, fix)
    return found
