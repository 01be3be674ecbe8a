"""Rules of operations: affine maps, activations and maxima over windows.

A rule refuses what it does not cover, by the name of the operation; so an operation without a rule
never gives a bound. Linear parts are run by torch in float64 on any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fsboundary.builtin.body_bounds.body import (
    ROWS,
    Affine,
    Call,
    MaxPool,
    Operand,
    Rule,
    Window,
)
from fsboundary.geometry.bounds.activations import ACTIVATIONS, activation_of
from fsboundary.geometry.bounds.relaxations import Activation

aten = torch.ops.aten

_NORM_TERMS = 16
"""Roundings of a scale of a batch normalisation: a sum, a root, two products and their library."""


def rule_of(name: str) -> Rule | None:
    """Return the rule of an operation of ``torch.ops.aten``; None if it has none."""
    return _activation if name in ACTIVATIONS else _RULES.get(name)


def _activation(call: Call) -> Activation:
    _only_first(call)
    options = {n: v for n, v in call.arguments.items() if n not in ("self", "inplace")}
    found = activation_of(call.name, options)
    if found is None:
        call.refuse("has limits or slopes that are tensors")
    return found


def _only_first(call: Call) -> Operand:
    """Return the first argument, the only one that may depend on the images."""
    name, *others = call.arguments
    if not isinstance(call[name], Operand):
        call.refuse("has an input that does not depend on the images")
    if any(isinstance(call[n], Operand) for n in others):
        call.refuse("has weights or limits that depend on the images")
    first: Operand = call[name]
    return first


def _move(call: Call, move: Callable[[Tensor], Tensor], terms: int = 1) -> Affine:
    """Return the rule of an operation that moves, copies or averages numbers."""
    _only_first(call)
    return Affine(move, move, terms=terms)


def _same(call: Call) -> Affine:
    _only_first(call)
    return Affine(_itself, _itself, lambda a: [a], pull_window=lambda a, window: ([a], window))


def _itself(x: Tensor) -> Tensor:
    return x


def _reshape(call: Call) -> Affine:
    shape = call.shape[1:]
    if isinstance(call["dtype"], torch.dtype) and call.name == "view":
        call.refuse("reads bits as another dtype")
    return _move(call, lambda x: x.reshape(len(x), *shape))


def _axis(call: Call, axis: Any, dims: int) -> int:
    """Return an axis as a number from 1, or refuse the axis of rows."""
    number = int(axis) % dims
    if number == 0:
        call.refuse("mixes rows of the batch")
    return number


def _permute(call: Call) -> Affine:
    dims = len(call.shape)
    order = [int(d) % dims for d in call["dims"]]
    if order[0] != 0:
        call.refuse("moves the dimension of the batch")
    return _move(call, lambda x: x.permute(order))


def _transpose(call: Call) -> Affine:
    dims = len(call.shape)
    first, second = (_axis(call, call[n], dims) for n in ("dim0", "dim1"))
    return _move(call, lambda x: x.transpose(first, second))


def _slice(call: Call) -> Affine:
    dim, start, end, step = (call[n] for n in ("dim", "start", "end", "step"))
    if int(dim) % len(call.shape) == 0:
        if (start or 0) != 0 or (end is not None and end < ROWS) or step != 1:
            call.refuse("mixes rows of the batch")
        return _same(call)
    return _move(call, lambda x: aten.slice(x, dim, start, end, step))


def _select(call: Call) -> Affine:
    dim, index = _axis(call, call["dim"], len(call.shape) + 1), call["index"]
    return _move(call, lambda x: x.select(dim, index))


def _split(call: Call) -> Affine:
    operand = _only_first(call)
    dim = _axis(call, call["dim"], len(operand.shape))
    sizes = call["split_size"] if call.name == "split" else call["split_sizes"]
    return _move(call, lambda x: x.split(sizes, dim)[call.position])


def _unbind(call: Call) -> Affine:
    dim = _axis(call, call["dim"], len(call.shape) + 1)
    return _move(call, lambda x: x.select(dim, call.position))


def _expand(call: Call) -> Affine:
    operand, shape = _only_first(call), call.shape[1:]
    if len(operand.shape) != len(call.shape):
        call.refuse("moves the dimension of the batch")
    copies = math.prod(shape) // max(math.prod(operand.shape[1:]), 1)
    return _move(call, lambda x: x.expand(len(x), *shape), copies)


def _cat(call: Call) -> Affine:
    dim = _axis(call, call["dim"], len(call.shape))
    parts = call["tensors"]
    if not all(isinstance(p, Operand) for p in parts):
        call.refuse("joins data and constants")

    def join(*values: Tensor) -> Tensor:
        return torch.cat(values, dim)

    return Affine(join, join)


def _pad(call: Call) -> Affine:
    pad, value = list(call["pad"]), float(call["value"])
    if len(pad) > 2 * (len(call.shape) - 1):
        call.refuse("mixes rows of the batch")
    operand = _only_first(call)
    made = _move(call, lambda x: functional.pad(x, pad))
    if value == 0:
        return made
    offset = functional.pad(torch.zeros(operand.shape[1:], dtype=torch.float64), pad, value=value)
    return Affine(made.linear, made.absolute, offset=offset, offset_size=offset.abs())


def _mean(call: Call) -> Affine:
    operand = _only_first(call)
    dims = len(operand.shape)
    if call["dim"] is None or (isinstance(call["dim"], list) and not call["dim"]):
        call.refuse("mixes rows of the batch")
    given = call["dim"] if isinstance(call["dim"], list) else [call["dim"]]
    axes = [_axis(call, d, dims) for d in given]
    count = math.prod(operand.shape[a] for a in axes)
    keep = bool(call["keepdim"])
    if call.name == "sum":
        return _move(call, lambda x: x.sum(axes, keepdim=keep), count + 1)
    return _move(call, lambda x: x.mean(axes, keepdim=keep), count + 2)


def _pair(value: Any, otherwise: Any = None) -> tuple[int, int]:
    numbers = value if isinstance(value, list | tuple) else [value]
    if not numbers:
        numbers = otherwise if isinstance(otherwise, list | tuple) else [otherwise]
    return int(numbers[0]), int(numbers[-1])


def _avg_pool(call: Call) -> Affine:
    kernel = _pair(call["kernel_size"])
    options = [
        kernel,
        _pair(call["stride"], kernel),
        _pair(call["padding"]),
        *(call[n] for n in ("ceil_mode", "count_include_pad", "divisor_override")),
    ]
    if (call["divisor_override"] or 1) < 0:
        call.refuse("has a negative divisor")
    return _move(call, lambda x: functional.avg_pool2d(x, *options), math.prod(kernel) + 2)


def _adaptive_avg_pool(call: Call) -> Affine:
    operand, size = _only_first(call), _pair(call["output_size"])
    terms = math.prod(operand.shape[-2:]) + 2
    return _move(call, lambda x: functional.adaptive_avg_pool2d(x, size), terms)


def _max_pool(call: Call) -> MaxPool:
    _only_first(call)
    if call.position != 0:
        call.refuse("gives positions, which are no features")
    kernel = _pair(call["kernel_size"])
    return MaxPool(
        kernel,
        _pair(call["stride"], kernel),
        _pair(call["padding"]),
        _pair(call["dilation"]),
    )


def _constant(call: Call, value: Any) -> Tensor:
    """Return a constant operand of an elementwise operation, shaped for one row of the result."""
    if not isinstance(value, Tensor):
        return torch.as_tensor(float(value), dtype=torch.float64)
    numbers: Tensor = value.to(torch.float64)
    if numbers.dim() < len(call.shape):
        return numbers
    # a constant of as many rows was made from the shape of the input
    repeated = len(numbers) == ROWS and torch.equal(numbers[0], numbers[1])
    if len(numbers) != 1 and not repeated:
        call.refuse("has a constant that differs between rows of the batch")
    return numbers[0]


def _copies(call: Call, *operands: Operand) -> int:
    """Return how often a number is copied, or refuse operands that move the rows."""
    if any(len(o.shape) != len(call.shape) for o in operands):
        call.refuse("moves the dimension of the batch")
    return max(math.prod(call.shape[1:]) // max(math.prod(o.shape[1:]), 1) for o in operands)


def _add(call: Call) -> Affine:
    alpha = float(call["alpha"] if call["alpha"] is not None else 1)
    one, other = call["self"], call["other"]
    first, second = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[call.name]
    shape = call.shape[1:]
    if isinstance(one, Operand) and isinstance(other, Operand):
        terms = 3 + _copies(call, one, other)

        def total(x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = x * first + y * second
            return out

        def absolute(x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = x * abs(first) + y * abs(second)
            return out

        def pull(a: Tensor) -> list[Tensor]:
            return [a * first, a * second]

        if one.shape == other.shape:
            return Affine(total, absolute, pull, terms=terms, pull_window=lambda a, w: (pull(a), w))
        return Affine(total, absolute, terms=terms)
    data, constant = (one, other) if isinstance(one, Operand) else (other, one)
    own, rest = (first, second) if isinstance(one, Operand) else (second, first)
    offset = (rest * _constant(call, constant)).expand(shape)
    same = data.shape == call.shape
    return Affine(
        lambda x: (x * own).expand(len(x), *shape),
        lambda x: (x * abs(own)).expand(len(x), *shape),
        (lambda a: [own * a]) if same else None,
        pull_window=(lambda a, w: ([own * a], w)) if same else None,
        offset=offset,
        offset_size=offset.abs(),
        terms=3 + _copies(call, data),
    )


def _scale(call: Call, data: Operand, factor: Tensor, terms: int, **offsets: Tensor) -> Affine:
    shape = call.shape[1:]
    copies = _copies(call, data)
    same = data.shape == call.shape
    by_channel = same and all(n == 1 for n in factor.shape[-2:])
    return Affine(
        lambda x: (x * factor).expand(len(x), *shape),
        lambda x: (x * factor.abs()).expand(len(x), *shape),
        # without copies, the map is its own transpose
        pull=(lambda a: [a * factor]) if same else None,
        pull_window=(lambda a, w: ([a * factor], w)) if by_channel else None,
        terms=terms + copies,
        **offsets,
    )


def _mul(call: Call) -> Affine:
    one, other = call["self"], call["other"]
    if isinstance(one, Operand) and isinstance(other, Operand):
        call.refuse("multiplies two numbers that both depend on the images")
    data, constant = (one, other) if isinstance(one, Operand) else (other, one)
    return _scale(call, data, _constant(call, constant), 1)


def _div(call: Call) -> Affine:
    if not isinstance(call["self"], Operand) or isinstance(call["other"], Operand):
        call.refuse("divides by numbers that depend on the images")
    if call["rounding_mode"] is not None:
        call.refuse("rounds")
    # the reciprocal is rounded once
    return _scale(call, call["self"], _constant(call, call["other"]).reciprocal(), 2)


def _neg(call: Call) -> Affine:
    _only_first(call)
    return Affine(
        lambda x: -x, lambda x: x, lambda a: [-a], pull_window=lambda a, window: ([-a], window)
    )


def _batch_norm(call: Call) -> Affine:
    data = _only_first(call)
    eps = call["eps"] if call["eps"] is not None else call["epsilon"]
    mean, variance = call["running_mean"], call["running_var"]
    if call["training"] or mean is None or variance is None:
        call.refuse("uses statistics of the batch")
    if bool((variance < 0).any() | (variance + eps < torch.finfo(torch.float32).tiny).any()):
        call.refuse("has variances that are negative, or whose root may lose all digits")
    shape = (-1, *[1] * (len(call.shape) - 2))
    weight = torch.ones_like(mean) if call["weight"] is None else call["weight"]
    bias = torch.zeros_like(mean) if call["bias"] is None else call["bias"]
    scale = weight / (variance + eps).sqrt()
    return _scale(
        call,
        data,
        scale.reshape(shape),
        _NORM_TERMS,
        offset=(bias - mean * scale).reshape(shape).expand(call.shape[1:]),
        offset_size=(bias.abs() + (mean * scale).abs()).reshape(shape).expand(call.shape[1:]),
    )


def _linear(call: Call) -> Affine:
    """Rule of ``x @ weight + bias``, with the matrix on the right."""
    bias = call["self"] if call.name == "addmm" else None
    data, weight = (call[n] for n in (("mat1", "mat2") if bias is not None else ("self", "mat2")))
    if not isinstance(data, Operand) or isinstance(weight, Operand) or isinstance(bias, Operand):
        call.refuse("has weights that depend on the images")
    if call.name == "addmm" and (call["beta"] != 1 or call["alpha"] != 1):
        call.refuse("scales its terms")
    size, transposed = weight.abs(), weight.T
    offset = None if bias is None else _constant(call, bias).expand(call.shape[1:])
    return Affine(
        lambda x: x @ weight,
        lambda x: x @ size,
        lambda a: [a @ transposed],
        offset=offset,
        offset_size=None if offset is None else offset.abs(),
        terms=max(weight.shape) + 1,
    )


def _convolution(call: Call) -> Affine:
    weight, bias = call["weight"], call["bias"]
    data = call["input"]
    if not isinstance(data, Operand) or isinstance(weight, Operand) or isinstance(bias, Operand):
        call.refuse("has weights that depend on the images")
    if len(data.shape) != weight.dim():
        call.refuse("has no dimension of the batch")
    options = [
        call[n] for n in ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    ]
    size = weight.abs()
    row = data.shape[1:]

    def run(x: Tensor, kernel: Tensor) -> Tensor:
        out: Tensor = aten.convolution(x, kernel, None, *options)
        return out

    def pull(a: Tensor) -> list[Tensor]:
        shaped = torch.zeros(1, dtype=a.dtype).expand(len(a), *row)
        mask = [True, False, False]
        return [aten.convolution_backward(a, shaped, weight, None, *options, mask)[0]]

    def pull_window(a: Tensor, window: Window) -> tuple[list[Tensor], Window]:
        stride, padding, dilation = (_pair(call[n]) for n in ("stride", "padding", "dilation"))
        part = functional.conv_transpose2d(
            a, weight, None, stride, groups=call["groups"], dilation=dilation
        )
        top, left = (w * s - p for w, s, p in zip(window, stride, padding, strict=True))
        # the padding has no coefficients
        part = part[..., max(-top, 0) :, max(-left, 0) :]
        top, left = max(top, 0), max(left, 0)
        return [part[..., : row[1] - top, : row[2] - left]], Window(top, left)

    offset = None
    if bias is not None:
        offset = bias.reshape(-1, *[1] * (weight.dim() - 2)).expand(call.shape[1:])
    return Affine(
        lambda x: run(x, weight),
        lambda x: run(x, size),
        pull,
        offset=offset,
        offset_size=None if offset is None else offset.abs(),
        # the terms of an output share a channel of it, those of an input one of that
        terms=max(weight.shape[:2]) * math.prod(weight.shape[2:]) + 1,
        pull_window=pull_window if weight.dim() == 4 and not call["transposed"] else None,
    )


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("clone", "detach", "alias", "contiguous", "lift_fresh", "_to_copy"), _same
    ),
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "flatten",
         "unflatten"),
        _reshape,
    ),
    "permute": _permute,
    "transpose": _transpose,
    "slice": _slice,
    "select": _select,
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
    "expand": _expand,
    "cat": _cat,
    "constant_pad_nd": _pad,
    "mean": _mean,
    "sum": _mean,
    "avg_pool2d": _avg_pool,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "max_pool2d_with_indices": _max_pool,
    "add": _add,
    "sub": _add,
    "rsub": _add,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "mm": _linear,
    "addmm": _linear,
    "convolution": _convolution,
}  # fmt: skip


def supported() -> list[str]:
    """Return the names of all operations with a rule."""
    return sorted({*_RULES, *ACTIVATIONS})
