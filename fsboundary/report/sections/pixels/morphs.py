"""Paths from an image to one of the class beyond its nearest boundary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.core.results import Morph
from fsboundary.core.status import Status
from fsboundary.pixels import morph
from fsboundary.report.figures import thumbnail
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.sizes import Sizes, spread

FRAME_SIDE = 64
"""Longer side of a frame, pixels."""

WAYS = ("images", "blend")
"""Along the feature path, and mixed pixel by pixel."""


def find_morphs(m: Measurements, rows: Tensor, sizes: Sizes) -> tuple[Tensor, Morph | None]:
    """Return starts and ends (M,2), and the paths between them.

    The end is the most typical image of the start's nearest other class: the one nearest to the
    mean of their features. Starts without one are passed over.
    """
    ends = [_end(m, row) for row in rows.tolist()]
    places = torch.tensor([k for k, end in enumerate(ends) if end is not None], dtype=torch.int64)
    places = spread(places, sizes.morphs)
    pairs = torch.tensor([[int(rows[k]), ends[k]] for k in places.tolist()], dtype=torch.int64)
    pairs = pairs.reshape(-1, 2)
    if not len(pairs):
        return pairs, None
    with m.clock.stage("morphs"):
        images = m.subject.images
        return pairs, morph(
            m.subject.space,
            images[pairs[:, 0]],
            images[pairs[:, 1]],
            steps=sizes.frames,
            max_steps=sizes.frame_steps,
            batch_size=m.subject.batch_size,
        )


def _end(m: Measurements, row: int) -> int | None:
    others = (m.batch.ok & (m.batch.predicted == m.nearest.target[row, 0])).nonzero()[:, 0]
    if not len(others):
        return None
    z = m.batch.features[others].double()
    return int(others[torch.linalg.vector_norm(z - z.mean(dim=0), dim=1).argmin()])


def morph_numbers(
    m: Measurements, pairs: Tensor, found: Morph | None, sizes: Sizes
) -> dict[str, Any]:
    """Return classes, crossings and jumps of each path."""
    shown = (
        []
        if found is None
        else [_morph_entry(m, found, k, *p) for k, p in enumerate(pairs.tolist())]
    )
    return {"frames": sizes.frames, "steps": sizes.frame_steps, "shown": shown}


def _morph_entry(m: Measurements, found: Morph, place: int, start: int, end: int) -> dict[str, Any]:
    status = Status(int(found.status[place]))
    ways = {
        "images": (found.predicted, found.crossing, found.largest_jump),
        "blend": (found.blend_predicted, found.blend_crossing, found.blend_largest_jump),
    }
    return {
        "start": image_facts(m, start),
        "end": image_facts(m, end),
        "made": status in (Status.CONVERGED, Status.MAX_STEPS),
        "followed": status == Status.CONVERGED,
        "status": status.name,
        "times": found.times[place],
        "off_path": found.off_path[place].max(),
        "feature_crossing": found.feature_crossing[place],
        "ways": {
            name: {
                "classes": predicted[place],
                "met": predicted[place].unique_consecutive(),
                "crossing": crossing[place],
                "largest_jump": jump[place],
            }
            for name, (predicted, crossing, jump) in ways.items()
        },
    }


def morph_pictures(found: Morph | None) -> dict[str, Tensor]:
    """Return all frames, and both ways of each path together as a film (2, N, C, H, W)."""
    pictures: dict[str, Tensor] = {}
    for place in range(0 if found is None else len(found.status)):
        assert found is not None
        ways = []
        for name in WAYS:
            frames = [thumbnail(frame, FRAME_SIDE) for frame in getattr(found, name)[place]]
            pictures |= {f"{name}-{place}-{n}": frame for n, frame in enumerate(frames)}
            ways.append(torch.stack(frames))
        pictures[f"film-{place}"] = torch.stack(ways)
    return pictures
