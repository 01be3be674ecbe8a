"""How far it is from each class to each other one."""

from __future__ import annotations

from typing import Any, final

from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.values import median, plain


@final
class Pairs(Section):
    """A matrix of median flip distances, source by target."""

    name = "pairs"
    title = "From class to class"
    menu = "Class to class"

    def compute(self, measured: Measurements) -> Content:
        """Return one cell for each ordered pair of the classes shown."""
        cells = pair_cells(measured)
        predicted = set(measured.batch.predicted.tolist())
        finite = [cell["median"] for cell in cells if cell["median"] is not None]
        numbers = {
            "classes": measured.shown,
            "never_predicted": [k for k in measured.shown if k not in predicted],
            "omitted": measured.head.num_classes - len(measured.shown),
            "cells": cells,
            "smallest": min(finite, default=None),
            "largest": max(finite, default=None),
        }
        return Content(numbers=plain(numbers))


def pair_cells(m: Measurements) -> list[dict[str, Any]]:
    """Return the median distance from class to class over the images predicted as the source.

    Where more than half of the images cannot reach the target, the median is None and
    ``unreachable`` is the larger part of ``images``.
    """
    cells = []
    for i in m.shown:
        rows = m.batch.predicted == i
        target, distance = m.flips.target[rows], m.flips.distance[rows]
        good = m.flips.ok[rows]
        for j in m.shown:
            if i != j:
                values = distance[(target == j) & good]
                cells.append(
                    {
                        "source": i,
                        "target": j,
                        "images": len(values),
                        "unreachable": int(values.isinf().sum()),
                        "median": plain(median(values)),
                    }
                )
    return cells
