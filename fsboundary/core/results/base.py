"""Base class of all results."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fsboundary.core.errors import StatusError
from fsboundary.core.results.deferred import Deferred, defer, stored
from fsboundary.core.status import OK_CODES, Status


class Result(ABC):
    """Base class of results: batch first, detached, on the input's device, frozen.

    Subclasses are frozen dataclasses with an int64 tensor ``status`` of :class:`Status` codes.
    """

    __slots__ = ()

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {}
    """Advice of statuses that mean something else in this result than in most.

    An argument of the function is named with ``=``, as in "raise max_steps="."""

    @classmethod
    def advice(cls, code: int) -> str:
        """Return what status `code` means in this result, and what to do about it."""
        return cls._OWN_ADVICE.get(Status(code), Status(code).advice)

    def _values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # every subclass is a dataclass

    def _map(self, change: Any) -> Self:
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]  # as above
        values = {name: stored(self, name) for name in names}
        changed = {
            k: change(v) if isinstance(v, Tensor | Deferred) else v for k, v in values.items()
        }
        later = {k: v for k, v in changed.items() if isinstance(v, Deferred)}
        result = type(self)(**changed | {k: v.placeholder() for k, v in later.items()})
        for name, value in later.items():
            defer(result, name, value)
        return result

    @property
    def ok(self) -> Tensor:
        """Mask of the entries that are final answers, bool, in the shape of ``status``."""
        status: Tensor = stored(self, "status")
        return torch.isin(status, torch.tensor(OK_CODES, device=status.device))

    def take(self, index: Tensor | slice | list[int]) -> Self:
        """Return the rows at `index`, along the batch dimension."""
        return self._map(lambda v: v[index])

    def to(self, device: torch.device | str) -> Self:
        """Return the result with every tensor on `device`."""
        return self._map(lambda v: v.to(device))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; tensors stay tensors."""
        return self._values()

    def raise_for_status(self) -> Self:
        """Return self, or raise StatusError if any entry failed.

        Raises
        ------
        StatusError
            Lists each failed status with its number of entries, the first rows and advice.
        """
        bad = ~self.ok
        if not bool(bad.any()):
            return self
        status: Tensor = stored(self, "status")
        counts = Counter(int(code) for code in status[bad].tolist())
        lines = []
        for code, count in sorted(counts.items()):
            rows = (status == code).nonzero()[:5].tolist()
            shown = ", ".join(str(r[0] if len(r) == 1 else tuple(r)) for r in rows)
            lines.append(f"{Status(code).name} x {count} (first at {shown}): {self.advice(code)}")
        name = type(self).__name__
        raise StatusError(f"{name}: {int(bad.sum())} of {bad.numel()} failed.\n" + "\n".join(lines))
