"""A proof, from the operations of one forward pass, that a tensor holds no negative number.

Proofs are kept by storage, not by tensor: all views of a storage share one, so an in-place
operation through any view is seen by all. A proof says that **every** number in the storage is
nonnegative. What is written behind torch's dispatcher (by a hand-launched kernel, or through a
shared NumPy array) is not seen; `FeatureSpace` still raises where a proved domain is left.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsboundary.models.nonnegative_ops import VIEWS, proves


@final
class NonnegativityProver(TorchDispatchMode):
    """Watches operations while active; ask :meth:`proof` of any tensor they made."""

    supports_higher_order_operators = True  # they run as always, and prove nothing

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        # the weak reference keeps the storage's address from being given to another storage
        self._proofs: dict[int, tuple[StorageWeakRef, str]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # else torch imports its compiler, for a second or two, to keep it out of this class;
        # nothing compiles here, because models are run eagerly
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
        with self:  # in inference mode composite operations arrive whole: look inside
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        name = func._schema.name.removeprefix("aten::")
        written = _written(func, args, kwargs)
        proof = proves(name.removesuffix("_"), args, kwargs, self.proof)
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
                if name not in VIEWS or func._overloadname == "dtype":
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
    """Return a weak reference to the storage of a tensor; None where it has none."""
    if not isinstance(value, Tensor):
        return None
    try:
        return StorageWeakRef(value.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse and opaque layouts
        return None


def _fills_its_storage(tensor: Tensor) -> bool:
    """Whether every number of the storage is an element of `tensor`, in any order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return expected * tensor.element_size() == tensor.untyped_storage().nbytes()


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation writes to, as its schema says."""
    tensors: list[Any] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[position] if position < len(args) else kwargs.get(argument.name)
        tensors += tree_leaves(given)
    return [t for t in tensors if isinstance(t, Tensor)]
