"""Straight ways from image to image, and the classes met on them.

How the head divides the space: what the section on it starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

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
from fsboundary.report.measurements import MOST_CLASSES, SEED, Measurements
from fsboundary.report.sections.hull.measure import MOST_IMAGES, sample, training_bank

PAIRS = 500
"""Random pairs of images."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """Paths between random pairs of images of different classes.

    Attributes
    ----------
    met : Tensor (N,)
        How many classes each path meets, both ends included.
    start, end : int
        The images of the path that meets most classes, the first such.
    classes : list of int
        Those that it meets, in order.
    crossings : list of float
        Where they change, in (0, 1) from the start to the end.
    """

    met: Tensor
    start: int
    end: int
    classes: list[int]
    crossings: list[float]


def find_paths(m: Measurements, generator: torch.Generator) -> Paths | None:
    """Walk between random images predicted as different classes; None without a certain path."""
    rows = m.batch.ok.nonzero()[:, 0]
    if not len(rows):
        return None
    drawn = rows[torch.randint(len(rows), (PAIRS, 2), generator=generator)]
    predicted = m.batch.predicted[drawn]
    drawn = drawn[predicted[:, 0] != predicted[:, 1]]
    found = class_path(m.head, m.batch.features[drawn[:, 0]], m.batch.features[drawn[:, 1]])
    sure = found.status == Status.CONVERGED
    met = (found.classes >= 0).sum(dim=1) * sure
    if not bool(sure.any()):
        return None
    longest = int((met == met.max()).nonzero()[0, 0])
    length = int(met[longest])
    return Paths(
        met=met[sure],
        start=int(drawn[longest, 0]),
        end=int(drawn[longest, 1]),
        classes=found.classes[longest, :length].tolist(),
        crossings=found.crossings[longest, : length - 1].tolist(),
    )


MOST_DIVIDED = 60
"""With more classes than this, regions are those among the shown classes alone: each takes a
linear program with a row for every other class, and 1,000 of them are no part of a report."""

REFERENCE = 2000
"""So many training images, at most, say which ambiguity is usual."""

TIED = 3
"""Ambiguity asks where so many of the top classes tie."""

SAMPLES = 100_000
"""Points drawn in the box, fewer where classes times features are many."""

PRODUCTS = 2 * 10**10
"""The most products of a weight and a feature that the sample may take."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Division:
    """Everything that is measured of the regions.

    Attributes
    ----------
    classes : list of int
        The classes of the tables of both partitions, ascending.
    alone : bool
        Whether the partitions are those among `classes` only, as if there were no other class.
    box : Domain or None
        What the training features span; None without any, or where they are all the same.
    whole, boxed : Partition
        Over the whole domain, and in the box (the same as over the whole domain without a box).
    angles : Tensor (K, K), float64
        Between the weights of all classes less their mean, radians.
    drawn, training, images : RegionFractions or None
        Of all K classes: of a uniform sample of the box, of the training images, of the images.
    clearance : Tensor (K,) or None
        Of the guaranteed hulls.
    covered : Coverage or None
        Of the images at `rows`, by guaranteed sets of the training images.
    rows : Tensor (B,)
        Images that are asked whether they are covered and how ambiguous they are.
    tied : int
        So many top classes tie where an image is most ambiguous.
    ambiguity : Tensor (B,), float64
    paths : Paths or None
    """

    classes: list[int]
    alone: bool
    box: Domain | None
    whole: Partition
    boxed: Partition
    angles: Tensor
    drawn: RegionFractions | None
    training: RegionFractions | None
    images: RegionFractions
    clearance: Tensor | None
    covered: Coverage | None
    rows: Tensor
    tied: int
    ambiguity: Tensor
    paths: Paths | None


def measure_division(m: Measurements) -> Division:
    """Divide the space, and hold the images against it."""
    head, stage = m.head, m.clock.stage
    generator = torch.Generator().manual_seed(SEED)
    found = training_bank(m)
    bank = None if found is None else found[0]
    box = None
    if bank is not None:
        low, high = bank.range()
        box = Domain.box(low, high) if bool((low < high).any()) else None
    alone = head.num_classes > MOST_DIVIDED
    classes = m.shown if alone else list(range(head.num_classes))
    with stage("regions and facets"):
        divided = _among(head, classes) if alone else head
        few = head.num_classes > MOST_CLASSES and not alone
        pairs: Literal["auto"] | Tensor = "auto"
        if few:
            pairs = torch.combinations(torch.tensor(m.shown))
        whole = partition(divided, pairs=pairs)
        boxed = whole if box is None else partition(divided, box, pairs=pairs)
    with stage("sizes of the regions"):
        drawn = None
        if box is not None:
            most = PRODUCTS // (head.num_classes * head.num_features)
            drawn = region_fractions(head, box, samples=max(1, min(SAMPLES, most)), seed=SEED)
        training = None if bank is None else feature_fractions(head, bank.features)
        images = feature_fractions(head, m.batch.features)
    rows = sample(m.batch.ok.nonzero()[:, 0], MOST_IMAGES, generator)
    z = m.batch.features[rows]
    with stage("guaranteed hulls"):
        clearance, covered = None, None
        if bank is not None:
            hulls = guaranteed_hulls(head, bank)
            labels = None if m.subject.labels is None else m.subject.labels[rows]
            clearance = hulls.clearance
            covered = coverage(head, bank, z, labels, hulls=hulls)
    with stage("ambiguous images"):
        tied = min(TIED, head.num_classes)
        usual = None
        if bank is not None:
            usual = bank.take(sample(torch.arange(len(bank)), REFERENCE, generator))
        unclear = ambiguity(head, z, tied, usual)
    with stage("paths between images"):
        paths = find_paths(m, generator)
    return Division(
        classes=classes,
        alone=alone,
        box=box,
        whole=whole,
        boxed=boxed,
        angles=weight_angles(head),
        drawn=drawn,
        training=training,
        images=images,
        clearance=clearance,
        covered=covered,
        rows=rows,
        tied=tied,
        ambiguity=unclear,
        paths=paths,
    )


def _among(head: LinearHead, classes: list[int]) -> LinearHead:
    return LinearHead(head.weight[classes], head.bias[classes], head.domain)
