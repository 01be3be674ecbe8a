"""Rows of a bank that hold the same point, so that they are left out together."""

from __future__ import annotations

import weakref
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank

_copies: weakref.WeakKeyDictionary[FeatureBank, Copies] = weakref.WeakKeyDictionary()


def copies_of(bank: FeatureBank) -> Copies:
    """Return which rows of `bank` hold the same point; computed once, in one pass, and cached."""
    if bank not in _copies:
        _copies[bank] = Copies(bank)
    return _copies[bank]


@final
class Copies:
    """The rows of a bank sorted by their points, and where each point begins."""

    def __init__(self, bank: FeatureBank) -> None:
        digests = bank.digests()
        order = digests[:, 1].argsort(stable=True)
        self._rows = order[digests[order, 0].argsort(stable=True)]
        digests = digests[self._rows]
        first = torch.ones(len(digests), dtype=torch.bool)
        first[1:] = (digests[1:] != digests[:-1]).any(dim=1)
        self._begin = torch.cat([first.nonzero()[:, 0], torch.tensor([len(first)])])
        self._point = torch.empty_like(self._rows)
        self._point[self._rows] = first.cumsum(dim=0) - 1

    @property
    def first(self) -> Tensor:
        """The lowest row (n,) that holds the same point as each row."""
        return self._rows[self._begin[self._point]]

    @property
    def count(self) -> Tensor:
        """The number of rows (n,) that hold the same point as each row, itself included."""
        return self._begin.diff()[self._point]

    def of(self, rows: Tensor) -> Tensor:
        """Return the rows that hold the same points as `rows` (B,), themselves included, (B,E).

        Padded with -1; a row of -1 has no copies.
        """
        point = self._point[rows.clamp_min(0)]
        counts = torch.where(rows >= 0, self._begin[point + 1] - self._begin[point], 0)
        column = torch.arange(max(counts.tolist(), default=0) or 1)
        index = (self._begin[point, None] + column).clamp_max(len(self._rows) - 1)
        return torch.where(column < counts[:, None], self._rows[index], -1)
