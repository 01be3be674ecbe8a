"""Where names stand in the figure of a plane: in their region, in the window, on no mark."""

from __future__ import annotations

from typing import Any

Box = tuple[float, float, float, float]
"""Left, right, bottom and top, in shares of the window."""

LETTER = 0.026
"""Width of a letter."""

HEIGHT = 0.05
"""Height of a line."""

MARK = 0.035
"""Half the width of a mark."""

SHIFTS = (0.0, 0.08, -0.08, 0.16, -0.16, 0.24, -0.24)
"""How far up a name may move, in the order in which these are tried."""


def shorten(name: str, longest: int) -> str:
    """Return `name`, cut to at most `longest` letters."""
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def place_label(
    centre: tuple[float, float], letters: int, view: dict[str, Any]
) -> tuple[float, float]:
    """Return where to centre a name of so many letters, in the window's coordinates.

    Parameters
    ----------
    centre : pair of float
        Of its region.
    letters : int
    view : dict
        With ``window`` and ``points``; the marks and the line from image to flip point are kept
        free where a small shift is enough.
    """
    left, right, bottom, top = view["window"]
    wide, high = right - left, top - bottom
    half = min(letters * LETTER / 2, 0.5)
    x = min(max((centre[0] - left) / wide, half), 1 - half)
    y = (centre[1] - bottom) / high
    marks = [((u - left) / wide, (v - bottom) / high) for u, v in view["points"].values()]
    (first, level), (last, _) = marks[:2]  # the image and its flip point, at the same height
    taken = [(u - MARK, u + MARK, v - MARK, v + MARK) for u, v in marks]
    taken.append((first, last, level - MARK / 2, level + MARK / 2))
    for shift in SHIFTS:
        box = (x - half, x + half, y + shift - HEIGHT / 2, y + shift + HEIGHT / 2)
        if box[2] >= 0 and box[3] <= 1 and not any(_meet(box, other) for other in taken):
            return left + x * wide, bottom + (y + shift) * high
    return left + x * wide, bottom + y * high


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
