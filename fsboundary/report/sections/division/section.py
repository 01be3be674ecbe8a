"""The graph of neighbouring regions.

Tables of the section on how the space is divided: pairs of classes, regions, and a summary.

How the head divides the space into regions, and what is guaranteed in them.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, final

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.boundaries.ties import top_classes
from fsboundary.core.results import Partition, RegionFractions
from fsboundary.core.status import Status
from fsboundary.regions import coverage_fractions
from fsboundary.report.figures import INK, class_colour, new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import median, plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.division.measure import Division, measure_division
from fsboundary.report.sections.extremes import image_facts

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


NEARLY = 0.99
"""A ball this close to as wide as the box lets it be counts as limited by the box."""

FACET, NONE, SAME, OPEN = "facet", "none", "same", "undecided"


def summary(p: Partition, half_side: float | None) -> dict[str, Any]:
    """Return how many facets and regions there are of each sort, and how wide the facets are.

    `half_side` is half of the narrowest side of the box, None without a box.
    """
    status = p.status[torch.triu(torch.ones_like(p.adjacency), 1)]
    radius = p.facet_radius[p.facet_pairs[:, 0], p.facet_pairs[:, 1]]
    centre = p.chebyshev_radius[p.nonempty]
    wide = math.inf if half_side is None else NEARLY * half_side
    return {
        "pairs": len(status),
        "facets": len(radius),
        "none": int((status == Status.INFEASIBLE).sum()),
        "same": int((status == Status.DUPLICATE).sum()),
        "undecided": int((status == Status.UNDECIDED).sum()),
        "regions": len(p.nonempty),
        "nonempty": int(p.nonempty.sum()),
        "empty": int((p.region_status == Status.INFEASIBLE).sum()),
        "bounded": int(p.bounded.sum()),
        "unbounded": int((p.bounded_status == Status.UNBOUNDED).sum()),
        "unlimited": int(radius.isinf().sum()),
        "smallest": radius.min() if len(radius) else None,
        "median": median(radius),
        "largest": radius.max() if len(radius) else None,
        "facets_limited_by_box": int((radius >= wide).sum()) if half_side is not None else None,
        "regions_limited_by_box": int((centre >= wide).sum()) if half_side is not None else None,
    }


def pair_cells(m: Measurements, d: Division) -> list[dict[str, Any]]:
    """Return one entry for each pair i < j of the classes shown.

    ``images`` counts those of either class whose nearest boundary is with the other one.
    """
    nearest, predicted = m.nearest.target[:, 0], m.batch.predicted
    near = m.nearest.ok[:, 0] & (nearest >= 0) & m.nearest.distance[:, 0].isfinite()
    place = {k: number for number, k in enumerate(d.classes)}
    cells = []
    for i, j in combinations(m.shown, 2):
        a, b = place[i], place[j]
        met = (predicted == i) & (nearest == j) | (predicted == j) & (nearest == i)
        radius = d.boxed.facet_radius[a, b]
        cells.append(
            {
                "pair": [i, j],
                "state": _state(d.boxed, a, b),
                "whole": _state(d.whole, a, b),
                "radius": radius if radius.isfinite() else None,
                "unlimited": bool(radius.isinf()),
                "angle": _degrees(d.angles[i, j]),
                "images": int((met & near).sum()),
            }
        )
    return cells


def _state(p: Partition, a: int, b: int) -> str:
    if p.adjacency[a, b]:
        return FACET
    code = int(p.status[a, b])
    return {int(Status.INFEASIBLE): NONE, int(Status.DUPLICATE): SAME}.get(code, OPEN)


def _degrees(angle: Tensor) -> Tensor | None:
    return None if angle.isnan() else angle.rad2deg()


def region_rows(m: Measurements, d: Division) -> list[dict[str, Any]]:
    """Return one entry for each class shown."""
    place = {k: number for number, k in enumerate(d.classes)}
    rows = []
    for k in m.shown:
        a = place[k]
        radius = d.boxed.chebyshev_radius[a]
        rows.append(
            {
                "class": k,
                "neighbours": int(d.boxed.adjacency[a].sum()),
                "bounded": Status(int(d.whole.bounded_status[a])).name,
                "radius": radius,
                "unlimited": bool(radius.isinf()),
                "drawn": _share(d.drawn, k),
                "error": None if d.drawn is None else d.drawn.standard_error[k],
                "training": _share(d.training, k),
                "images": _share(d.images, k),
                "clearance": None if d.clearance is None else d.clearance[k],
            }
        )
    return rows


def _share(found: RegionFractions | None, k: int) -> Tensor | None:
    return None if found is None else found.fractions[k]


MOST_NODES = 20
"""With more classes a table takes the place of the graph."""

LISTED = 5
"""So many thinnest facets and narrowest regions are named."""

UNCLEAR = 6
"""So many ambiguous images are shown."""

SIDE = 112
"""Longer side of the thumbnails, pixels."""


@final
class DivisionSection(Section):
    """Neighbours, angles, sizes, paths, guaranteed shares and ambiguous images."""

    name = "division"
    title = "How the space is divided"
    menu = "Regions"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers; without training images those over the whole domain."""
        m, d = measured, measure_division(measured)
        cells = pair_cells(m, d)
        radii = [c["radius"] for c in cells if c["radius"] is not None]
        angles = [c["angle"] for c in cells if c["angle"] is not None]
        numbers: dict[str, Any] = {
            "classes": m.shown,
            "omitted": m.head.num_classes - len(m.shown),
            "alone": d.alone,
            "graph": len(m.shown) <= MOST_NODES,
            "box": d.box is not None,
            "half_side": _half_side(d),
            "counted_out": _must_be_unbounded(m),
            "whole": summary(d.whole, None),
            "boxed": summary(d.boxed, _half_side(d)),
            "cells": cells,
            "radius_range": [min(radii, default=None), max(radii, default=None)],
            "angle_range": [min(angles, default=None), max(angles, default=None)],
            "even_angle": torch.tensor(-1 / (m.head.num_classes - 1)).double().acos().rad2deg(),
            "regions": region_rows(m, d),
            "samples": None if d.drawn is None else d.drawn.samples,
            "thinnest": _thinnest(d),
            "narrowest": _narrowest(d),
            "busiest": _busiest(cells),
            "path": _path(m, d),
            "coverage": _covered(m, d),
            "ambiguous": _ambiguous(m, d),
        }
        path = numbers["path"]
        shown = [e["row"] for e in numbers["ambiguous"]["images"]]
        shown += [path["start"]["row"], path["end"]["row"]] if path else []
        pictures = {str(row): thumbnail(m.subject.images[row], SIDE) for row in shown}
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the graph of neighbours, unless a table takes its place."""
        return {"graph": adjacency_graph(numbers, names)} if numbers["graph"] else {}


def _half_side(d: Division) -> float | None:
    """Return half of the box's narrowest side that is more than a point."""
    if d.box is None:
        return None
    low, high = d.box.limits(d.boxed.chebyshev_centre)
    sides = (high - low)[high > low]
    return float(sides.min()) / 2


