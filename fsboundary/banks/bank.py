"""Feature banks: sets of points, the generators of a hull, in memory, on disk or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy.typing as npt
import torch
from torch import Tensor

from fsboundary.banks.checks import (
    check_banks,
    check_classes,
    check_directions,
    imports_dask,
    labels_of,
)
from fsboundary.banks.store import BankInfo, Store
from fsboundary.banks.streams import (
    RowStream,
    check_dtype,
    merge,
    rows_of_store,
    store_points,
)
from fsboundary.banks.tables import npy_rows, parquet_rows
from fsboundary.core.checks import check_integer_tensor
from fsboundary.core.protocols import Moments
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.modes import in_standard_modes

if TYPE_CHECKING:
    from distributed import Client


@final
class FeatureBank:
    """n points of width d, in memory, on disk or on a cluster; immutable.

    Created from a tensor, with :meth:`open`, or with :meth:`fsboundary.FeatureSpace.bank`. Any
    points can be used: the features of any layer, or pixels, ``FeatureBank(images.flatten(1))``.
    A bank in memory owns its rows: it copies what it is given, and returns copies.

    Parameters
    ----------
    features : Tensor or array (n, d), or FeatureBatch
        Points, floating point and finite, with n and d at least 1, on any device. They are copied.
    labels : Tensor, array or sequence of int (n,), optional
        Class of each row, used by :meth:`subset`.
    dtype : torch.dtype, optional
        Dtype in which points are stored: torch.float16, bfloat16, float32 or float64. By default
        float64 is kept, and all others become float32. **The points of the bank are the stored
        numbers**: every answer is certified in float64 relative to these.

    Raises
    ------
    ArgumentError
        Not a tensor, no rows, NaN or infinite numbers, labels of another length, another dtype.
    DataError
        Numbers beyond the range of the dtype.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> fsb.FeatureBank(torch.eye(3), torch.tensor([0, 0, 1]))
    FeatureBank(n=3, d=3, memory)
    """

    _store: Store

    @in_standard_modes
    def __init__(
        self,
        features: TensorOrArray | FeatureBatch,
        labels: TensorOrArray | Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._store = store_points(features, labels, dtype)

    @classmethod
    def of(cls, store: Store) -> FeatureBank:
        """Return the bank of a store, whose rows are assumed to be valid."""
        bank = cls.__new__(cls)
        bank._store = store
        return bank

    @classmethod
    @in_standard_modes
    def from_npy(
        cls,
        source: str | PathLike[str] | npt.NDArray[Any],
        labels: TensorOrArray | Sequence[int] | str | PathLike[str] | None = None,
        *,
        path: str | PathLike[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> FeatureBank:
        """Return the bank of the points in a file of ``numpy.save``, read a block at a time.

        Parameters
        ----------
        source : str, PathLike or array (n, d)
            File, or an array such as ``numpy.load(path, mmap_mode="r")``.
        labels : Tensor, array, sequence of int (n,), str or PathLike, optional
            Class of each row, or the file of these.
        path : str or PathLike, optional
            New folder for the bank, as in :meth:`save`, so that memory holds only a few blocks of
            about 16 MiB; without it the bank is in memory.
        dtype : torch.dtype, optional
            Dtype in which points are stored, as in the constructor.

        Raises
        ------
        ArgumentError
            Not an array (n,d) of floating-point numbers, or as in the constructor and :meth:`save`.
        DataError
            Numbers that are not finite or beyond the range of the dtype, or as in :meth:`save`.
        """
        return cls._collect(npy_rows(source, labels, check_dtype(dtype)), path)

    @classmethod
    @in_standard_modes
    def from_parquet(
        cls,
        source: str | PathLike[str] | Sequence[str | PathLike[str]],
        features: str | Sequence[str],
        labels: str | None = None,
        *,
        path: str | PathLike[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> FeatureBank:
        """Return the bank of the points in Parquet files; needs ``fsboundary[parquet]``.

        Parameters
        ----------
        source : str, PathLike or sequence of these
            File, or several in the order of the rows.
        features : str or sequence of str
            Column of lists of d floating-point numbers, or d columns of one number each.
        labels : str, optional
            Column of class numbers.
        path, dtype
            As for :meth:`from_npy`.

        Raises
        ------
        ArgumentError
            A file that cannot be read, columns that are missing or of another type, no rows, or
            pyarrow is not installed.
        DataError
            Nulls, lists of different lengths, or as in :meth:`from_npy`.
        """
        return cls._collect(parquet_rows(source, features, labels, check_dtype(dtype)), path)

    @classmethod
    @in_standard_modes
    def merge(
        cls,
        banks: Sequence[FeatureBank],
        *,
        path: str | PathLike[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> FeatureBank:
        """Return the rows of all `banks`, one bank after the other, numbered anew.

        Parameters
        ----------
        banks : sequence of FeatureBank
            Banks of one width, with labels in all or in none. One bank is copied, for example to
            another dtype.
        path : str or PathLike, optional
            New folder, as for :meth:`from_npy`; banks on disk are read a chunk at a time.
        dtype : torch.dtype, optional
            Dtype in which points are stored; by default one that contains those of all banks.

        Returns
        -------
        FeatureBank
            Its :attr:`info` is that of the banks if all have the same one, else empty.

        Raises
        ------
        ArgumentError
            No banks, or of different widths, or labels only in some.
        HeadMismatchError
            Two banks have different fingerprints.
        DataError
            As in :meth:`from_npy`.
        """
        streams = [rows_of_store(bank._store) for bank in check_banks(banks)]
        return cls._collect(merge(streams, check_dtype(dtype)), path)

    @in_standard_modes
    def append(
        self,
        features: TensorOrArray | FeatureBatch,
        labels: TensorOrArray | Sequence[int] | None = None,
        *,
        path: str | PathLike[str] | None = None,
    ) -> FeatureBank:
        """Return a new bank: these rows, then `features` (m,d), in the dtype of this bank.

        A bank never changes, so its rows are copied; see :meth:`merge` for `path` and errors. The
        rows of a :class:`FeatureBatch` keep the :attr:`info` of the bank.
        """
        more = store_points(features, labels, self.dtype)
        if isinstance(features, FeatureBatch):
            more.info = replace(self.info, fingerprint=features.fingerprint)
        return self._collect(merge([rows_of_store(self._store), rows_of_store(more)], None), path)

    @classmethod
    def _collect(cls, rows: RowStream, path: str | PathLike[str] | None) -> FeatureBank:
        if path is None:
            return cls.of(rows.load())
        from fsboundary.banks.disk.writer import save  # here: banks in memory need no Zarr

        save(rows, Path(path))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> FeatureBank:
        """Open a bank on disk; rows are read on demand, about 8 MiB at a time.

        The metadata are compared with the seal of the bank when it is opened, and each chunk when
        this process reads it for the first time, or its file was written to since; other reads, of
        a chunk or of the pieces with single rows, compare a faster checksum. The memory of one
        block or chunk is kept for the next pass.

        Parameters
        ----------
        path : str or PathLike
            Folder written by :meth:`save` or :meth:`fsboundary.FeatureSpace.bank`.

        Raises
        ------
        DataError
            No bank, or one that is damaged, unfinished or of another format. A chunk that is
            damaged, missing or at another's place raises when it is read.
        """
        from fsboundary.banks.disk.zarr_store import ZarrStore  # here: banks in memory need no Zarr

        return cls.of(ZarrStore(Path(path)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bank to a new folder: a Zarr v3 group of `features`, `labels` and `ids`.

        A seal lists the SHA-256 of every file. The folder appears after everything is written.

        Parameters
        ----------
        path : str or PathLike
            Folder that does not exist yet.

        Raises
        ------
        ArgumentError
            The path exists.
        DataError
            The disk is full, the path cannot be written, or another process writes there.
        """
        from fsboundary.banks.disk.writer import save  # here: banks in memory need no Zarr

        save(rows_of_store(self._store), Path(path))

    def __len__(self) -> int:
        return len(self._store)

    @property
    def num_features(self) -> int:
        """Width d of the points."""
        return self._store.num_features

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which the points are stored."""
        return self._store.dtype

    @property
    def features(self) -> Tensor:
        """A copy of all points (n,d), float32 or, if stored so, float64; made by each access.

        It takes as much memory as the points; :meth:`price`, :meth:`take` and :meth:`select` never
        need all points at once. A bank on disk is read completely, and a distributed one from the
        bank that it was created from.
        """
        features = self._store.features()
        return features if features.dtype == torch.float64 else features.to(torch.float32)

    @property
    def labels(self) -> Tensor | None:
        """Class of each row (n,), a copy, or None."""
        return self._store.labels()

    @property
    def ids(self) -> Tensor:
        """Index of each row (n,) in the bank to which it was first added: 0, 1, ... there; a copy.

        A subset numbers its rows from 0; its ``ids`` are the corresponding rows of the whole bank.
        """
        return self._store.ids()

    @property
    def info(self) -> BankInfo:
        """Origin of the features."""
        return self._store.info

    @property
    def fingerprint(self) -> str:
        """Digest of head, extractor and layer; empty for raw tensors."""
        return self._store.info.fingerprint

    @property
    def seal(self) -> str:
        """SHA-256 of a complete bank on disk: its rows, metadata and all chunks, in order.

        Copies of a bank have the same seal. Compare it with one that you noted, or received with
        the bank, to recognise another bank at this path. It is that of the whole bank for a subset,
        and empty for a bank in memory.
        """
        return self._store.seal

    @in_standard_modes
    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of each coordinate, (d,) each, as float64."""
        lower, upper = self._range
        return lower.clone(), upper.clone()

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        return self._store.range()

    @in_standard_modes
    def moments(self) -> Moments:
        """Return count, mean, sum of squares about the mean and largest norm, in one pass."""
        return self._store.moments()

    @in_standard_modes
    def digests(self) -> Tensor:
        """Return a digest of 128 bits of each point, (n,2) int64, by which equal points are found.

        Other points have other digests: a collision is as unlikely as a forged checksum.
        """
        return self._store.digests()

    @in_standard_modes
    def subset(self, *, labels: int | Sequence[int] | TensorOrArray) -> FeatureBank:
        """Return the rows of the classes `labels`, in their order.

        Parameters
        ----------
        labels : int, sequence of int, Tensor or array
            Classes to select.

        Returns
        -------
        FeatureBank
            Bank numbered from 0; :attr:`ids` are the corresponding rows of the whole bank. It is a
            view of a bank on disk, and a copy in memory and on the workers of a cluster.

        Raises
        ------
        ArgumentError
            The bank has no labels, or a class has no row.
        """
        classes = labels_of(self)
        wanted = check_classes("labels", labels, classes)
        return FeatureBank.of(self._store.subset(torch.isin(classes, wanted).nonzero()[:, 0]))

    @in_standard_modes
    def select(self, indices: Tensor) -> FeatureBank:
        """Return the rows at `indices`, ascending.

        Parameters
        ----------
        indices : Tensor (m,)
            Row numbers, at least one; they are sorted and duplicates are removed.

        Returns
        -------
        FeatureBank
            Bank as returned by :meth:`subset`.

        Raises
        ------
        ArgumentError
            No rows, or rows that do not exist.
        """
        fix = "pass one row or more"
        rows = check_integer_tensor(
            "indices", indices, fix=fix, nonempty=True, noun="rows", within=range(len(self))
        )
        return FeatureBank.of(self._store.subset(rows.cpu().unique()))

    @in_standard_modes
    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest of ``directions @ generators.T`` for each direction.

        All points are read, one chunk at a time; memory holds one chunk (of a bank on disk: about
        8 MiB), also in the dtype of the products, 64 MiB of products (128 MiB in float64) and the
        result.

        Parameters
        ----------
        directions : Tensor (B, d)
            Directions, float32 or float64; the products are computed in this dtype.
        k : int
            Number of products per direction, at least 1.
        exclude : Tensor (B,) or (B, E), optional
            Rows to exclude for each direction, -1 for none.

        Returns
        -------
        values, indices : Tensor (B, k)
            Products and their rows, ascending; ties by the lowest row; +inf and -1 where there are
            no more rows; NaN and -1 for directions that are not finite. On the directions' device.

        Raises
        ------
        ArgumentError
            Directions of another width or dtype, k below 1, or rows that do not exist.
        DataError
            A damaged chunk of a bank on disk.
        """
        rows, exclude = check_directions(self, directions, k, exclude)
        return self._store.price(rows, k, exclude)

    @in_standard_modes
    def take(self, indices: Tensor) -> Tensor:
        """Return the points at `indices`.

        Parameters
        ----------
        indices : Tensor (...)
            Rows, in any shape, with or without repetition. The padding -1 is rejected: clamp it,
            and mask the result.

        Returns
        -------
        Tensor (..., d), float64
            Points, on the indices' device.

        Raises
        ------
        ArgumentError
            Rows that do not exist.
        DataError
            A damaged chunk of a bank on disk.
        """
        fix = "leave out padding (-1), as in take(support[support >= 0])"
        rows = check_integer_tensor(
            "indices", indices, fix=fix, noun="rows", within=range(len(self)), range_fix=fix
        )
        points = self._store.take(rows.reshape(-1))
        return points.reshape(*indices.shape, self.num_features).to(indices.device)

    def distribute(self, client: Client) -> FeatureBank:
        """Return a bank with the same rows, held in shards by the workers of a dask cluster.

        Every task runs on all workers, each on its own rows; this process receives the results and
        the rows that :meth:`take` returns. If a worker dies, its rows are restored on others. Needs
        the extra ``fsboundary[distributed]``, on the workers too.

        Parameters
        ----------
        client : dask.distributed.Client
            Connected, and not asynchronous. The workers open a bank on disk at its absolute path,
            so they must share its file system; a bank in memory is sent once, and also kept here.

        Returns
        -------
        FeatureBank
            Its methods raise DataError if no worker is left for 30 s, or workers die repeatedly.

        Raises
        ------
        ArgumentError
            Not a client, an asynchronous or closed one, or dask.distributed is not installed.
        DataError
            There is no worker, or one cannot read its rows.
        """
        with imports_dask(client):  # here: other banks need no dask
            from fsboundary.banks.cluster.distributed import distribute
        return FeatureBank.of(distribute(self._store, client))

    def __repr__(self) -> str:
        kind = type(self._store).__name__.removesuffix("Store").lower()
        return f"FeatureBank(n={len(self)}, d={self.num_features}, {kind})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks; reads no points."""
        return self.info.table(repr(self))
