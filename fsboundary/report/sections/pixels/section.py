"""Section on boundaries in pixel space.

It shows flip images, images reconstructed from features, morphs between images, a ranking of
images by vulnerability, and a comparison of pixel space with feature space, all on small samples.
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
from fsboundary.plot.values import median
from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.pixels.certified import certified_radii
from fsboundary.report.sections.pixels.sizes import (
    Sizes,
    budget_for,
    evenly_spaced,
    has_pixel_gradients,
    stratified_sample,
)

SIDE = 96
"""Longer side of the images shown, pixels."""


def _search_flips(m: Measurements, rows: Tensor, sizes: Sizes) -> FlipImages:
    """Return the flip images of `rows`."""
    with m.clock.stage("flip images"):
        images = m.subject.images[rows]
        return flip_images(
            m.subject.space,
            images,
            max_steps=sizes.flip_steps,
            batch_size=m.subject.batch_size,
        )


def _flip_numbers(m: Measurements, rows: Tensor, flips: FlipImages) -> dict[str, Any]:
    """Return the number and the distances of the flip images found, and one entry per image."""
    found = flips.ok
    same = flips.target == m.nearest.target[rows, 0]
    return {
        "requested": len(rows),
        "found": int(found.sum()),
        "same_class": int((same & found).sum()),
        "median_distance": median(flips.distance[found]),
        "largest_residual": flips.residual[found].max() if found.any() else None,
        "max_gradients": flips.num_backwards.max(),
        "failed": _failures(flips, ~found),
        "shown": [_flip_entry(m, int(row), flips, index) for index, row in enumerate(rows)],
    }


def _flip_entry(m: Measurements, row: int, flips: FlipImages, index: int) -> dict[str, Any]:
    found = bool(flips.ok[index])
    change = flips.images[index] - m.subject.images[row]
    return image_facts(m, row) | {
        "found": found,
        "target": int(flips.target[index]) if found else None,
        "pixels": flips.distance[index],
        "residual": flips.residual[index],
        "largest_change": change.abs().max(),
        "flip_status": Status(int(flips.status[index])).name,
    }


def _flip_pictures(m: Measurements, rows: Tensor, flips: FlipImages) -> dict[str, Tensor]:
    """Return the image of each row and, if a flip image was found, the difference and that."""
    pictures = {}
    for index, row in enumerate(rows.tolist()):
        image, flip = m.subject.images[row], flips.images[index]
        pictures[f"image-{row}"] = thumbnail(image, SIDE)
        if flips.ok[index]:
            pictures[f"flip-{row}"] = thumbnail(flip, SIDE)
            pictures[f"change-{row}"] = diverging(thumbnail(flip - image, SIDE))
    return pictures


def diverging(change: Tensor) -> Tensor:
    """Return a change (C, H, W) as colours (3, H, W): red increases, blue decreases, white is 0.

    Channels are averaged; the largest change has the deepest colour.
    """
    mean = change.mean(dim=0).double()
    size = mean.abs().max()
    level = (0.5 + 0.5 * mean / torch.where(size > 0, size, 1)).numpy()
    colours = torch.from_numpy(colormaps["RdBu_r"](level))
    return colours[..., :3].movedim(-1, 0)


def _failures(result: FlipImages | Amplification, failed: Tensor) -> list[dict[str, Any]]:
    """Return one entry per status of the `failed` rows (B,)."""
    codes, counts = result.status[failed].unique(return_counts=True)
    return [
        {"status": Status(code).name, "count": count, "advice": result.advice(code)}
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
    ]


KINDS = ("image", "flip")
"""From noise to the features of the image; from the image to the features of its flip point."""


def _search_inverses(m: Measurements, rows: Tensor, sizes: Sizes) -> dict[str, InverseImages]:
    """Return the inverse images of `rows`, for each of the KINDS."""
    with m.clock.stage("inverse images"):
        images, z = m.subject.images[rows], m.batch.features[rows]
        points = flip_points(m.head, z, finder=m.subject.finder).points[:, 0]
        starts: dict[str, Any] = {"image": (1, *images.shape[1:]), "flip": images}
        targets = {"image": z, "flip": points}
        return {
            kind: inverse_images(
                m.subject.space,
                targets[kind].to(torch.float64),
                starts[kind],
                max_steps=sizes.inverse_steps,
                seed=SEED,
                batch_size=m.subject.batch_size,
            )
            for kind in KINDS
        }


def _inverse_numbers(
    m: Measurements, rows: Tensor, inverses: dict[str, InverseImages], sizes: Sizes
) -> dict[str, Any]:
    """Return the residuals of the features, and the distances of the images to the originals."""
    return {
        "images": len(rows),
        "steps": sizes.inverse_steps,
        "reached": {kind: int((part.status == 0).sum()) for kind, part in inverses.items()},
        "shown": [
            image_facts(m, row)
            | {kind: _inverse_entry(m, row, inverses[kind], index) for kind in KINDS}
            for index, row in enumerate(rows.tolist())
        ],
    }


def _inverse_entry(
    m: Measurements, row: int, inverses: InverseImages, index: int
) -> dict[str, Any]:
    status = Status(int(inverses.status[index, 0]))
    difference = (inverses.images[index, 0] - m.subject.images[row]).flatten().double()
    return {
        "available": status in (Status.CONVERGED, Status.MAX_STEPS),
        "reached": status == Status.CONVERGED,
        "status": status.name,
        "predicted": int(inverses.predicted[index, 0]),
        "relative_residual": inverses.relative_residual[index, 0],
        "boundary_distance": inverses.boundary_distance[index, 0],
        "pixels": torch.linalg.vector_norm(difference),
    }


def _inverse_pictures(rows: Tensor, inverses: dict[str, InverseImages]) -> dict[str, Tensor]:
    """Return the reconstructed images."""
    return {
        f"inverse-{kind}-{row}": thumbnail(part.images[index, 0], SIDE)
        for kind, part in inverses.items()
        for index, row in enumerate(rows.tolist())
    }


FRAME_SIDE = 64
"""Longer side of a frame, pixels."""

SEQUENCES = ("images", "blend")
"""Images along the feature path, and the two images blended pixel by pixel."""


def _compute_morphs(m: Measurements, rows: Tensor, sizes: Sizes) -> tuple[Tensor, Morph | None]:
    """Return starts and ends (M,2), and the morphs between them.

    The end is the most typical image of the nearest other class of the start: the image whose
    feature is nearest to the mean of the class. Starts without an end are skipped.
    """
    ends = [_typical_neighbour(m, row) for row in rows.tolist()]
    usable = torch.tensor([k for k, end in enumerate(ends) if end is not None], dtype=torch.int64)
    usable = evenly_spaced(usable, sizes.morphs)
    pairs = torch.tensor([[int(rows[k]), ends[k]] for k in usable.tolist()], dtype=torch.int64)
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


def _typical_neighbour(m: Measurements, row: int) -> int | None:
    others = (m.batch.ok & (m.batch.predicted == m.nearest.target[row, 0])).nonzero()[:, 0]
    if not len(others):
        return None
    z = m.batch.features[others].double()
    return int(others[torch.linalg.vector_norm(z - z.mean(dim=0), dim=1).argmin()])


def _morph_numbers(
    m: Measurements, pairs: Tensor, morphs: Morph | None, sizes: Sizes
) -> dict[str, Any]:
    """Return classes, crossings and jumps of each morph."""
    shown = (
        []
        if morphs is None
        else [_morph_entry(m, morphs, k, *p) for k, p in enumerate(pairs.tolist())]
    )
    return {"frames": sizes.frames, "steps": sizes.frame_steps, "shown": shown}


def _morph_entry(
    m: Measurements, morphs: Morph, index: int, start: int, end: int
) -> dict[str, Any]:
    status = Status(int(morphs.status[index]))
    sequences = {
        "images": (morphs.predicted, morphs.crossing, morphs.largest_jump),
        "blend": (morphs.blend_predicted, morphs.blend_crossing, morphs.blend_largest_jump),
    }
    return {
        "start": image_facts(m, start),
        "end": image_facts(m, end),
        "available": status in (Status.CONVERGED, Status.MAX_STEPS),
        "followed": status == Status.CONVERGED,
        "status": status.name,
        "times": morphs.times[index],
        "off_path": morphs.off_path[index].max(),
        "feature_crossing": morphs.feature_crossing[index],
        "sequences": {
            name: {
                "classes": predicted[index],
                "class_sequence": predicted[index].unique_consecutive(),
                "crossing": crossing[index],
                "largest_jump": jump[index],
            }
            for name, (predicted, crossing, jump) in sequences.items()
        },
    }


def _morph_pictures(morphs: Morph | None) -> dict[str, Tensor]:
    """Return all frames, and both sequences of each morph as a film (2, N, C, H, W)."""
    pictures: dict[str, Tensor] = {}
    for index in range(0 if morphs is None else len(morphs.status)):
        assert morphs is not None
        films = []
        for name in SEQUENCES:
            frames = [thumbnail(frame, FRAME_SIDE) for frame in getattr(morphs, name)[index]]
            pictures |= {f"{name}-{index}-{n}": frame for n, frame in enumerate(frames)}
            films.append(torch.stack(frames))
        pictures[f"film-{index}"] = torch.stack(films)
    return pictures


NUM_SHOWN = 6
"""Number of images at each end of the ranking."""

MAX_CLASSES = 12
"""Largest number of rows of the table."""

SMALL = 0.01
"""Root-mean-square change per pixel value of the moves, if there are no flip images."""


def _measure_moves(
    m: Measurements, rows: Tensor, flip_rows: Tensor, flips: FlipImages, sizes: Sizes
) -> tuple[float, Amplification]:
    """Return the length of the moves and their effects; `flip_rows` are the rows of `flips`."""
    with m.clock.stage("moves of the features"):
        images = m.subject.images[rows]
        radius = median(flips.distance[flips.ok])
        if not radius > 0:  # also NaN, where no flip image was found
            radius = SMALL * math.sqrt(images[0].numel())
        ends = torch.full_like(images, torch.nan)
        for index, row in enumerate(flip_rows.tolist()):
            ends[rows == row] = flips.images[index]
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


def _move_numbers(
    m: Measurements, rows: Tensor, radius: float, moves: Amplification
) -> dict[str, Any]:
    """Return both ends of the ranking, the classes, and the medians."""
    score = moves.vulnerability
    known = ~score.isnan()
    order = moves.ranking()[: int(known.sum())].tolist()
    classes = [{"class": k, **entry} for k, entry in vulnerability_by_class(moves).items()]
    names = ("max_displacement", "random_mean", "random_max", "towards_flip", "boundary_distance")
    values = {name: getattr(moves, name) for name in names}
    worst, random = values["max_displacement"], values["random_mean"]
    return {
        "images": len(rows),
        "ranked": len(order),
        "radius": radius,
        "above_one": float((score[known] >= 1).double().mean()) if order else None,
        "ratio_to_random": median((worst / random)[known & (random > 0)]),
        "median": {name: median(v[~v.isnan()]) for name, v in values.items()},
        "failed": _failures(moves, ~known),
        "most": [_move_entry(m, int(rows[k]), moves, k) for k in order[:NUM_SHOWN]],
        "least": [
            _move_entry(m, int(rows[k]), moves, k) for k in order[NUM_SHOWN:][-NUM_SHOWN:][::-1]
        ],
        "classes": classes[:MAX_CLASSES],
        "omitted": len(classes[MAX_CLASSES:]),
    }


def _move_entry(m: Measurements, row: int, moves: Amplification, index: int) -> dict[str, Any]:
    return image_facts(m, row) | {
        "vulnerability": moves.vulnerability[index],
        "on_boundary": bool(moves.vulnerability[index].isinf()),
        "max_displacement": moves.max_displacement[index],
        "boundary_distance": moves.boundary_distance[index],
    }


def _move_pictures(m: Measurements, numbers: dict[str, Any]) -> dict[str, Tensor]:
    """Return the images at both ends of the ranking."""
    rows = [entry["row"] for entry in [*numbers["most"], *numbers["least"]]]
    return {f"image-{row}": thumbnail(m.subject.images[row], SIDE) for row in rows}


MAX_HULLS = 10
"""Largest number of compared classes, those with the most training images, because the number of
pairs grows fast."""

MIN_ROWS = 3
"""Number of images, and of training images, that a comparison needs."""

NEAR_CHANCE = "labels: got .* images assigned to the class of their label"
"""Start of the warning about a model whose accuracy is near chance."""

WORDS = {
    "inside": "images inside the hull of the training images",
    "hull_distance": "distance to that hull, relative to the mean leave-one-out distance",
    "classes_apart": "pairs of classes whose hulls do not meet",
    "class_hull_distance": "distance between the hulls of two classes",
    "neighbours": "nearest training images that have the same class as the image",
    "boundary_distance": "distance to the nearest boundary",
    "same_target": "class beyond the nearest boundary",
    "direction": "angle between the directions of two images to the boundary, degrees",
    "classes_met": "classes on the straight path from one image to another",
    "third_class": "paths that cross a third class",
}
"""Descriptions of the measures, without numbers in the text."""

FRACTIONS = frozenset({"inside", "classes_apart", "neighbours", "third_class"})
"""Measures that are fractions; the others are lengths, angles or counts."""

AGREEMENT_FRACTIONS = frozenset({"neighbours", "same_target", "classes_met"})
"""Measures whose agreement is a fraction."""


def _compare_spaces(m: Measurements, sizes: Sizes) -> dict[str, Any]:
    """Return the numbers of the table, or ``missing``: the data that are missing or too few."""
    subject = m.subject
    if subject.labels is None or not bool(m.labelled.any()):
        return {"missing": "true classes of the images"}
    if subject.train_images is None or m.train is None:
        return {"missing": "training images"}
    if subject.train_labels is None or not bool((subject.train_labels >= 0).any()):
        return {"missing": "true classes of the training images"}
    usable = m.train.ok & (subject.train_labels >= 0)
    classes = _largest_classes(subject.train_labels[usable])
    images = _sample_rows(m.batch.ok, subject.labels, classes, sizes.sampled)
    train = _sample_rows(m.train.ok, subject.train_labels, classes, sizes.training)
    if len(images) < MIN_ROWS or len(train) < MIN_ROWS:
        return {"missing": "images" if len(images) < MIN_ROWS else "training images"}
    with m.clock.stage("two spaces"), warnings.catch_warnings():
        # the page has this warning at its top, and so has the terminal
        warnings.filterwarnings("ignore", NEAR_CHANCE, UserWarning)
        table = two_spaces(
            subject.space,
            subject.images[images],
            subject.labels[images],
            subject.train_images[train],
            subject.train_labels[train],
            sample=len(images),
            flips=sizes.sampled_flips,
            pairs=sizes.pairs,
            points=sizes.path_points,
            seed=SEED,
            batch_size=subject.batch_size,
        )
    return {
        "missing": None,
        "classes": len(classes),
        "all_classes": len(subject.train_labels[usable].unique()),
        "sizes": {name.replace(" ", "_"): count for name, count in table.sizes.items()},
        "lines": _lines(table),
    }


def _largest_classes(labels: Tensor) -> Tensor:
    classes, counts = labels.unique(return_counts=True)
    largest: Tensor = classes[counts.argsort(descending=True, stable=True)[:MAX_HULLS]]
    return largest


def _sample_rows(ok: Tensor, labels: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return `count` random usable rows of `classes`."""
    rows = (ok & torch.isin(labels, classes)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(SEED)
    chosen: Tensor = rows[torch.randperm(len(rows), generator=generator)[:count]]
    return chosen


def _lines(table: TwoSpaces) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "question": WORDS.get(line.name, line.question),
            "kind": "percent" if line.name in FRACTIONS else "length",
            "pixels": line.pixels,
            "features": line.features,
            "agreement": line.agreement,
            "agreement_name": line.agreement_is,
            "agreement_kind": "percent" if line.name in AGREEMENT_FRACTIONS else "length",
        }
        for line in table.measures
    ]


