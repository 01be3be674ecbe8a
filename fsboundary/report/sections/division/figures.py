"""The graph of neighbouring regions."""

from __future__ import annotations

import math
from typing import Any

from matplotlib import colormaps

from fsboundary.report.figures import INK, class_colour, new_figure, svg_uri

SIZE = (4.6, 2.75)
"""Width and height, inches."""

ACROSS = 2.4
"""Half of the figure's width in radii of the circle; the names need room."""

WIDEST = 3.5
NARROWEST = 0.8
"""Width of an edge, points; the widest is that of the largest radius."""

FAINTEST = 0.18
"""Where on the colour map an edge is without an image near it."""

FEW = 10
"""With more classes than this the lines are thinner."""

HEAD, TAIL = 7, 5
"""Of a longer name so many letters at its start and end are kept: numbers stand at the end."""


def adjacency_graph(numbers: dict[str, Any], names: list[str]) -> str:
    """Draw the classes on a circle, an edge for each facet; return a data URI.

    Its width tells the radius, its colour how many images have it as their nearest boundary.
    """
    figure, axes = new_figure(*SIZE, (0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    axes.set_xlim(-ACROSS, ACROSS)
    axes.set_ylim(*(sign * ACROSS * SIZE[1] / SIZE[0] for sign in (-1, 1)))
    classes = numbers["classes"]
    at = {k: _on_circle(place, len(classes)) for place, k in enumerate(classes)}
    edges = [cell for cell in numbers["cells"] if cell["state"] == "facet"]
    widest = numbers["radius_range"][1]
    thin = min(1.0, FEW / len(classes))
    most = max((cell["images"] for cell in edges), default=0)
    for cell in sorted(edges, key=lambda cell: cell["images"]):
        (x, y), (u, v) = (at[k] for k in cell["pair"])
        share = 1.0 if cell["unlimited"] or not widest else cell["radius"] / widest
        heat = FAINTEST + (1 - FAINTEST) * (cell["images"] / most if most else 0.0)
        axes.plot(
            [x, u],
            [y, v],
            color=colormaps["Blues"](heat),
            linewidth=thin * (NARROWEST + (WIDEST - NARROWEST) * share),
            solid_capstyle="round",
            zorder=1 + heat,
        )
    for k, (x, y) in at.items():
        axes.plot(
            x,
            y,
            "o",
            color=class_colour(k),
            markersize=9 + 6 * thin,
            markeredgecolor="white",
            zorder=3,
        )
        side = "center" if abs(x) < 0.2 else ("left" if x > 0 else "right")
        axes.text(
            1.1 * x + (0.08 if side == "left" else -0.08 if side == "right" else 0.0),
            1.22 * y if side == "center" else 1.12 * y,
            _short(names[k]),
            ha=side,
            va="center",
            color=INK,
            fontsize=11,
            parse_math=False,
        )
    return svg_uri(figure)


def _on_circle(place: int, count: int) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * place / count
    return math.cos(angle), math.sin(angle)


def _short(name: str) -> str:
    return name if len(name) <= HEAD + TAIL else f"{name[:HEAD]}…{name[-TAIL:]}"
