"""Base class of tables: named tensors with common rows, which are read, selected and printed."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Iterator
from os import PathLike
from typing import Any, ClassVar, Self, SupportsIndex

import torch
from torch import Tensor

from fsboundary.core.results.base.display import (
    html_table,
    lines,
    number_words,
    status_words,
    title,
)
from fsboundary.core.results.base.files import read_result, write_result
from fsboundary.core.results.base.frames import columns_of, data_frame
from fsboundary.core.results.base.rows import dimensions, row_index
from fsboundary.core.results.deferred import Deferred, defer, stored
from fsboundary.core.rows import TensorOrArray

_FACTS = 7
"""Number of fields of which the text shows values: it stays below twelve lines."""


class Table(ABC):
    """Named tensors with common rows, on one device, frozen.

    Subclasses are frozen dataclasses whose annotations name the dimensions of their tensors. Rows
    are those of the first dimension of the first tensor; a scalar has no rows.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> balls = fsb.guaranteed_balls(head, torch.eye(3))
    >>> len(balls), balls[0].radius.shape, balls.to_pandas().shape
    (3, torch.Size([1]), (3, 6))
    """

    __slots__ = ()

    _ROWS: ClassVar[str] = ""
    """Dimension of the rows, where it is not the first one of the first tensor."""

    _AXES: ClassVar[tuple[str, ...]] = ("row", "entry")
    """Names of the positions of an entry in :meth:`to_pandas`."""

    _STATUSES: ClassVar[tuple[str, ...]] = ()
    """Fields of :class:`fsboundary.Status` codes."""

    @classmethod
    def _row_dimension(cls) -> str:
        """Return the name of the dimension of the rows, "" where there are none."""
        return cls._ROWS or next(iter(next(iter(dimensions(cls).values()))), "")

    def _stored(self) -> dict[str, Any]:
        """Return the fields by name, as they are stored: some are not computed yet."""
        return {f.name: stored(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # every subclass is a dataclass

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        """Return a result of these fields, of which some may be deferred."""
        later = {k: v for k, v in values.items() if isinstance(v, Deferred)}
        result = cls(**values | {k: v.placeholder() for k, v in later.items()})
        for name, value in later.items():
            defer(result, name, value)
        return result

    def to(self, device: torch.device | str) -> Self:
        """Return the result with every tensor on `device`."""
        moved = {
            name: value.to(device) if isinstance(value, Tensor | Deferred) else value
            for name, value in self._stored().items()
        }
        return self._of(moved)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; tensors stay tensors."""
        return {name: getattr(self, name) for name in self._stored()}

    def save(self, path: str | PathLike[str], *, force: bool = False) -> None:
        """Write the result to a file, which :meth:`open` reads.

        The file has the format of safetensors: numbers and text, bit for bit, and no code. Points
        that are computed when they are read are written as what they are computed from.

        Parameters
        ----------
        path : str or PathLike
            File that does not exist yet; it appears after everything is written.
        force : bool
            Whether an existing file is replaced.

        Raises
        ------
        ArgumentError
            The path exists, or its folder does not; or a field of another shape than the class
            lists, in a result that was made by hand.
        DataError
            The file cannot be written; what was there is unchanged.

        Examples
        --------
        >>> import pathlib, tempfile, torch
        >>> import fsboundary as fsb
        >>> balls = fsb.guaranteed_balls(fsb.LinearHead(torch.eye(2), None), torch.eye(2))
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "balls.safetensors"
        >>> balls.save(path)
        >>> torch.equal(fsb.GuaranteedBalls.open(path).radius, balls.radius)
        True
        """
        write_result(path, type(self), self._stored(), force)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Return the result in a file of :meth:`save`, with its tensors on the CPU.

        It is the saved result bit for bit, and no more than that: the file does not prove that the
        numbers are right. :func:`fsboundary.export_certificates` checks them again.

        Raises
        ------
        DataError
            No result, a damaged one, or one of another class or version.
        """
        return cls._of(read_result(path, cls))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with one line per entry of ``status``.

        The first columns are the positions of the entry, ``row`` and, for results with several
        entries per row, ``entry``. Statuses are names. A field of rows is repeated for each of
        their entries; one further dimension becomes a list. Features, images and other fields of
        more dimensions are left out: index the result by the column ``row`` to read them.

        Raises
        ------
        ImportError
            pandas is not installed: ``pip install 'fsboundary[pandas]'``.

        Examples
        --------
        >>> import torch
        >>> import fsboundary as fsb
        >>> balls = fsb.guaranteed_balls(fsb.LinearHead(torch.eye(2), None), 3 * torch.eye(2))
        >>> balls.to_pandas()[["row", "norm", "active_class", "status"]]
           row norm  active_class     status
        0    0   l2             1  CONVERGED
        1    1   l2             0  CONVERGED
        """
        return data_frame(columns_of(self, self._stored()))

    def _verdicts(self) -> dict[str, list[str]]:
        """Return columns of words that stand for those of codes."""
        return {}

    def take(
        self, index: SupportsIndex | slice | range | list[int] | list[bool] | TensorOrArray
    ) -> Self:
        """Return the rows at `index`, along the batch dimension; ``result[index]`` is the same.

        Parameters
        ----------
        index : int, slice, list, Tensor or array
            Rows by number, or a mask with one bool per row. One number returns a result of one
            row, because a result always keeps its dimensions.

        Raises
        ------
        ArgumentError
            An index of another kind or shape.
        IndexError
            A row that does not exist.
        TypeError
            The result has one entry and no rows, such as ``AffineRank``.
        """
        rows = row_index(index, len(self))
        device = next(v.device for v in self._stored().values() if isinstance(v, Tensor))
        return self._take(rows.to(device) if isinstance(rows, Tensor) else rows)

    def _take(self, index: slice | Tensor) -> Self:
        """Return the rows at an index that :func:`row_index` returned."""
        axis = self._row_dimension()
        values = self._stored()
        for name, names in dimensions(type(self)).items():
            if axis in names:
                at = (*[slice(None)] * names.index(axis), index)
                value = values[name]
                values[name] = value[index] if isinstance(value, Deferred) else value[at]
        if axis in values:  # a tuple with the name of each row
            rows = torch.arange(len(self))[index if isinstance(index, slice) else index.cpu()]
            values[axis] = tuple(values[axis][row] for row in rows.tolist())
        return self._of(values)

    def __getitem__(
        self, index: SupportsIndex | slice | range | list[int] | list[bool] | TensorOrArray
    ) -> Self:
        return self.take(index)

    def __len__(self) -> int:
        axis = self._row_dimension()
        if not axis:
            raise TypeError(f"{type(self).__name__} has one entry and no rows")
        for name, names in dimensions(type(self)).items():
            if axis in names:
                return int(stored(self, name).shape[names.index(axis)])
        raise AssertionError("a dimension is that of some tensor")

    def __bool__(self) -> bool:
        return True  # a result without rows is a result too: `if result:` is not `if len(result):`

    def __iter__(self) -> Iterator[Self]:
        """Yield each row as a result of one row."""
        for row in range(len(self)):
            yield self.take(row)

    def _title(self) -> str:
        sizes: dict[str, object] = {}
        values = self._stored()
        for name, names in dimensions(type(self)).items():
            if len(names) == len(values[name].shape):
                for key, size in zip(names, values[name].shape, strict=True):
                    if key.isidentifier() and not key.endswith("_1"):  # "S_1" is S - 1
                        sizes.setdefault(key, size)
        plain = {k: v for k, v in values.items() if not isinstance(v, Tensor | Deferred)}
        return title(type(self).__name__, sizes | plain)

    def _words(self, name: str, value: object) -> str:
        """Return the values of a field in words, "" for a field with dimensions of its own."""
        axes = dimensions(type(self)).get("status", (self._row_dimension(),))
        names = dimensions(type(self)).get(name, ())
        if not isinstance(value, Tensor) or not set(names) <= set(axes):
            return ""
        return status_words(value) if name in self._STATUSES else number_words(value)

    def __repr__(self) -> str:
        values = self._stored()
        words = {name: self._words(name, value) for name, value in values.items()}
        words = {name: text for name, text in words.items() if text}
        rank = {n: not values[n].is_floating_point() for n in words if n not in self._STATUSES}
        shown = sorted(rank, key=rank.__getitem__)[: _FACTS - len(self._STATUSES)]
        facts = {n: words[n] for n in (*self._STATUSES, *sorted(shown, key=list(words).index))}
        rest = [n for n in dimensions(type(self)) if n not in facts]
        return lines(self._title(), facts, rest)

    def _repr_html_(self) -> str:
        """Return a table of all fields for notebooks."""
        rows = [
            (name, " x ".join(map(str, value.shape)), self._words(name, value))
            for name, value in self._stored().items()
            if isinstance(value, Tensor | Deferred)
        ]
        return html_table(self._title(), rows)
