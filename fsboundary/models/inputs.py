"""Inputs of a model: checks, rows and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from fsboundary.core.checks import Shape, check_float_tensor, check_shape, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.models.calling import accepts, unwrap
from fsboundary.models.structures import arrays_as_tensors, leaves_of, map_leaves


def num_rows(arguments: object) -> int:
    """Return the first dimension B of the first tensor in `arguments`, 0 if there is none.

    Parameters
    ----------
    arguments : object
        A tensor, or a tuple, list or mapping of tensors and of such.
    """
    return next((leaf.size(0) for leaf in leaves_of(arguments) if _has_rows(leaf)), 0)


def slice_rows(value: object, rows: int, part: slice | Tensor) -> Any:
    """Return `value` with `part` taken of its tensors of B = `rows` rows."""
    return map_leaves(
        lambda leaf: leaf[part] if _has_rows(leaf) and leaf.size(0) == rows else leaf, value
    )


def first_device(arguments: object) -> torch.device:
    """Return the device of the first tensor in `arguments`, the CPU if there is none."""
    tensors = (leaf for leaf in leaves_of(arguments) if isinstance(leaf, Tensor | _Ragged))
    return next((t.device for t in tensors), torch.device("cpu"))


def _has_rows(leaf: object) -> bool:
    return isinstance(leaf, Tensor | _Ragged) and leaf.ndim > 0


@final
class _Ragged:
    """One tensor per example, of different shapes; only equal ones can be stacked."""

    ndim = 1
    """Number of dimensions that all have in common: one row per example."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors, self.device = tensors, tensors[0].device

    def size(self, _dim: int) -> int:
        return len(self.tensors)

    def kind(self, row: int) -> tuple[Any, ...]:
        tensor = self.tensors[row]
        return tensor.shape, tensor.dtype, tensor.device

    def __getitem__(self, part: slice) -> Tensor:
        return torch.stack(self.tensors[part])


@final
@dataclass(frozen=True, slots=True, eq=False)
class ModelArguments:
    """Arguments of a model for B examples; see :func:`model_arguments`.

    Attributes
    ----------
    inputs : object
        First argument; a mapping stands for keyword arguments, a tuple for several positional ones.
    additional : tuple
        Further positional arguments.
    keywords : dict
        Further keyword arguments.
    rows : int
        Number of examples B.
    batched : tuple of bool
        Mask of the leaves of inputs, additional and keywords that have one row per example.
    device : torch.device
        Device of the first tensor of the inputs.
    """

    inputs: Any
    additional: tuple[Any, ...]
    keywords: dict[str, Any]
    rows: int
    batched: tuple[bool, ...]
    device: torch.device

    def batches(self, size: int) -> Iterator[Self]:
        """Yield the examples in batches of at most `size`, in order; one if there are none.

        An example of another shape than the one before begins a new batch.
        """
        leaves = leaves_of((self.inputs, self.additional, self.keywords))
        ragged = [
            leaf
            for leaf, batched in zip(leaves, self.batched, strict=True)
            if batched and isinstance(leaf, _Ragged)
        ]
        if not ragged and self.rows <= size:
            yield self
            return
        start = 0
        while start < self.rows:
            stop = min(start + size, self.rows)
            for leaf in ragged:
                others = (row for row in range(start, stop) if leaf.kind(row) != leaf.kind(start))
                stop = next(others, stop)
            yield self.take(slice(start, stop))
            start = stop

    def take(self, part: slice | Tensor) -> Self:
        """Return the examples in `part`, a slice or indices."""
        rows = len(part) if isinstance(part, Tensor) else len(range(*part.indices(self.rows)))
        return self._change_rows(lambda leaf: leaf[part], rows)

    def copies(self, row: int) -> Self:
        """Return B copies of one example, in the memory layout of the batch."""
        return self._change_rows(lambda leaf: torch.empty_like(leaf).copy_(leaf[row]), self.rows)

    def _change_rows(self, function: Callable[[Any], Tensor], rows: int) -> Self:
        masks = iter(self.batched)

        def change(leaf: Any) -> Any:
            return function(leaf) if next(masks) else leaf

        arguments = map_leaves(change, (self.inputs, self.additional, self.keywords))
        inputs, additional, keywords = arguments
        return replace(self, inputs=inputs, additional=additional, keywords=keywords, rows=rows)


def model_arguments(
    model: nn.Module,
    inputs: object,
    additional: tuple[Any, ...] = (),
    keywords: Mapping[str, Any] | None = None,
) -> ModelArguments:
    """Return the arguments of `model` for a batch of examples, checked.

    Parameters
    ----------
    model : nn.Module
    inputs : object
        A tensor or array (B, ...), or a mapping, tuple or other structure of these with a common
        first dimension B; or a list of B examples, without that dimension, of one structure. None,
        if all inputs are keywords. A list is a tuple if ``forward`` needs as many arguments.
    additional : tuple
        Further arguments, of any kind. Their tensors whose first dimension is B have a row per
        example.
    keywords : mapping, optional
        Further arguments by name, as `additional`.

    Raises
    ------
    ArgumentError
        Inputs without tensors, with arrays of objects, of different first dimensions, or of bytes.
    """
    named = dict(keywords or {})
    if inputs is None and named and not additional:
        inputs, named = named, {}
    inputs = arrays_as_tensors(inputs)
    if isinstance(inputs, list):
        called = unwrap(model)
        one = accepts(called, (inputs, *additional), named)
        if not one and accepts(called, (*inputs, *additional), named):
            inputs = tuple(inputs)
        else:
            inputs = _join_examples(inputs)
    inputs, additional, named = map_leaves(_ordinary, (inputs, additional, named))
    rows, device = _check_inputs(inputs)
    leaves = leaves_of((inputs, additional, named))
    batched = tuple(_has_rows(leaf) and leaf.size(0) == rows for leaf in leaves)
    return ModelArguments(inputs, additional, named, rows, batched, device)


