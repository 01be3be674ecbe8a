"""Loading of a user's weights.

The file is not trusted: it is read without running code of it, and every name, shape and kind of
number must be the model's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from fsboundary.core.errors import DataError

PICKLED = (".pt", ".pth", ".bin")
"""Endings of files of ``torch.save``; all others are read as safetensors."""

_NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts save the state of the model, beside that of the optimiser."""

MAX_KEYS_SHOWN = 3
"""Largest number of keys that an error about weights lists."""


@final
class _Stored:
    """Tensors of a file: the type of each by name, how to read one, and how to load all."""

    def __init__(
        self,
        types: dict[str, tuple[str, str]],
        read: Callable[[str], Tensor],
        load: Callable[[nn.Module], tuple[Iterable[str], Iterable[str]]],
    ) -> None:
        self.types, self.read, self.load = types, read, load


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a model from a file; every key must match.

    Numbers may be rounded to the model's precision, but keep their kind: complex numbers, integers
    and floating point are not converted to each other.

    Parameters
    ----------
    model : nn.Module
    path : Path
        Safetensors file; or a .pt, .pth or .bin file of a state dict, which is read with
        ``torch.load(path, weights_only=True)`` and may be under a key such as "state_dict".

    Raises
    ------
    DataError
        The file cannot be read, its keys or the shapes or kinds of its tensors differ from the
        model's, or a number is too large for the model's precision.
    """
    pickled = path.suffix.lower() in PICKLED
    stored = _open_pickled(path) if pickled else _open_safetensors(path)
    state = model.state_dict()
    for key in stored.types.keys() & state.keys():
        (given, name), wanted = stored.types[key], _kind(state[key])
        if given != wanted:
            raise DataError(
                f"{path}: {key} contains {given} numbers ({name}), but the model's are "
                f"{wanted} ({state[key].dtype}); converted, they would lose a part. Save the "
                "weights of this model"
            )
    try:
        missing, unexpected = (list(keys) for keys in stored.load(model))
        changed = _overflowing_keys(stored, state)
    except Exception as error:  # torch lists the tensors whose shapes differ
        raise DataError(
            f"{path}: these weights do not fit the model: {error}. Make the model with the "
            "arguments that it was trained with"
        ) from error
    problems = [
        f"{what} {join_keys(keys)}"
        for what, keys in (("lacks", missing), ("has but the model does not", unexpected))
        if keys
    ]
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}. {_advice(stored.types, state)}")
    if changed:
        raise DataError(
            f"{path}: numbers in {join_keys(changed)} are too large for the precision of the "
            "model. Make the model with the precision that it was trained with"
        )


def _open_safetensors(path: Path) -> _Stored:
    try:
        _require_file(path)
        with safe_open(path, framework="pt") as file:  # compares the header with the file's size
            names = {key: str(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118  # no dict
    except Exception as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Save the weights with "
            "safetensors.torch.save_model(model, path)"
        ) from error

    def read(key: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor

    load = functools.partial(load_model, filename=path, strict=False)
    return _Stored({key: (_kind_of_name(name), name) for key, name in names.items()}, read, load)


def _open_pickled(path: Path) -> _Stored:
    fix = "Save torch.save(model.state_dict(), path), or weights as safetensors"
    try:
        _require_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path}: cannot be read without running code of it ({reason}). {fix}"
        ) from error
    tensors = next(
        (found[key] for key in _NESTED if isinstance(found, Mapping) and _is_state(found.get(key))),
        found,
    )
    if not _is_state(tensors):
        kind = type(found).__name__
        raise DataError(f"{path}: contains a {kind}; wanted tensors by name. {fix}")

    def load(model: nn.Module) -> tuple[list[str], list[str]]:
        keys = model.load_state_dict(tensors, strict=False)
        return keys.missing_keys, keys.unexpected_keys

    types = {key: (_kind(tensor), str(tensor.dtype)) for key, tensor in tensors.items()}
    return _Stored(types, tensors.__getitem__, load)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")  # a pipe would never end


def _is_state(value: Any) -> bool:
    """Return whether `value` is a mapping of tensors by name, and not empty."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _advice(stored: Iterable[str], state: Iterable[str]) -> str:
    """Return what to do about names that differ: a prefix that one side carries, if it is that."""
    given, wanted = set(stored), set(state)
    prefix = _prefix(given, wanted)
    if prefix:
        return (
            f"Its names carry the prefix {prefix!r}, which those of the model do not. Save the "
            "state of the inner model, or rename: {key.removeprefix("
            f"{prefix!r}): value for key, value in state.items()}}"
        )
    prefix = _prefix(wanted, given)
    if prefix:
        return (
            f"Its names lack the prefix {prefix!r}, which those of the model carry: the weights "
            f"are of its part {prefix.rstrip('.')!r}. Let the factory return that part, or save "
            "the state of the whole model"
        )
    return (
        "Save the state of the model that the factory returns, without a wrapper (which adds a "
        "prefix such as 'module.')"
    )


def _prefix(longer: set[str], shorter: set[str]) -> str:
    """Return the prefix without which all `longer` names, and no fewer, are the `shorter` ones."""
    first = min(longer, default="")
    ends = (key for key in shorter if first.endswith(f".{key}"))
    found = [first.removesuffix(key) for key in ends]
    return next((p for p in found if {p + key for key in shorter} == longer), "")


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.dtype == torch.bool:
        return "boolean"
    return "floating-point" if tensor.is_floating_point() else "integer"


def _kind_of_name(name: str) -> str:
    """Return the kind of a dtype of safetensors, such as F32, BF16, I64 or C64."""
    kinds = {"C": "complex", "F": "floating-point", "I": "integer", "U": "integer"}
    return {"BOOL": "boolean", "BF16": "floating-point"}.get(name) or kinds.get(name[:1], "other")


_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
"""Names that safetensors gives to the usual types; weights of other types are compared."""


def _overflowing_keys(stored: _Stored, state: dict[str, Tensor]) -> list[str]:
    """Return the keys whose integers changed or whose finite numbers became infinite in `state`."""
    found = []
    for key, (_, name) in stored.types.items():
        if key not in state or name in (_DTYPES.get(state[key].dtype), str(state[key].dtype)):
            continue
        given, loaded = stored.read(key), state[key].cpu()
        if given.is_floating_point():
            same = torch.equal(given.double().isfinite(), loaded.double().isfinite())
        else:
            same = torch.equal(given, loaded.to(given.dtype))
        if not same:
            found.append(key)
    return found


def join_keys(keys: Iterable[str]) -> str:
    """Return the first few of `keys` as text."""
    keys = list(keys)
    shown = ", ".join(sorted(keys)[:MAX_KEYS_SHOWN])
    return shown + (f" and {len(keys) - MAX_KEYS_SHOWN} more" if len(keys) > MAX_KEYS_SHOWN else "")
