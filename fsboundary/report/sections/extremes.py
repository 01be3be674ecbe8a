"""Section on the least and the most robust images."""

from __future__ import annotations

from typing import Any, final

from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section

NUM_SHOWN = 6
"""Number of images in each list."""


@final
class Extremes(Section):
    """Images with the smallest and the largest distance to any other class."""

    name = "extremes"
    title = "Least and most robust images"
    menu = "Extremes"

    def compute(self, measured: Measurements) -> Content:
        """Return both lists and their images, and one entry for every image."""
        distance = measured.nearest.distance[:, 0]
        rows = (~distance.isnan()).nonzero()[:, 0]
        order = rows[distance[rows].argsort(stable=True)].tolist()
        most = order[NUM_SHOWN:][-NUM_SHOWN:][::-1]
        numbers = {
            "least": [image_facts(measured, row) for row in order[:NUM_SHOWN]],
            "most": [image_facts(measured, row) for row in most],
            "all": [image_facts(measured, row) for row in range(len(distance))],
        }
        pictures = {str(row): measured.subject.images[row] for row in order[:NUM_SHOWN] + most}
        return Content(numbers=plain(numbers), pictures=pictures)


def image_facts(m: Measurements, row: int) -> dict[str, Any]:
    """Return the facts about one image that several sections show."""
    labels, files = m.subject.labels, m.subject.file_names
    return {
        "row": row,
        "file": None if files is None else files[row],
        "predicted": int(m.batch.predicted[row]),
        "label": None if labels is None or labels[row] < 0 else int(labels[row]),
        "nearest": int(m.nearest.target[row, 0]),
        "distance": m.nearest.distance[row, 0],
        "infinite": bool(m.nearest.distance[row, 0].isinf()),
        "radius": m.balls.radius[row],
        "status": int(m.nearest.status[row, 0]),
        "radius_status": int(m.balls.status[row]),
    }
