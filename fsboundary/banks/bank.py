"""A set of points: the generators of a hull, wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from fsboundary.banks import checks
from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.store import BankInfo, Store
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import Moments

if TYPE_CHECKING:
    from distributed import Client


@final
class FeatureBank:
    """n points of width d, in memory, on disk or on a cluster; never changed once made.

    Make one from a tensor, with :meth:`open`, or with :meth:`fsboundary.FeatureSpace.bank`. Any
    points will do: the features of any layer, or pixels, as ``FeatureBank(images.flatten(1))``.

    Parameters
    ----------
    features : Tensor (n, d)
        Floating point and finite, n and d at least 1. Copied: float64 stays, all else becomes
        float32. On any device.
    labels : Tensor (n,) or sequence of int, optional
        The class of each row, for :meth:`subset`.

    Raises
    ------
    ArgumentError
        No tensor, no rows, rows with NaN or infinite numbers, or labels of another length.
    """

    _store: Store

    def __init__(self, features: Tensor, labels: Tensor | Sequence[int] | None = None) -> None:
        kept = checks.checked_features(features)
        classes = None
        if labels is not None:
            classes = checks.checked_labels(labels, len(kept)).to(kept.device)
        ids = torch.arange(len(kept), device=kept.device)
        self._store = MemoryStore(kept, classes, ids, BankInfo())

    @classmethod
    def of(cls, store: Store) -> FeatureBank:
        """Return the bank of a store, whose rows are taken as checked."""
        bank = cls.__new__(cls)
        bank._store = store
        return bank

    @classmethod
    def open(cls, path: str | PathLike[str]) -> FeatureBank:
        """Open a bank on disk; its rows are read when asked for, one chunk at a time.

        Parameters
        ----------
        path : str or PathLike
            What :meth:`save` or :meth:`fsboundary.FeatureSpace.bank` wrote.

        Raises
        ------
        DataError
            No bank, a damaged one, an unfinished one, or one of a newer format. A damaged or
            missing chunk is told when it is read.
        """
        from fsboundary.banks.zarr_store import ZarrStore  # here: banks in memory need no Zarr

        return cls.of(ZarrStore(Path(path)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bank to a new folder: a Zarr v3 group of `features`, `labels` and `ids`.

        Chunks carry checksums. The folder appears when all of it is written.

        Parameters
        ----------
        path : str or PathLike
            Does not exist yet.

        Raises
        ------
        ArgumentError
            The path exists.
        """
        from fsboundary.banks.writer import save  # here: banks in memory need no Zarr

        save(self._store, Path(path))

    def __len__(self) -> int:
        return len(self._store)

    @property
    def num_features(self) -> int:
        """d."""
        return self._store.num_features

    @property
    def features(self) -> Tensor:
        """All points (n,d), float32 or float64: a bank on disk is read whole into memory.

        Not to be written to. :meth:`price` and :meth:`take` never need all points at once. A
        distributed bank reads them where the bank that it was made of keeps them.
        """
        return self._store.features()

    @property
    def labels(self) -> Tensor | None:
        """The class of each row (n,), or None."""
        return self._store.labels()

    @property
    def ids(self) -> Tensor:
        """The number of each row (n,) in the bank that it was first put in: 0, 1, .. there.

        A subset numbers its own rows from 0; its ``ids`` say which rows of the whole they are.
        """
        return self._store.ids()

    @property
    def info(self) -> BankInfo:
        """Where the features came from."""
        return self._store.info

    @property
    def fingerprint(self) -> str:
        """Digest of head, extractor and layer; empty for raw tensors."""
        return self._store.info.fingerprint

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest of each coordinate, (d,) and (d,), in float64."""
        lower, upper = self._range
        return lower.clone(), upper.clone()

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        return self._store.range()

    def moments(self) -> Moments:
        """Return count, mean, squares about the mean and largest norm, from one pass."""
        return self._store.moments()

    def digests(self) -> Tensor:
        """Return a digest of 128 bits of each point, (n,2) int64, to find equal points by.

        Points that are equal number by number have equal digests, and no others: that two
        different points share one is as unlikely as a forged checksum.
        """
        return self._store.digests()

    def subset(self, *, labels: int | Sequence[int] | Tensor) -> FeatureBank:
        """Return the rows of some classes, in their order.

        Parameters
        ----------
        labels : int, sequence of int, or Tensor
            The classes.

        Returns
        -------
        FeatureBank
            Numbered from 0; :attr:`ids` says which rows of the whole they are. Of a bank on disk
            it is a view; in memory, and on the workers of a cluster, it is a copy.

        Raises
        ------
        ArgumentError
            The bank has no labels, or a class has no row.
        """
        wanted = checks.checked_choice(labels)
        own = self.labels
        if own is None:
            raise ArgumentError(
                "labels",
                "a bank without labels",
                "a bank with labels",
                "pass labels when making the bank",
            )
        wanted = wanted.to(own.device)
        missing = wanted[~torch.isin(wanted, own)]
        if len(missing):
            present = ", ".join(map(str, own.unique()[:20].tolist()))
            raise ArgumentError(
                "labels",
                f"{missing.tolist()}, which no row has",
                "classes that the bank holds",
                f"choose among {present}",
            )
        return FeatureBank.of(self._store.subset(torch.isin(own, wanted).nonzero()[:, 0]))

    def select(self, indices: Tensor) -> FeatureBank:
        """Return some rows, ascending.

        Parameters
        ----------
        indices : Tensor (m,)
            Row numbers, at least one; sorted and made unique.

        Returns
        -------
        FeatureBank
            As :meth:`subset` returns it.

        Raises
        ------
        ArgumentError
            No rows, or rows that do not exist.
        """
        checks.check_indices(indices, len(self))
        if indices.numel() == 0:
            raise ArgumentError("indices", "no rows", "at least one", "a hull needs one point")
        return FeatureBank.of(self._store.subset(indices.flatten().to(torch.int64).unique()))

    def price(
        self, directions: Tensor, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the `k` smallest of ``directions @ generators.T`` for each direction.

        All points are read, one chunk at a time; memory holds a chunk, 64 MiB of products and
        the answer.

        Parameters
        ----------
        directions : Tensor (B, d)
            Float32 or float64: the products are computed in this dtype.
        k : int
            How many, at least 1.
        exclude : Tensor (B,) or (B, E), optional
            Rows to leave out for each direction, -1 for none.

        Returns
        -------
        values, indices : Tensor (B, k)
            Ascending; ties by the lowest row; +inf and -1 where there are no more rows; NaN and
            -1 for directions that are not finite. On the directions' device.

        Raises
        ------
        ArgumentError
            Directions of another width or dtype, k below 1, or rows that do not exist.
        DataError
            A damaged chunk of a bank on disk.
        """
        checks.check_directions(directions, self.num_features)
        checks.check_count(k)
        if exclude is not None:
            exclude = checks.checked_exclude(exclude, directions, len(self))
        return self._store.price(directions.detach(), k, exclude)

    def take(self, indices: Tensor) -> Tensor:
        """Return the points at `indices`.

        Parameters
        ----------
        indices : Tensor (...)
            Rows, in any shape, repeated or not. The padding -1 is refused: clamp it, and mask
            what comes back.

        Returns
        -------
        Tensor (..., d), float64
            On the indices' device.

        Raises
        ------
        ArgumentError
            Rows that do not exist.
        DataError
            A damaged chunk of a bank on disk.
        """
        checks.check_indices(indices, len(self))
        points = self._store.take(indices.reshape(-1).to(torch.int64))
        return points.reshape(*indices.shape, self.num_features).to(indices.device)

    def distribute(self, client: Client) -> FeatureBank:
        """Return a bank with the same rows, held in shards by the workers of a dask cluster.

        Every question is sent to all workers, and each answers for its own rows; this process
        receives answers, and the rows that :meth:`take` asks for. What a worker held is restored
        on others if it dies. Needs the extra ``fsboundary[distributed]``, on the workers too.

        Parameters
        ----------
        client : dask.distributed.Client
            Connected, and not asynchronous. A bank on disk is opened by the workers at its
            absolute path, so they must share its file system. A bank in memory is sent to the
            workers once, and kept here as well, in case one of them dies.

        Returns
        -------
        FeatureBank
            Its methods raise DataError if no worker is left for 30 seconds, or if workers die
            again and again.

        Raises
        ------
        ArgumentError
            No client, one that is asynchronous or closed, or dask.distributed is not installed.
        DataError
            There is no worker, or one cannot read its rows.
        """
        checks.check_client(client)
        from fsboundary.banks.distributed import distribute  # here: other banks need no dask

        return FeatureBank.of(distribute(self._store, client))

    def __repr__(self) -> str:
        kind = type(self._store).__name__.removesuffix("Store").lower()
        return f"FeatureBank(n={len(self)}, d={self.num_features}, {kind})"
