"""A result of every public class, with awkward numbers, and exact comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from fsboundary.core import results
from fsboundary.core.results import Status
from fsboundary.core.results.base.rows import dimensions

CLASSES: list[type[Any]] = [
    getattr(results, name) for name in results.__all__ if name not in ("Result", "Table")
]

SIZES = {"B": 5, "K": 5, "P": 5, "F": 5, "n": 5, "T": 2, "d": 3, "S": 2, "S_1": 1, "M": 2}
"""Sizes of dimensions by name; 2 for all others, and the number itself for numbers."""

NUMBERS = [0.1, -0.0, torch.nan, torch.inf, -torch.inf, 5e-324, -1.5]
INTEGERS = [0, 3, -1, 2**62, 1]
PLAIN = {
    "tuple[str": ("a<b>", "name\u202e"),
    "tuple[int": (1, 2),
    "Literal": "l2",
    "Status": Status.UNBOUNDED,
    "int": 3,
    "str": "<i>name\n</i>",
}


def _tensor(name: str, text: str, shape: tuple[int, ...]) -> Tensor:
    count = int(torch.tensor(shape).prod())
    at = torch.arange(count).reshape(shape)
    if "Bool[" in text:
        return at % 3 == 0
    if "Int[" not in text:
        numbers = torch.tensor(NUMBERS, dtype=torch.float64)[at % len(NUMBERS)]
        return numbers if "Float64[" in text else numbers.to(torch.bfloat16)
    if name == "facet_pairs":
        return torch.tensor([[0, 1], [0, 2], [1, 3], [2, 3], [3, 4]])
    if "status" in name or name == "stopped":
        return at % len(Status)
    if name == "verdict":
        return at % 3 - 1
    return torch.tensor(INTEGERS)[at % len(INTEGERS)]


def example(kind: type[Any], rows: int = 5) -> Any:
    """Return a result of a class with so many rows; no field is left out."""
    axis = kind._row_dimension()
    fields: dict[str, Any] = {}
    names = dimensions(kind)
    for field in dataclasses.fields(kind):
        text = str(field.type)
        if field.name in names:
            shape = [int(n) if n.isdigit() else SIZES.get(n, 2) for n in names[field.name]]
            shape = [
                rows if n == axis else size
                for n, size in zip(names[field.name], shape, strict=True)
            ]
            fields[field.name] = _tensor(field.name, text, tuple(shape))
        elif field.name == axis:
            fields[field.name] = tuple(f"kind {row}" for row in range(rows))
        else:
            fields[field.name] = next(v for start, v in PLAIN.items() if start in text)
    if "facet_pairs" in fields:
        known = fields["facet_pairs"].amax(dim=1) < rows
        fields["facet_pairs"] = fields["facet_pairs"][known]
        fields["facet_centre"] = fields["facet_centre"][: int(known.sum())]
    return kind(**fields)


def values(result: Any) -> dict[str, Any]:
    """Return the fields by name."""
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def same_bits(got: Tensor, want: Tensor) -> bool:
    """Return whether two tensors have one dtype, one shape and the same bits."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    one, other = (t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (got, want))
    return torch.equal(one, other)


def assert_equal(got: Any, want: Any) -> None:
    """Raise AssertionError unless two results are the same class with the same bits."""
    assert type(got) is type(want)
    for name, value in values(want).items():
        other = getattr(got, name)
        assert type(other) is type(value), name
        assert same_bits(other, value) if isinstance(value, Tensor) else other == value, name
