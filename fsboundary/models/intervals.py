"""Proofs, from the operations of one forward pass, that all numbers of a tensor lie in an interval.

The rules of the operations are in :mod:`fsboundary.models.interval_rules`, and here for affine maps
whose weights are parameters or buffers of the model. Names are those of ``torch.ops.aten``; a
trailing underscore (in place) is stripped before the look-up. NaN counts as inside: rows that
contain it are excluded elsewhere.

Proofs are stored per storage, not per tensor: all views of a storage share one, so an in-place
operation through any view affects all. A proof states that **every** number in the storage, read in
the dtype in which it was written, lies in the interval, for every input of the model that has the
same shape per row and takes the same path. Python numbers that the model read from a tensor differ
between inputs: after such a read no Python number is used in a proof. Reads and writes that bypass
torch's dispatcher (``tolist()``, a hand-launched kernel, a shared NumPy array) are not seen;
`FeatureSpace` still raises if a feature leaves a proved domain.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from fsboundary.models.dispatch import OperationMode, storage_of
from fsboundary.models.interval_rules import (
    FLOATS,
    KEEPS,
    RULES,
    UNKNOWN,
    Bounds,
    Call,
    Rule,
    limits_of,
    union,
)

_LARGEST_CONSTANT = 1_000_000
"""Numbers in the largest parameter or buffer that is read; larger ones would take too long."""

_NAMES_SHOWN = 6


@final
class Interval(NamedTuple):
    """An interval in which all numbers of a tensor lie, in every pass along the same path.

    Attributes
    ----------
    lower, upper : float
        Limits, rounded outward; infinite where nothing is proved.
    reason : str
        Operations of the proof, for example "relu and batch_norm".
    constants : tuple of (str, Tensor)
        Names of the parameters and buffers of the model that the proof used, and copies of them.
        The proof holds only while :meth:`holds` for the model.
    """

    lower: float
    upper: float
    reason: str
    constants: tuple[tuple[str, Tensor], ...] = ()

    def holds(self, model: nn.Module) -> bool:
        """Return whether `model` still has the numbers that the proof used."""
        return all(_equal(_attribute(model, name), copy) for name, copy in self.constants)


def _attribute(model: nn.Module, name: str) -> Any:
    value: Any = model
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _equal(value: Any, copy: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.dtype != copy.dtype:
        return False
    return torch.equal(value.detach().to(copy.device), copy)


def _worst(c: Call, ends: list[Tensor], sizes: list[Tensor], n: int, extra: float = 0.0) -> Bounds:
    """Return limits of several sums, each rounded `n` times; see :meth:`Call.widen`.

    Parameters
    ----------
    c : Call
        The call.
    ends : list of two Tensor (m,)
        Exact lower and upper limits, float64.
    sizes : list of two Tensor (m,)
        Sums of the absolute terms of these limits.
    n : int
        Number of roundings, or of terms.
    extra : float
        Further error, relative to `sizes`.
    """
    (low, high), errors = ends, [c.error(size, n) + extra * size for size in sizes]
    # where no term is negative, no rounding makes the sum negative
    below = torch.where((low >= 0) & (sizes[0] <= low), 0.0, -math.inf).maximum(low - errors[0])
    above = torch.where((high <= 0) & (sizes[1] <= -high), 0.0, math.inf).minimum(high + errors[1])
    fits = [bool((size <= c.largest).all()) for size in sizes]  # also every partial sum
    return (
        float(below.amin()) if fits[0] else -math.inf,
        float(above.amax()) if fits[1] else math.inf,
    )


def _linear(c: Call) -> Bounds:
    """Rule of ``x @ W.T + b`` with constant W (rows,n)."""
    bias: Any = None
    if c.name == "addmm":
        if c["beta"] != 1 or c["alpha"] != 1:
            return UNKNOWN
        bias, x, factor = c["self"], c["mat1"], c["mat2"]
    else:
        x, factor = c["self"], c["mat2"]
    return _affine(c, c.of(x), factor, bias, convolution=False)


_REDUCED_PRODUCTS = 2.0**-8 + 2.0**-16
"""Error, relative to the sum of the absolute terms, of float32 products with factors rounded to
TF32 or bfloat16: torch's settings and the model's device may change after the first pass."""

_FAST_CONVOLUTION = 4096.0
"""Unit roundoffs, relative to the sum of the absolute terms, that are granted to convolutions by
Winograd's or Fourier's method; these are not monotone, and may turn a zero negative."""


def _convolution(c: Call) -> Bounds:
    x, weight = c.of(c["input"]), c["weight"]
    if c["transposed"] or not isinstance(weight, Tensor):
        return UNKNOWN
    if any(c["padding"]):
        x = union(x, (0.0, 0.0))
    return _affine(c, x, weight, c["bias"], convolution=True)


def _affine(c: Call, x: Bounds, factor: Tensor, bias: Any, *, convolution: bool) -> Bounds:
    if x == UNKNOWN:
        return UNKNOWN
    numbers = c.constant(factor)
    offset: Any = c.constant(bias) if isinstance(bias, Tensor) else 0.0
    if numbers is None or offset is None or not numbers.numel():
        return UNKNOWN
    numbers = numbers.flatten(1) if convolution else numbers.T
    n = numbers.shape[1] + 4
    positive, negative = numbers.clamp_min(0).sum(1), numbers.clamp_max(0).sum(1)
    ends, sizes = [], []
    for end in (x, x[::-1]):
        # 0 times infinity is NaN, which counts as inside
        p = torch.where(positive == 0, 0.0, positive * end[0])
        q = torch.where(negative == 0, 0.0, negative * end[1])
        ends.append(p + q + offset)
        sizes.append(p.abs() + q.abs() + abs(offset))
    extra = _REDUCED_PRODUCTS if c.eps == torch.finfo(torch.float32).eps else 0.0
    if convolution and math.prod(factor.shape[2:]) > 1:
        largest = torch.maximum(sizes[0], sizes[1])
        if c.eps > 1e-6 or not bool((largest <= c.largest).all()):
            return UNKNOWN
        error = (_FAST_CONVOLUTION * c.eps + extra) * largest
        ends = [ends[0] - error, ends[1] + error]
        sizes = [largest, largest]
    return _worst(c, ends, sizes, n, extra)


def _batch_norm(c: Call) -> Bounds:
    if c["training"] or not isinstance(c["running_mean"], Tensor):
        return UNKNOWN
    low, high = c.of(c["input"])
    if (low, high) == UNKNOWN:
        return UNKNOWN
    mean, variance = c.constant(c["running_mean"]), c.constant(c["running_var"])
    weight = 1.0 if c["weight"] is None else c.constant(c["weight"])
    bias = 0.0 if c["bias"] is None else c.constant(c["bias"])
    if mean is None or variance is None or weight is None or bias is None:
        return UNKNOWN
    scale = weight * (variance + c["eps"]).rsqrt()
    ends = []
    for below, above in ((low, high), (high, low)):
        end = torch.where(scale > 0, scale * below, scale * above)
        ends.append(torch.where(scale == 0, 0.0, end))
    shift = mean * scale
    sizes = [e.abs() + shift.abs() + abs(bias) for e in ends]
    return _worst(c, [end - shift + bias for end in ends], sizes, 16)


_AFFINE: dict[str, Rule] = {
    "addmm": _linear,
    "mm": _linear,
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
}
"""Rules of affine maps whose weights are constants."""

_ALL_RULES = RULES | KEEPS | _AFFINE
_SHOWN = {"addmm": "linear", "mm": "linear", "_native_batch_norm_legit_no_training": "batch_norm"}
_SHOWN |= {"native_batch_norm": "batch_norm", "_prelu_kernel": "prelu"}
"""Names of operations in reasons, where torch's own say less."""


