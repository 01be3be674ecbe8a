"""Images made from features: those of an image, and those of its flip point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.boundaries import find_flip_points
from fsboundary.core.results import InverseImages
from fsboundary.core.status import Status
from fsboundary.pixels import invert
from fsboundary.report.figures import thumbnail
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.flips import SIDE
from fsboundary.report.sections.pixels.sizes import Sizes

KINDS = ("own", "flip")
"""From noise to the image's own features; from the image to the features of its flip point."""


def find_inverses(m: Measurements, rows: Tensor, sizes: Sizes) -> dict[str, InverseImages]:
    """Return what was found for `rows`, of each of the KINDS."""
    with m.clock.stage("inverse images"):
        images, z = m.subject.images[rows], m.batch.features[rows]
        points = find_flip_points(m.head, z, finder=m.subject.finder).points[:, 0]
        starts: dict[str, Any] = {"own": (1, *images.shape[1:]), "flip": images}
        wanted = {"own": z, "flip": points}
        return {
            kind: invert(
                m.subject.space,
                wanted[kind].to(torch.float64),
                starts[kind],
                max_steps=sizes.inverse_steps,
                seed=SEED,
                batch_size=m.subject.batch_size,
            )
            for kind in KINDS
        }


def inverse_numbers(
    m: Measurements, rows: Tensor, found: dict[str, InverseImages], sizes: Sizes
) -> dict[str, Any]:
    """Return how near the features came, and how far the images are from the real ones."""
    return {
        "images": len(rows),
        "steps": sizes.inverse_steps,
        "reached": {kind: int((part.status == 0).sum()) for kind, part in found.items()},
        "shown": [
            image_facts(m, row)
            | {kind: _inverse_entry(m, row, found[kind], place) for kind in KINDS}
            for place, row in enumerate(rows.tolist())
        ],
    }


def _inverse_entry(m: Measurements, row: int, found: InverseImages, place: int) -> dict[str, Any]:
    status = Status(int(found.status[place, 0]))
    apart = (found.images[place, 0] - m.subject.images[row]).flatten().double()
    return {
        "made": status in (Status.CONVERGED, Status.MAX_STEPS),
        "reached": status == Status.CONVERGED,
        "status": status.name,
        "predicted": int(found.predicted[place, 0]),
        "relative_residual": found.relative_residual[place, 0],
        "to_boundary": found.boundary_distance[place, 0],
        "pixels": torch.linalg.vector_norm(apart),
    }


def inverse_pictures(rows: Tensor, found: dict[str, InverseImages]) -> dict[str, Tensor]:
    """Return the images that were made."""
    return {
        f"inverse-{kind}-{row}": thumbnail(part.images[place, 0], SIDE)
        for kind, part in found.items()
        for place, row in enumerate(rows.tolist())
    }