@final
class Pixels(Section):
    """Flip images, inverse images, morphs, a ranking, and a comparison of the two spaces."""

    name = "pixels"
    title = "Boundaries in pixel space"
    menu = "Pixels"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and pictures of few images, because each step runs the model."""
        m = measured
        distance = m.nearest.distance[:, 0]
        rows = (m.batch.ok & m.nearest.ok[:, 0] & distance.isfinite()).nonzero()[:, 0]
        numbers: dict[str, Any] = {"usable": len(rows)}
        if not len(rows):
            return Content(numbers=numbers)
        numbers["has_gradients"] = has_pixel_gradients(m.subject.space, m.subject.images[rows[0]])
        if not numbers["has_gradients"]:
            return Content(numbers=numbers)
        budget = budget_for(m.subject.space, m.subject.images[rows[0]])
        sizes = budget.sizes
        rows = stratified_sample(rows, m.batch.predicted[rows], sizes.ranked, SEED)
        rows = rows[distance[rows].argsort(stable=True)]
        flip_rows = evenly_spaced(rows, sizes.flips)
        flips = _search_flips(m, flip_rows, sizes)
        inverse_rows = evenly_spaced(flip_rows, sizes.inverses)
        inverses = _search_inverses(m, inverse_rows, sizes)
        pairs, morphs = _compute_morphs(m, flip_rows, sizes)
        radius, moves = _measure_moves(m, rows, flip_rows, flips, sizes)
        numbers |= {
            "budget": budget.numbers(),
            "flips": _flip_numbers(m, flip_rows, flips),
            "certified": certified_radii(m, flip_rows, flips),
            "inverses": _inverse_numbers(m, inverse_rows, inverses, sizes),
            "morphs": _morph_numbers(m, pairs, morphs, sizes),
            "moves": _move_numbers(m, rows, radius, moves),
            "spaces": _compare_spaces(m, sizes),
        }
        pictures = _flip_pictures(m, flip_rows, flips) | _inverse_pictures(inverse_rows, inverses)
        pictures |= _morph_pictures(morphs) | _move_pictures(m, numbers["moves"])
        return Content(numbers=plain(numbers), pictures=pictures)
