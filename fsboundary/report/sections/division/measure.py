"""Measurements of the decision regions, and of straight paths between images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.boundaries import ambiguity, class_path
from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import Coverage, Partition, RegionFractions
from fsboundary.core.status import Status
from fsboundary.regions import (
    coverage,
    feature_fractions,
    guaranteed_hulls,
    partition,
    region_fractions,
)
from fsboundary.regions.angles import weight_angles
from fsboundary.report.measurements import MAX_CLASSES, SEED, Measurements
from fsboundary.report.sections.hull.measure import MAX_IMAGES, sample, training_bank

PAIRS = 500
"""Number of random pairs of images."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """Paths between random pairs of images of different classes.

    Attributes
    ----------
    num_classes : Tensor (N,)
        Number of classes on each path, including both ends.
    start, end : int
        Images of the first path with the most classes.
    classes : list of int
        Classes on that path, in order.
    crossings : list of float
        Positions of the class changes, in (0, 1) from the start to the end.
    """

    num_classes: Tensor
    start: int
    end: int
    classes: list[int]
    crossings: list[float]


def _find_paths(m: Measurements, generator: torch.Generator) -> Paths | None:
    """Trace paths between random images of different predicted classes; None if none converges."""
    rows = m.batch.ok.nonzero()[:, 0]
    if not len(rows):
        return None
    pairs = rows[torch.randint(len(rows), (PAIRS, 2), generator=generator)]
    predicted = m.batch.predicted[pairs]
    pairs = pairs[predicted[:, 0] != predicted[:, 1]]
    paths = class_path(m.head, m.batch.features[pairs[:, 0]], m.batch.features[pairs[:, 1]])
    converged = paths.status == Status.CONVERGED
    num_classes = (paths.classes >= 0).sum(dim=1) * converged
    if not bool(converged.any()):
        return None
    longest = int((num_classes == num_classes.max()).nonzero()[0, 0])
    length = int(num_classes[longest])
    return Paths(
        num_classes=num_classes[converged],
        start=int(pairs[longest, 0]),
        end=int(pairs[longest, 1]),
        classes=paths.classes[longest, :length].tolist(),
        crossings=paths.crossings[longest, : length - 1].tolist(),
    )


MAX_DIVIDED = 60
"""With more classes than this, the regions are those among the shown classes only, because each
region takes a linear program with one constraint per other class: too slow for 1,000 classes."""

MAX_REFERENCE_IMAGES = 2000
"""Largest number of training images that determine the reference ambiguity."""

NUM_TIED = 3
"""Number of top classes whose tie defines the ambiguity."""

SAMPLES = 100_000
"""Number of points sampled in the box, at most."""

MAX_PRODUCTS = 2 * 10**10
"""Largest number of products of a weight and a feature that the sample may take."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Division:
    """Measurements of the decision regions.

    Attributes
    ----------
    classes : list of int
        Classes of the tables of both partitions, ascending.
    restricted : bool
        Whether the partitions are those among `classes` only, as if there were no other class.
    box : Domain or None
        Bounding box of the training features; None without any, or if they are all equal.
    whole, boxed : Partition
        Partitions of the whole domain and of the box; without a box, both of the whole domain.
    angles : Tensor (K, K), float64
        Angles between the weights of all classes minus their mean, radians.
    box_fractions, training_fractions, image_fractions : RegionFractions or None
        Fractions of a uniform sample of the box, of the training images and of the images in the
        region of each of the K classes.
    clearance : Tensor (K,) or None
        Clearances of the guaranteed hulls.
    coverage : Coverage or None
        Coverage of the images at `rows` by guaranteed sets of the training images.
    rows : Tensor (B,)
        Images of `coverage` and `ambiguity`.
    num_tied : int
        Number of top classes whose tie defines the ambiguity.
    ambiguity : Tensor (B,), float64
    paths : Paths or None
    """

    classes: list[int]
    restricted: bool
    box: Domain | None
    whole: Partition
    boxed: Partition
    angles: Tensor
    box_fractions: RegionFractions | None
    training_fractions: RegionFractions | None
    image_fractions: RegionFractions
    clearance: Tensor | None
    coverage: Coverage | None
    rows: Tensor
    num_tied: int
    ambiguity: Tensor
    paths: Paths | None