_VIEWS = frozenset(
    {
        "view", "_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh", "permute",
        "transpose", "t", "numpy_T", "slice", "select", "narrow", "expand", "squeeze", "unsqueeze",
        "unbind", "split", "split_with_sizes", "chunk", "diagonal", "unfold", "as_strided",
        "movedim",
    }
)  # fmt: skip
"""Operations that reshape the same numbers, or read their bits in another dtype."""


class _Found(NamedTuple):
    """Limits, the operations that prove them, and the constants on which they depend."""

    bounds: Bounds
    names: tuple[str, ...] = ()
    constants: frozenset[str] = frozenset()

    @staticmethod
    def join(bounds: Bounds, *parts: _Found) -> _Found:
        """Return `bounds` with the names and constants of all `parts`."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        return _Found(bounds, names, frozenset().union(*(part.constants for part in parts)))


class _Proof(NamedTuple):
    """Proof of one storage; the weak reference keeps its address from being reused."""

    storage: StorageWeakRef
    dtype: torch.dtype
    found: _Found


@final
class IntervalProver(OperationMode):
    """Dispatch mode that records proofs while active; :meth:`interval` returns that of a tensor.

    Parameters
    ----------
    model : nn.Module, optional
        Model whose parameters and buffers are constants. Without it no tensor is one.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self._proofs: dict[int, _Proof] = {}
        self._trusted = True
        self._named: dict[str, Tensor] = {}
        self._constants: dict[int, tuple[StorageWeakRef, list[str]]] = {}
        self._written: set[str] = set()
        for named in () if model is None else (model.named_parameters, model.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                key = None if nn.parameter.is_lazy(tensor) else storage_of(tensor)
                if key is not None:
                    self._named[name] = tensor.detach()
                    self._constants.setdefault(key.cdata, (key, []))[1].append(name)

    def interval(self, value: Any) -> Interval | None:
        """Return the proved interval of `value`; None if nothing is proved."""
        with _disable_current_modes():  # a hook may call this in the pass
            found = self._find(value)
            if found is None or found.constants & self._written:
                return None
            with torch.inference_mode(False), torch.no_grad():
                copies = [(name, self._named[name].clone()) for name in sorted(found.constants)]
        names = list(found.names[:_NAMES_SHOWN]) or ["the model's parameters"]
        names += ["others"] if len(found.names) > _NAMES_SHOWN else []
        reason = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        return Interval(*found.bounds, reason, tuple(copies))

    def proof(self, value: Any) -> str:
        """Return the operations that prove `value` nonnegative, or the empty string.

        Proofs that depend on the model's numbers are left out, because they hold only while these
        do not change.
        """
        found = self.interval(value)
        return "" if found is None or found.lower < 0 or found.constants else found.reason

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(t, Tensor) and t.is_nested for t in tree_leaves((args, kwargs))):
            result = func(*args, **kwargs)
            # its numbers lie in the memory of other tensors, unseen by this mode
            self._proofs.clear()
            for _, names in self._constants.values():
                self._written.update(names)
            self._constants.clear()
            return result
        if not isinstance(func, torch._ops.OpOverload):
            result = func(*args, **kwargs)
            self._forget(tree_leaves((args, kwargs, result)))
            return result
        result = self.decompose(func, args, kwargs)
        if result is not NotImplemented:
            return result
        name, parameters = _schema(func)
        given = dict(zip((p.name for p in parameters), args, strict=False)) | kwargs
        arguments = {p.name: given.get(p.name, p.default) for p in parameters}
        values = list(arguments.values())
        written = [v for p, v in zip(parameters, values, strict=True) if p.is_written]
        written = [t for t in tree_leaves(written) if isinstance(t, Tensor)]
        if arguments.get("training") is True:  # running statistics are written unannounced
            self._forget(tree_leaves(values[1:]))
        rule = name.removesuffix("_") if name.removesuffix("_") in _ALL_RULES else ""
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor)] if rule else []
        known = {id(t): self._find(t, constants=False) for t in tensors}  # the call may write
        result = func(*args, **kwargs)
        if name == "_local_scalar_dense" and args[0].dtype != torch.bool:
            self._trusted = False
        self._drop_constants(written)
        in_place = name.endswith("_") and len(written) == 1 and written[0] is args[0]
        found = None
        if rule and (in_place or not written):
            found = self._prove(rule, arguments, result, known)
        if written:
            self._overwrite(written, found)
        else:
            self._produce(name, values, result, found)
        return result

    def _prove(
        self, name: str, arguments: dict[str, Any], result: Any, known: dict[int, _Found | None]
    ) -> _Found | None:
        """Return what is proved of the result of an operation; None if nothing is.

        Parameters
        ----------
        name : str
            Name of the rule.
        arguments : dict
            Arguments of the call by name.
        result : object
            Result of the call.
        known : dict
            What was proved of the arguments before the call, by identity; constants left out.
        """
        used: list[_Found] = []

        def bounds(tensor: Tensor) -> Bounds:
            found = known.get(id(tensor)) or self._find_constant(tensor)
            if found is None:
                return UNKNOWN
            used.append(found)
            return found.bounds

        def numbers(tensor: Tensor) -> Tensor | None:
            read = self._read_constant(tensor)
            if read is None:
                return None
            used.append(_Found(UNKNOWN, constants=read[1]))
            return read[0].to(torch.float64)

        call = Call(name, arguments, result, bounds, numbers, self._trusted)
        limits = limits_of(call, _ALL_RULES)
        if limits == UNKNOWN:
            return None
        own = _Found(limits, () if name in KEEPS else (_SHOWN.get(name, name.lstrip("_")),))
        call.known, call.constant = (lambda _: UNKNOWN), (lambda _: None)
        if own.names and (not used or limits == limits_of(call, _ALL_RULES)):
            return own  # whatever the arguments are
        return _Found.join(limits, *used, own)

    def _find(self, tensor: Any, *, constants: bool = True) -> _Found | None:
        """Return what is proved of a tensor now; of constants only if asked."""
        key = storage_of(tensor)
        if key is None or tensor.is_neg():
            return None
        proof = self._proofs.get(key.cdata)
        if proof is None:
            return self._find_constant(tensor) if constants else None
        return proof.found if proof.dtype == tensor.dtype else None

    def _find_constant(self, tensor: Tensor) -> _Found | None:
        read = self._read_constant(tensor)
        if read is None or not read[0].numel():
            return None
        low, high = (float(x) for x in torch.aminmax(read[0]))
        return None if math.isnan(low + high) else _Found((low, high), constants=read[1])

    def _read_constant(self, tensor: Tensor) -> tuple[Tensor, frozenset[str]] | None:
        """Return a constant tensor and the names of those in its storage; None for others."""
        key = storage_of(tensor)
        named = None if key is None else self._constants.get(key.cdata)
        if named is None or not _can_be_proved(tensor):
            return None
        whole = [self._named[name] for name in named[1]]
        size = max(tensor.numel(), sum(t.numel() for t in whole))
        if size > _LARGEST_CONSTANT or any(t.dtype != tensor.dtype for t in whole):
            return None
        return tensor.detach(), frozenset(named[1])

    def _produce(self, name: str, values: list[Any], result: Any, found: _Found | None) -> None:
        inputs = {key.cdata for t in tree_leaves(values) if (key := storage_of(t))}
        for number, tensor in enumerate(tree_leaves(result)):
            key = storage_of(tensor)
            if key is None:
                continue
            if key.cdata in inputs:
                if name not in _VIEWS:
                    self._forget([tensor])
                continue
            self._forget([tensor])
            if number == 0 and found and _can_be_proved(tensor) and _fills_its_storage(tensor):
                self._proofs[key.cdata] = _Proof(key, tensor.dtype, found)

    def _overwrite(self, written: list[Tensor], found: _Found | None) -> None:
        for tensor in written:
            key = storage_of(tensor)
            if key is None:
                continue
            old = self._proofs.get(key.cdata)
            self._forget([tensor])
            if found is None or not _can_be_proved(tensor):
                continue
            if not _fills_its_storage(tensor):
                if old is None or old.dtype != tensor.dtype:
                    continue
                found = _Found.join(union(old.found.bounds, found.bounds), old.found, found)
            if found.bounds != UNKNOWN:
                self._proofs[key.cdata] = _Proof(key, tensor.dtype, found)

    def _forget(self, values: list[Any]) -> None:
        for key in filter(None, map(storage_of, values)):
            self._proofs.pop(key.cdata, None)
        self._drop_constants(values)

    def _drop_constants(self, values: list[Any]) -> None:
        for key in filter(None, map(storage_of, values)):
            self._written.update(self._constants.pop(key.cdata, (key, []))[1])


class _Parameter(NamedTuple):
    name: str
    default: Any
    is_written: bool


@functools.cache
def _schema(func: Any) -> tuple[str, tuple[_Parameter, ...]]:
    """Return the name and the parameters of an operation."""
    schema = func._schema
    return schema.name.removeprefix("aten::"), tuple(
        _Parameter(
            argument.name,
            argument.default_value if argument.has_default_value() else None,
            argument.alias_info is not None and argument.alias_info.is_write,
        )
        for argument in schema.arguments
    )


def _can_be_proved(tensor: Tensor) -> bool:
    """Return whether the numbers of `tensor` are those that stand in its storage."""
    return tensor.dtype in FLOATS and not tensor.is_neg()


def _fills_its_storage(tensor: Tensor) -> bool:
    """Return whether every number of the storage is an element of `tensor`, in any order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return expected * tensor.element_size() == tensor.untyped_storage().nbytes()
