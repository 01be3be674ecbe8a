"""Every malformed argument is rejected, with a message that says what came and how to fix it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.errors import ArgumentError
from support.banks.oracle import normal


def _with_nan(*rows: int) -> Tensor:
    points = normal(20, 3)
    points[list(rows), 1] = torch.nan
    return points


def _labelled() -> FeatureBank:
    return FeatureBank(normal(4, 3), [0, 0, 1, 5])


CREATED: list[tuple[Callable[[], object], str]] = [
    (lambda: FeatureBank([[1.0]]), "features: got a list; wanted a float tensor"),  # type: ignore[arg-type] # the wrong type is what is tested
    (lambda: FeatureBank(torch.ones(2, 3).long()), "features: got dtype torch.int64.*float"),
    (lambda: FeatureBank(torch.ones(2, 3).byte()), "features: got dtype torch.uint8.*float"),
    (lambda: FeatureBank(torch.ones(3)), r"features: got shape \(3,\).*flatten"),
    (lambda: FeatureBank(torch.ones(2, 3, 4, 4)), r"got shape \(2, 3, 4, 4\).*flatten\(1\)"),
    (lambda: FeatureBank(torch.ones(0, 3)), r"got shape \(0, 3\); wanted.*not empty.*at least one"),
    (lambda: FeatureBank(torch.ones(3, 0)), r"got shape \(3, 0\); wanted.*not empty"),
    (lambda: FeatureBank(_with_nan(7)), r"NaN or infinite numbers in row 7;.*drop these rows"),
    (lambda: FeatureBank(_with_nan(3, 1, 9)), "NaN or infinite numbers in rows 1, 3, 9;"),
    (lambda: FeatureBank(_with_nan(*range(8))), "in rows 0, 1, 2, 3, 4 and 3 more;"),
    (lambda: FeatureBank(torch.full((1, 2), torch.inf)), "NaN or infinite numbers in row 0;"),
    (lambda: FeatureBank(normal(4, 3), [0, 1]), r"labels: got shape \(2,\); wanted.*\(4,\)"),
    (lambda: FeatureBank(normal(2, 3), torch.ones(2, 1).long()), r"labels: got shape \(2, 1\)"),
    (lambda: FeatureBank(normal(2, 3), torch.ones(2)), "labels: got dtype torch.float32"),
    (lambda: FeatureBank(normal(2, 3), [True, False]), "labels: got dtype torch.bool"),
    (
        lambda: FeatureBank(normal(2, 3), ["a", "b"]),
        r"labels: got a list; wanted an integer.*\(2,\)",
    ),  # type: ignore[list-item] # the wrong type is what is tested
]
SELECTED: list[tuple[Callable[[], object], str]] = [
    (lambda: FeatureBank(normal(4, 3)).subset(labels=1), "got a bank without labels"),
    (lambda: _labelled().subset(labels=7), r"got \[7\], which no row has.*among 0, 1, 5"),
    (lambda: _labelled().subset(labels=[1, 2, 3]), r"got \[2, 3\], which no row has"),
    (lambda: _labelled().subset(labels=[]), r"labels: got shape \(0,\); wanted.*not empty"),
    (lambda: _labelled().subset(labels=1.0), "labels: got 1.0; wanted one integer"),  # type: ignore[arg-type] # the wrong type is what is tested
    (lambda: _labelled().subset(labels=True), "labels: got True; wanted one integer"),
    (lambda: _labelled().subset(labels="cat"), "labels: got 'cat'; wanted one integer"),  # type: ignore[arg-type] # the wrong type is what is tested
]
PRICED: list[tuple[Callable[[FeatureBank], object], str]] = [
    (lambda b: b.price(normal(2, 4), 1), r"directions: got shape \(2, 4\); wanted.*\(B, 3\)"),
    (lambda b: b.price(normal(3), 1), r"directions: got shape \(3,\).*\[None\]"),
    (lambda b: b.price(normal(2, 3).half(), 1), "directions: got dtype torch.float16"),
    (lambda b: b.price([[0.0] * 3], 1), "directions: got a list"),  # type: ignore[arg-type] # the wrong type is what is tested
    (lambda b: b.price(normal(2, 3), 0), "k: got 0; wanted an integer, at least 1"),
    (lambda b: b.price(normal(2, 3), True), "k: got True"),
    (lambda b: b.price(normal(2, 3), 1, torch.tensor([0])), r"exclude: got shape \(1,\)"),
    (
        lambda b: b.price(normal(2, 3), 1, torch.tensor([0, 4])),
        "exclude: got rows from 0 to 4; wanted",
    ),
    (
        lambda b: b.price(normal(2, 3), 1, torch.tensor([-2, 1])),
        "exclude: got rows from -2 to 1; wanted",
    ),
    (lambda b: b.price(normal(2, 3), 1, normal(2)), "exclude: got dtype torch.float32; wanted"),
    (lambda b: b.price(normal(2, 3), 1, [0, 1]), "exclude: got a list; wanted"),  # type: ignore[arg-type] # the wrong type is what is tested
    (lambda b: b.take(torch.tensor([0, 4, 9])), "indices: got rows from 0 to 9; wanted.*0 to 3"),
    (lambda b: b.take(torch.tensor([-1])), "indices: got rows from -1 to -1;.*leave out padding"),
    (lambda b: b.take(torch.tensor([0.0])), "indices: got dtype torch.float32"),
    (lambda b: b.take([0]), "indices: got a list"),  # type: ignore[arg-type] # the wrong type is what is tested
]


@pytest.mark.parametrize(("call", "message"), CREATED + SELECTED)
def test_malformed_banks_and_selections(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize(("call", "message"), PRICED)
def test_malformed_prices_and_rows(call: Callable[[FeatureBank], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(_labelled())
