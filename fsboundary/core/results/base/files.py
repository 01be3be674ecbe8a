"""Results as files, and what must be true of a file before a result is made of it.

A file contains the fields bit for bit, and for points that are computed when they are read what
they are computed from. It is as reliable as its source: what relies on a result, such as
:func:`fsboundary.export_certificates`, checks a result of a file as it checks any other.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fsboundary._version import __version__
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.results.base.rows import dimensions
from fsboundary.core.results.base.tensor_files import check_new, read_tensors, write_tensors
from fsboundary.core.results.deferred import Deferred, may_defer
from fsboundary.core.status import Status

if TYPE_CHECKING:
    from fsboundary.core.results.base.table import Table

FORMAT = "fsboundary result 1"
"""Name and version of the format of the file."""

_DEFERRED_MODULE = "fsboundary.geometry.flips.recomputed"
_DEFERRED = ("DeferredPoints", "DeferredDirections")
"""Classes of fields that are computed when they are read, by name: they are on a higher floor."""


def write_result(
    path: str | PathLike[str], kind: type[Table], values: Mapping[str, Any], force: bool
) -> None:
    """Write the fields of a result of class `kind`, as they are stored, to `path`."""
    try:
        _check_shapes(kind, values)
    except ValueError as error:
        wanted, fix = "the shapes and dtypes that the class lists", "make it with the right tensors"
        raise ArgumentError("result", f"a {kind.__name__} whose {error}", wanted, fix) from error
    if not force or not Path(path).is_file():
        check_new(path, "name another file, or pass force=True to replace this one")
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    later: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Deferred):
            later[name] = type(value).__name__
            tensors |= {f"{name}.{part}": tensor for part, tensor in value.state().items()}
        elif isinstance(value, Tensor):
            tensors[name] = value
        else:
            plain[name] = int(value) if isinstance(value, Status) else value
    facts = {"class": kind.__name__, "plain": plain, "deferred": later, "made_by": __version__}
    write_tensors(Path(path), FORMAT, tensors, facts)


def read_result(path: str | PathLike[str], kind: type[Table]) -> dict[str, Any]:
    """Return the fields of a result of class `kind` from `path`; some may be deferred.

    Raises
    ------
    DataError
        No result, a damaged one, or one of another class, version or shape.
    """
    file = Path(path)
    fix = "Save the result again, or restore a copy"
    tensors, facts = read_tensors(file, FORMAT, "result", fix)
    found = facts.get("class")
    if found != kind.__name__:
        raise DataError(
            f"{file}: a result of class {found}; wanted {kind.__name__}. Open it with {found}.open"
        )
    try:
        values = _deferred_fields(kind, tensors, facts["deferred"])
        values |= {name: tensors[name] for name in tensors if "." not in name}
        values |= _plain_fields(kind, facts["plain"])
        fields = _annotations(kind)
        if set(values) != set(fields):
            raise ValueError(f"its fields are {', '.join(sorted(values))}")
        _check_shapes(kind, values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        made_by = facts.get("made_by")
        raise DataError(
            f"{file}: no {kind.__name__} of this version ({error}); it was saved by fsboundary "
            f"{made_by}, and this is {__version__}. {fix}"
        ) from error
    return {name: values[name] for name in fields}


def _annotations(kind: type[Table]) -> dict[str, str]:
    """Return the annotations of the fields by name."""
    return {f.name: str(f.type) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # every subclass of Table is a dataclass


def _deferred_fields(
    kind: type[Table], tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields that are computed when they are read."""
    module = importlib.import_module(_DEFERRED_MODULE) if names else None
    found: dict[str, Any] = {}
    for name, what in names.items():
        if what not in _DEFERRED or not may_defer(kind, name):
            raise ValueError(f"{name} cannot be computed by {what}")
        prefix = f"{name}."
        parts = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        found[name] = getattr(module, what).from_state(parts)
    return found


def _plain_fields(kind: type[Table], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are no tensors, in the types that the class annotates."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        text = _annotations(kind)[name]
        if text.startswith("tuple"):
            inner = str if "str" in text else int
            right = isinstance(value, list) and all(type(one) is inner for one in value)
            found[name] = tuple(value) if right else None
        elif text == "Status":
            found[name] = Status(value)
        else:
            right = type(value) is (int if text == "int" else str)
            # a Literal lists its words
            right = right and (text in ("int", "str") or repr(value) in text)
            found[name] = value if right else None
        if found[name] is None:
            raise ValueError(f"{name} is {value!r}")
    return found


def _check_shapes(kind: type[Table], values: Mapping[str, Any]) -> None:
    """Raise ValueError unless dtypes, numbers of dimensions and sizes are those of the class."""
    sizes: dict[str, int] = {}
    texts = _annotations(kind)
    for name, names in dimensions(kind).items():
        value = values[name]
        shape = tuple(value.shape)
        if len(shape) != len(names):
            raise ValueError(f"{name} has shape {shape}")
        for one, size in zip(names, shape, strict=True):
            wanted = int(one) if one.isdigit() else sizes.setdefault(one, size)
            if size != wanted:
                raise ValueError(f"{name} has shape {shape}, and {one} is {wanted}")
        if isinstance(value, Tensor) and not _fits(value.dtype, texts[name]):
            raise ValueError(f"{name} has dtype {value.dtype}")
    for name in kind._STATUSES:
        codes = values[name].unique().tolist()
        if not set(codes) <= {int(code) for code in Status}:
            raise ValueError(f"{name} has the codes {codes}")


def _fits(dtype: torch.dtype, text: str) -> bool:
    if text.startswith("Float64"):
        return dtype == torch.float64
    if text.startswith("Float"):
        return dtype.is_floating_point
    whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    return dtype == torch.bool if text.startswith("Bool") else whole
