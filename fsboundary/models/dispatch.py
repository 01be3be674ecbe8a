"""What modes that see every operation of a pass share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class OperationMode(TorchDispatchMode):
    """Dispatch mode of a pass that runs eagerly. Abstract; subclasses handle each operation."""

    supports_higher_order_operators = True  # they run as usual

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # otherwise torch spends a second or two on importing its compiler, only to disable it for
        # this class; nothing compiles here, because models are run eagerly
        return False

    def decompose(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a composite operation, run part by part, or NotImplemented.

        In inference mode composite operations arrive undecomposed. ``func.decompose`` would prefer
        code in Python where there is some, which rounds otherwise than passes without this mode.
        """
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            return NotImplemented
        with self:
            return func._op_dk(_COMPOSITE, *args, **kwargs)


def storage_of(value: Any) -> StorageWeakRef | None:
    """Return a weak reference to the storage of a tensor; None if it has none."""
    if not isinstance(value, Tensor):
        return None
    try:
        return StorageWeakRef(value.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse and opaque layouts
        return None
