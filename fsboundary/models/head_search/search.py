"""Search for the head of a model.

One traced pass shows which operations lead from the features to the logits; a second pass keeps
their operands, from which the head is composed. Later passes are traced too, so that the features
are read where the operations that lead to the logits begin.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.models.head_search.affine_tail import NotAffineError, Tail, find_tail
from fsboundary.models.head_search.composition import Composed, Composition
from fsboundary.models.head_search.graph import Operation, Ref, Selection
from fsboundary.models.head_search.tracing import ForwardTrace, LateTrace
from fsboundary.models.head_search.verified_head import Constant, Plan
from fsboundary.models.structures import modules_of, tensors_of

Run = Callable[[], Any]
"""One forward pass; returns the model's output."""


@final
class HeadSearch:
    """Traced passes of one batch, from which features and head are read.

    Parameters
    ----------
    model : nn.Module
        The model, unwrapped.
    run : callable
        One pass; called again if operands must be kept.
    inputs : sequence of Tensor
        All tensors that the pass is given.
    rows : int
        Number of rows B.
    multi_label : bool
        Whether the outputs are separate labels.
    modules : iterable of nn.Module, optional
        The model and its submodules, if the caller has them.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        inputs: Sequence[Tensor],
        rows: int,
        multi_label: bool = False,
        modules: Iterable[nn.Module] | None = None,
    ) -> None:
        self._run, self._inputs, self._rows = run, inputs, rows
        self.multi_label = multi_label
        self._model = model
        self._tensors = tensors_of(
            model, modules_of(model).values() if modules is None else modules
        )
        self._ids = frozenset(map(id, self._tensors))
        self.trace = ForwardTrace(inputs)

    def run(
        self,
        keep: frozenset[int] = frozenset(),
        copy: frozenset[Ref] = frozenset(),
        observe: Callable[[Ref, Tensor], None] | None = None,
        recent: int = 0,
        constants: Sequence[Constant] | None = None,
        start: int = 0,
    ) -> Any:
        """Return the model's output of a traced pass; see :class:`ForwardTrace`.

        With the `constants` of a known head, nothing else but parameters and buffers is constant.
        With a `start`, only calls from this number on are recorded; see :class:`LateTrace`.
        """
        ids = self._ids  # not this object, which would be in a cycle and keep its model alive

        def is_constant(tensor: Tensor) -> bool:
            if constants is None or id(tensor) in ids:
                return True
            return any(not c.name and c.equals(tensor) for c in constants)

        if start > 0:
            self.trace = LateTrace(self._inputs, keep, is_constant, start, self._tensors)
        else:
            self.trace = ForwardTrace(self._inputs, keep, recent, copy, observe, is_constant)
        with self.trace:
            return self._run()

    def tail(self, output: Tensor, layer_name: str | None = None) -> Tail:
        """Return the affine end that leads to `output`, a tensor of the last pass."""
        ref = self.trace.ref(output)
        if ref is None:
            raise NotAffineError("its output is not made by operations of torch")
        if not self.trace.is_current(output):
            raise NotAffineError("its output is written to in place, through another view of it")
        stop_at = None
        if layer_name is not None:
            stop_at = self.products_of(layer_name)
        tail = find_tail(self.trace, ref, self._rows, stop_at, self.multi_label)
        if stop_at is not None and not stop_at & set(tail.products):
            raise NotAffineError("no affine operations lead from that layer to the output")
        return tail

    def has_kept(self, tail: Tail) -> bool:
        """Return whether the last pass kept all operands of `tail`, as they were when used."""
        wanted: set[Ref] = set()
        for number in tail.keep:
            operation = self.trace.operations[number]
            wanted.update(operation.others)
            read = (*tail.sources, tail.direction, tail.root)  # the last by a softmax
            wanted.update(ref for ref in operation.parents if ref in read)
        changed = self.trace.overwritten()
        return wanted <= self.trace.kept.keys() and not changed & wanted

    def first_call(self, tail: Tail) -> int:
        """Return the first call of the last pass that the search for `tail` may look at."""
        operations = self.trace.operations
        several = len(tail.sources) > 1
        seen = set(tail.keep)
        stack = [*tail.sources, *([] if tail.direction is None else [tail.direction])]
        while stack:
            number = stack.pop().operation
            operation = operations[number]
            if number not in seen and operation.data:
                seen.add(number)
                if operation.kind == "shape" or (several and operation.kind is not None):
                    stack += operation.parents
        first = min([operations[n].call for n in seen if operations[n].call >= 0], default=0)
        for operation in reversed(operations):  # operands that were made of constants before that
            if operation.call >= first:
                makers = [operations[ref.operation] for ref in operation.others]
                first = min([first, *(m.call for m in makers if not m.data and m.call >= 0)])
        return first

    def calls_of(self, numbers: Iterable[int]) -> frozenset[int]:
        """Return the calls that were recorded as the operations of these numbers."""
        return frozenset(self.trace.operations[number].call for number in numbers)

    def products_of(self, layer_name: str) -> frozenset[int]:
        """Return the products with a weight of that layer."""
        prefix = f"{layer_name}." if layer_name else ""
        return frozenset(
            number
            for number, operation in enumerate(self.trace.operations)
            if isinstance(operation, Operation)  # what was not recorded cannot be in a tail
            and operation.kind == "product"
            and any(name.startswith(prefix) for name in self.weights_of(number))
        )

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        """Names of parameters and buffers; the last one of each."""
        buffers = self._model.named_buffers(remove_duplicate=False)
        parameters = self._model.named_parameters(remove_duplicate=False)
        return {id(tensor): name for name, tensor in chain(buffers, parameters)}

    def weights_of(self, number: int) -> list[str]:
        """Return the names of the parameters and buffers that an operation uses."""
        return [name for name, _ in self._roots([number]) if name]

    def _roots(self, numbers: Sequence[int]) -> list[tuple[str, Tensor]]:
        """Return names and values of the constants that operations use, directly or not."""
        found: dict[int, tuple[str, Tensor]] = {}
        stack = [r for n in numbers for r in self.trace.operations[n].others]
        seen = set()
        while stack:
            ref = stack.pop()
            operation = self.trace.operations[ref.operation]
            if ref.operation in seen or operation.data:
                continue
            seen.add(ref.operation)
            if operation.name == "constant":
                tensor = operation.function
                found[ref.operation] = self._names.get(id(tensor), ""), tensor
            stack += operation.others
        return [found[n] for n in sorted(found)]

    def constants(self, tail: Tail) -> list[Constant]:
        """Return the tensors that the head of `tail` is made of."""
        with torch.inference_mode(False), torch.no_grad():
            return [
                Constant(name, None if name else tensor, tensor.detach().clone())
                for name, tensor in self._roots(tail.operations)
            ]

    def layers_of(self, numbers: Sequence[int]) -> list[str]:
        """Return the names of the modules whose weights operations use."""
        names: dict[str, None] = {}
        for number in numbers:
            owners = [_owner(name) for name in self.weights_of(number)]
            if owners:
                names[_common(owners)] = None
        groups: dict[str, None] = {}
        for name in names:  # adapters beside a layer belong to it
            parent = name.rpartition(".lora_")[0]
            parent = parent or name.removesuffix(".base_layer")
            groups[parent] = None
        return list(groups)

    def layer_before(self, ref: Ref) -> str:
        """Return the layer whose product, of one number per output, a non-affine one follows."""
        stack, seen = [ref], set()
        size = math.prod(self.trace.operations[ref.operation].shapes[ref.position])
        while stack:
            number = stack.pop().operation
            operation = self.trace.operations[number]
            if number in seen or not operation.data:
                continue
            seen.add(number)
            if operation.kind == "product":
                if math.prod(operation.shapes[0]) < size:
                    continue
                layer = self.layers_of([number])
                return f"layer {layer[0]!r}" if layer else f"a product ({operation.name})"
            if len(seen) < _NEAR:
                stack += [*operation.parents, *operation.others]
        return ""

    def last_operations(self) -> str:
        """Return the last operations of the pass with their shapes and layers, as text."""
        shown = []
        for number in reversed(range(len(self.trace.operations))):
            operation = self.trace.operations[number]
            if not operation.data or not operation.shapes or operation.name == "input":
                continue
            layers = self.layers_of([number])
            where = f" ({layers[0] or 'the model'})" if layers else ""
            shown.append(f"{operation.name}{where} -> {operation.shapes[0]}")
            if len(shown) == _SHOWN:
                break
        if not shown:
            return "No operation on the inputs was seen"
        return f"The last operations were {'; '.join(reversed(shown))}"


_NEAR, _SHOWN = 12, 6


def compose(search: HeadSearch, tail: Tail, rows: int, classes: int) -> tuple[Plan, Composed]:
    """Return how features are read, and the head, from a pass that kept the operands of `tail`.

    Raises
    ------
    NotAffineError
        The operations are no affine function of features, or of one number per class.
    """
    with torch.inference_mode(False):
        composition = Composition(search.trace, tail, rows, classes)
        selections = composition.selections()
        composition.pooled(selections)
        composed = composition.head(selections)
    return Plan(selections, composed.rounding), composed


def positions_of(search: HeadSearch, tail: Tail, rows: int, classes: int) -> list[Selection]:
    """Return which numbers of each source belong to a row of this pass."""
    with torch.inference_mode(False):
        return Composition(search.trace, tail, rows, classes).selections()


def read_features(
    trace: ForwardTrace, sources: Sequence[Ref], selections: Sequence[Selection]
) -> tuple[Tensor, Tensor | None, int]:
    """Return features (B,d), the mean sizes of which they are means, and the averaged positions."""
    parts, sizes, positions = [], [], 1
    averaged = any(selection.pooled for selection in selections)
    for ref, selection in zip(sources, selections, strict=True):
        source = trace.kept[ref]
        taken = selection.take(source)
        positions = max(positions, math.prod(taken.shape[a] for a in selection.pooled))
        features = selection.average(taken)
        # a copy, because a source may be an input, or be written to when the model runs again
        parts.append(features.flatten(1) if selection.pooled else features.flatten(1).clone())
        if averaged:
            size = taken.detach().abs()
            sizes.append(selection.average(size).flatten(1))
    features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    if positions == 1:
        return features, None, 1
    return features, sizes[0] if len(sizes) == 1 else torch.cat(sizes, dim=1), positions


@torch.no_grad()
def row_scales(z: Tensor, s: Tensor) -> Tensor | None:
    """Return the positive factors (B,) of `z` (B,d) that give `s`; None if it is no multiple."""
    rounding = 16 * torch.finfo(s.dtype).eps  # of features and norm, once each
    z, s = z.double(), s.double()
    scales = (z * s).sum(dim=1) / z.square().sum(dim=1)
    error = (s - scales[:, None] * z).norm(dim=1) / s.norm(dim=1)
    # a row that is not finite fails neither comparison
    return None if bool(((scales <= 0) | (error > rounding)).any()) else scales


def _owner(name: str) -> str:
    """Return the module of a parameter, without the modules that parametrise it."""
    module, parametrised, _ = name.partition(".parametrizations.")
    return module if parametrised else name.rpartition(".")[0]


def _common(names: Sequence[str]) -> str:
    """Return the longest dotted name that all of `names` start with."""
    parts = [n.split(".") for n in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)
