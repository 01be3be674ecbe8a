"""What distances in features mean for images."""

from __future__ import annotations

from typing import Any, final

from fsboundary.report.formatting import plain
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.pixels.flips import find_flips, flip_numbers, flip_pictures
from fsboundary.report.sections.pixels.inverse import (
    find_inverses,
    inverse_numbers,
    inverse_pictures,
)
from fsboundary.report.sections.pixels.morphs import find_morphs, morph_numbers, morph_pictures
from fsboundary.report.sections.pixels.moves import find_moves, move_numbers, move_pictures
from fsboundary.report.sections.pixels.sizes import drawn, passes_gradients, sizes_for, spread
from fsboundary.report.sections.pixels.spaces import compare_spaces


@final
class Pixels(Section):
    """Flip images, inverse images, morphs, a ranking, and both geometries in one table."""

    name = "pixels"
    title = "What it means for pixels"
    menu = "Pixels"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and pictures; few images, for every step asks the model."""
        m = measured
        distance = m.nearest.distance[:, 0]
        rows = (m.batch.ok & m.nearest.ok[:, 0] & distance.isfinite()).nonzero()[:, 0]
        numbers: dict[str, Any] = {"usable": len(rows)}
        if not len(rows):
            return Content(numbers=numbers)
        numbers["gradients"] = passes_gradients(m.subject.space, m.subject.images[rows[0]])
        if not numbers["gradients"]:
            return Content(numbers=numbers)
        sizes = sizes_for(m.subject.space, m.subject.images[rows[0]])
        rows = drawn(rows, m.batch.predicted[rows], sizes.moved, SEED)
        rows = rows[distance[rows].argsort(stable=True)]
        edges = spread(rows, sizes.flips)
        flips = find_flips(m, edges, sizes)
        few = spread(edges, sizes.inverses)
        inverses = find_inverses(m, few, sizes)
        pairs, paths = find_morphs(m, edges, sizes)
        radius, moves = find_moves(m, rows, edges, flips, sizes)
        numbers |= {
            "flips": flip_numbers(m, edges, flips),
            "inverses": inverse_numbers(m, few, inverses, sizes),
            "morphs": morph_numbers(m, pairs, paths, sizes),
            "moves": move_numbers(m, rows, radius, moves),
            "spaces": compare_spaces(m, sizes),
        }
        pictures = flip_pictures(m, edges, flips) | inverse_pictures(few, inverses)
        pictures |= morph_pictures(paths) | move_pictures(m, numbers["moves"])
        return Content(numbers=plain(numbers), pictures=pictures)
