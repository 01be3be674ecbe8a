"""Trace of the operations of one forward pass, as a graph.

The graph contains no tensors, so that a pass needs no more memory than without it; only those
operands are kept that the caller asks for by the number of their operation, known from an earlier
pass.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from fsboundary.models.dispatch import OperationMode, storage_of
from fsboundary.models.head_search.graph import Operation, Ref, UnseenOperation
from fsboundary.models.head_search.operations import CONSTANT, INDICES, WEIGHTED, affine_kind


class ForwardTrace(OperationMode):
    """Dispatch mode that records a pass.

    Parameters
    ----------
    inputs : iterable of Tensor
        Inputs of the model. Tensors that are neither inputs nor results are constants.
    keep : frozenset of int
        Numbers of the calls whose operands are kept, in :attr:`kept`.
    recent : int
        Bytes of operands of the last operations that are kept besides, so that often one pass is
        enough.
    copy : frozenset of Ref
        Operands that are kept as copies, because the model overwrites them later.
    observe : callable, optional
        Called with each operand that is kept, at that moment of the pass.
    is_constant : callable
        Whether a tensor that is neither an input nor a result is a constant; others are inputs too,
        such as the values that a hook puts in place of those of a layer.
    """

    def __init__(
        self,
        inputs: Iterable[Tensor],
        keep: frozenset[int] = frozenset(),
        recent: int = 0,
        copy: frozenset[Ref] = frozenset(),
        observe: Callable[[Ref, Tensor], None] | None = None,
        is_constant: Callable[[Tensor], bool] = lambda tensor: True,
    ) -> None:
        super().__init__()
        self.complete = True
        self.operations: list[Operation | UnseenOperation] = []
        self.calls = 0
        self.kept: dict[Ref, Tensor] = {}
        self._kept_storages: list[tuple[Ref, int, int]] = []
        # weak references prevent the address of a storage from being used by another one
        self._storages: dict[int, StorageWeakRef] = {}
        self._writes: dict[int, int] = {}
        self._keep, self._copy, self._observe = keep, copy, observe
        self._is_constant = is_constant
        self._recent: deque[tuple[int, list[tuple[Ref, Tensor]]]] = deque()
        self._room = recent
        self._known: dict[int, tuple[weakref.ref[Tensor], Ref]] = {}
        for tensor in inputs:
            self._record(Operation("input", data=True, discrete=_is_discrete(tensor)), [tensor])

    def ref(self, tensor: Tensor) -> Ref | None:
        """Return the reference of a tensor that the pass made, read or was given."""
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def is_current(self, tensor: Tensor) -> bool:
        """Return whether no other alias of `tensor` was written to after it was made."""
        ref, storage = self.ref(tensor), storage_of(tensor)
        if ref is None or storage is None:
            return False
        return self._writes.get(storage.cdata, -1) <= ref.operation

    def overwritten(self) -> frozenset[Ref]:
        """Return the kept operands that were written to after they were kept."""
        return frozenset(
            ref for ref, storage, number in self._kept_storages
            if self._writes.get(storage, -1) > number
        )  # fmt: skip

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
            self._record_opaque(str(func), (args, kwargs), result)
            return result
        if torch.is_inference_mode_enabled():
            result = self.decompose(func, args, kwargs)
            if result is not NotImplemented:
                return result
        operation = self._read(func, args, kwargs)
        result = func(*args, **kwargs)
        self._write(func, operation, args, kwargs, result)
        return result

    def _read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
        facts = _facts(func)
        name = facts.name
        index = INDICES.get(name)
        operation = Operation(name, func, call=self.calls)
        positions: list[int] = []
        operands: list[tuple[Ref, Tensor]] = []
        template = []
        for position, argument in enumerate(args):
            refs: list[Ref] = []
            template.append(self._replace(argument, refs, operands))
            data = [ref for ref in refs if self.operations[ref.operation].data]
            operation.data |= bool(data)
            if data and position == index and not _floating(argument):
                operation.others += refs
            elif data:
                positions.append(position)
                operation.parents += data
                operation.others += [ref for ref in refs if ref not in data]
            else:
                operation.others += refs
        refs = []
        operation.kwargs = {k: self._replace(v, refs, operands) for k, v in kwargs.items()}
        operation.others += refs
        keywords = any(self.operations[ref.operation].data for ref in refs)
        operation.data |= keywords
        operation.args = tuple(template)
        made = [self.operations[ref.operation].discrete for ref, _ in operands]
        operation.discrete = not facts.random and all(made)
        if len(positions) == 2 and name in WEIGHTED and any(made) and not operation.discrete:
            at = made.index(True)
            positions.remove(at)
            operation.others.append(operation.parents.pop(at))
        if operation.data:
            self._keep_operands(operands)
        if name in CONSTANT:
            operation.data = False
        elif facts.random:
            operation.data = True  # not a constant: another pass gives other numbers
        elif operation.data:
            operation.kind = affine_kind(name, args, kwargs, positions, keywords)
        return operation

    def _replace(self, value: Any, refs: list[Ref], operands: list[tuple[Ref, Tensor]]) -> Any:
        if isinstance(value, Tensor):
            ref = self._reference(value)
            refs.append(ref)
            operands.append((ref, value))
            return ref
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            return [self._replace(v, refs, operands) for v in value]
        return value

    def _keep_operands(self, operands: list[tuple[Ref, Tensor]]) -> None:
        always = self.calls in self._keep
        if not (always or self._room):
            return
        held = [(ref, t.clone() if ref in self._copy else t) for ref, t in operands]
        for ref, tensor in operands:
            storage = storage_of(tensor)
            if storage is not None and ref not in self._copy:
                self._storages[storage.cdata] = storage
                self._kept_storages.append((ref, storage.cdata, len(self.operations)))
            if self._observe is not None:
                self._observe(ref, tensor)
        if always:
            self.kept.update(held)
            return
        size = sum(_bytes(t) for ref, t in held if self.operations[ref.operation].data)
        self._recent.append((size, held))
        self._room -= size
        while self._room <= 0 and self._recent:
            self._room += self._recent.popleft()[0]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for _, held in self._recent:
            self.kept.update(held)
        self._recent.clear()

    def _reference(self, tensor: Tensor) -> Ref:
        ref = self.ref(tensor)
        if ref is None:
            storage = storage_of(tensor)
            if storage is not None and storage.cdata in self._storages:
                # another alias of a tensor of this pass, made without an operation (such as .data)
                return self._record(Operation("overwritten", data=True), [tensor])
            if not self._is_constant(tensor):
                return self._record(Operation("input", data=True), [tensor])
            discrete = _is_discrete(tensor)
            return self._record(Operation("constant", tensor, discrete=discrete), [tensor])
        if self._writes and (storage := storage_of(tensor)) is not None:
            written = self._writes.get(storage.cdata, -1)
            if written > ref.operation:
                return self._record(Operation("overwritten", data=True), [tensor])
        return ref

    def _write(
        self, func: Any, operation: Operation, args: Any, kwargs: dict[str, Any], result: Any
    ) -> None:
        self.calls += 1
        outputs = [result] if isinstance(result, Tensor) else tree_leaves(result)
        facts = _facts(func)
        if not facts.writes:
            self._record(operation, outputs)
            return
        written = _written_tensors(facts.writes, args, kwargs)
        if not (facts.in_place and len(written) == 1 and outputs and outputs[0] is written[0]):
            operation.kind = None
            operation.parents = []
        others = [t for t in written if all(t is not o for o in outputs)]
        ref = self._record(operation, [*outputs, *others])
        for tensor in written:
            storage = storage_of(tensor)
            if storage is not None:
                self._storages[storage.cdata] = storage
                self._writes[storage.cdata] = ref.operation

    def _record_opaque(self, name: str, arguments: Any, result: Any) -> None:
        operation = Operation(name, data=True, call=self.calls)
        self.calls += 1
        for leaf in tree_leaves(arguments):
            if isinstance(leaf, Tensor):
                operation.others.append(self._reference(leaf))
        self._record(operation, tree_leaves(result))

    def _record(self, operation: Operation, outputs: list[Any]) -> Ref:
        number = len(self.operations)
        self.operations.append(operation)
        for position, tensor in enumerate(outputs):
            if not isinstance(tensor, Tensor):
                operation.shapes.append(())
                operation.dtypes.append(torch.bool)
                continue
            operation.shapes.append(_shape(tensor))
            operation.dtypes.append(tensor.dtype)
            self._known[id(tensor)] = weakref.ref(tensor), Ref(number, position)
            if operation.data and (storage := storage_of(tensor)) is not None:
                self._storages[storage.cdata] = storage
        return Ref(number, 0)


@final
class LateTrace(ForwardTrace):
    """Trace that records only the end of a pass, because recording costs more than a small layer.

    Of earlier operations it notices only what can change the meaning of the end: which tensors are
    made of constants, and whether parameters, buffers or inputs are written to or reached under
    another name. What the end then shows is what a :class:`ForwardTrace` would show, unless
    :attr:`complete` is False or a walk raises UnseenOperationError; the pass must then be repeated
    with a full trace.

    Parameters
    ----------
    inputs, keep, is_constant : iterable, frozenset, callable
        See :class:`ForwardTrace`.
    start : int
        Number of the first call that is recorded.
    named : iterable of Tensor
        Parameters and buffers of the model.
    """

    def __init__(
        self,
        inputs: Iterable[Tensor],
        keep: frozenset[int],
        is_constant: Callable[[Tensor], bool],
        start: int,
        named: Iterable[Tensor],
    ) -> None:
        inputs = list(inputs)
        super().__init__(inputs, keep, is_constant=is_constant)
        self._start = start
        # the storages themselves, so that none can take the address of another one
        self._named = {id(t): _storage(t) for t in named}
        self._derived: dict[int, weakref.ref[Tensor]] = {}
        self._aliases = {s._cdata for s in self._named.values() if s is not None}
        self._input_storages = [s for s in map(_storage, inputs) if s is not None]
        self._fixed = self._aliases.union(s._cdata for s in self._input_storages)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self.calls >= self._start or torch.is_inference_mode_enabled():
            return super().__torch_dispatch__(func, types, args, kwargs)
        self.calls += 1
        kwargs = kwargs or {}
        facts = _FACTS.get(id(func))
        if facts is None:
            if not isinstance(func, torch._ops.OpOverload):
                return func(*args, **kwargs)
            facts = _add_facts(func)
        data = facts.num_operands > 0 and self._reads_data(args[: facts.num_operands])
        if kwargs and facts.num_operands:
            data |= self._reads_data(kwargs.values())
        if facts.writes:
            self._notice_writes(_written_tensors(facts.writes, args, kwargs))
        result = func(*args, **kwargs)
        if not (data or facts.random) or facts.name in CONSTANT:
            for tensor in [result] if isinstance(result, Tensor) else tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._derived[id(tensor)] = weakref.ref(tensor)
        return result

    def _reads_data(self, arguments: Iterable[Any]) -> bool:
        """Return whether one of the arguments depends on the inputs."""
        # without calls of helpers, because after each layer no code is left in the cache
        data, named, derived = False, self._named, self._derived
        for value in arguments:
            if isinstance(value, Tensor):
                key = id(value)
                if key in named or (key in derived and derived[key]() is value):
                    continue
                data = True
                try:
                    if value.untyped_storage()._cdata in self._aliases:
                        self.complete = False
                except (NotImplementedError, RuntimeError):  # sparse and opaque layouts
                    pass
            elif isinstance(value, list | tuple):
                data |= self._reads_data(value)
        return data

    def _is_derived(self, tensor: Tensor) -> bool:
        """Return whether a tensor was made, before the recorded part, of constants only."""
        known = self._derived.get(id(tensor))
        return known is not None and known() is tensor

    def _notice_writes(self, tensors: list[Tensor]) -> None:
        storages = (_storage(t) for t in tensors)
        if any(s is not None and s._cdata in self._fixed for s in storages):
            self.complete = False

    def _reference(self, tensor: Tensor) -> Ref:
        if self.ref(tensor) is not None:
            return super()._reference(tensor)
        storage = _storage(tensor)
        if id(tensor) in self._named:
            own = self._named[id(tensor)]
            if own is None or storage is None or own._cdata != storage._cdata:
                self.complete = False
            return super()._reference(tensor)
        if self._is_derived(tensor) or storage is None or storage._cdata in self._aliases:
            self.complete = False
        ref = Ref(len(self.operations), 0)
        self.operations.append(UnseenOperation())
        self._known[id(tensor)] = weakref.ref(tensor), ref
        return ref


@final
class _Facts(NamedTuple):
    """What the schema of an operation says.

    Attributes
    ----------
    name : str
        Name without a trailing underscore.
    random : bool
        Whether the result depends on chance.
    in_place : bool
        Whether the name has a trailing underscore.
    writes : list of (int, str)
        Positions and names of the arguments that are written to.
    num_operands : int
        Number of positional arguments up to the last tensor; 0 if no argument is a tensor.
    function : object
        The operation itself, so that no other one gets its identity.
    """

    name: str
    random: bool
    in_place: bool
    writes: list[tuple[int, str]]
    num_operands: int
    function: Any


_FACTS: dict[int, _Facts] = {}
"""Facts by the identity of the operation, whose hash would be computed in Python; kept, because
reading a schema takes longer than many an operation."""


def _add_facts(func: Any) -> _Facts:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    facts = _FACTS[id(func)] = _Facts(
        name=name.removesuffix("_"),
        random=torch.Tag.nondeterministic_seeded in func.tags,
        in_place=name.endswith("_"),
        writes=[
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ],
        num_operands=max(
            (n for n, a in enumerate(schema.arguments, start=1) if "Tensor" in str(a.type)),
            default=0,
        ),
        function=func,
    )
    return facts


def _facts(func: Any) -> _Facts:
    return _FACTS.get(id(func)) or _add_facts(func)


def _storage(tensor: Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse and opaque layouts
        return None


def _floating(argument: Any) -> bool:
    leaves = argument if isinstance(argument, list | tuple) else [argument]
    return any(isinstance(t, Tensor) and t.is_floating_point() for t in leaves)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    if tensor.is_nested:
        return ()
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # of parameters that are not initialised yet
        return ()


def _is_discrete(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _bytes(tensor: Tensor) -> int:
    return 0 if tensor.is_nested else tensor.numel() * tensor.element_size()


def _written_tensors(
    writes: list[tuple[int, str]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Tensor]:
    """Return the tensors that an operation writes to; see :class:`_Facts`."""
    tensors: list[Any] = []
    for position, name in writes:
        value = args[position] if position < len(args) else kwargs.get(name)
        tensors += tree_leaves(value)
    return [t for t in tensors if isinstance(t, Tensor)]
