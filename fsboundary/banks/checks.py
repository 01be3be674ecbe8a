"""Argument checks of feature banks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fsboundary.core.checks import check_float_tensor, check_integer_tensor, is_integer
from fsboundary.core.errors import ArgumentError

_FEATURES = "a float tensor (n, d), one row per point"


def validate_features(features: object) -> Tensor:
    """Return a detached copy (n,d) in float32 or float64, or raise ArgumentError."""
    if not isinstance(features, Tensor):
        fix = "pass space.extract(images).features, or torch.as_tensor(features)"
        raise ArgumentError("features", f"a {type(features).__name__}", _FEATURES, fix)
    if not features.is_floating_point():
        fix = "call .float(); scale pixels like the model's images"
        raise ArgumentError("features", f"dtype {features.dtype}", _FEATURES, fix)
    if features.ndim != 2:
        fix = "flatten each point to one row, as in images.flatten(1)"
        raise ArgumentError("features", f"shape {tuple(features.shape)}", _FEATURES, fix)
    if 0 in features.shape:
        fix = "check the filter or the loader that made it: a hull needs at least one point"
        raise ArgumentError("features", f"an empty bank {tuple(features.shape)}", _FEATURES, fix)
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        got = f"NaN or infinite numbers in {_format_numbers('row', (~finite).nonzero()[:, 0])}"
        fix = "drop these rows or fix their images"
        raise ArgumentError("features", got, "finite numbers", fix)
    dtype = features.dtype if features.dtype == torch.float64 else torch.float32
    return features.detach().to(dtype, copy=True).contiguous()


def validate_labels(labels: object, rows: int) -> Tensor:
    """Return a copy of `labels` (n,) in int64, or raise ArgumentError."""
    wanted = f"{rows} integers, one per row"
    tensor = labels if isinstance(labels, Tensor) else _as_tensor("labels", labels, wanted)
    if not is_integer(tensor):
        fix = "pass class numbers, as labels.long()"
        raise ArgumentError("labels", f"dtype {tensor.dtype}", wanted, fix)
    if tensor.shape != (rows,):
        fix = "pass the labels of exactly these rows, in their order"
        raise ArgumentError("labels", f"shape {tuple(tensor.shape)}", wanted, fix)
    return tensor.detach().to(torch.int64, copy=True)


def validate_classes(labels: int | Sequence[int] | Tensor) -> Tensor:
    """Return the classes to select, (m,) int64, sorted and unique, or raise ArgumentError."""
    wanted = "a class number, or several"
    tensor = labels if isinstance(labels, Tensor) else _as_tensor("labels", labels, wanted)
    if tensor.numel() == 0 or tensor.ndim > 1 or not is_integer(tensor):
        got = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        fix = "call it as subset(labels=3) or subset(labels=[3, 5])"
        raise ArgumentError("labels", got, wanted, fix)
    classes: Tensor = torch.unique(tensor.detach().to(torch.int64))
    return classes


def check_directions(directions: object, width: int) -> None:
    """Raise ArgumentError unless `directions` is (B, `width`), float32 or float64."""
    fix = f"pass one direction per row, of the bank's width {width}; one row needs [None]"
    dtype = check_float_tensor("directions", directions, ("B", width), fix=fix).dtype
    if dtype not in (torch.float32, torch.float64):
        fix = "call .float() or .double()"
        raise ArgumentError("directions", f"dtype {dtype}", "float32 or float64", fix)


def check_client(client: object) -> None:
    """Raise ArgumentError unless `client` is a connected, synchronous dask client."""
    wanted = "a connected dask.distributed.Client"
    got, fix = f"a {type(client).__name__}", "pass dask.distributed.Client(address)"
    try:
        from distributed import Client  # here: an optional dependency
    except ImportError:
        got += ", and dask.distributed is not installed"
        fix = "pip install 'fsboundary[distributed]', here and on the workers"
        raise ArgumentError("client", got, wanted, fix) from None
    if not isinstance(client, Client):
        raise ArgumentError("client", got, wanted, fix)
    if client.asynchronous:
        fix = "create it with asynchronous=False, and call this outside its event loop"
        raise ArgumentError("client", "an asynchronous client", wanted, fix)
    if client.status != "running":
        raise ArgumentError("client", f"a client that is {client.status}", wanted, fix)


def validate_exclude(exclude: object, directions: Tensor, rows: int) -> Tensor:
    """Return `exclude` as (B,E) int64 on the directions' device, or raise ArgumentError."""
    count = len(directions)
    fix = "pass rows of this bank, one or more per direction; -1 excludes none"
    out = check_integer_tensor(
        "exclude",
        exclude,
        (count,),
        (count, "E"),
        fix=fix,
        noun="rows",
        within=range(-1, rows),
        range_fix=fix,
    )
    return out.reshape(count, -1 if out.numel() else 0).to(directions.device)


def check_indices(indices: object, rows: int) -> None:
    """Raise ArgumentError unless `indices` are rows of the bank."""
    fix = "leave out padding (-1), as in take(support[support >= 0])"
    check_integer_tensor(
        "indices", indices, fix=fix, noun="rows", within=range(rows), range_fix=fix
    )


def _as_tensor(name: str, value: object, wanted: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "pass integers, or a tensor of them"
        raise ArgumentError(name, f"a {type(value).__name__}", wanted, fix) from error


def _format_numbers(noun: str, numbers: Tensor) -> str:
    """Return the first few `numbers` as text."""
    shown = ", ".join(map(str, numbers[:5].tolist()))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {shown}{more}"
