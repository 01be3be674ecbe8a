"""Flip images of a few images, from the nearest to a boundary to the farthest.

Images made from features: those of an image, and those of its flip point.

Paths from an image to one of the class beyond its nearest boundary.

How far a small move in pixels takes the features: a ranking of images and classes.

The table of two spaces, on samples.

What distances in features mean for images.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, final

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.analysis import TwoSpaces, two_spaces
from fsboundary.boundaries import flip_points
from fsboundary.core.results import Amplification, FlipImages, InverseImages, Morph
from fsboundary.core.status import Status
from fsboundary.pixels import (
    amplification,
    flip_images,
    inverse_images,
    morph,
    vulnerability_by_class,
)
from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import median, plain
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.sizes import (
    Sizes,
    drawn,
    passes_gradients,
    sizes_for,
    spread,
)

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
        "gradients": flips.num_backwards.max(),
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


KINDS = ("own", "flip")
"""From noise to the image's own features; from the image to the features of its flip point."""


def find_inverses(m: Measurements, rows: Tensor, sizes: Sizes) -> dict[str, InverseImages]:
    """Return what was found for `rows`, of each of the KINDS."""
    with m.clock.stage("inverse images"):
        images, z = m.subject.images[rows], m.batch.features[rows]
        points = flip_points(m.head, z, finder=m.subject.finder).points[:, 0]
        starts: dict[str, Any] = {"own": (1, *images.shape[1:]), "flip": images}
        wanted = {"own": z, "flip": points}
        return {
            kind: inverse_images(
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
    medians = ("max_displacement", "random_mean", "random_max", "towards_flip", "boundary_distance")
    finite = {name: getattr(found, name) for name in medians}
    worst, random = finite["max_displacement"], finite["random_mean"]
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
        "max_displacement": found.max_displacement[place],
        "to_boundary": found.boundary_distance[place],
    }


def move_pictures(m: Measurements, numbers: dict[str, Any]) -> dict[str, Tensor]:
    """Return the images at both ends of the ranking."""
    rows = [entry["row"] for entry in [*numbers["most"], *numbers["least"]]]
    return {f"image-{row}": thumbnail(m.subject.images[row], SIDE) for row in rows}


MOST_HULLS = 10
"""Of more classes, those with the most training images are compared: pairs grow fast."""

FEWEST = 3
"""Images, and training images, that a comparison needs."""

NEAR_CHANCE = "labels: got .* images put into the class of their label"
"""How the warning of a model that does little better than chance begins."""

WORDS = {
    "inside": "images inside the hull of the training images",
    "hull_distance": "distance to that hull, over the mean distance of a training image left out",
    "classes_apart": "pairs of classes whose hulls do not meet",
    "class_hull_distance": "distance between the hulls of two classes",
    "neighbours": "nearest training images that are of the image’s own class",
    "boundary_distance": "distance to the nearest boundary",
    "same_target": "the other class on the nearest boundary",
    "direction": "angle between two images’ directions to the boundary, degrees",
    "classes_met": "classes met on the way from one image to another",
    "third_class": "such ways on which a third class is met",
}
"""Each question in words without numbers of their own."""

SHARES = frozenset({"inside", "classes_apart", "neighbours", "third_class"})


def compare_spaces(m: Measurements, sizes: Sizes) -> dict[str, Any]:
    """Return the table's numbers, or ``missing``: what there is too little of."""
    subject = m.subject
    if subject.labels is None:
        return {"missing": "true classes of the images"}
    if subject.train_images is None or m.train is None:
        return {"missing": "training images"}
    if subject.train_labels is None:
        return {"missing": "true classes of the training images"}
    classes = _classes(subject.train_labels[m.train.ok])
    images = _drawn(m.batch.ok, subject.labels, classes, sizes.compared)
    train = _drawn(m.train.ok, subject.train_labels, classes, sizes.learned)
    if len(images) < FEWEST or len(train) < FEWEST:
        return {"missing": "images" if len(images) < FEWEST else "training images"}
    with m.clock.stage("two spaces"), warnings.catch_warnings():
        # the page tells the accuracy in its summary
        warnings.filterwarnings("ignore", NEAR_CHANCE, UserWarning)
        table = two_spaces(
            subject.space,
            subject.images[images],
            subject.labels[images],
            subject.train_images[train],
            subject.train_labels[train],
            sample=len(images),
            flips=sizes.edges,
            pairs=sizes.pairs,
            points=sizes.points,
            seed=SEED,
            batch_size=subject.batch_size,
        )
    return {
        "missing": None,
        "classes": len(classes),
        "all_classes": len(subject.train_labels[m.train.ok].unique()),
        "sizes": {name.replace(" ", "_"): count for name, count in table.sizes.items()},
        "lines": _lines(table),
    }


def _classes(labels: Tensor) -> Tensor:
    found, counts = labels.unique(return_counts=True)
    chosen: Tensor = found[counts.argsort(descending=True, stable=True)[:MOST_HULLS]]
    return chosen


def _drawn(ok: Tensor, labels: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return `count` usable rows of `classes`, drawn at random."""
    rows = (ok & torch.isin(labels, classes)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(SEED)
    chosen: Tensor = rows[torch.randperm(len(rows), generator=generator)[:count]]
    return chosen


def _lines(table: TwoSpaces) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "question": WORDS.get(line.name, line.question),
            "kind": "share" if line.name in SHARES else "length",
            "pixels": line.pixels,
            "features": line.features,
            "agreement": line.agreement,
            "agreement_is": line.agreement_is,
            "agreement_kind": "share" if line.agreement_is.startswith("share") else "length",
        }
        for line in table.measures
    ]


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
