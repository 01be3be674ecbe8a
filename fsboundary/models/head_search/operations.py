"""Operations of ``torch.ops.aten`` that are affine in their floating-point operands.

An operation that is not listed counts as non-affine: it then bounds the affine end of a model
instead of being part of it. Names are without a trailing underscore (in place).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["shape", "map", "product"]
"""Rearrangement of all numbers; other affine map; product with a matrix or kernel."""

Groups = tuple[tuple[int, ...], ...]

_FIRST: Groups = ((0,),)

SHAPE = frozenset(
    {
        "view", "_unsafe_view", "reshape", "_reshape_alias", "alias", "detach", "lift_fresh",
        "permute", "transpose", "t", "numpy_T", "squeeze", "unsqueeze", "clone", "movedim",
        "flatten", "unflatten", "contiguous",
    }
)  # fmt: skip
"""Operations that keep every number of their operand, in another shape or order."""

PRODUCTS: dict[str, Groups] = {
    "mm": ((0,), (1,)),
    "bmm": ((0,), (1,)),
    "mv": ((0,), (1,)),
    "matmul": ((0,), (1,)),
    "addmm": ((0, 1), (0, 2)),
    "baddbmm": ((0, 1), (0, 2)),
    "addmv": ((0, 1), (0, 2)),
    "linear": ((0, 2), (1, 2)),
    "convolution": ((0, 2), (1, 2)),
    "_convolution": ((0, 2), (1, 2)),
    "_weight_int8pack_mm": ((0,),),
}
"""Products, with the positions of operands in which they are jointly affine."""

MAPS: dict[str, Groups] = {
    **dict.fromkeys(
        (
            "select", "slice", "narrow", "split", "split_with_sizes", "unbind", "chunk", "expand",
            "index", "index_select", "gather", "flip", "roll", "repeat", "diagonal", "unfold",
            "mean", "sum", "cumsum", "neg", "avg_pool1d", "avg_pool2d", "avg_pool3d",
            "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d",
            "adaptive_avg_pool2d", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d",
            "replication_pad1d", "replication_pad2d", "upsample_nearest1d", "upsample_nearest2d",
            "upsample_linear1d", "upsample_bilinear2d", "pixel_shuffle",
            "pixel_unshuffle", "channel_shuffle", "im2col", "col2im", "tril", "triu", "_to_copy",
            "masked_fill", "native_batch_norm", "batch_norm", "cudnn_batch_norm",
            "miopen_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_no_update",
            "cat", "stack",
        ),
        _FIRST,
    ),
    "add": ((0, 1),),
    "sub": ((0, 1),),
    "rsub": ((0, 1),),
    "mul": ((0,), (1,)),
    "where": ((1, 2),),
    "div": ((0,),),
    "addcmul": ((0, 1), (0, 2)),
    "addcdiv": ((0, 1),),
    "index_add": ((0, 3),),
    "index_put": ((0, 2),),
    "scatter_add": ((0, 3),),
    "select_scatter": ((0, 1),),
    "slice_scatter": ((0, 1),),
    "copy": ((1,),),
}  # fmt: skip
"""Other affine operations, with the positions of operands in which they are jointly affine."""

INDICES = {"index": 1, "index_select": 2, "gather": 2}
"""Operations whose integer operand at this position may come from the data, such as the position
of the last token; the map is affine for given positions."""

WEIGHTED = frozenset({"mul", "div"})
"""Operations of which one operand may come from the data, if it is made of integers only, such as
an attention mask, or the counts in it; the map is affine in the other operand."""

CONSTANT = frozenset(
    {
        "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
        "new_empty", "new_empty_strided",
    }
)  # fmt: skip
"""Operations that read only shape and dtype of their operand."""

_NORMS = frozenset({"native_batch_norm", "batch_norm", "cudnn_batch_norm", "miopen_batch_norm"})
"""Normalisations whose argument at position 5 says whether statistics of the batch are used."""


def affine_kind(
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    data_positions: Sequence[int],
    data_keywords: bool,
) -> Kind | None:
    """Return the kind of an affine operation; None if it is, or may be, non-affine.

    Parameters
    ----------
    name : str
        Name in ``torch.ops.aten``, without a trailing underscore.
    args, kwargs : sequence, dict
        Arguments of the call.
    data_positions : sequence of int
        Positions of the arguments that contain floating-point data, without integer indices.
    data_keywords : bool
        Whether a keyword argument contains data.
    """
    if data_keywords:
        return None
    if name in SHAPE:
        return "shape" if set(data_positions) <= {0} and _real(args, kwargs) else None
    groups = PRODUCTS.get(name) or MAPS.get(name)
    if groups is None or not _condition(name, args, kwargs):
        return None
    if not any(set(data_positions) <= set(group) for group in groups):
        return None
    return "product" if name in PRODUCTS else "map"


def _real(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    # view.dtype reinterprets bits
    return not any(isinstance(value, torch.dtype) for value in (*args[1:], *kwargs.values()))


def _condition(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if name == "div":
        return len(args) < 3 and kwargs.get("rounding_mode") is None
    if name in _NORMS:
        return len(args) > 5 and args[5] is False
    if name == "_to_copy":
        dtype = kwargs.get("dtype")
        return dtype is None or dtype.is_floating_point
    return True


def evaluate(name: str, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Return an operation's result in float64; `args` contain float64 tensors.

    In-place operations are replaced by those that return a new tensor.
    """
    if name == "_weight_int8pack_mm":
        x, weight, scales = args
        return x @ (weight * scales[:, None]).mT
    if name in ("_to_copy", "clone", "contiguous", "lift_fresh", "detach", "alias"):
        return args[0]
    if name in ("view", "_unsafe_view", "_reshape_alias"):
        return args[0].reshape(args[1])  # the strides are others here
    if name == "copy":
        return args[1].expand_as(args[0])
    if "batch_norm" in name:
        return (_normalise(args[:5], args[7 if name in _NORMS else 6]),)
    return _functional(function)(*args, **{**kwargs, **_float64(kwargs)})


