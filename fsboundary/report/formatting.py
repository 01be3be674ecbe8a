"""How numbers look in a page. Every number carries its full value and its place in the JSON.

Colours of a table's cells: the nearer, the darker.

From tensors to plain Python numbers that strict JSON can hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

Kind = Literal["count", "share", "length", "times", "tiny", "seconds", "index"]

NOTHING = "–"
"""Stands for a number that does not exist, such as the median of no image."""


def number(numbers: dict[str, Any], path: str, kind: Kind = "count") -> Markup:
    """Return the number at `path` as HTML: ``<data value=... data-key=...>text</data>``.

    Parameters
    ----------
    numbers : dict
        What ``--json`` writes.
    path : str
        Keys and list places with dots between them, such as ``extremes.least.0.distance``.
    kind : str
        "count" with thousands separators, "share" in per cent, "length" in feature units with
        three digits, "times" the same as a multiple, "tiny" as a power of ten, "seconds", "index"
        with two decimals, such as a correlation.
    """
    value = look_up(numbers, path)
    text = Markup(NOTHING) if value is None else _FORMATS[kind](value)
    template = Markup('<data value="{}" data-key="{}">{}</data>')
    return template.format(json.dumps(value), path, text)


def look_up(numbers: Any, path: str) -> Any:
    """Return the value at a dotted `path`."""
    for key in path.split("."):
        numbers = numbers[int(key)] if isinstance(numbers, list) else numbers[key]
    return numbers


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float) -> str:
    # never round up to a perfect score, nor down to none
    text = f"{100 * value:.1f}"
    if text == "100.0" and value < 1:
        text = "> 99.9"
    elif text == "0.0" and value > 0:
        text = "< 0.1"
    return f"{text} %"


def length(value: float) -> str | Markup:
    """Return a length with three significant digits."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        return _tiny(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _times(value: float) -> str | Markup:
    return length(value) + "\N{NO-BREAK SPACE}×"


def _tiny(value: float) -> str | Markup:
    if value == 0:
        return "0"
    digits, power = f"{value:.1e}".split("e")
    return Markup("{} × 10<sup>{}</sup>").format(digits, str(int(power)).replace("-", "−"))


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


def _index(value: float) -> str:
    return f"{value:z.2f}".replace("-", "−")


_FORMATS: dict[Kind, Callable[[Any], str | Markup]] = {
    "count": _count,
    "share": _share,
    "length": length,
    "times": _times,
    "tiny": _tiny,
    "seconds": _seconds,
    "index": _index,
}


DARKEST = 0.85
"""The colour map is used up to here: beyond it red turns to brown."""


def heat_style(value: float, smallest: float, largest: float) -> str:
    """Return the CSS of a cell, on a logarithmic scale from `smallest` to `largest` > 0."""
    floor = max(smallest, largest * 1e-3, 1e-300)
    span = math.log(max(largest, floor)) - math.log(floor)
    nearness = 1 - (math.log(max(value, floor)) - math.log(floor)) / span if span > 0 else 0.0
    red, green, blue, _ = colormaps["OrRd"](DARKEST * nearness)
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    ink = "#1d2733" if brightness > 0.55 else "#ffffff"
    return f"background:{to_hex((red, green, blue))};color:{ink}"


def plain(value: Any) -> Any:
    """Return `value` with tensors as lists and numbers, and NaN and infinity as None.

    Where infinity is an answer (no other class can be reached) the caller says so beside it.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def quantile(values: Tensor, share: float) -> float:
    """Return a quantile of a 1-D tensor by linear interpolation; NaN where it is empty.

    Unlike :func:`torch.quantile` it allows +inf, which sorts last.
    """
    if len(values) == 0:
        return math.nan
    ordered = values.to(torch.float64).sort().values
    place = share * (len(ordered) - 1)
    low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    part = place - math.floor(place)
    return low if part == 0 or low == high else low + part * (high - low)


def median(values: Tensor) -> float:
    """Return the median of a 1-D tensor, which may hold +inf; NaN where it is empty."""
    return quantile(values, 0.5)