def _ordinary(leaf: Any) -> Any:
    """Return a leaf without nesting and without inference mode, to be cut and differentiated."""
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_inference():
        leaf = leaf.clone()
    if not leaf.is_nested:
        return leaf
    if leaf.size(0) == 0:
        fix = "leave it out, or pass at least one row"
        raise ArgumentError("inputs", "a nested tensor without rows", "rows", fix)
    return _Ragged(list(leaf.unbind()))


def _join_examples(examples: list[Any]) -> Any:
    """Return one structure of the examples' structure, whose tensors have a row per example."""
    structures = [map_leaves(lambda leaf: None, example) for example in examples]
    leaves = [leaves_of(example) for example in examples]
    for number, (structure, parts) in enumerate(zip(structures, leaves, strict=True)):
        where = f"inputs[{number}]"
        for part in parts:
            if not isinstance(part, Tensor):
                fix = "convert it with torch.as_tensor, or leave it out"
                raise ArgumentError(where, describe(part), "tensors of one example", fix)
        if structure != structures[0]:
            wanted = "the structure of the examples before it"
            raise ArgumentError(where, "another structure", wanted, "pass one structure")
    columns = iter([_Ragged(list(column)) for column in zip(*leaves, strict=True)])
    return map_leaves(lambda leaf: next(columns), examples[0]) if examples else ()


_WANTED = "a tensor (B, ...), or a mapping or tuple of tensors with one first dimension B"
_NO_TENSORS = "pass torch.as_tensor(batch), scaled as in training; a tokenizer needs "
_NO_TENSORS += 'return_tensors="pt"'


def _check_inputs(inputs: Any) -> tuple[int, torch.device]:
    """Return the number of examples and the device of the first tensor, or raise ArgumentError."""
    if isinstance(inputs, Tensor):
        _check_tensor("inputs", inputs)
        fix = "a single example needs [None]"
        check_shape("inputs", inputs, ("B", ...), fix=fix, wanted=_WANTED)
        return len(inputs), inputs.device
    first: tuple[str, Tensor] | None = None
    for where, part in _named_parts(inputs):
        for leaf in leaves_of(part):
            if isinstance(leaf, np.ndarray):
                raise ArgumentError(where, "a ndarray", _WANTED, _NO_TENSORS)
            for tensor in leaf.tensors if isinstance(leaf, _Ragged) else (leaf,):
                _check_tensor(where, tensor)
            if not _has_rows(leaf):
                continue
            first = first or (where, leaf)
            if leaf.size(0) != first[1].size(0):
                raise ArgumentError(
                    where,
                    f"first dimension {leaf.size(0)}",
                    f"{first[1].size(0)} examples, as in {first[0]}",
                    "pass what all examples share as a further argument: extract(inputs, "
                    "table=table)",
                )
    if first is None:
        got = "no tensors" if isinstance(inputs, Mapping | tuple | list) else describe(inputs)
        raise ArgumentError("inputs", got, _WANTED, _NO_TENSORS)
    return first[1].size(0), first[1].device


def _named_parts(inputs: Any) -> list[tuple[str, Any]]:
    """Return the parts of a mapping or tuple with their names; else the inputs themselves."""
    if isinstance(inputs, Mapping):
        return [(f"inputs[{key!r}]", part) for key, part in inputs.items()]
    if isinstance(inputs, tuple):
        return [(f"inputs[{number}]", part) for number, part in enumerate(inputs)]
    return [("inputs", inputs)]


def _check_tensor(name: str, leaf: object) -> None:
    """Raise ArgumentError for a tensor of bytes or of complex numbers."""
    if not isinstance(leaf, Tensor):
        return
    if leaf.dtype == torch.uint8:
        raise ArgumentError(name, "dtype torch.uint8", "a float tensor (B, ...)", _BYTES)
    if leaf.is_complex():
        fix = "pass torch.view_as_real(x), as the model takes it"
        raise ArgumentError(name, f"dtype {leaf.dtype}", "a float or integer tensor", fix)


_BYTES = (
    "divide by 255 (images.float() / 255), and scale as in training or in preprocess=; numbers "
    "that are no pixels need .long()"
)


def check_floats(name: str, value: object, *shapes: Shape, fix: str, otherwise: str) -> Tensor:
    """Return a float tensor detached, or raise ArgumentError.

    Parameters
    ----------
    name, value, *shapes, fix
        As for :func:`fsboundary.core.checks.check_float_tensor`.
    otherwise : str
        Instruction about inputs of another kind: integers, and structures of tensors.
    """
    if isinstance(value, Tensor) and value.dtype == torch.uint8:
        _check_tensor(name, value)
    other = isinstance(value, Tensor) and (value.is_nested or not value.is_floating_point())
    if other or isinstance(value, Mapping | tuple | list):
        got = f"dtype {value.dtype}" if isinstance(value, Tensor) else describe(value)
        raise ArgumentError(name, got, "a float tensor (B, ...)", otherwise)
    return check_float_tensor(name, value, *shapes, fix=fix)