def evaluate_sizes(name: str, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Return the same as :func:`evaluate` with the absolute value of every term of every sum."""
    if name == "neg":
        return args[0]
    if name in ("add", "sub", "rsub"):
        first, second, *alpha = args
        scale = abs(kwargs.get("alpha", alpha[0] if alpha else 1))
        one, other = (second, first) if name == "rsub" else (first, second)
        return _size(one) + scale * _size(other)
    if name in ("mul", "div"):
        factor = _size(args[1])
        return _size(args[0]) * factor if name == "mul" else args[0] / factor
    if "batch_norm" in name:
        args[3] = -args[3]  # the running mean is subtracted
    kwargs = {k: abs(v) if isinstance(v, int | float) else v for k, v in kwargs.items()}
    return evaluate(name, function, args, kwargs)


def _normalise(args: list[Any], eps: float) -> Tensor:
    x, weight, bias, mean, variance = args
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else weight * scale
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1, *[1] * (x.ndim - 2))
    normalised: Tensor = x * scale.reshape(shape) + shift.reshape(shape)
    return normalised


def _size(value: Any) -> Any:
    return value if isinstance(value, Tensor) else abs(value)


def _float64(kwargs: dict[str, Any]) -> dict[str, Any]:
    dtype = kwargs.get("dtype")
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    return {"dtype": torch.float64} if floating else {}


def _functional(function: Any) -> Callable[..., Any]:
    name = function._schema.name.removeprefix("aten::")
    if not (name.endswith("_") and function._schema.is_mutable):
        return function  # type: ignore[no-any-return]  # torch's operations are untyped
    packet = getattr(torch.ops.aten, name.removesuffix("_"))
    return getattr(packet, function._overloadname or "default")  # type: ignore[no-any-return]


Shape = tuple[int, ...]


def rounded_terms(name: str, shapes: Sequence[Shape | None], result: Shape) -> int:
    """Return the number of rounded terms in one number of the result.

    Parameters
    ----------
    name : str
        Name of an affine operation.
    shapes : sequence
        Shapes of its positional arguments; None for those that are no tensors.
    result : tuple of int
        Shape of its result.
    """
    if name in PRODUCTS:
        bias = name.startswith(("add", "badd")) or len(shapes) > 2
        if name in ("convolution", "_convolution"):
            return math.prod((shapes[1] or ())[1:]) + 1
        return ((shapes[1] if name[0] in "ab" and name != "bmm" else shapes[0]) or (1,))[-1] + bias
    if name in ("mean", "sum", "cumsum") or "pool" in name:
        # windows of a pooling operation overlap at most twice per axis
        overlap = 8 if "pool" in name else 1
        return overlap * math.ceil(math.prod(shapes[0] or ()) / max(math.prod(result), 1))
    if "batch_norm" in name:
        return 6
    if "upsample" in name:
        return 16
    return 2 if name in _ARITHMETIC else 0


_ARITHMETIC = frozenset(
    {"add", "sub", "rsub", "mul", "div", "addcmul", "addcdiv", "_to_copy", "index_add",
     "index_put", "scatter_add", "col2im", "copy"}
)  # fmt: skip
