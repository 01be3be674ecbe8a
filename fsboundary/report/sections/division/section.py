"""How the head divides the space into regions, and what is guaranteed in them."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from fsboundary.boundaries.ties import top_classes
from fsboundary.core.status import Status
from fsboundary.regions import coverage_shares
from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.division.figures import adjacency_graph
from fsboundary.report.sections.division.measure import Division, measure_division
from fsboundary.report.sections.division.tables import NEARLY, pair_cells, region_rows, summary
from fsboundary.report.sections.extremes import image_facts

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
    found, clearance = coverage_shares(d.covered), d.clearance
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
                "share": found.share[place],
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
