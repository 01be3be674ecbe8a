"""Arguments in Captum's conventions: tensors or tuples, targets, extra arguments, batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fsboundary.core.checks import check_integer
from fsboundary.core.errors import ArgumentError
from fsboundary.models.images import check_images, slice_arguments

Target = int | list[int] | Tensor | None
Tensors = Tensor | tuple[Tensor, ...]


def as_tuple(name: str, value: object) -> tuple[Tensor, ...]:
    """Return argument `name`, a tensor or a tuple of tensors with as many rows, as a tuple."""
    parts = value if isinstance(value, tuple) else (value,)
    if not parts:
        raise ArgumentError(name, "an empty tuple", "a tensor or tensors", "pass the images")
    for part in parts:
        check_images(part, name)
    rows = {len(part) for part in parts}
    if len(rows) > 1:
        raise ArgumentError(name, f"{sorted(rows)} rows", "as many rows in each", "align them")
    return parts


def format_output(value: object, parts: tuple[Tensor, ...]) -> Tensors:
    """Return `parts` as a tuple if `value` is a tuple, else its only element."""
    return parts if isinstance(value, tuple) else parts[0]


def as_arguments(additional: object) -> tuple[Any, ...]:
    """Return ``additional_forward_args`` as a tuple."""
    if additional is None:
        return ()
    return additional if isinstance(additional, tuple) else (additional,)


def unpack_arguments(
    inputs: object, additional: object, target: object
) -> tuple[tuple[Tensor, ...], tuple[Any, ...], Tensor | None]:
    """Return the inputs and additional arguments as tuples, and one target per row or None.

    Raises
    ------
    ArgumentError
        As for :func:`as_tuple` of ``inputs`` and :func:`target_rows`.
    """
    parts = as_tuple("inputs", inputs)
    return parts, as_arguments(additional), target_rows(target, len(parts[0]), parts[0].device)


def target_rows(target: object, rows: int, device: torch.device) -> Tensor | None:
    """Return one target per row (B,), or None for the nearest class.

    Raises
    ------
    ArgumentError
        `target` is not an int, a list or tensor of one int or of one per row, or None.
    """
    if target is None:
        return None
    wanted = f"an int, {rows} ints as a list or tensor, or None for the nearest class"
    fix = "pass the class to reach, or one per row"
    try:
        classes = torch.as_tensor(target, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError("target", repr(target), wanted, fix) from error
    inexact = classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool
    if inexact or classes.ndim > 1 or classes.numel() not in (1, rows):
        got = f"{classes.dtype}, shape {tuple(classes.shape)}"
        raise ArgumentError("target", got, wanted, fix)
    return classes.long().reshape(-1).expand(rows)


def iterate_batches(
    rows: int, size: int | None, show_progress: bool, *tuples: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Yield batches of `size` rows of `tuples`, slicing their tensors of B = `rows` rows."""
    fix = "leave it out for all rows at once"
    step = max(rows, 1) if size is None else check_integer("internal_batch_size", size, fix=fix)
    with tqdm(total=rows, unit="image", disable=not show_progress) as bar:
        for start in range(0, max(rows, 1), step):
            part = slice(start, start + step)
            yield tuple(tuple(slice_arguments(values, rows, part)) for values in tuples)
            bar.update(min(step, rows - start))
