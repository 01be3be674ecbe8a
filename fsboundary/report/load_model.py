"""A model from the name of the function that makes it, and its weights."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from fsboundary.core.errors import ArgumentError, DataError

FORM = "package.module:factory, a function that returns the model when called without arguments"

KEYS_NAMED = 3
"""An error about weights names so many keys."""


def build_model(spec: str) -> nn.Module:
    """Import and call a factory.

    Parameters
    ----------
    spec : str
        ``package.module:factory``; dots may follow the colon too.

    Returns
    -------
    nn.Module
        As the factory made it.

    Raises
    ------
    ArgumentError
        The module or the factory is not there, fails, or gives something else.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise ArgumentError("model", repr(spec), FORM, "put a colon before the function's name")
    factory = _find(_import(module_name), module_name, path)
    if isinstance(factory, nn.Module) or not callable(factory):
        got = f"{spec}, {_a(factory)}"
        raise ArgumentError("model", got, FORM, "wrap it in a function that returns the model")
    try:
        model = factory()
    except Exception as error:
        got = f"{spec}, which raised {type(error).__name__}: {error}"
        fix = "give every argument a default, or name a function that does"
        raise ArgumentError("model", got, FORM, fix) from error
    if not isinstance(model, nn.Module):
        got = f"{spec}, which returned {_a(model)}"
        raise ArgumentError("model", got, FORM, "return a torch.nn.Module")
    return model


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        got = f"the module {name!r}, but there is no {error.name!r}"
        fix = "install it, or run this in the folder that holds it"
        raise ArgumentError("model", got, "a module that can be imported", fix) from error
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> ArgumentError:
    got = f"the module {name!r}, whose import raised {type(error).__name__}: {error}"
    return ArgumentError("model", got, "a module that can be imported", "mend or install that")


def _find(found: Any, module_name: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            close = get_close_matches(name, dir(found), n=1)
            fix = f"use {close[0]!r}, the closest name" if close else "check the name"
            got = f"{module_name}:{path}, but there is no {name!r}"
            raise ArgumentError("model", got, FORM, fix)
        found = getattr(found, name)
    return found


def _a(thing: object) -> str:
    return f"an object of type {type(thing).__name__}"


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file; every key must fit.

    Raises
    ------
    DataError
        The file cannot be read, lacks keys, has others, or holds tensors of other shapes.
    """
    try:
        missing, unexpected = load_model(model, path, strict=False)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Save the weights with "
            "safetensors.torch.save_model(model, path)"
        ) from error
    except RuntimeError as error:  # torch lists the tensors whose shapes differ
        raise DataError(
            f"{path}: these weights do not fit the model: {error}. Make the model with the "
            "arguments that it was trained with"
        ) from error
    if missing or unexpected:
        problems = [
            f"{what} {_named(keys)}"
            for what, keys in (("lacks", missing), ("has but the model does not", unexpected))
            if keys
        ]
        raise DataError(
            f"{path}: {'; '.join(problems)}. Save the state of the very model that the factory "
            "makes (a prefix such as 'module.' comes from a wrapper)"
        )


def _named(keys: Any) -> str:
    shown = ", ".join(sorted(keys)[:KEYS_NAMED])
    return shown + (f" and {len(keys) - KEYS_NAMED} more" if len(keys) > KEYS_NAMED else "")
