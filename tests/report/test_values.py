"""Conversion of numbers from tensors to JSON and to the page."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fsboundary.plot.values import median, quantile
from fsboundary.report.formatting import cell_colour, number, plain
from fsboundary.report.page import to_json


def test_plain_is_strict_json() -> None:
    mixed = {
        1: torch.tensor([1.0, math.nan, math.inf]),
        "deep": [(math.inf, True, None, 3), {"x": torch.tensor(2)}],
        "other": torch.float64,
    }
    expected = {
        "1": [1.0, None, None],
        "deep": [[None, True, None, 3], {"x": 2}],
        "other": "torch.float64",
    }
    assert json.loads(to_json(plain(mixed))) == expected
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": math.nan})


def test_quantile_is_that_of_torch_where_all_is_finite() -> None:
    values = torch.rand(17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for share in (0.0, 0.25, 0.3, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(float(values.quantile(share)), rel=1e-14)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, math.inf], 2.0),
        ([1.0, math.inf], math.inf),
        ([math.inf, math.inf], math.inf),
        ([3.0], 3.0),
    ],
)
def test_median_with_infinity(values: list[float], expected: float) -> None:
    assert median(torch.tensor(values)) == expected


def test_median_of_nothing_is_nan() -> None:
    assert math.isnan(median(torch.tensor([])))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (1234567, "count", "1,234,567"),
        (0.0312, "index", "0.03"),
        (-0.5, "index", "−0.50"),
        (-0.001, "index", "0.00"),
        (0.9304, "percent", "93.0 %"),
        (0.99996, "percent", "&gt; 99.9 %"),
        (0.0001, "percent", "&lt; 0.1 %"),
        (1.0, "percent", "100.0 %"),
        (0.0, "percent", "0.0 %"),
        (1.728, "length", "1.73"),
        (0.0014437, "length", "0.00144"),
        (1234.5, "length", "1,234"),
        (0.0, "length", "0"),
        (3.21e-5, "length", "3.2 × 10<sup>−5</sup>"),
        (9.6e-11, "tiny", "9.6 × 10<sup>−11</sup>"),
        (0.0, "tiny", "0"),
        (2.34, "seconds", "2.3 s"),
        (0.0123, "seconds", "12 ms"),
        (None, "length", "–"),
    ],
)
def test_formats(value: float | None, kind: str, text: str) -> None:
    html = number({"a": [{"b": value}]}, "a.0.b", kind)  # type: ignore[arg-type]  # parametrized over the literal
    assert html == f'<data value="{json.dumps(value)}" data-key="a.0.b">{text}</data>'


def test_heat_darkens_towards_the_nearest() -> None:
    def brightness(style: str) -> int:
        colour = style.split("#")[1][:6]
        return sum(int(colour[i : i + 2], 16) for i in (0, 2, 4))

    shades = [brightness(cell_colour(v, 0.1, 10.0)) for v in (0.1, 0.5, 2.0, 10.0)]
    assert shades == sorted(shades)
    assert len(set(shades)) == 4
    assert "color:#ffffff" in cell_colour(0.1, 0.1, 10.0)
    assert cell_colour(1.0, 1.0, 1.0) == cell_colour(10.0, 0.1, 10.0)
    assert cell_colour(0.0, 0.0, 5.0) == cell_colour(0.1, 0.1, 10.0)
