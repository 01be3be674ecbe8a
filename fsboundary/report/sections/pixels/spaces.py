"""The table of two spaces, on samples."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from fsboundary.analysis import TwoSpaces, two_spaces
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.pixels.sizes import Sizes

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
