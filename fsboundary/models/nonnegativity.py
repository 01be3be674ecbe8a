"""Proofs, from the operations of one forward pass, that a tensor contains no negative number.

The tables list operations that give nonnegative numbers, and under which conditions; in doubt an
operation is left out. Names are those of ``torch.ops.aten``; a trailing underscore (in place) is
stripped before the look-up. NaN counts as nonnegative here: rows that contain it are excluded
elsewhere.

Proofs are stored per storage, not per tensor: all views of a storage share one, so an in-place
operation through any view affects all. A proof states that **every** number in the storage is
nonnegative. Writes that bypass torch's dispatcher (by a hand-launched kernel, or through a shared
NumPy array) are not seen; `FeatureSpace` still raises if a feature leaves a proved domain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Args = tuple[Any, ...]


def _argument(args: Args, position: int, default: Any) -> Any:
    return args[position] if len(args) > position else default


def _at_least_zero(value: Any) -> bool:
    """Return whether `value` is a plain number >= 0; False for a tensor."""
    return isinstance(value, int | float) and value >= 0


def _clamp(args: Args) -> bool:
    high = _argument(args, 2, None)
    return _at_least_zero(_argument(args, 1, None)) and (high is None or _at_least_zero(high))


def _softplus(args: Args) -> bool:
    beta, threshold = _argument(args, 1, 1), _argument(args, 2, 20)
    # beyond the threshold the input itself is returned
    return _at_least_zero(beta) and beta > 0 and _at_least_zero(threshold)


def _even_power(args: Args) -> bool:
    power = _argument(args, 1, None)
    return isinstance(power, int | float) and power > 0 and power % 2 == 0


def _always(args: Args) -> bool:
    return True


_ALWAYS_NONNEGATIVE: dict[str, Callable[[Args], bool]] = {
    "relu": _always,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": lambda args: _at_least_zero(_argument(args, 1, None)),
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
"""Operations with nonnegative results for any input, if the condition on the arguments holds."""


def _scale(args: Args) -> bool:
    # a negative zero would change the sign
    return isinstance(args[1], int | float) and args[1] > 0


def _average(args: Args) -> bool:
    divisor = _argument(args, 6, None)
    return divisor is None or divisor > 0


def _power(args: Args) -> bool:
    power = _argument(args, 1, None)
    return isinstance(power, int | float) and power > 0


def _padding(args: Args) -> bool:
    return _at_least_zero(_argument(args, 2, 0))


_KEEPS_NONNEGATIVE: dict[str, tuple[tuple[int, ...], Callable[[Args], bool]]] = {
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
    "min": ((0,), lambda args: not isinstance(_argument(args, 1, None), Tensor)),
    "masked_fill": ((0,), lambda args: _at_least_zero(args[2])),
    "pow": ((0,), _power),
    "div": ((0,), _scale),
    "add": ((0, 1), _always),
    "mul": ((0, 1), _always),
    "minimum": ((0, 1), _always),
    "where": ((1, 2), _always),
    "copy": ((1,), _always),
}  # fmt: skip
"""Operations with nonnegative results if the arguments at these positions are nonnegative and the
condition on the arguments holds."""

_VIEWS = frozenset(
    {
        "view", "_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh", "permute",
        "transpose", "t", "numpy_T", "slice", "select", "narrow", "expand", "squeeze", "unsqueeze",
        "unbind", "split", "split_with_sizes", "chunk", "diagonal", "unfold", "as_strided",
        "movedim",
    }
)  # fmt: skip
"""Operations that reshape the same numbers. ``view.dtype``, which does not, is handled separately.
"""


def _proof_of_result(
    name: str, args: Args, kwargs: dict[str, Any], proof: Callable[[Any], str]
) -> str:
    """Return the proof that the result of an operation is nonnegative; empty if it may not be.

    Parameters
    ----------
    name : str
        Name in ``torch.ops.aten``, without a trailing underscore.
    args, kwargs : tuple, dict
        Arguments of the call.
    proof : callable
        Function that returns the proof of a tensor argument, or the empty string.
    """
    if (
        name in _ALWAYS_NONNEGATIVE
        and not _keyword_changes(kwargs)
        and _ALWAYS_NONNEGATIVE[name](args)
    ):
        return name
    if name == "maximum":
        return proof(args[0]) or proof(args[1])
    if name not in _KEEPS_NONNEGATIVE or _keyword_changes(kwargs):
        return ""
    positions, condition = _KEEPS_NONNEGATIVE[name]
    if len(args) <= max(positions) or not condition(args):
        return ""
    proofs = [_proof_of_argument(args[p], proof) for p in positions]
    return " and ".join(dict.fromkeys(p for p in proofs if p != "a number")) if all(proofs) else ""


def _keyword_changes(kwargs: dict[str, Any]) -> bool:
    """Return whether a keyword may change signs; ``add(x, y, alpha=-1)`` is a subtraction."""
    harmless = {"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking"}
    return any(k not in harmless and v is not None for k, v in kwargs.items())


def _proof_of_argument(argument: Any, proof: Callable[[Any], str]) -> str:
    if isinstance(argument, Tensor):
        return proof(argument)
    if isinstance(argument, tuple | list):
        proofs = [_proof_of_argument(part, proof) for part in argument]
        return " and ".join(dict.fromkeys(proofs)) if proofs and all(proofs) else ""
    return "a number" if _at_least_zero(argument) else ""


@final
class NonnegativityProver(TorchDispatchMode):
    """Dispatch mode that records proofs while active; :meth:`proof` returns that of a tensor."""

    supports_higher_order_operators = True  # they run as usual and prove nothing

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        # the weak reference prevents the storage's address from being reused by another storage
        self._proofs: dict[int, tuple[StorageWeakRef, str]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # otherwise torch spends a second or two on importing its compiler, only to disable it for
        # this class; nothing compiles here, because models are run eagerly
        return False

    def proof(self, value: Any) -> str:
        """Return the operation that proves `value` nonnegative, or the empty string."""
        key = _storage(value)
        return self._proofs[key.cdata][1] if key is not None and key.cdata in self._proofs else ""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            result = func(*args, **kwargs)
            self._forget(tree_leaves((args, kwargs, result)))
            return result
        with self:  # in inference mode composite operations arrive undecomposed
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        name = func._schema.name.removeprefix("aten::")
        written = _written_tensors(func, args, kwargs)
        proof = _proof_of_result(name.removesuffix("_"), args, kwargs, self.proof)
        result = func(*args, **kwargs)
        if written:
            in_place = name.endswith("_") and len(written) == 1 and written[0] is args[0]
            self._overwrite(written, proof if in_place else "")
        else:
            self._produce(func, name, args, kwargs, result, proof)
        return result

    def _produce(
        self, func: Any, name: str, args: Any, kwargs: Any, result: Any, proof: str
    ) -> None:
        inputs = {key.cdata for t in tree_leaves((args, kwargs)) if (key := _storage(t))}
        for tensor in tree_leaves(result):
            key = _storage(tensor)
            if key is None:
                continue
            if key.cdata in inputs:
                if name not in _VIEWS or func._overloadname == "dtype":
                    self._forget([tensor])
            elif proof and tensor.is_floating_point():
                self._proofs[key.cdata] = (key, proof)
            else:
                self._forget([tensor])

    def _overwrite(self, written: list[Tensor], proof: str) -> None:
        for tensor in written:
            key = _storage(tensor)
            if key is None:
                continue
            whole = _fills_its_storage(tensor)
            if not proof or not (whole or key.cdata in self._proofs):
                self._forget([tensor])
            elif whole:
                self._proofs[key.cdata] = (key, proof)

    def _forget(self, values: list[Any]) -> None:
        for value in values:
            key = _storage(value)
            if key is not None:
                self._proofs.pop(key.cdata, None)


def _storage(value: Any) -> StorageWeakRef | None:
    """Return a weak reference to the storage of a tensor; None if it has none."""
    if not isinstance(value, Tensor):
        return None
    try:
        return StorageWeakRef(value.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse and opaque layouts
        return None


def _fills_its_storage(tensor: Tensor) -> bool:
    """Return whether every number of the storage is an element of `tensor`, in any order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return expected * tensor.element_size() == tensor.untyped_storage().nbytes()


def _written_tensors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation writes to, according to its schema."""
    tensors: list[Any] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        tensors += tree_leaves(value)
    return [t for t in tensors if isinstance(t, Tensor)]
