"""The body of a model, from pixels to features, as a graph of operations with rules.

The operations come from a traced forward pass, so functional code works. The graph is that of one
row: every rule refuses what mixes rows. What the pass computes of constants only is taken as it
was computed; everything else stands for real numbers, so a bound is a statement about the model in
exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fsboundary.core.errors import HeadError
from fsboundary.core.protocols import ModelView
from fsboundary.core.rows import device_of
from fsboundary.geometry.bounds.relaxations import Activation
from fsboundary.models.head_search.graph import Operation, Ref
from fsboundary.models.head_search.operations import CONSTANT
from fsboundary.models.head_search.tracing import ForwardTrace
from fsboundary.modes import in_standard_modes

ROWS = 2
"""Rows of the traced batch: with one row, a rule could not see that rows are mixed."""

_READS = frozenset({"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select"})
"""Operations after which the path of the model may depend on numbers of its input."""


def refuse(reason: str) -> NoReturn:
    """Raise the error of a body that has no bounds."""
    raise HeadError(
        f"bounds of the body: {reason}. Write the body with supported operations (docs/plugins.md "
        "lists them), or pass lipschitz=, or method= a plugin that has a rule for it"
    )


class Window(NamedTuple):
    """Position of a part of an image: its first row and column."""

    top: int
    left: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """An affine map of one or several earlier values, for any number N of rows.

    Attributes
    ----------
    linear : callable
        Its linear part, of tensors (N, ...) of the parents.
    absolute : callable
        The same with the absolute values of all weights.
    pull : callable or None
        Transposed linear part, of a tensor (N, ...) of the result; None: by differentiation.
    offset : Tensor (...) or None
        Constant part.
    offset_size : Tensor (...) or None
        Sum of the absolute terms of it.
    terms : int
        Number of roundings on the longest path of a term, in either direction.
    pull_window : callable or None
        The same as `pull`, of the part of a result (N,C,H,W) in a window outside of which it is 0:
        returns parts of the parents, all in the window that is returned too.
    """

    linear: Callable[..., Tensor]
    absolute: Callable[..., Tensor]
    pull: Callable[[Tensor], list[Tensor]] | None = None
    offset: Tensor | None = None
    offset_size: Tensor | None = None
    terms: int = 1
    pull_window: Callable[[Tensor, Window], tuple[list[Tensor], Window]] | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class MaxPool:
    """Maxima over windows of the last two dimensions.

    Attributes
    ----------
    kernel, stride, padding, dilation : (int, int)
        Of rows and columns; padding is by minus infinity, and by what the result needs besides.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation of the graph.

    Attributes
    ----------
    name : str
        Name in ``torch.ops.aten``; "input" for the images.
    rule : Affine, Activation, MaxPool or None
        None for the images.
    parents : tuple of int
        Positions of its operands in the graph.
    shape : tuple of int
        Shape of the result of one row.
    dtype : torch.dtype
        In which the pass computes it.
    """

    name: str
    rule: Affine | Activation | MaxPool | None
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype


class Operand(NamedTuple):
    """An argument that depends on the images.

    Attributes
    ----------
    node : int
        Position in the graph.
    shape : tuple of int
        Shape in the traced batch.
    """

    node: int
    shape: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of an operation in the traced pass.

    Attributes
    ----------
    name : str
        Name in ``torch.ops.aten``, without a trailing underscore.
    arguments : dict
        Values by the names in the operation's schema, with defaults: :class:`Operand` for what
        depends on the images, float64 tensors on the CPU for constants.
    shape : tuple of int
        Shape of the result in the traced batch.
    position : int
        Which of several results it is.
    """

    name: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    position: int

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error of a body that has no bounds."""
        refuse(f"the operation {self.name!r} {reason}")


Rule = Callable[[Call], "Affine | Activation | MaxPool"]


@final
class Body:
    """The graph of a body; the last node is the features.

    Parameters
    ----------
    nodes : list of Node
        Parents first.
    signature : list
        Names, arguments and shapes, to compare two passes.
    constants : list of Tensor
    """

    def __init__(self, nodes: list[Node], signature: list[Any], constants: list[Tensor]) -> None:
        self.nodes = nodes
        self._signature, self._constants = signature, constants
        self.uses = [0] * len(nodes)
        for node in nodes:
            for parent in node.parents:
                self.uses[parent] += 1

    def is_same(self, other: Body) -> bool:
        """Return whether another pass ran the same operations with the same constants."""
        return (
            len(self._signature) == len(other._signature)
            and len(self._constants) == len(other._constants)
            and self.begins_with(other)
        )

    def begins_with(self, other: Body, without: int = 0) -> bool:
        """Return whether another pass ran the first of these operations, with their constants.

        Its last `without` operations, which have no constants, may be others.
        """
        count = len(other._signature) - without
        return (
            self._signature[:count] == other._signature[:count]
            and len(other._constants) <= len(self._constants)
            and all(map(torch.equal, self._constants, other._constants))
        )


@in_standard_modes  # which looks at torch's threads before the trace, not in it
def trace_body(
    view: ModelView,
    images: Tensor,
    rule_of: Callable[[str], Rule | None],
    output: Literal["features", "logits"] = "features",
) -> Body:
    """Return the graph that maps `images` (B,C,H,W) to features, or through the head to logits.

    Two passes are traced, of images and of other images, and must be the same, because a bound
    holds only for images whose pass is.

    Raises
    ------
    HeadError
        An operation has no rule, mixes rows, or reads numbers of its input, so that the path of
        the model depends on them.
    """
    # where the model is, because features that are moved to the images' device are so after checks
    # that read numbers
    device = device_of(getattr(view, "model", None), images.device)
    rows = images[:1].expand(ROWS, *images.shape[1:]).to(device, copy=True)
    other = rows.flip(-1, -2) / 2
    with torch.no_grad():
        view.features(rows)  # checks of the first pass are not traced
        run = view.features if output == "features" else view.logits
        bodies = [_trace(run, batch, output, rule_of) for batch in (rows, other)]
    if not bodies[0].is_same(bodies[1]):
        refuse("two passes of different images run different operations, or different constants")
    return bodies[0]


def _trace(
    run: Callable[[Tensor], Tensor],
    batch: Tensor,
    output: str,
    rule_of: Callable[[str], Rule | None],
) -> Body:
    trace = ForwardTrace([batch])
    with trace:
        values = run(batch)
    ref = trace.ref(values)
    if ref is None or not trace.is_current(values):
        refuse(f"the {output} are not made by operations of torch that a trace can follow")
    return _Builder(trace.operations, rule_of).build(ref)


@final
class _Builder:
    """Conversion of a trace to a graph with rules."""

    def __init__(self, operations: list[Any], rule_of: Callable[[str], Rule | None]) -> None:
        self._operations: list[Operation] = operations
        self._rule_of = rule_of
        self._nodes: list[Node] = []
        self._positions: dict[Ref, int] = {}
        self._values: dict[int, Any] = {}
        self._signature: list[Any] = []
        self._constants: list[Tensor] = []

    def build(self, features: Ref) -> Body:
        for operation in self._operations[: features.operation]:
            if operation.data and operation.name in _READS:
                refuse(f"it reads numbers that depend on its input ({operation.name!r})")
        for ref in self._order(features):
            self._add(ref)
        if self._positions[features] != len(self._nodes) - 1:
            refuse("the features are the images themselves")
        return Body(self._nodes, self._signature, self._constants)

    def _order(self, features: Ref) -> list[Ref]:
        """Return all references to data on which the features depend, parents first."""
        found: set[Ref] = set()
        stack = [features]
        while stack:
            ref = stack.pop()
            if ref in found:
                continue
            found.add(ref)
            operation = self._operations[ref.operation]
            if operation.name not in CONSTANT:
                stack += [r for r in _refs(operation) if self._operations[r.operation].data]
        return sorted(found)

    def _add(self, ref: Ref) -> None:
        operation = self._operations[ref.operation]
        shape = operation.shapes[ref.position]
        if operation.name == "input":
            if self._nodes:
                refuse("it has an input besides the images")
            self._append(ref, Node("input", None, (), shape[1:], operation.dtypes[ref.position]))
            return
        rule = self._rule_of(operation.name)
        if rule is None:
            refuse(f"the operation {operation.name!r} has no rule")
        if not shape or shape[0] != ROWS:
            refuse(f"the operation {operation.name!r} mixes rows of the batch, or is not one row")
        if not operation.dtypes[ref.position].is_floating_point:
            refuse(f"the operation {operation.name!r} makes numbers that are not floating point")
        schema = operation.function._schema.arguments
        given = dict(zip((p.name for p in schema), operation.args, strict=False))
        given |= operation.kwargs
        arguments = {
            p.name: self._argument(given[p.name]) if p.name in given else _default(p)
            for p in schema
        }
        operands = [a for a in _flat(arguments) if isinstance(a, Operand)]
        if any(not o.shape or o.shape[0] != ROWS for o in operands):
            refuse(f"the operation {operation.name!r} mixes rows of the batch")
        self._signature.append((operation.name, _fact(arguments), shape, ref.position))
        made = rule(Call(operation.name, arguments, shape, ref.position))
        parents = tuple(o.node for o in operands)
        dtype = operation.dtypes[ref.position]
        self._append(ref, Node(operation.name, made, parents, shape[1:], dtype))

    def _append(self, ref: Ref, node: Node) -> None:
        self._positions[ref] = len(self._nodes)
        self._nodes.append(node)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, list | tuple) and not isinstance(value, Ref):
            return [self._argument(v) for v in value]
        if not isinstance(value, Ref):
            return value
        operation = self._operations[value.operation]
        if operation.data:
            return Operand(self._positions[value], operation.shapes[value.position])
        constant = self._value(value)
        self._constants.append(constant)
        if not constant.is_floating_point():
            return constant
        return constant.to("cpu", torch.float64)

    def _value(self, ref: Ref) -> Tensor:
        """Return a tensor that the pass computed of constants only."""
        operation = self._operations[ref.operation]
        if ref.operation not in self._values:
            if operation.name == "constant":
                self._values[ref.operation] = operation.function.detach().clone()
            else:
                self._values[ref.operation] = self._run(operation)
        value = self._values[ref.operation]
        tensor: Tensor = value if isinstance(value, Tensor) else value[ref.position]
        return tensor

    def _run(self, operation: Operation) -> Any:
        if operation.function is None:
            refuse(f"the operation {operation.name!r} cannot be repeated")

        def value(item: Any) -> Any:
            if not isinstance(item, Ref):
                return item
            source = self._operations[item.operation]
            if source.data:  # only its shape and dtype are read
                shape, dtype = source.shapes[item.position], source.dtypes[item.position]
                return torch.zeros(shape, dtype=dtype)
            return self._value(item).clone()  # an operation in place changes the copy

        args, kwargs = tree_map(
            value, (operation.args, operation.kwargs), is_leaf=lambda x: isinstance(x, Ref)
        )
        return operation.function(*args, **kwargs)


def _default(parameter: Any) -> Any:
    return parameter.default_value if parameter.has_default_value() else None


def _fact(value: Any) -> Any:
    """Return an argument to compare with that of another pass; constants are compared apart."""
    if isinstance(value, dict):
        return {name: _fact(v) for name, v in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, Operand):
        return [_fact(v) for v in value]
    return "constant" if isinstance(value, Tensor) else value


def _flat(values: Any) -> list[Any]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple) and not isinstance(values, Operand | Ref):
        return [leaf for value in values for leaf in _flat(value)]
    return [values]


def _refs(operation: Operation) -> list[Ref]:
    return [v for v in _flat((operation.args, operation.kwargs)) if isinstance(v, Ref)]
