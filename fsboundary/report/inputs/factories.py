"""Importing and calling of a user's functions, such as the factory of the model."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from fsboundary.core.errors import ArgumentError
from fsboundary.report.inputs.weights import join_keys

MODEL_FORMAT = (
    "package.module:factory, a function that returns the model when called without arguments"
)


def build_model(spec: str, folder: Path | None = None) -> nn.Module:
    """Import and call a factory.

    Parameters
    ----------
    spec : str
        ``package.module:factory``; the factory may be a dotted name, such as ``Class.method``.
    folder : Path, optional
        Folder that is searched for modules after all others, and only during this call.

    Returns
    -------
    nn.Module
        The model, unchanged.

    Raises
    ------
    ArgumentError
        The module or the factory does not exist, raises or exits, or the result is not a module
        or has parameters or buffers on the meta device.
    """
    model = _call("model", spec, MODEL_FORMAT, folder)
    if not isinstance(model, nn.Module):
        got = f"{spec}, which returned {_describe_type(model)}"
        raise ArgumentError("model", got, MODEL_FORMAT, "return a torch.nn.Module")
    stored = itertools.chain(model.named_parameters(), model.named_buffers())
    empty = [name for name, tensor in stored if tensor.device.type == "meta"]
    if empty:  # weights would be loaded into them without an error, and without an effect
        got = f"{spec}, whose model has {join_keys(empty)} on the meta device, which stores nothing"
        fix = 'make it outside torch.device("meta") and without init_empty_weights()'
        raise ArgumentError("model", got, MODEL_FORMAT, fix)
    return model


PREPROCESS_FORMAT = (
    "package.module:factory, a function that returns the preprocessing, a module or a function of "
    "images, when called without arguments"
)


def build_preprocess(spec: str, folder: Path | None = None) -> Callable[[Any], object]:
    """Import and call a factory of a preprocessing; arguments as for :func:`build_model`.

    Returns
    -------
    nn.Module or callable
        A module is in evaluation mode.

    Raises
    ------
    ArgumentError
        As for :func:`build_model`, or the result cannot be called.
    """
    made = _call("preprocess", spec, PREPROCESS_FORMAT, folder)
    if isinstance(made, nn.Module):
        return made.eval()
    if not callable(made):
        got = f"{spec}, which returned {_describe_type(made)}"
        fix = "return a torch.nn.Module or a function of images"
        raise ArgumentError("preprocess", got, PREPROCESS_FORMAT, fix)
    found: Callable[[Any], object] = made
    return found


def _call(name: str, spec: str, wanted: str, folder: Path | None) -> Any:
    """Return what the factory `spec` returns; errors are about the argument `name`."""
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise ArgumentError(name, repr(spec), wanted, "put a colon before the function's name")
    with _searched_last(folder):
        factory = _get_attribute(name, _import(name, module_name), module_name, path, wanted)
        if isinstance(factory, nn.Module) or not callable(factory):
            got = f"{spec}, {_describe_type(factory)}"
            raise ArgumentError(name, got, wanted, f"wrap it in a function that returns the {name}")
        try:
            return factory()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code may call sys.exit
            got = f"{spec}, which raised {type(error).__name__}: {error}"
            fix = "give every argument a default, or name a function that does"
            raise ArgumentError(name, got, wanted, fix) from error


@contextlib.contextmanager
def _searched_last(folder: Path | None) -> Iterator[None]:
    """Let modules be found in `folder` too, after all other places, within this context.

    First, or for longer, a file beside the data could take the place of an installed module.
    """
    if folder is None:
        yield
        return
    entry = str(folder.absolute())
    sys.path.append(entry)
    try:
        yield
    finally:
        if entry in sys.path:  # which the factory may have changed
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


def _import(argument: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(argument, name, error) from error
        got = f"the module {name!r}, but there is no {error.name!r}"
        fix = (
            "install it, or run this command in the folder that contains it; rename it if an "
            "installed package, which is found first, has its name"
        )
        raise ArgumentError(argument, got, "a module that can be imported", fix) from error
    except BaseException as error:
        raise _import_error(argument, name, error) from error


def _import_error(argument: str, name: str, error: BaseException) -> ArgumentError:
    got = f"the module {name!r}, whose import raised {type(error).__name__}: {error}"
    fix = "fix the module or install what it needs"
    return ArgumentError(argument, got, "a module that can be imported", fix)


def _get_attribute(argument: str, module: Any, module_name: str, path: str, wanted: str) -> Any:
    owner = module
    for name in path.split("."):
        try:
            owner = getattr(owner, name)
        except AttributeError as error:
            close = get_close_matches(name, dir(owner), n=1)
            fix = f"use {close[0]!r}, the closest name" if close else "check the name"
            where = f"{module_name} is {getattr(module, '__file__', None) or 'built in'}"
            got = f"{module_name}:{path}, but there is no {name!r} ({where})"
            raise ArgumentError(argument, got, wanted, fix) from error
        except Exception as error:  # a property may raise anything
            got = f"{module_name}:{path}, where {name!r} raised {type(error).__name__}: {error}"
            raise ArgumentError(argument, got, wanted, "name another function") from error
    return owner


def _describe_type(value: object) -> str:
    return f"an object of type {type(value).__name__}"
