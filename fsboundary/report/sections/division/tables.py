"""Tables of the section on how the space is divided: pairs of classes, regions, and a summary."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fsboundary.core.results import Partition, RegionShares
from fsboundary.core.status import Status
from fsboundary.report.formatting import median
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.division.measure import Division

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


def _share(found: RegionShares | None, k: int) -> Tensor | None:
    return None if found is None else found.shares[k]
