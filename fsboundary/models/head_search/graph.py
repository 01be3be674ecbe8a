"""Operations of a pass, references to their results, and selections of numbers of these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from fsboundary.models.head_search.operations import Kind


class Ref(NamedTuple):
    """Reference to a tensor: number of the operation that made it, and position in its output."""

    operation: int
    position: int


@final
@dataclass(slots=True, eq=False)
class Operation:
    """One operation of a pass.

    Attributes
    ----------
    name : str
        Name in ``torch.ops.aten``, without a trailing underscore; "input" and "constant" for
        tensors that exist before the pass, "overwritten" for those changed through an alias.
    function : object
        The operation itself; the tensor of a constant.
    args, kwargs : tuple, dict
        Arguments, with a :class:`Ref` in place of each tensor.
    data : bool
        Whether the result depends on the inputs of the model.
    discrete : bool
        Whether the result is made of integers only, such as an attention mask and its counts.
    kind : str or None
        Kind of an affine operation, see :mod:`fsboundary.models.head_search.operations`.
    parents : list of Ref
        Operands that contain data in which the operation is affine.
    others : list of Ref
        All other operands.
    shapes, dtypes : list
        Shapes and dtypes of the results.
    call : int
        Number of the call of torch; -1 for tensors that exist before the pass.
    """

    name: str
    function: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    data: bool = False
    discrete: bool = False
    kind: Kind | None = None
    parents: list[Ref] = field(default_factory=list)
    others: list[Ref] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    call: int = -1


@final
class UnseenOperationError(Exception):
    """A walk through the graph has left the part that was recorded."""


@final
class UnseenOperation:
    """An operation before the recorded part of a pass, of which only the result was noticed.

    Attributes
    ----------
    data : bool
        True: the result depends on the inputs of the model.
    discrete : bool
        False: the result may be any number.

    All other attributes of :class:`Operation` raise UnseenOperationError.
    """

    data = True
    discrete = False

    def __getattr__(self, name: str) -> Any:
        raise UnseenOperationError


@final
@dataclass(slots=True, eq=False)
class Selection:
    """Which numbers of one source are the features of a row.

    Attributes
    ----------
    index : Tensor (B, n) or None
        Positions in the flat source; None if the source is (B, ...) and :attr:`axes` apply.
    axes : list of Tensor or None
        Positions taken of each axis but the first; None for all.
    pooled : tuple of int
        Axes that are averaged, counted with the first.
    weights : Tensor (B, ...) or None
        Weights of the averages of this pass, if its inputs determine them; the sum per row is 1.
    """

    index: Tensor | None = None
    axes: list[Tensor | None] = field(default_factory=list)
    pooled: tuple[int, ...] = ()
    weights: Tensor | None = None

    def take(self, source: Tensor) -> Tensor:
        """Return the selected numbers before averages, (B, ...)."""
        if self.index is not None:
            return source.flatten()[self.index.to(source.device)]
        for axis, positions in enumerate(self.axes, start=1):
            if positions is not None:
                source = source.index_select(axis, positions.to(source.device))
        return source

    def average(self, taken: Tensor) -> Tensor:
        """Return the features (B, ...) of selected numbers."""
        if self.weights is None:
            return taken.mean(dim=self.pooled) if self.pooled else taken
        wide = torch.promote_types(taken.dtype, torch.float32)
        product = taken.to(wide) * self.weights.to(taken.device, wide)[..., None]
        return product.sum(dim=self.pooled).to(taken.dtype)

    def embed(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return a source of that shape with features `z` (B, n), and zeros elsewhere."""
        if self.index is not None:
            flat = torch.zeros(math.prod(shape), dtype=z.dtype, device=z.device)
            return flat.scatter(0, self.index.flatten().to(z.device), z.flatten()).reshape(shape)
        sizes = [n if p is None else len(p) for n, p in zip(shape[1:], self.axes, strict=True)]
        kept = [1 if k in self.pooled else n for k, n in enumerate(sizes, start=1)]
        value = z.reshape(len(z), *kept).expand(len(z), *sizes)
        for axis, positions in enumerate(self.axes, start=1):
            if positions is not None:
                full = list(value.shape)
                full[axis] = shape[axis]
                zeros = torch.zeros(full, dtype=z.dtype, device=z.device)
                value = zeros.index_copy(axis, positions.to(z.device), value)
        return value