def _must_be_unbounded(m: Measurements) -> bool:
    """Return whether counting alone proves every non-empty region unbounded."""
    return m.head.domain.kind == "unbounded" and m.head.num_features > m.head.num_classes - 1


def _thinnest(d: Division) -> list[dict[str, Any]]:
    pairs = d.boxed.thinnest(LISTED)
    radius = d.boxed.facet_radius[pairs[:, 0], pairs[:, 1]]
    limits = _limited_by_box(radius, d)
    return [
        {"pair": [d.classes[i], d.classes[j]], "radius": r, "by_box": limited}
        for (i, j), r, limited in zip(pairs.tolist(), radius.tolist(), limits, strict=True)
        if r < math.inf
    ]


def _narrowest(d: Division) -> list[dict[str, Any]]:
    found = d.boxed.narrowest(LISTED)
    radius = d.boxed.chebyshev_radius[found]
    limits = _limited_by_box(radius, d)
    return [
        {"class": d.classes[k], "radius": r, "by_box": limited}
        for k, r, limited in zip(found.tolist(), radius.tolist(), limits, strict=True)
        if r < math.inf
    ]


def _limited_by_box(radius: Tensor, d: Division) -> list[bool]:
    half = _half_side(d)
    wide = math.inf if half is None else NEARLY * half
    found: list[bool] = (radius >= wide).tolist()
    return found


def _busiest(cells: list[dict[str, Any]]) -> list[int]:
    """Return the places of the cells with most images near the boundary."""
    order = sorted(range(len(cells)), key=lambda place: -cells[place]["images"])
    return [place for place in order[:LISTED] if cells[place]["images"]]


def _path(m: Measurements, d: Division) -> dict[str, Any] | None:
    if d.paths is None:
        return None
    counts = d.paths.met.bincount().tolist()
    edges = [0.0, *d.paths.crossings, 1.0]
    return {
        "pairs": len(d.paths.met),
        "met": [{"classes": k, "pairs": n} for k, n in enumerate(counts) if n],
        "start": image_facts(m, d.paths.start),
        "end": image_facts(m, d.paths.end),
        "stretches": [
            {"class": k, "from": edges[place], "to": edges[place + 1]}
            for place, k in enumerate(d.paths.classes)
        ],
    }


def _covered(m: Measurements, d: Division) -> dict[str, Any] | None:
    if d.covered is None or not len(d.rows):
        return None
    found, clearance = coverage_fractions(d.covered), d.clearance
    assert clearance is not None  # it comes with the coverage
    known = clearance[clearance.isfinite()]
    return {
        "images": len(d.rows),
        "undecided": int((d.covered.status == Status.UNDECIDED).sum()),
        "clearance": [known.min(), known.max()] if len(known) else None,
        "labels": m.subject.labels is not None,
        "kinds": {
            kind: {
                "covered": found.covered[place],
                "fraction": found.fraction[place],
                "accuracy_covered": found.accuracy_covered[place],
                "accuracy_uncovered": found.accuracy_uncovered[place],
            }
            for place, kind in enumerate(found.kinds)
        },
    }


def _ambiguous(m: Measurements, d: Division) -> dict[str, Any]:
    value = d.ambiguity
    order = torch.where(value.isfinite(), value, torch.inf).argsort(stable=True)[:UNCLEAR]
    order = order[value[order].isfinite()]
    rows = d.rows[order]
    top = top_classes(m.head, m.batch.features[rows], d.tied)
    return {
        "tied": d.tied,
        "asked": len(value),
        "cannot": int(value.isinf().sum()),
        "unanswered": int(value.isnan().sum()),
        "against_training": d.training is not None,
        "images": [
            {**image_facts(m, row), "value": v, "classes": classes}
            for row, v, classes in zip(rows.tolist(), value[order].tolist(), top, strict=True)
        ],
    }
