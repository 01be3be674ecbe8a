"""How far a small move in pixels takes the features: a ranking of images and classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fsboundary.core.results import Amplification, FlipImages
from fsboundary.pixels import amplification, vulnerability_by_class
from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import median
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.flips import SIDE, failures
from fsboundary.report.sections.pixels.sizes import Sizes

SHOWN = 6
"""Images of each end of the ranking."""

MOST_CLASSES = 12
"""Rows of the table."""

SMALL = 0.01
"""Length of the moves, for each pixel in the mean, where no flip image gives a better one."""


def find_moves(
    m: Measurements, rows: Tensor, edge_rows: Tensor, flips: FlipImages, sizes: Sizes
) -> tuple[float, Amplification]:
    """Return the length of the moves and what they do; `edge_rows` are those of `flips`."""
    with m.clock.stage("moves of the features"):
        images = m.subject.images[rows]
        radius = median(flips.distance[flips.ok])
        if not radius > 0:  # also NaN, where no flip image was found
            radius = SMALL * math.sqrt(images[0].numel())
        ends = torch.full_like(images, torch.nan)
        for place, row in enumerate(edge_rows.tolist()):
            ends[rows == row] = flips.images[place]
        return radius, amplification(
            m.subject.space,
            images,
            radius=radius,
            flips=ends,
            directions=sizes.directions,
            max_steps=sizes.move_steps,
            seed=SEED,
            batch_size=m.subject.batch_size,
        )


def move_numbers(
    m: Measurements, rows: Tensor, radius: float, found: Amplification
) -> dict[str, Any]:
    """Return both ends of the ranking, the classes, and the medians."""
    score = found.vulnerability
    known = ~score.isnan()
    order = found.ranking()[: int(known.sum())].tolist()
    classes = [{"class": k, **entry} for k, entry in vulnerability_by_class(found).items()]
    medians = ("worst", "random_mean", "random_max", "towards_flip", "boundary_distance")
    finite = {name: getattr(found, name) for name in medians}
    worst, random = finite["worst"], finite["random_mean"]
    return {
        "images": len(rows),
        "ranked": len(order),
        "radius": radius,
        "above_one": float((score[known] >= 1).double().mean()) if order else None,
        "over_random": median((worst / random)[known & (random > 0)]),
        "median": {name: median(v[~v.isnan()]) for name, v in finite.items()},
        "failed": failures(found.status[~known]),
        "most": [_move_entry(m, int(rows[k]), found, k) for k in order[:SHOWN]],
        "least": [_move_entry(m, int(rows[k]), found, k) for k in order[SHOWN:][-SHOWN:][::-1]],
        "classes": classes[:MOST_CLASSES],
        "omitted": len(classes[MOST_CLASSES:]),
    }


def _move_entry(m: Measurements, row: int, found: Amplification, place: int) -> dict[str, Any]:
    return image_facts(m, row) | {
        "vulnerability": found.vulnerability[place],
        "on_boundary": bool(found.vulnerability[place].isinf()),
        "worst": found.worst[place],
        "to_boundary": found.boundary_distance[place],
    }


def move_pictures(m: Measurements, numbers: dict[str, Any]) -> dict[str, Tensor]:
    """Return the images at both ends of the ranking."""
    rows = [entry["row"] for entry in [*numbers["most"], *numbers["least"]]]
    return {f"image-{row}": thumbnail(m.subject.images[row], SIDE) for row in rows}
