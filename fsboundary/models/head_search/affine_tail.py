"""The affine end of a model: the features, and the head that turns them into logits.

From the logits, the graph of one pass is walked back through affine operations, up to the first
product with weights on each path. Its operand is a **source** of features: an average, a choice of
positions, a scale, a normalisation by running statistics or a mean of several heads may follow the
product and become part of the head, as ``composition`` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from fsboundary.models.head_search.graph import Operation, Ref, UnseenOperation
from fsboundary.models.head_search.links import SIGMOID, SOFTMAX, Link
from fsboundary.models.head_search.tracing import ForwardTrace

_AROUND_NORMS = frozenset({"expand", "clamp_min", "add", "_to_copy", "maximum"})
"""Operations between a norm and the division by it."""


class NotAffineError(Exception):
    """The logits are no affine function of features; the message says why."""


@final
@dataclass(slots=True, eq=False)
class Tail:
    """The affine end of one pass.

    Attributes
    ----------
    root : Ref
        The logits, before a softmax.
    link : str
        Function of the logits that the model returns.
    sources : list of Ref
        Tensors that contain the features.
    operations : list of int
        Numbers of the operations from the sources to the logits, in order.
    products : list of int
        Those that are products.
    keep : frozenset of int
        Numbers of the operations whose operands must be kept.
    direction : Ref or None
        The tensor z, if the only source is z divided by its norm.
    """

    root: Ref
    link: Link
    sources: list[Ref] = field(default_factory=list)
    operations: list[int] = field(default_factory=list)
    products: list[int] = field(default_factory=list)
    keep: frozenset[int] = frozenset()
    direction: Ref | None = None

    def names(self, trace: ForwardTrace) -> tuple[str, ...]:
        """Return the names of the operations, which other passes must share."""
        return (self.link, *(trace.operations[n].name for n in self.operations))

    def shapes(self, trace: ForwardTrace) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the sources, without the rows."""
        return tuple(trace.operations[r.operation].shapes[r.position][1:] for r in self.sources)


def find_tail(
    trace: ForwardTrace,
    output: Ref,
    rows: int,
    stop_at: frozenset[int] | None = None,
    multi_label: bool = False,
) -> Tail:
    """Return the affine end of a pass.

    Parameters
    ----------
    trace : ForwardTrace
        The pass.
    output : Ref
        Output of the model.
    rows : int
        Number of rows B.
    stop_at : frozenset of int, optional
        Products whose operands are the features; by default, the last on each path.
    multi_label : bool
        Whether outputs are separate labels, so that a sigmoid may follow the logits.

    Raises
    ------
    NotAffineError
        No such end; the message gives the reason.
    """
    root, link, through = _remove_link(trace, output, SIGMOID if multi_label else SOFTMAX)
    walk = _Walk(trace, root, stop_at)
    tail = Tail(root, link)
    if not trace.operations[root.operation].data:
        raise NotAffineError("its output does not depend on its inputs by operations of torch")
    tail.sources, tail.direction = walk.before_normalisation(walk.choose_sources(rows))
    tail.operations = sorted(walk.between(tail.sources))
    tail.products = [n for n in tail.operations if trace.operations[n].kind == "product"]
    walk.verify_sources(tail)
    walk.verify_positions(tail)
    if tail.direction is not None:
        through.append(tail.sources[0].operation)
    tail.keep = frozenset([*tail.operations, *through])
    return tail


def _remove_link(
    trace: ForwardTrace, output: Ref, links: dict[str, Link]
) -> tuple[Ref, Link, list[int]]:
    ref, through = output, []
    while (operation := trace.operations[ref.operation]).kind == "shape":
        ref = operation.parents[0]
    if operation.name not in links:
        return output, "identity", []
    if operation.name == "sigmoid":
        return operation.args[0], "sigmoid", [ref.operation]
    shape = operation.shapes[0]
    # the only axis that is as long as the classes, apart from axes of length 1 and the rows
    axis = operation.args[1] % len(shape)
    if axis == 0 or any(n != 1 for k, n in enumerate(shape) if k not in (0, axis)):
        return output, "identity", []
    through.append(ref.operation)
    before = operation.args[0]
    return before, links[operation.name], through


