"""The head that the affine end of a model composes, and where its features are.

The operations of the end are run again in float64. Which numbers of a source belong to a row is
read off derivatives with random numbers in place of the weights; positions that the head weighs
equally, and so only averages, are averaged in the features. Weight and bias are the derivative and
the value at zero, or the operands of a single product themselves; they are checked at random
features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from fsboundary.models.head_search.affine_tail import NotAffineError, Tail
from fsboundary.models.head_search.graph import Operation, Ref, Selection, UnseenOperation
from fsboundary.models.head_search.operations import (
    PRODUCTS,
    SHAPE,
    WEIGHTED,
    evaluate,
    evaluate_sizes,
    rounded_terms,
)
from fsboundary.models.head_search.tracing import ForwardTrace
from fsboundary.models.linear_maps import Rounding


def replay(
    trace: ForwardTrace,
    tail: Tail,
    values: dict[Ref, Tensor],
    constants: dict[Ref, Tensor],
    function: Callable[..., Any] = evaluate,
) -> Tensor:
    """Return the logits that the tail computes from `values` of its sources, in float64."""
    results: dict[Ref, Any] = dict(values)

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Ref):
            if argument in results:
                return results[argument]
            if argument in constants:
                return constants[argument]
            raise NotAffineError("a constant of the head was not kept")
        if isinstance(argument, list):
            return [resolve(part) for part in argument]
        return argument

    for number in tail.operations:
        operation = trace.operations[number]
        kwargs = {k: resolve(v) for k, v in operation.kwargs.items()}
        args = [resolve(a) for a in operation.args]
        result = function(operation.name, operation.function, args, kwargs)
        parts = [result] if isinstance(result, Tensor) else list(result)
        for position, part in enumerate(parts):
            results[Ref(number, position)] = part
    root: Tensor = results[tail.root]
    return root


def constants_of(trace: ForwardTrace, tail: Tail) -> dict[Ref, Tensor]:
    """Return the operands of the tail that are no features: floating ones in float64."""
    found = {}
    for number in tail.operations:
        for ref in trace.operations[number].others:
            if ref in trace.kept:
                value = trace.kept[ref].detach()
                # copies, because tensors made in inference mode cannot take part in gradients
                found[ref] = value.double() if value.is_floating_point() else value
                found[ref] = found[ref].clone() if found[ref].is_inference() else found[ref]
    return found


_KEEP_WEIGHTS = SHAPE | {"mean", "sum", "select", "slice", "index", "_adaptive_avg_pool2d",
                         "_adaptive_avg_pool3d", "avg_pool2d", "_to_copy"}  # fmt: skip
"""Operations after a product that may leave its weight as it is."""

_EXACT = 1e-13
"""Relative difference that sums in float64 explain."""

_WEIGHTED = (
    "its positions are weighted by the inputs, as by an attention mask, but not averaged: the "
    "weights are negative, their sum is not the same in all rows, or they depend on the class"
)

_SMALL = 1e-9
"""Relative size below which a derivative with random weights counts as zero."""


@final
class Composition:
    """The head of a tail, from the operands that its pass kept.

    Parameters
    ----------
    trace, tail : ForwardTrace, Tail
        A pass with the operands of `tail` kept.
    rows, classes : int
        Numbers of rows B and classes K.
    """

    def __init__(self, trace: ForwardTrace, tail: Tail, rows: int, classes: int) -> None:
        self._trace, self._tail, self._rows, self._classes = trace, tail, rows, classes
        self._constants = constants_of(trace, tail)
        self._shapes = [tuple(trace.kept[ref].shape) for ref in tail.sources]

    def _logits(
        self,
        sources: Sequence[Tensor],
        constants: dict[Ref, Tensor],
        function: Callable[..., Any] = evaluate,
    ) -> Tensor:
        values = dict(zip(self._tail.sources, sources, strict=True))
        out = replay(self._trace, self._tail, values, constants, function)
        if out.numel() != self._rows * self._classes:
            raise NotAffineError(f"its last linear map gives shape {tuple(out.shape)}")
        return out.reshape(self._rows, self._classes)

    def _leaves(self) -> list[Tensor]:
        device = self._trace.kept[self._tail.sources[0]].device
        return [
            torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
            for shape in self._shapes
        ]

    def selections(self) -> list[Selection]:
        """Return which numbers of each source belong to a row.

        Raises
        ------
        NotAffineError
            Rows share numbers, or depend on different counts of them.
        """
        if any(self._is_weight(ref) for ref in self._constants):
            return self._weighted()
        generator = torch.Generator().manual_seed(0)

        def draw(like: Tensor) -> Tensor:
            random = torch.rand(like.shape, generator=generator, dtype=torch.float64) + 0.5
            return random.to(like.device)

        random = {
            ref: draw(value) if value.dtype == torch.float64 else value
            for ref, value in self._constants.items()
        }
        leaves = self._leaves()
        with torch.enable_grad():
            logits = self._logits(leaves, random)
            weights = draw(logits)
            row = torch.arange(1, self._rows + 1, dtype=torch.float64, device=logits.device)
            grads = [
                torch.autograd.grad(
                    logits, leaves, weights * row[:, None] ** power, retain_graph=True,
                    allow_unused=True, materialize_grads=True,
                )
                for power in (0, 1, 2)
            ]  # fmt: skip
        found = [
            self._selection(shape, *(g[k] for g in grads)) for k, shape in enumerate(self._shapes)
        ]
        if not any(self._size(s, shape) for s, shape in zip(found, self._shapes, strict=True)):
            raise NotAffineError("its output does not depend on its features")
        return found

    def _selection(
        self, shape: tuple[int, ...], plain: Tensor, once: Tensor, twice: Tensor
    ) -> Selection:
        used = plain.abs() > _SMALL * plain.abs().max()
        if not bool(used.any()):  # multiplied by 0, for example
            none = torch.empty(self._rows, 0, dtype=torch.int64, device=used.device)
            return Selection(index=none)
        owner = torch.where(used, once / plain, 0.0)
        number = owner.round()
        shared = (owner - number).abs() > 1e-6 * self._rows
        shared |= used & ((twice / plain - number.square()).abs() > 1e-6 * self._rows**2)
        if bool((shared & used).any()):
            raise NotAffineError("its rows share features: one row's logits depend on another row")
        rows = number.long() - 1
        if shape[0] == self._rows and len(shape) > 1:
            first = torch.arange(self._rows, device=used.device)
            own = first.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
            same = bool((used == used[:1]).all()) and bool((rows == own)[used].all())
            if same:
                axes = _axes(used[0])
                if axes is not None:
                    return Selection(axes=axes)
        flat_rows, flat_used = rows.flatten(), used.flatten()
        counts = torch.bincount(flat_rows[flat_used], minlength=self._rows)
        if not bool((counts == counts[0]).all()):
            raise NotAffineError("its rows depend on different numbers of positions")
        where = flat_used.nonzero()[:, 0]
        order = torch.argsort(flat_rows[where], stable=True)
        return Selection(index=where[order].reshape(self._rows, -1))

    def _is_weight(self, ref: Ref) -> bool:
        """Return whether an operand comes from the inputs and is no index."""
        made = self._trace.operations[ref.operation]
        users = (self._trace.operations[number] for number in self._tail.operations)
        return made.data and any(o.name in WEIGHTED and ref in o.others for o in users)

    def _weighted(self) -> list[Selection]:
        """Return the averages over positions whose weights the inputs determine."""
        rows = torch.arange(1, self._rows + 1, dtype=torch.float64)
        found: list[Selection] = []
        for plain, once, other in zip(*self._slopes([(0, 0), (0, 1), (1, 0)]), strict=True):
            if plain.ndim < 3 or len(plain) != self._rows:
                raise NotAffineError(_WEIGHTED)
            tables = [g.reshape(self._rows, -1, g.shape[-1]) for g in (plain, once, other)]
            sums = [table.sum(dim=1, keepdim=True) for table in tables]
            weights = (tables[0] * sums[0]).sum(dim=2) / sums[0].square().sum(dim=2)
            if not bool((weights >= 0).all()):  # NaN if the sums are 0
                raise NotAffineError(_WEIGHTED)
            scales = (1.0, rows.to(plain.device)[:, None, None], 1.0)
            for table, total, scale in zip(
                tables, (sums[0], sums[0], sums[2]), scales, strict=True
            ):
                # one direction per table, the same in all rows, which no weights change
                wanted = weights[..., None] * total[:1] * scale
                if not bool(((table - wanted).abs() <= _SMALL * wanted.abs().max()).all()):
                    raise NotAffineError(_WEIGHTED)
            found.append(
                Selection(
                    axes=[None] * (plain.ndim - 1),
                    pooled=tuple(range(1, plain.ndim - 1)),
                    weights=weights.reshape(plain.shape[:-1]),
                )
            )
        return found

    def _slopes(self, powers: Sequence[tuple[int, int]]) -> list[tuple[Tensor, ...]]:
        """Return derivatives by the sources of random sums of logits.

        Each pair is the number of the sum, 0 or 1, and the power of the row's number by which it is
        multiplied.
        """
        leaves = self._leaves()
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(2, self._classes, generator=generator, dtype=torch.float64)
        with torch.enable_grad():
            logits = self._logits(leaves, self._constants)
            rows = torch.arange(1, self._rows + 1, dtype=torch.float64, device=logits.device)
            weights = weights.to(logits.device)
            return [
                torch.autograd.grad(
                    logits, leaves, weights[number] * rows[:, None] ** power, retain_graph=True,
                    allow_unused=True, materialize_grads=True,
                )
                for number, power in powers
            ]  # fmt: skip

    def pooled(self, selections: list[Selection]) -> None:
        """Mark the axes that the head weighs equally, and so only averages."""
        grads = self._slopes([(0, 0), (1, 0)])
        for k, selection in enumerate(selections):
            if selection.index is not None or selection.weights is not None:
                continue
            taken = [selection.take(g[k])[:1] for g in grads]
            wide = [a for a in range(1, taken[0].ndim) if taken[0].shape[a] > 1]
            equal = [a for a in wide if all(_is_constant(t, a) for t in taken)]
            if len(equal) < len(wide):
                selection.pooled = tuple(equal)

    def head(self, selections: list[Selection]) -> Composed:
        """Return weight, bias and their sizes, exact up to rounding in float64.

        Raises
        ------
        NotAffineError
            The rows of the batch have different heads.
        """
        sizes = [self._size(s, shape) for s, shape in zip(selections, self._shapes, strict=True)]
        logits, z = self._from_features(selections, sizes, evaluate)
        bias = logits.detach()
        if bool(((bias - bias[:1]).abs() > 1e-12 * bias.abs().max()).any()):
            raise NotAffineError("the rows of a batch have different constants added to them")
        bias = bias[0].clone()
        weight = self._read_product(sizes)
        if weight is None or not self._is_head(weight, bias, selections, sizes, _EXACT):
            weight = self._gradients(logits, z)
            logits, z = self._from_features(selections, sizes, evaluate_sizes)
            magnitude = self._gradients(logits, z).abs(), logits.detach()[0].abs()
        else:
            magnitude = None
            bias = self._read_bias(bias)
        if not self._is_head(weight, bias, selections, sizes, _SMALL):
            raise NotAffineError("its last operations are not affine")
        return Composed(weight, bias, magnitude, self._rounding(), sizes)

    def _from_features(
        self, selections: list[Selection], sizes: list[int], function: Callable[..., Any]
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of features that are 0, and these features, with the graph."""
        device = self._trace.kept[self._tail.sources[0]].device
        z = torch.zeros(self._rows, sum(sizes), dtype=torch.float64, device=device)
        with torch.enable_grad():
            z.requires_grad_()
            return self._of_features(z, selections, sizes, function), z

    def _of_features(
        self,
        z: Tensor,
        selections: list[Selection],
        sizes: list[int],
        function: Callable[..., Any] = evaluate,
    ) -> Tensor:
        """Return the tail's logits of features `z` (B, n)."""
        sources = [
            selection.embed(part, shape)
            for selection, part, shape in zip(
                selections, z.split(sizes, dim=1), self._shapes, strict=True
            )
        ]
        constants = self._constants
        if function is evaluate_sizes:
            constants = {r: v.abs() if v.is_floating_point() else v for r, v in constants.items()}
        return self._logits(sources, constants, function)

    def _size(self, selection: Selection, shape: tuple[int, ...]) -> int:
        if selection.index is not None:
            return selection.index.shape[1]
        empty = torch.empty(shape, device="meta")
        for axis, positions in enumerate(selection.axes, start=1):
            if positions is not None:
                empty = empty.narrow(axis, 0, len(positions))
        shape = tuple(1 if k in selection.pooled else n for k, n in enumerate(empty.shape))
        return math.prod(shape[1:])

    def _read_product(self, sizes: list[int]) -> Tensor | None:
        """Return the weight of a single product, if it may be the head's own; to be checked."""
        products = self._tail.products
        names = {self._trace.operations[n].name for n in self._tail.operations}
        if len(products) != 1 or len(sizes) != 1 or not names <= _KEEP_WEIGHTS | PRODUCTS.keys():
            return None
        operation = self._trace.operations[products[0]]
        if operation.name in ("mm", "addmm") and not operation.kwargs:
            weight = self._constants.get(operation.args[-1])
            weight = None if weight is None else weight.mT
        elif operation.name == "convolution":
            weight = self._constants.get(operation.args[1])
        else:
            return None
        if weight is None or weight.numel() != sizes[0] * self._classes:
            return None
        return weight.reshape(self._classes, -1).clone()

    def _gradients(self, logits: Tensor, z: Tensor) -> Tensor:
        weight = torch.empty(self._classes, z.shape[1], dtype=z.dtype, device=z.device)
        for start in range(0, self._classes, self._rows):
            count = min(self._rows, self._classes - start)
            chosen = torch.zeros_like(logits)
            chosen[range(count), range(start, start + count)] = 1
            (gradient,) = torch.autograd.grad(logits, z, chosen, retain_graph=True)
            weight[start : start + count] = gradient[:count]
        return weight

    def _read_bias(self, bias: Tensor) -> Tensor:
        """Return the bias of the single product, if only rounding in float64 differs from it."""
        operation = self._trace.operations[self._tail.products[0]]
        for argument in operation.args:
            own = self._constants.get(argument) if isinstance(argument, Ref) else None
            if (
                own is not None
                and own.shape == bias.shape
                and (bool(((own - bias).abs() <= _EXACT * bias.abs()).all()))
            ):
                return own.clone()
        return bias

    @torch.no_grad()
    def _is_head(
        self,
        weight: Tensor,
        bias: Tensor,
        selections: list[Selection],
        sizes: list[int],
        tolerance: float,
    ) -> bool:
        """Return whether the operations of the tail are ``W z + b`` at random z."""
        generator = torch.Generator().manual_seed(2)
        z = torch.randn(self._rows, sum(sizes), generator=generator, dtype=torch.float64)
        z = z.to(weight.device)
        found = self._of_features(z, selections, sizes)
        wanted = z @ weight.mT + bias
        size = z.abs() @ weight.abs().mT + bias.abs()
        return bool(((found - wanted).abs() <= tolerance * size.max()).all())

    def _rounding(self) -> Rounding:
        """Return how the model rounds on the path through the tail that rounds most."""
        found: dict[int, Rounding] = {}
        operations = self._trace.operations
        for number in self._tail.operations:
            operation = operations[number]
            before = Rounding()
            for ref in operation.parents:
                before = before.worst(found.get(ref.operation, Rounding()))
            found[number] = _after(before, operation, operations)
        return found.get(self._tail.root.operation, Rounding())


