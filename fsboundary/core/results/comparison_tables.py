"""The tables of a comparison, by columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.status import Status

if TYPE_CHECKING:
    from fsboundary.core.results.comparisons import Comparison

TableName = Literal["pairs", "reference", "images", "curves", "crossings"]
Columns: TypeAlias = dict[str, list[Any]]
Axes: TypeAlias = Mapping[str, Sequence[Any]]


def columns(comparison: Comparison, table: TableName) -> Columns:
    """Return the columns of `table` by name, all of one length.

    Raises
    ------
    ArgumentError
        No such table.
    """
    if table not in _TABLES:
        wanted = " or ".join(map(repr, _TABLES))
        raise ArgumentError("table", repr(table), wanted, "leave it out for the pairs")
    return _TABLES[table](comparison)


def write_csv(table: Columns, path: str | PathLike[str]) -> None:
    """Write `table` with a line of headings; NaN becomes an empty field."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in row])


def _table(axes: Axes, values: dict[str, Tensor]) -> Columns:
    """Return one row for each entry of the `values`, named by where it stands on the `axes`."""
    grid = torch.cartesian_prod(*(torch.arange(len(labels)) for labels in axes.values()))
    places = grid.reshape(-1, len(axes)).T.tolist()
    named = zip(axes.items(), places, strict=True)
    found = {name: [labels[p] for p in place] for (name, labels), place in named}
    return found | {name: value.reshape(-1).tolist() for name, value in values.items()}


def _pairs(c: Comparison) -> Columns:
    axes: Axes = {"metric": c.metrics, "method": c.methods, "other": c.methods}
    return _table(axes, {"mean": c.mean, "low": c.low, "high": c.high})


def _reference(c: Comparison) -> Columns:
    if not c.reference:
        got, wanted = "a comparison without a reference", "one of the methods as reference"
        fix = "call compare with reference= a name of the attributions"
        raise ArgumentError("table='reference'", got, wanted, fix)
    place = c.methods.index(c.reference)
    axes: Axes = {"metric": c.metrics, "method": c.methods}
    values = {"mean": c.mean, "low": c.low, "high": c.high}
    return _table(axes, {name: value[:, place] for name, value in values.items()})


def _images(c: Comparison) -> Columns:
    images = range(c.per_image.shape[1])
    axes: Axes = {"metric": c.metrics, "image": images, "method": c.methods, "other": c.methods}
    return _table(axes, {"value": c.per_image})


def _curves(c: Comparison) -> Columns:
    images = range(c.status.shape[1])
    parts = []
    for name, at, values in (("deletion", c.moved, c.deletion), ("reach", c.travelled, c.reach)):
        axes: Axes = {
            "curve": [name],
            "method": c.methods,
            "image": images,
            "position": at.tolist(),
        }
        parts.append(_table(axes, {"margin": values}))
    return {name: parts[0][name] + parts[1][name] for name in parts[0]}


def _crossings(c: Comparison) -> Columns:
    axes: Axes = {"method": c.methods, "image": range(c.status.shape[1])}
    distance = c.flip_distance.expand_as(c.crossing)
    table = _table(axes, {"crossing": c.crossing, "flip_distance": distance})
    return table | {"status": [Status(code).name for code in c.status.reshape(-1).tolist()]}


_TABLES: dict[str, Callable[[Comparison], Columns]] = {
    "pairs": _pairs,
    "reference": _reference,
    "images": _images,
    "curves": _curves,
    "crossings": _crossings,
}
