"""What the place of an image, inside or outside, near or far, says of errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.report.formatting import median
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.hull.measure import Hulls

QUARTERS = ("nearest", "second", "third", "farthest")
"""Of the images outside, by their distance."""


def errors_by_distance(m: Measurements, hulls: Hulls, scale: float) -> dict[str, Any] | None:
    """Return the error rate inside the hull, and outside by quarters of the distance."""
    if m.subject.labels is None:
        return None
    rows, distance = hulls.images.rows, hulls.images.distance / scale
    wrong = m.batch.predicted[rows] != m.subject.labels[rows]
    order = distance.argsort(stable=True)
    inside = order[distance[order] == 0]
    outside = order[distance[order] > 0]
    parts = dict(zip(QUARTERS, outside.tensor_split(len(QUARTERS)), strict=True))
    return {
        "median_if_right": median(distance[~wrong & ~distance.isnan()]),
        "median_if_wrong": median(distance[wrong & ~distance.isnan()]),
        "quarters": [
            {
                "name": name,
                "images": len(part),
                "from": distance[part].min(),
                "to": distance[part].max(),
                **_mistakes(wrong[part]),
            }
            for name, part in ({"inside": inside} | parts).items()
            if len(part)
        ],
    }


def _mistakes(wrong: Tensor) -> dict[str, Any]:
    rate = float(wrong.sum()) / len(wrong) if len(wrong) else None
    return {"wrong": int(wrong.sum()), "error_rate": rate}


def nearest_class(m: Measurements, hulls: Hulls) -> dict[str, Any] | None:
    """Return how often the class with the nearest hull is the one that the model names."""
    if hulls.class_distance is None:
        return None
    rows, labels = hulls.images.rows, m.subject.labels
    judged = ~hulls.class_distance.isnan().any(dim=1)
    rows, apart = rows[judged], hulls.class_distance[judged]
    predicted = m.batch.predicted[rows]
    own = predicted[:, None] == torch.tensor(hulls.classes)  # no column: no such training image
    agrees = (own & (apart == apart.amin(dim=1, keepdim=True))).any(dim=1)
    found = {
        "judged": len(rows),
        "agrees": int(agrees.sum()),
        "share": float(agrees.sum()) / len(rows) if len(rows) else None,
    }
    if labels is None:
        return found
    wrong = predicted != labels[rows]
    return found | {"if_agrees": _mistakes(wrong[agrees]), "if_not": _mistakes(wrong[~agrees])}