def _after(
    before: Rounding,
    operation: Operation | UnseenOperation,
    operations: list[Operation | UnseenOperation],
) -> Rounding:
    shapes = [
        operations[a.operation].shapes[a.position] if isinstance(a, Ref) else None
        for a in operation.args
    ]
    terms = rounded_terms(operation.name, shapes, operation.shapes[0])
    product = operation.kind == "product"
    convolution = product and "convolution" in operation.name
    dtypes = [t for t in operation.dtypes[:1] if t.is_floating_point]
    return Rounding(
        terms=before.terms + terms,
        steps=before.steps + (terms > 0),
        products=before.products + (product and not convolution),
        convolutions=before.convolutions + convolution,
        eps=max([before.eps, *(torch.finfo(t).eps for t in dtypes)]),
    )


@final
class Composed(NamedTuple):
    """The head of a tail.

    Attributes
    ----------
    weight, bias : Tensor (K, n) and (K,)
        In float64.
    magnitude : (Tensor (K, n), Tensor (K,)) or None
        Sums of absolute values of which both are sums; None for their own.
    rounding : Rounding
        How the model rounds.
    widths : list of int
        Number of features of each source.
    """

    weight: Tensor
    bias: Tensor
    magnitude: tuple[Tensor, Tensor] | None
    rounding: Rounding
    widths: list[int]


def _axes(used: Tensor) -> list[Tensor | None] | None:
    """Return the positions per axis whose product is `used`; None if it is no such product."""
    axes: list[Tensor | None] = []
    product = torch.ones((), dtype=torch.bool, device=used.device)
    for axis in range(used.ndim):
        others = [a for a in range(used.ndim) if a != axis]
        line = used.any(dim=others) if others else used
        shape = [-1 if a == axis else 1 for a in range(used.ndim)]
        product = product & line.reshape(shape)
        axes.append(None if bool(line.all()) else line.nonzero()[:, 0])
    return axes if torch.equal(product.expand_as(used), used) else None


def _is_constant(values: Tensor, axis: int) -> bool:
    spread = values.amax(dim=axis) - values.amin(dim=axis)
    return bool(spread.max() <= 1e-9 * values.abs().max())
