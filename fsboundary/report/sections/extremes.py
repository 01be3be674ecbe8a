"""The least and the most robust images."""

from __future__ import annotations

from typing import Any, final

from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section

SHOWN = 6


@final
class Extremes(Section):
    """Images with the smallest and the largest distance to any other class."""

    name = "extremes"
    title = "Least and most robust images"
    menu = "Extremes"

    def compute(self, measured: Measurements) -> Content:
        """Return both lists and their images; also one line for every image."""
        distance = measured.nearest.distance[:, 0]
        rows = (~distance.isnan()).nonzero()[:, 0]
        order = rows[distance[rows].argsort(stable=True)].tolist()
        most = order[SHOWN:][-SHOWN:][::-1]
        numbers = {
            "least": [image_facts(measured, row) for row in order[:SHOWN]],
            "most": [image_facts(measured, row) for row in most],
            "all": [image_facts(measured, row) for row in range(len(distance))],
        }
        shown = {str(row): measured.subject.images[row] for row in order[:SHOWN] + most}
        return Content(numbers=plain(numbers), pictures=shown)


def image_facts(m: Measurements, row: int) -> dict[str, Any]:
    """Return what a report says of one image."""
    labels, files = m.subject.labels, m.subject.file_names
    return {
        "row": row,
        "file": None if files is None else files[row],
        "predicted": int(m.batch.predicted[row]),
        "label": None if labels is None else int(labels[row]),
        "nearest": int(m.nearest.target[row, 0]),
        "distance": m.nearest.distance[row, 0],
        "unlimited": bool(m.nearest.distance[row, 0].isinf()),
        "radius": m.balls.radius[row],
        "status": int(m.nearest.status[row, 0]),
        "radius_status": int(m.balls.status[row]),
    }
