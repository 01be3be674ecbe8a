"""Base class of results with a status per entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from fsboundary.core.errors import StatusError
from fsboundary.core.results.base.table import Table
from fsboundary.core.results.deferred import stored
from fsboundary.core.status import OK_CODES, Status


class Result(Table):
    """Base class of results: batch first, detached, on the input's device, frozen.

    Subclasses are frozen dataclasses with an int64 tensor ``status`` of :class:`Status` codes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> flips = fsb.flip_points(head, torch.tensor([[3.0, 1.0, 0.0], [torch.nan, 0.0, 0.0]]))
    >>> flips.ok.tolist(), flips[flips.ok[:, 0]].distance.round(decimals=4).tolist()
    ([[True], [False]], [[1.4142]])
    """

    __slots__ = ()

    _STATUSES: ClassVar[tuple[str, ...]] = ("status",)

    _OWN_ADVICE: ClassVar[Mapping[Status, str]] = {}
    """Advice of statuses that mean something else in this result than in most.

    An argument of the function is named with ``=``, as in "raise max_steps="."""

    @classmethod
    def advice(cls, code: int) -> str:
        """Return what status `code` means in this result, and what to do about it."""
        return cls._OWN_ADVICE.get(Status(code), Status(code).advice)

    @property
    def ok(self) -> Tensor:
        """Mask of the entries that are final answers, bool, in the shape of ``status``."""
        status: Tensor = stored(self, "status")
        return torch.isin(status, torch.tensor(OK_CODES, device=status.device))

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
