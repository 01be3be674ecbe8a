"""Arguments in Captum's conventions: tensors or tuples, targets, extra arguments, batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fsboundary.core.checks import check_integer, check_integer_tensor, check_shape
from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import TensorOrArray, from_array
from fsboundary.models.inputs import check_floats, slice_rows
from fsboundary.progress import tqdm

Target = int | list[int] | Tensor | None
Tensors = Tensor | tuple[Tensor, ...]
Inputs = TensorOrArray | tuple[TensorOrArray, ...]


_OTHERWISE = (
    "token ids and other integers have no gradient: explain the layer after them, such as an "
    "embedding, with LayerBoundaryDirection, or with Captum's layer methods on BoundaryDistance; "
    "pass several inputs as a tuple, in the order of forward"
)


def as_tuple(
    name: str,
    value: object,
    like: tuple[Tensor, ...] | None = None,
    *,
    ids: bool = False,
) -> tuple[Tensor, ...]:
    """Return argument `name`, a tensor or a tuple of tensors with as many rows, as a tuple.

    With `like`, there must be as many tensors, of the same shapes. With `ids`, integers are
    accepted too.
    """
    parts = tuple(map(from_array, value if isinstance(value, tuple) else (value,)))
    if not parts:
        raise ArgumentError(name, "an empty tuple", "a tensor or tensors", "pass the inputs")
    fix = "pass torch.as_tensor(batch), scaled as in training; a single image needs [None]"
    for part in parts:
        whole = isinstance(part, Tensor) and not part.is_floating_point()
        if not (ids and whole and part.dtype != torch.uint8 and part.ndim > 0):
            check_floats(name, part, ("B", ...), fix=fix, otherwise=_OTHERWISE)
    if like is not None:
        if len(parts) != len(like):
            fix = "pass one tensor for each input"
            raise ArgumentError(name, f"{len(parts)} tensors", f"{len(like)} tensors", fix)
        for part, other in zip(parts, like, strict=True):
            check_shape(name, part, tuple(other.shape), fix="pass one row for each row")
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
    inputs: object, additional: object, target: object, *, ids: bool = False
) -> tuple[tuple[Tensor, ...], tuple[Any, ...], Tensor | None]:
    """Return the inputs and additional arguments as tuples, and one target per row or None.

    Raises
    ------
    ArgumentError
        As for :func:`as_tuple` of ``inputs`` and :func:`target_rows`.
    """
    parts = as_tuple("inputs", inputs, ids=ids)
    return parts, as_arguments(additional), target_rows(target, len(parts[0]), parts[0].device)


def target_rows(
    target: object, rows: int, device: torch.device, num_classes: int | None = None
) -> Tensor | None:
    """Return one target per row (B,), or None for the nearest class.

    Raises
    ------
    ArgumentError
        `target` is not an int, a list or tensor of one int or of one per row, or None; or it is
        not a class, if their number is known.
    """
    if target is None:
        return None
    classes = check_integer_tensor(
        "target",
        target,
        (),
        (1,),
        (rows,),
        fix="pass the class to reach, one per row, or None for the nearest class",
        noun="classes",
        within=None if num_classes is None else range(num_classes),
        convert=True,
    )
    return classes.to(device).reshape(-1).expand(rows)


def iterate_batches(
    rows: int, size: int | None, show_progress: bool, *tuples: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], ...]]:
    """Yield batches of `size` rows of `tuples`, slicing their tensors of B = `rows` rows."""
    fix = "leave it out for all rows at once"
    step = max(rows, 1) if size is None else check_integer("internal_batch_size", size, fix=fix)
    with tqdm(total=rows, unit="example", disable=not show_progress) as bar:
        for start in range(0, max(rows, 1), step):
            part = slice(start, start + step)
            yield tuple(slice_rows(values, rows, part) for values in tuples)
            bar.update(min(step, rows - start))
