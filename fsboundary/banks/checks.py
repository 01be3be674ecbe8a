"""Argument checks of feature banks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsboundary.core.checks import (
    check_float_tensor,
    check_instance,
    check_integer,
    check_integer_tensor,
    describe,
)
from fsboundary.core.errors import ArgumentError

if TYPE_CHECKING:
    from fsboundary.banks.bank import FeatureBank


def labels_of(bank: FeatureBank) -> Tensor:
    """Return the labels (n,) of `bank`, or raise ArgumentError if it has none."""
    labels = bank.labels
    if labels is None:
        fix = "pass labels when creating the bank"
        raise ArgumentError("labels", "a bank without labels", "a bank with labels", fix)
    return labels


def labelled_classes(bank: FeatureBank) -> list[int]:
    """Return the classes of `bank`, ascending; rows without a label (-1) are of no class."""
    labels = labels_of(bank)
    classes: list[int] = labels[labels >= 0].unique().tolist()
    return classes


def check_classes(name: str, classes: object, labels: Tensor) -> Tensor:
    """Return `classes`, an int or several, as (m,) on the device of the bank's `labels`, or raise.

    Raises
    ------
    ArgumentError
        Not integers, none, or a class that no row has; -1 is no class.
    """
    fix = "pass a class such as 3, or several such as [3, 5]"
    found = check_integer_tensor(name, classes, (), ("m",), fix=fix, nonempty=True, convert=True)
    found = found.reshape(-1).to(labels.device)
    missing = found[~torch.isin(found, labels) | (found < 0)]
    if len(missing):
        present = ", ".join(map(str, labels[labels >= 0].unique()[:20].tolist()))
        got, wanted = f"{missing.unique().tolist()}, which no row has", "classes of the bank"
        raise ArgumentError(name, got, wanted, f"choose among {present}")
    return found


def check_banks(banks: object) -> list[FeatureBank]:
    """Return the banks of a sequence, or raise ArgumentError unless it has one or more."""
    from fsboundary.banks.bank import FeatureBank  # here: it imports this module

    wanted, fix = "a sequence of FeatureBank, at least one", "pass a list such as [bank, other]"
    if not isinstance(banks, Sequence) or not banks:
        raise ArgumentError("banks", describe(banks), wanted, fix)
    return [check_instance("banks", bank, FeatureBank, wanted, fix) for bank in banks]


def check_directions(
    bank: FeatureBank, directions: object, k: object, exclude: object
) -> tuple[Tensor, Tensor | None]:
    """Return the checked arguments of :meth:`FeatureBank.price`: directions and rows to exclude."""
    width = bank.num_features
    fix = f"pass one direction per row, of the bank's width {width}; one row needs [None]"
    rows = check_float_tensor("directions", directions, ("B", width), fix=fix)
    if rows.dtype not in (torch.float32, torch.float64):
        wanted, fix = "float32 or float64", "call .float() or .double()"
        raise ArgumentError("directions", f"dtype {rows.dtype}", wanted, fix)
    check_integer("k", k)
    if exclude is None:
        return rows, None
    count, fix = len(rows), "pass rows of this bank, one or more per direction; -1: none"
    found = check_integer_tensor(
        "exclude",
        exclude,
        (count,),
        (count, "E"),
        fix=fix,
        noun="rows",
        within=range(-1, len(bank)),
        range_fix=fix,
    )
    return rows, found.reshape(count, -1 if found.numel() else 0).to(rows.device)


@contextmanager
def imports_dask(client: object) -> Iterator[None]:
    """Refuse a call with `client` if dask.distributed, imported within, is not installed."""
    try:
        yield
    except ImportError:
        got = f"a {type(client).__name__}, and dask.distributed is not installed"
        fix = "pip install 'fsboundary[distributed]', here and on the workers"
        wanted = "a connected dask.distributed.Client"
        raise ArgumentError("client", got, wanted, fix) from None