def measure_division(m: Measurements) -> Division:
    """Compute the partition into regions, and the position of the images in it."""
    head, stage = m.head, m.clock.stage
    generator = torch.Generator().manual_seed(SEED)
    training = training_bank(m)
    bank = None if training is None else training[0]
    box = None if bank is None else _bounding_box(bank)
    restricted = head.num_classes > MAX_DIVIDED
    classes = m.shown if restricted else list(range(head.num_classes))
    with stage("regions and facets"):
        whole, boxed = _partitions(m, classes, restricted, box)
    with stage("sizes of the regions"):
        box_fractions = None if box is None else _box_fractions(head, box)
        training_fractions = None if bank is None else feature_fractions(head, bank.features)
        image_fractions = feature_fractions(head, m.batch.features)
    rows = sample(m.batch.ok.nonzero()[:, 0], MAX_IMAGES, generator)
    with stage("guaranteed hulls"):
        clearance, covered = _guarantees(m, bank, rows)
    with stage("ambiguous images"):
        num_tied = min(NUM_TIED, head.num_classes)
        reference = None
        if bank is not None:
            reference_rows = sample(torch.arange(len(bank)), MAX_REFERENCE_IMAGES, generator)
            reference = bank.take(reference_rows)
        ambiguities = ambiguity(head, m.batch.features[rows], num_tied, reference)
    with stage("paths between images"):
        paths = _find_paths(m, generator)
    return Division(
        classes=classes,
        restricted=restricted,
        box=box,
        whole=whole,
        boxed=boxed,
        angles=weight_angles(head),
        box_fractions=box_fractions,
        training_fractions=training_fractions,
        image_fractions=image_fractions,
        clearance=clearance,
        coverage=covered,
        rows=rows,
        num_tied=num_tied,
        ambiguity=ambiguities,
        paths=paths,
    )


def _bounding_box(bank: FeatureBank) -> Domain | None:
    """Return the bounding box of the features, or None if they are all equal."""
    low, high = bank.range()
    return Domain.box(low, high) if bool((low < high).any()) else None


def _partitions(
    m: Measurements, classes: list[int], restricted: bool, box: Domain | None
) -> tuple[Partition, Partition]:
    """Return the partitions of the whole domain and of the box."""
    head = _restrict_head(m.head, classes) if restricted else m.head
    pairs: Literal["auto"] | Tensor = "auto"
    if m.head.num_classes > MAX_CLASSES and not restricted:
        pairs = torch.combinations(torch.tensor(m.shown))
    whole = partition(head, pairs=pairs)
    return whole, whole if box is None else partition(head, box, pairs=pairs)


def _restrict_head(head: LinearHead, classes: list[int]) -> LinearHead:
    return LinearHead(head.weight[classes], head.bias[classes], head.domain)


def _box_fractions(head: LinearHead, box: Domain) -> RegionFractions:
    max_samples = MAX_PRODUCTS // (head.num_classes * head.num_features)
    return region_fractions(head, box, samples=max(1, min(SAMPLES, max_samples)), seed=SEED)


def _guarantees(
    m: Measurements, bank: FeatureBank | None, rows: Tensor
) -> tuple[Tensor | None, Coverage | None]:
    """Return the clearances of the guaranteed hulls, and the coverage of the images at `rows`."""
    if bank is None:
        return None, None
    hulls = guaranteed_hulls(m.head, bank)
    labels = None if m.subject.labels is None else m.subject.labels[rows]
    covered = coverage(m.head, bank, m.batch.features[rows], labels, hulls=hulls)
    return hulls.clearance, covered
