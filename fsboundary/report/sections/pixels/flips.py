"""Flip images of a few images, from the nearest to a boundary to the farthest."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.pixels import flip_images
from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import median
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.sizes import Sizes

SIDE = 96
"""Longer side of the images shown, pixels."""


def find_flips(m: Measurements, rows: Tensor, sizes: Sizes) -> FlipImages:
    """Return the flip images of `rows`."""
    with m.clock.stage("flip images"):
        images = m.subject.images[rows]
        return flip_images(
            m.subject.space,
            images,
            max_steps=sizes.flip_steps,
            batch_size=m.subject.batch_size,
        )


def flip_numbers(m: Measurements, rows: Tensor, flips: FlipImages) -> dict[str, Any]:
    """Return how many were found and how far they are, and one entry for each."""
    found = flips.ok
    same = flips.target == m.nearest.target[rows, 0]
    return {
        "asked": len(rows),
        "found": int(found.sum()),
        "same_class": int((same & found).sum()),
        "median_distance": median(flips.distance[found]),
        "largest_residual": flips.residual[found].max() if found.any() else None,
        "gradients": flips.evaluations.max(),
        "failed": failures(flips.status[~found]),
        "shown": [_entry(m, int(row), flips, place) for place, row in enumerate(rows)],
    }


def _entry(m: Measurements, row: int, flips: FlipImages, place: int) -> dict[str, Any]:
    found = bool(flips.ok[place])
    change = flips.images[place] - m.subject.images[row]
    return image_facts(m, row) | {
        "found": found,
        "target": int(flips.target[place]) if found else None,
        "pixels": flips.distance[place],
        "residual": flips.residual[place],
        "largest_change": change.abs().max(),
        "flip_status": Status(int(flips.status[place])).name,
    }


def flip_pictures(m: Measurements, rows: Tensor, flips: FlipImages) -> dict[str, Tensor]:
    """Return image, difference and flip image of each row where one was found."""
    pictures = {}
    for place, row in enumerate(rows.tolist()):
        image, other = m.subject.images[row], flips.images[place]
        pictures[f"image-{row}"] = thumbnail(image, SIDE)
        if flips.ok[place]:
            pictures[f"flip-{row}"] = thumbnail(other, SIDE)
            pictures[f"change-{row}"] = diverging(thumbnail(other - image, SIDE))
    return pictures


def diverging(change: Tensor) -> Tensor:
    """Return a change (C, H, W) as colours (3, H, W): red for more, blue for less, white for none.

    Channels are averaged; the largest change has the deepest colour.
    """
    mean = change.mean(dim=0).double()
    size = mean.abs().max()
    level = (0.5 + 0.5 * mean / torch.where(size > 0, size, 1)).numpy()
    colours = torch.from_numpy(colormaps["RdBu_r"](level))
    return colours[..., :3].movedim(-1, 0)


def failures(status: Tensor) -> list[dict[str, Any]]:
    """Return one entry for each status, of rows that have no answer."""
    codes, counts = status.unique(return_counts=True)
    return [
        {"status": Status(code).name, "count": count, "advice": Status(code).advice}
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
    ]
