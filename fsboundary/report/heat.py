"""Colours of a table's cells: the nearer, the darker."""

from __future__ import annotations

import math

from matplotlib import colormaps
from matplotlib.colors import to_hex

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
