"""Formatting of numbers and table cells for the page, and conversion of tensors for strict JSON.

Every number on the page carries its full value and its path in the JSON.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal

from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

from fsboundary.core.files import printable
from fsboundary.plot.matrices import nearness

Kind = Literal["count", "percent", "length", "times", "tiny", "seconds", "index"]

MISSING = "–"
"""Text shown for a number that does not exist, such as the median of an empty set."""


def number(numbers: dict[str, Any], path: str, kind: Kind = "count") -> Markup:
    """Return the number at `path` as HTML: ``<data value=... data-key=...>text</data>``.

    Parameters
    ----------
    numbers : dict
        The numbers that ``--json`` writes.
    path : str
        Keys and list indices separated by dots, such as ``extremes.least.0.distance``.
    kind : str
        Format: "count" with thousands separators, "percent" for a fraction in per cent, "length"
        with three significant digits, "times" for a multiple with three significant digits, "tiny"
        as a power of ten, "seconds", or "index" with two decimals, such as a correlation.
    """
    value = look_up(numbers, path)
    text = Markup(MISSING) if value is None else _FORMATS[kind](value)
    template = Markup('<data value="{}" data-key="{}">{}</data>')
    return template.format(json.dumps(value), path, text)


def look_up(numbers: Any, path: str) -> Any:
    """Return the value at a dotted `path`."""
    for key in path.split("."):
        numbers = numbers[int(key)] if isinstance(numbers, list) else numbers[key]
    return numbers


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    # do not round up to 100 % or down to 0 %
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
    "percent": _percent,
    "length": length,
    "times": _times,
    "tiny": _tiny,
    "seconds": _seconds,
    "index": _index,
}


DARKEST = 0.85
"""Upper end of the colour map in use; beyond it, red turns to brown."""


def cell_colour(value: float, smallest: float, largest: float) -> str:
    """Return the CSS of a table cell, on a logarithmic scale from `smallest` to `largest` > 0.

    Smaller values are darker.
    """
    colour = colormaps["OrRd"](DARKEST * nearness(value, smallest, largest))[:3]
    # of black and white, one has a contrast of at least 4.58 with any colour
    ink = "#000000" if luminance(colour) > EQUAL_CONTRAST else "#ffffff"
    return f"background:{to_hex(colour)};color:{ink}"


EQUAL_CONTRAST = (1.05 * 0.05) ** 0.5 - 0.05
"""Luminance that has the same contrast with black as with white: 1.05 / (l + 0.05) = (l + 0.05) /
0.05."""


def luminance(colour: tuple[float, ...]) -> float:
    """Return the relative luminance of red, green and blue in [0, 1], as WCAG defines it."""
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def plain(value: Any) -> Any:
    """Return `value` with tensors as lists and numbers, and NaN and infinity as None.

    Where infinity is a valid result (no other class can be reached), the caller reports it in a
    separate entry. Text is made printable, and other objects are described without addresses.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {printable(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    return printable(value if isinstance(value, str) else _describe(value))


def _describe(value: object) -> str:
    """Return a text of an object that is the same in every run, whatever its methods do."""
    try:
        if inspect.isroutine(value) or isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))
    except Exception:  # foreign code: a bad __repr__ must not break a report
        return f"an object of type {type(value).__name__}"
