"""Operations of a pass and references to their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch

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
    kind: Kind | None = None
    parents: list[Ref] = field(default_factory=list)
    others: list[Ref] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    call: int = -1
