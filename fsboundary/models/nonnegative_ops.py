"""Which operations of torch give nonnegative numbers, and from what. When in doubt: none.

Names are those of ``torch.ops.aten``; a trailing underscore (in place) is stripped before the
look-up. NaN counts as nonnegative here: rows that hold it are set aside elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Args = tuple[Any, ...]


def _number(args: Args, position: int, default: Any) -> Any:
    return args[position] if len(args) > position else default


def _at_least_zero(value: Any) -> bool:
    """Whether `value` is a plain number >= 0; a tensor is not."""
    return isinstance(value, int | float) and value >= 0


def _clamp(args: Args) -> bool:
    high = _number(args, 2, None)
    return _at_least_zero(_number(args, 1, None)) and (high is None or _at_least_zero(high))


def _softplus(args: Args) -> bool:
    beta, threshold = _number(args, 1, 1), _number(args, 2, 20)
    # beyond the threshold the input itself comes back
    return _at_least_zero(beta) and beta > 0 and _at_least_zero(threshold)


def _even_power(args: Args) -> bool:
    power = _number(args, 1, None)
    return isinstance(power, int | float) and power > 0 and power % 2 == 0


def _always(args: Args) -> bool:
    return True


MAKES: dict[str, Callable[[Args], bool]] = {
    "relu": _always,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": lambda args: _at_least_zero(_number(args, 1, None)),
    "threshold": lambda args: _at_least_zero(args[1]) and _at_least_zero(args[2]),
    "sigmoid": _always,
    "hardsigmoid": _always,
    "softplus": _softplus,
    "_softmax": _always,
    "abs": _always,
    "square": _always,
    "pow": _even_power,
    "exp": _always,
    "zeros": _always,
    "zeros_like": _always,
    "new_zeros": _always,
    "zero": _always,
    "ones": _always,
    "ones_like": _always,
    "fill": lambda args: _at_least_zero(args[1]),
    "full": lambda args: _at_least_zero(args[1]),
    "scalar_tensor": lambda args: _at_least_zero(args[0]),
}
"""Nonnegative whatever the input, if the numbers among the arguments are right."""


def _scale(args: Args) -> bool:
    # a negative zero would turn the sign round
    return isinstance(args[1], int | float) and args[1] > 0


def _average(args: Args) -> bool:
    divisor = _number(args, 6, None)
    return divisor is None or divisor > 0


def _power(args: Args) -> bool:
    power = _number(args, 1, None)
    return isinstance(power, int | float) and power > 0


def _padding(args: Args) -> bool:
    return _at_least_zero(_number(args, 2, 0))


KEEPS: dict[str, tuple[tuple[int, ...], Callable[[Args], bool]]] = {
    **dict.fromkeys(
        (
            "clone", "_to_copy", "mean", "sum", "amax", "amin", "max", "sort", "topk",
            "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "avg_pool1d",
            "adaptive_max_pool2d", "adaptive_max_pool3d",
            "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d", "max_pool2d",
            "max_pool3d", "index_select", "gather", "index", "flip", "roll", "repeat",
            "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
            "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
            "upsample_nearest1d", "upsample_nearest2d", "cat", "stack",
        ),
        ((0,), _always),
    ),
    "avg_pool2d": ((0,), _average),
    "avg_pool3d": ((0,), _average),
    "constant_pad_nd": ((0,), _padding),
    "min": ((0,), lambda args: not isinstance(_number(args, 1, None), Tensor)),
    "masked_fill": ((0,), lambda args: _at_least_zero(args[2])),
    "pow": ((0,), _power),
    "div": ((0,), _scale),
    "add": ((0, 1), _always),
    "mul": ((0, 1), _always),
    "minimum": ((0, 1), _always),
    "where": ((1, 2), _always),
    "copy": ((1,), _always),
}  # fmt: skip
"""Nonnegative if the arguments at these positions are, and the other condition holds."""

VIEWS = frozenset(
    {
        "view", "_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh", "permute",
        "transpose", "t", "numpy_T", "slice", "select", "narrow", "expand", "squeeze", "unsqueeze",
        "unbind", "split", "split_with_sizes", "chunk", "diagonal", "unfold", "as_strided",
        "movedim",
    }
)  # fmt: skip
"""Give other shapes of the same numbers. ``view.dtype``, which does not, is told apart."""


def proves(name: str, args: Args, kwargs: dict[str, Any], proof: Callable[[Any], str]) -> str:
    """Return why the result of an operation is nonnegative; empty where it may not be.

    Parameters
    ----------
    name : str
        As in ``torch.ops.aten``, without a trailing underscore.
    args, kwargs : tuple, dict
        Of the call.
    proof : callable
        Gives the proof of an argument that is a tensor, or the empty string.
    """
    if name in MAKES and not _keyword_changes(kwargs) and MAKES[name](args):
        return name
    if name == "maximum":
        return proof(args[0]) or proof(args[1])
    if name not in KEEPS or _keyword_changes(kwargs):
        return ""
    positions, condition = KEEPS[name]
    if len(args) <= max(positions) or not condition(args):
        return ""
    proofs = [_of(args[p], proof) for p in positions]
    return " and ".join(dict.fromkeys(p for p in proofs if p != "a number")) if all(proofs) else ""


def _keyword_changes(kwargs: dict[str, Any]) -> bool:
    """Whether a keyword could change signs; ``add(x, y, alpha=-1)`` is a subtraction."""
    harmless = {"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking"}
    return any(k not in harmless and v is not None for k, v in kwargs.items())


def _of(argument: Any, proof: Callable[[Any], str]) -> str:
    if isinstance(argument, Tensor):
        return proof(argument)
    if isinstance(argument, tuple | list):
        proofs = [_of(part, proof) for part in argument]
        return " and ".join(dict.fromkeys(proofs)) if proofs and all(proofs) else ""
    return "a number" if _at_least_zero(argument) else ""
