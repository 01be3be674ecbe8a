"""Streams of rows from which banks are made, in memory or on disk, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import final

import torch
from torch import Tensor

from fsboundary.banks.memory import MemoryStore
from fsboundary.banks.store import BankInfo, Store
from fsboundary.core.checks import batch_features, check_float_tensor, check_labels
from fsboundary.core.errors import ArgumentError, DataError, HeadMismatchError
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import finite_rows

Block = tuple[Tensor, Tensor | None, Tensor]
"""Features (m,d), labels (m,) or None, and ids (m,) of consecutive rows."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes in which a bank may store its points."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class RowStream:
    """Rows that are read a block at a time, in order.

    Attributes
    ----------
    num_features : int
        Width d.
    dtype : torch.dtype
        Dtype in which the rows are stored; the blocks may have another one.
    labelled : bool
        Whether there are labels.
    info : BankInfo
        Origin of the features.
    blocks : callable
        Function that returns an iterator over the blocks; a block may be overwritten by the next.
    """

    num_features: int
    dtype: torch.dtype
    labelled: bool
    info: BankInfo
    blocks: Callable[[], Iterator[Block]]

    def rounded_blocks(self) -> Iterator[Block]:
        """Yield the blocks in the dtype of the stream.

        Raises
        ------
        DataError
            A number is not finite, or beyond the range of the dtype.
        """
        start = 0
        for features, labels, ids in self.blocks():
            yield round_features(features, self.dtype, start), labels, ids
            start += len(features)

    def load(self) -> MemoryStore:
        """Return all rows in memory, on the device of the first block."""
        features, labels, ids = list[Tensor](), list[Tensor](), list[Tensor]()
        for points, classes, numbers in self.rounded_blocks():
            device = features[0].device if features else points.device
            features.append(points.to(device, copy=True))
            ids.append(numbers.to(device, copy=True))
            if classes is not None:
                labels.append(classes.to(device, copy=True))
        together = torch.cat(labels) if self.labelled else None
        return MemoryStore(torch.cat(features), together, torch.cat(ids), self.info)


def check_dtype(dtype: object) -> torch.dtype | None:
    """Return `dtype`, or raise ArgumentError unless it is None or a dtype that a bank may have."""
    if dtype is None:
        return None
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        wanted = f"None or one of {', '.join(map(str, DTYPES))}"
        raise ArgumentError("dtype", repr(dtype), wanted, "pass torch.float32, for example")
    return dtype


def stored_dtype(dtype: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """Return the dtype in which features of `dtype` are stored: float64 is kept by default."""
    return wanted or (dtype if dtype == torch.float64 else torch.float32)


def round_features(features: Tensor, dtype: torch.dtype, start: int = 0) -> Tensor:
    """Return `features` (m,d), rows from `start` on, in `dtype`; the same tensor if it has it.

    Raises
    ------
    DataError
        A number is not finite, or beyond the range of the dtype; the message lists the rows.
    """
    rounded = features.to(dtype)
    bad = (~finite_rows(rounded)).nonzero()[:, 0]
    if len(bad):
        shown = list_rows(bad + start)
        if bool(torch.isfinite(features[bad]).all()):
            raise DataError(
                f"features: numbers beyond the range of {dtype}, whose largest is "
                f"{torch.finfo(dtype).max:.5g}, in rows {shown}. Store them with another dtype"
            )
        raise DataError(f"features: NaN or infinite numbers in rows {shown}. Leave them out")
    return rounded


def list_rows(rows: Tensor) -> str:
    """Return the first twenty row numbers as text."""
    return ", ".join(map(str, rows[:20].tolist())) + (", .." if len(rows) > 20 else "")


def store_points(features: object, labels: object, dtype: object) -> MemoryStore:
    """Return a store of copies of `features` (n,d), the arguments of a bank, or raise."""
    wanted = check_dtype(dtype)
    info = BankInfo()
    if isinstance(features, FeatureBatch):
        info = BankInfo(fingerprint=features.fingerprint)
    checked = check_float_tensor(
        "features",
        batch_features(features),
        ("n", "d"),
        fix="pass one row per point, at least one, as in images.flatten(1)",
        nonempty=True,
        finite_fix="drop these rows or fix their examples",
    )
    stored = stored_dtype(checked.dtype, wanted)
    same = checked.dtype == stored  # finite, as was checked, unless they are rounded
    points = (checked.clone() if same else round_features(checked, stored)).contiguous()
    classes = None
    if labels is not None:
        classes = check_labels(labels, len(points)).to(points.device)
    ids = torch.arange(len(points), device=points.device)
    return MemoryStore(points, classes, ids, info)


def rows_of_store(store: Store) -> RowStream:
    """Return the rows of a store, with their ids."""

    def blocks() -> Iterator[Block]:
        labels, ids = store.labels(), store.ids()
        for start, chunk in store.chunks():
            part = slice(start, start + len(chunk))
            yield chunk, None if labels is None else labels[part], ids[part]

    labelled = store.labels() is not None
    return RowStream(store.num_features, store.dtype, labelled, store.info, blocks)


def merge(streams: Sequence[RowStream], dtype: torch.dtype | None) -> RowStream:
    """Return the rows of all streams, one after the other, with new ids.

    Raises
    ------
    ArgumentError
        Streams of different widths, or labels only in some of them.
    HeadMismatchError
        Streams of different heads, extractors or layers.
    """
    first = streams[0]
    for number, other in enumerate(streams):
        if other.num_features != first.num_features:
            got = f"width {other.num_features} at {number}, after {first.num_features}"
            fix = "merge features of one layer"
            raise ArgumentError("banks", got, "banks of one width", fix)
        if other.labelled != first.labelled:
            labels = [f"{'' if one.labelled else 'no '}labels" for one in (other, first)]
            got = f"{labels[0]} at {number}, after {labels[1]}"
            fix = "pass labels for every bank; -1 stands for no label"
            raise ArgumentError("banks", got, "labels in all banks or in none", fix)
    prints = {one.info.fingerprint for one in streams} - {""}
    if len(prints) > 1:
        raise HeadMismatchError(
            f"banks: of different heads, extractors or layers: their fingerprints are "
            f"{', '.join(sorted(prints))}. Extract all with the same FeatureSpace, or, if you know "
            "that they are comparable, pass FeatureBank(bank.features, bank.labels)"
        )

    def blocks() -> Iterator[Block]:
        start = 0
        for stream in streams:
            for features, labels, ids in stream.blocks():
                yield features, labels, torch.arange(start, start + len(ids), device=ids.device)
                start += len(ids)

    known = all(stream.info == first.info for stream in streams)
    dtype = dtype or reduce(torch.promote_types, (stream.dtype for stream in streams))
    info = first.info if known else BankInfo()
    return RowStream(first.num_features, dtype, first.labelled, info, blocks)
