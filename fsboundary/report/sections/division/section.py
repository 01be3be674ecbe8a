"""Section on the decision regions: neighbours, sizes, guarantees and ambiguous images."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.boundaries.ties import top_classes
from fsboundary.core.results import Partition, RegionFractions
from fsboundary.core.status import Status
from fsboundary.plot.neighbours import count_between, draw_graph
from fsboundary.plot.style import REPORT
from fsboundary.plot.values import median
from fsboundary.regions import coverage_fractions
from fsboundary.report.figures import new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.division.measure import Division, measure_division
from fsboundary.report.sections.extremes import image_facts

SIZE = (4.6, 2.75)
"""Width and height, inches."""


def _draw_adjacency_graph(numbers: dict[str, Any], names: list[str]) -> str:
    """Draw the classes on a circle, with an edge for each facet; return a data URI.

    The width of an edge encodes the facet radius, its colour the number of images whose nearest
    boundary it is.
    """
    figure, axes = new_figure(*SIZE, (0.0, 0.0, 1.0, 1.0))
    edges = [cell for cell in numbers["cells"] if cell["state"] == "facet"]
    colours = {k: REPORT.class_colour(k) for k in numbers["classes"]}
    height = SIZE[1] / SIZE[0]
    draw_graph(axes, numbers["classes"], edges, names, colours, REPORT, height=height)
    return svg_uri(figure)


NEARLY = 0.99
"""A ball counts as limited by the box from this fraction of the largest radius that fits."""

FACET, NONE, SAME, OPEN = "facet", "none", "same", "undecided"


def summary(p: Partition, half_side: float | None) -> dict[str, Any]:
    """Return the numbers of facets and regions of each kind, and the widths of the facets.

    `half_side` is half the narrowest side of the box, or None without a box.
    """
    status = p.status[torch.triu(torch.ones_like(p.adjacency), 1)]
    pairs = measured_facets(p)
    radius = p.facet_radius[pairs[:, 0], pairs[:, 1]]
    region_radius = p.chebyshev_radius[p.nonempty]
    limit = math.inf if half_side is None else NEARLY * half_side
    return {
        "pairs": len(status),
        "facets": len(p.facet_pairs),
        "measured": len(radius),
        "none": int((status == Status.INFEASIBLE).sum()),
        "same": int((status == Status.DUPLICATE).sum()),
        "undecided": int((status == Status.UNDECIDED).sum()),
        "regions": len(p.nonempty),
        "nonempty": int(p.nonempty.sum()),
        "empty": int((p.region_status == Status.INFEASIBLE).sum()),
        "bounded": int(p.bounded.sum()),
        "unbounded": int((p.bounded_status == Status.UNBOUNDED).sum()),
        "infinite": int(radius.isinf().sum()),
        "smallest": radius.min() if len(radius) else None,
        "median": median(radius),
        "largest": radius.max() if len(radius) else None,
        "facets_limited_by_box": None if half_side is None else int((radius >= limit).sum()),
        "regions_limited_by_box": (
            None if half_side is None else int((region_radius >= limit).sum())
        ),
    }


def measured_facets(p: Partition) -> Tensor:
    """Return the pairs (P, 2) whose facet radius is known, not only bounded by a point of it."""
    status = p.status[p.facet_pairs[:, 0], p.facet_pairs[:, 1]]
    known = torch.isin(status, torch.tensor([Status.CONVERGED, Status.UNBOUNDED]))
    return p.facet_pairs[known]


def pair_cells(m: Measurements, d: Division) -> list[dict[str, Any]]:
    """Return one entry per pair i < j of the classes shown.

    ``images`` counts the images of either class whose nearest boundary is with the other class.
    """
    nearest, predicted = m.nearest.target[:, 0], m.batch.predicted
    known = m.nearest.ok[:, 0] & (nearest >= 0) & m.nearest.distance[:, 0].isfinite()
    index = {k: number for number, k in enumerate(d.classes)}
    cells = []
    for i, j in combinations(m.shown, 2):
        a, b = index[i], index[j]
        radius = d.boxed.facet_radius[a, b]
        cells.append(
            {
                "pair": [i, j],
                "state": _state(d.boxed, a, b),
                "whole": _state(d.whole, a, b),
                "radius": radius if radius.isfinite() else None,
                "infinite": bool(radius.isinf()),
                "angle": _degrees(d.angles[i, j]),
                "images": count_between(predicted, nearest, known, i, j),
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


def _region_rows(m: Measurements, d: Division) -> list[dict[str, Any]]:
    """Return one entry per class shown."""
    index = {k: number for number, k in enumerate(d.classes)}
    rows = []
    for k in m.shown:
        a = index[k]
        radius = d.boxed.chebyshev_radius[a]
        rows.append(
            {
                "class": k,
                "neighbours": int(d.boxed.adjacency[a].sum()),
                "bounded": Status(int(d.whole.bounded_status[a])).name,
                "radius": radius,
                "infinite": bool(radius.isinf()),
                "box_fraction": _fraction(d.box_fractions, k),
                "box_standard_error": (
                    None if d.box_fractions is None else d.box_fractions.standard_error[k]
                ),
                "training_fraction": _fraction(d.training_fractions, k),
                "image_fraction": _fraction(d.image_fractions, k),
                "clearance": None if d.clearance is None else d.clearance[k],
            }
        )
    return rows


def _fraction(fractions: RegionFractions | None, k: int) -> Tensor | None:
    return None if fractions is None else fractions.fractions[k]


MAX_NODES = 20
"""With more classes than this, a table replaces the graph."""

NUM_LISTED = 5
"""Number of thinnest facets and of narrowest regions that are listed."""

NUM_AMBIGUOUS = 6
"""Number of ambiguous images that are shown."""

SIDE = 112
"""Longer side of the thumbnails, pixels."""


@final
class DivisionSection(Section):
    """Neighbours, angles, sizes, paths, guaranteed fractions and ambiguous images."""

    name = "division"
    title = "Decision regions"
    menu = "Regions"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers; without training images, only those of the whole domain."""
        m, d = measured, measure_division(measured)
        cells = pair_cells(m, d)
        radii = [c["radius"] for c in cells if c["radius"] is not None]
        angles = [c["angle"] for c in cells if c["angle"] is not None]
        numbers: dict[str, Any] = {
            "classes": m.shown,
            "omitted": m.head.num_classes - len(m.shown),
            "restricted": d.restricted,
            "graph": len(m.shown) <= MAX_NODES,
            "box": d.box is not None,
            "half_side": _half_side(d),
            "unbounded_by_counting": _unbounded_by_counting(m),
            "whole": summary(d.whole, None),
            "boxed": summary(d.boxed, _half_side(d)),
            "cells": cells,
            "radius_range": [min(radii, default=None), max(radii, default=None)],
            "angle_range": [min(angles, default=None), max(angles, default=None)],
            "simplex_angle": torch.tensor(-1 / (m.head.num_classes - 1)).double().acos().rad2deg(),
            "regions": _region_rows(m, d),
            "samples": None if d.box_fractions is None else d.box_fractions.samples,
            "thinnest": _thinnest(d),
            "narrowest": _narrowest(d),
            "busiest": _busiest(cells),
            "path": _path_numbers(m, d),
            "coverage": _coverage_numbers(m, d),
            "ambiguous": _ambiguous_numbers(m, d),
        }
        path = numbers["path"]
        shown = [e["row"] for e in numbers["ambiguous"]["images"]]
        shown += [path["start"]["row"], path["end"]["row"]] if path else []
        pictures = {str(row): thumbnail(m.subject.images[row], SIDE) for row in shown}
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the graph of neighbours, unless a table replaces it."""
        return {"graph": _draw_adjacency_graph(numbers, names)} if numbers["graph"] else {}


def _half_side(d: Division) -> float | None:
    """Return half the narrowest side of the box, ignoring sides of length 0."""
    if d.box is None:
        return None
    low, high = d.box.limits(d.boxed.chebyshev_centre)
    sides = (high - low)[high > low]
    return float(sides.min()) / 2


def _unbounded_by_counting(m: Measurements) -> bool:
    """Return whether the numbers of classes and features prove every region unbounded."""
    return m.head.domain.kind == "unbounded" and m.head.num_features > m.head.num_classes - 1


def _thinnest(d: Division) -> list[dict[str, Any]]:
    pairs = measured_facets(d.boxed)
    radius = d.boxed.facet_radius[pairs[:, 0], pairs[:, 1]]
    order = radius.argsort(stable=True)[:NUM_LISTED]
    pairs, radius = pairs[order], radius[order]
    limits = _limited_by_box(radius, d)
    return [
        {"pair": [d.classes[i], d.classes[j]], "radius": r, "limited_by_box": limited}
        for (i, j), r, limited in zip(pairs.tolist(), radius.tolist(), limits, strict=True)
        if r < math.inf
    ]


def _narrowest(d: Division) -> list[dict[str, Any]]:
    classes = d.boxed.narrowest(NUM_LISTED)
    radius = d.boxed.chebyshev_radius[classes]
    limits = _limited_by_box(radius, d)
    return [
        {"class": d.classes[k], "radius": r, "limited_by_box": limited}
        for k, r, limited in zip(classes.tolist(), radius.tolist(), limits, strict=True)
        if r < math.inf
    ]


def _limited_by_box(radius: Tensor, d: Division) -> list[bool]:
    half = _half_side(d)
    limit = math.inf if half is None else NEARLY * half
    limited: list[bool] = (radius >= limit).tolist()
    return limited


def _busiest(cells: list[dict[str, Any]]) -> list[int]:
    """Return the indices of the cells with the most images near the boundary."""
    order = sorted(range(len(cells)), key=lambda index: -cells[index]["images"])
    return [index for index in order[:NUM_LISTED] if cells[index]["images"]]


def _path_numbers(m: Measurements, d: Division) -> dict[str, Any] | None:
    if d.paths is None:
        return None
    counts = d.paths.num_classes.bincount().tolist()
    edges = [0.0, *d.paths.crossings, 1.0]
    return {
        "pairs": len(d.paths.num_classes),
        "class_counts": [{"classes": k, "pairs": n} for k, n in enumerate(counts) if n],
        "start": image_facts(m, d.paths.start),
        "end": image_facts(m, d.paths.end),
        "segments": [
            {"class": k, "from": edges[index], "to": edges[index + 1]}
            for index, k in enumerate(d.paths.classes)
        ],
    }


def _coverage_numbers(m: Measurements, d: Division) -> dict[str, Any] | None:
    if d.coverage is None or not len(d.rows):
        return None
    fractions, clearance = coverage_fractions(d.coverage), d.clearance
    assert clearance is not None  # computed together with the coverage
    known = clearance[clearance.isfinite()]
    return {
        "images": len(d.rows),
        "undecided": int((d.coverage.status == Status.UNDECIDED).sum()),
        "clearance": [known.min(), known.max()] if len(known) else None,
        "labels": bool(m.labelled[d.rows].any()),
        "kinds": {
            kind: {
                "covered": fractions.covered[index],
                "fraction": fractions.fraction[index],
                "accuracy_covered": fractions.accuracy_covered[index],
                "accuracy_uncovered": fractions.accuracy_uncovered[index],
            }
            for index, kind in enumerate(fractions.kinds)
        },
    }


def _ambiguous_numbers(m: Measurements, d: Division) -> dict[str, Any]:
    value = d.ambiguity
    order = torch.where(value.isfinite(), value, torch.inf).argsort(stable=True)[:NUM_AMBIGUOUS]
    order = order[value[order].isfinite()]
    rows = d.rows[order]
    top = top_classes(m.head, m.batch.features[rows], d.num_tied)
    return {
        "num_tied": d.num_tied,
        "evaluated": len(value),
        "cannot_tie": int(value.isinf().sum()),
        "uncertified": int(value.isnan().sum()),
        "relative_to_training": d.training_fractions is not None,
        "images": [
            {**image_facts(m, row), "ambiguity": v, "classes": classes}
            for row, v, classes in zip(rows.tolist(), value[order].tolist(), top, strict=True)
        ],
    }