@final
class _Walk:
    """The walk back from the logits."""

    def __init__(self, trace: ForwardTrace, root: Ref, stop_at: frozenset[int] | None) -> None:
        self._trace, self._root, self._stop_at = trace, root, stop_at

    def _operation(self, ref: Ref) -> Operation | UnseenOperation:
        return self._trace.operations[ref.operation]

    def _stops(self, number: int) -> bool:
        if self._trace.operations[number].kind != "product":
            return False
        return self._stop_at is None or number in self._stop_at

    def choose_sources(self, rows: int) -> list[Ref]:
        """Return the sources: operands of products, or results of non-affine operations."""
        operands: dict[Ref, None] = {}
        seen: set[Ref] = set()
        stack = [self._root]
        while stack:
            ref = stack.pop()
            if ref in seen:
                continue
            seen.add(ref)
            operation = self._operation(ref)
            if not operation.data:
                continue
            if operation.kind is None:
                operands[ref] = None
            elif self._stops(ref.operation):
                # an added operand (the bias of addmm) is followed, factors are sources
                for parent in operation.parents:
                    (stack.append(parent) if self._is_summand(operation, parent)
                     else operands.setdefault(parent))  # fmt: skip
            else:
                stack += reversed(operation.parents)
        sources = self._merge_views(list(operands), rows)
        return self._drop_dependent(sources)

    def _is_summand(self, operation: Operation | UnseenOperation, ref: Ref) -> bool:
        position = {"addmm": 0, "baddbmm": 0, "addmv": 0}.get(operation.name)
        return position is not None and operation.args[position] == ref

    def _merge_views(self, operands: list[Ref], rows: int) -> list[Ref]:
        """Return one tensor for all views of the same numbers, with the rows first if possible."""
        groups: dict[Ref, list[Ref]] = {}
        for ref in operands:
            groups.setdefault(self._chain(ref)[-1], []).append(ref)
        merged = []
        for base, members in groups.items():
            first = members[0]
            if all(m == first for m in members) and self._has_rows(first, rows):
                merged.append(first)
            elif len(members) == 1:
                merged.append(
                    next((r for r in self._chain(first) if self._has_rows(r, rows)), first)
                )
            else:
                common = [
                    r for r in self._chain(first) if all(r in self._chain(m) for m in members)
                ]
                merged.append(next((r for r in common if self._has_rows(r, rows)), base))
        return merged

    def before_normalisation(self, sources: list[Ref]) -> tuple[list[Ref], Ref | None]:
        """Return z / |z| and z, if the only source is a multiple of the first; else `sources`."""
        if len(sources) != 1:
            return sources, None
        ref = sources[0]
        while (operation := self._operation(ref)).data and self._is_scaled(operation):
            ref = operation.parents[0]
        if operation.name not in ("div", "mul") or len(operation.args) != 2:
            return sources, None
        one, other = operation.args
        for z, factor in ((one, other), (other, one))[: 1 if operation.name == "div" else 2]:
            if (
                isinstance(z, Ref)
                and isinstance(factor, Ref)
                and self._shape(z) == self._shape(ref)
                and self._norm_operand(factor, operation.name == "mul") == self._chain(z)[-1]
            ):
                return [ref], z
        return sources, None

    def _shape(self, ref: Ref) -> tuple[int, ...]:
        return self._operation(ref).shapes[ref.position]

    def _is_scaled(self, operation: Operation | UnseenOperation) -> bool:
        """Return whether an operation rearranges its operand or multiplies it by one number."""
        if operation.kind == "shape":
            return True
        if operation.kind != "map" or operation.name not in ("mul", "div"):
            return False
        return all(math.prod(self._shape(r)) == 1 for r in operation.others)

    def _norm_operand(self, ref: Ref, inverse: bool) -> Ref | None:
        """Return the tensor whose norm, or one over it, is `ref` up to a lower limit."""
        operation = self._operation(ref)
        while operation.kind == "shape" or operation.name in _AROUND_NORMS:
            if not operation.parents:
                return None
            ref = operation.parents[0]
            operation = self._operation(ref)
        if inverse and operation.name == "reciprocal":
            return self._norm_operand(operation.parents[0], inverse=False)
        if operation.name in ("linalg_vector_norm", "norm") and not inverse:
            return self._chain(operation.parents[0])[-1]
        if operation.name != ("rsqrt" if inverse else "sqrt"):
            return None
        while operation.name not in ("pow", "square", "mul"):
            if operation.name not in ("sqrt", "rsqrt", "sum", "mean", "add", "clamp_min"):
                return None
            operation = self._operation(operation.parents[0])
        bases = {self._chain(parent)[-1] for parent in operation.parents}
        even = operation.name != "pow" or operation.args[1] == 2
        return bases.pop() if len(bases) == 1 and even else None

    def _chain(self, ref: Ref) -> list[Ref]:
        """Return the tensor and those that it is a rearrangement of."""
        chain = [ref]
        while (operation := self._operation(chain[-1])).kind == "shape" and operation.data:
            chain.append(operation.parents[0])
        return chain

    def _has_rows(self, ref: Ref, rows: int) -> bool:
        shape = self._operation(ref).shapes[ref.position]
        return len(shape) > 1 and shape[0] == rows

    def _drop_dependent(self, sources: list[Ref]) -> list[Ref]:
        """Drop each source that is an affine function of the others."""
        kept = sorted(sources, key=lambda ref: ref.operation)
        for ref in reversed(kept.copy()):
            others = {r for r in kept if r != ref}
            if others and self._operation(ref).kind is not None and self._reaches_only(ref, others):
                kept.remove(ref)
        return [ref for ref in sources if ref in kept]

    def _reaches_only(self, ref: Ref, others: set[Ref], limit: int = 256) -> bool:
        stack, seen = [ref], set()
        while stack:
            current = stack.pop()
            if current in others or current in seen:
                continue
            seen.add(current)
            operation = self._operation(current)
            if not operation.data:
                continue
            if operation.kind is None or len(seen) > limit:
                return False
            stack += operation.parents
        return True

    def between(self, sources: Sequence[Ref]) -> set[int]:
        """Return the operations from `sources` to the root."""
        numbers: set[int] = set()
        stack, ends = [self._root], set(sources)
        while stack:
            ref = stack.pop()
            if ref in ends or ref.operation in numbers:
                continue
            operation = self._operation(ref)
            if operation.data:
                numbers.add(ref.operation)
                stack += operation.parents
        return numbers

    def verify_sources(self, tail: Tail) -> None:
        """Raise NotAffineError if a non-affine operation follows a product of the tail."""
        if not tail.products:
            return
        for ref in tail.sources:
            if self._descends(ref, set(tail.products), min(tail.products)):
                while (operation := self._operation(ref)).kind is not None:
                    ref = operation.parents[0]
                raise NotAffineError(
                    f"the non-affine operation {operation.name!r} is applied to the output of its "
                    "last linear map and added to it, even if it changes nothing on this batch"
                )

    def _descends(self, ref: Ref, targets: set[int], first: int) -> bool:
        stack, seen = [ref], set()
        while stack:
            number = stack.pop().operation
            if number in seen or number < first:
                continue
            if number in targets:
                return True
            seen.add(number)
            operation = self._trace.operations[number]
            stack += [*operation.parents, *operation.others]
        return False

    def verify_positions(self, tail: Tail) -> None:
        """Raise NotAffineError if positions come from features; they may come from the inputs."""
        ends = {ref.operation for ref in tail.sources} | set(tail.operations)
        for number in tail.operations:
            for ref in self._trace.operations[number].others:
                if self._operation(ref).data and self._descends(ref, ends, min(ends)):
                    raise NotAffineError("positions are chosen by the values of features or logits")
