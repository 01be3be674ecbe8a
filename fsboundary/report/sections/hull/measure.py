"""Inside or outside in fewer dimensions: the first principal components of the training set.

Where features stand to the hull of the training set: what the section on it starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import INSIDE
from fsboundary.hulls import hull_projection
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.report.measurements import MOST_CLASSES, SEED, Measurements

MOST_STEPS = 9
"""So many dimensions are looked at, at most."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """Memberships in the space of the first principal components of the generators.

    Attributes
    ----------
    dimensions : int
    images, left_out : Tensor (R,)
        ``membership`` of sampled images and of sampled training images, each left out.
    """

    dimensions: int
    images: Tensor
    left_out: Tensor


def ladder(width: int) -> list[int]:
    """Return at most MOST_STEPS dimensions from 2 to `width` in equal ratios."""
    if width < 2:
        return [width]
    powers = [k / (MOST_STEPS - 1) for k in range(MOST_STEPS)]
    return sorted({round(2 * (width / 2) ** power) for power in powers})


def sweep(bank: FeatureBank, z: Tensor, left_out: Tensor, solver: HullSolver) -> list[Step]:
    """Ask whether rows are inside in fewer dimensions than all.

    Parameters
    ----------
    bank : FeatureBank
        The generators, of width d.
    z : Tensor (R, d)
    left_out : Tensor (L,)
        Rows of the bank, each held against the hull of all others.
    solver : HullSolver

    Returns
    -------
    list of Step
        One for each number of dimensions that :func:`ladder` names, but for d itself.
    """
    skip = torch.cat([torch.full((len(z),), -1), left_out])
    points = bank.features.to(torch.float64)
    mean = points.mean(dim=0)
    axes = _principal_axes(points - mean)
    queries = torch.cat([z.to(torch.float64), points[left_out]])
    steps = []
    for p in ladder(bank.num_features)[:-1]:
        part = FeatureBank((points - mean) @ axes[:, :p])
        seen = (queries - mean) @ axes[:, :p]
        found = hull_projection(part, seen, leave_out=skip, solver=solver).membership
        steps.append(Step(dimensions=p, images=found[: len(z)], left_out=found[len(z) :]))
    return steps


def _principal_axes(centred: Tensor) -> Tensor:
    """Return orthonormal columns (d, d), those along which the points vary most first."""
    largest = centred.abs().max()
    scaled = centred / torch.where(largest > 0, largest, 1.0)  # squares must not overflow
    axes: Tensor = torch.linalg.eigh(scaled.T @ scaled).eigenvectors.flip(1)
    return axes


MOST_IMAGES = 2000
"""Of more images than this, a sample is held against the hulls."""

LEFT_OUT = 1000
"""So many training images are held against the hull of all others."""

NOISE = 200
"""Images of uniform noise."""

SWEEP_ROWS = 100
"""Images, and training images left out, of the sweep over dimensions."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Rows and where they stand.

    Attributes
    ----------
    rows : Tensor (B,)
        Of the images, of the bank, or of the noise; only those with usable features.
    hull : HullProjection
    """

    rows: Tensor
    hull: HullProjection

    @property
    def distance(self) -> Tensor:
        """Distance to the hull (B,): 0 inside, NaN where there is no certified answer."""
        return _distance(self.hull)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hulls:
    """Everything that is measured of the hull of the training set.

    Attributes
    ----------
    bank : FeatureBank
        The training images with usable features; labelled by their labels, or by the predicted
        classes where there are none.
    place : Tensor (n,)
        The training image of each row of the bank.
    images, left_out, noise : Placed
        Images; training images, each against all others (none where all features are the same);
        images of uniform noise.
    classes : list of int
        Those that the bank holds.
    class_distance : Tensor (B, len(classes)) or None
        Distance of each row of `images` to the hull of each class; None for many classes.
    sweep : list of Step
        By ascending dimensions; the last has all of them.
    """

    bank: FeatureBank
    place: Tensor
    images: Placed
    left_out: Placed
    noise: Placed
    classes: list[int]
    class_distance: Tensor | None
    sweep: list[Step]


def measure_hulls(m: Measurements) -> Hulls | None:
    """Project images, training images and noise on the hull; None without training features."""
    found = training_bank(m)
    if found is None:
        return None
    bank, place = found
    subject, solver, stage = m.subject, m.subject.hull_solver, m.clock.stage
    generator = torch.Generator().manual_seed(SEED)
    with stage("noise images"):
        shape = (NOISE, *subject.images.shape[1:])
        pixels = torch.rand(shape, generator=generator).to(subject.images)
        drawn = subject.space.extract(pixels, batch_size=subject.batch_size).to("cpu")
    with stage("hull of the training set"):
        rows = sample(m.batch.ok.nonzero()[:, 0], MOST_IMAGES, generator)
        z = m.batch.features[rows]
        images = Placed(rows=rows, hull=hull_projection(bank, z, solver=solver))
        rows = sample(_can_be_left_out(bank), LEFT_OUT, generator)
        others = hull_projection(bank, bank.take(rows), leave_out=rows, solver=solver)
        left_out = Placed(rows=rows, hull=others)
        rows = drawn.ok.nonzero()[:, 0]
        noise = Placed(rows=rows, hull=hull_projection(bank, drawn.features[rows], solver=solver))
    assert bank.labels is not None  # every bank of a report has labels
    classes = bank.labels.unique().tolist()
    with stage("hulls of the classes"):
        apart = None
        if len(classes) <= MOST_CLASSES:
            apart = torch.stack([_to_class(bank, z, k, solver) for k in classes], dim=1)
    with stage("hulls in fewer dimensions"):
        chosen = sample(torch.arange(len(z)), SWEEP_ROWS, generator)
        out = sample(torch.arange(len(left_out.rows)), SWEEP_ROWS, generator)
        whole = Step(
            dimensions=bank.num_features,
            images=images.hull.membership[chosen],
            left_out=left_out.hull.membership[out],
        )
        fewer = sweep(bank, z[chosen], left_out.rows[out], solver)
    return Hulls(
        bank=bank,
        place=place,
        images=images,
        left_out=left_out,
        noise=noise,
        classes=classes,
        class_distance=apart,
        sweep=[*fewer, whole],
    )


def training_bank(m: Measurements) -> tuple[FeatureBank, Tensor] | None:
    """Return the training images with usable features and their places; None without any.

    They are labelled by their labels, or by the predicted classes where there are none.
    """
    if m.train is None or not m.train.ok.any():
        return None
    place = m.train.ok.nonzero()[:, 0]
    owners = m.train.predicted if m.subject.train_labels is None else m.subject.train_labels
    return FeatureBank(m.train.features[place], owners[place]), place


def sample(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return `rows`, or `most` of them, in ascending order."""
    if len(rows) <= most:
        return rows
    chosen: Tensor = rows[torch.randperm(len(rows), generator=generator)[:most]].sort().values
    return chosen


def _distance(hull: HullProjection) -> Tensor:
    return torch.where(hull.membership == INSIDE, 0.0, hull.distance)


def _can_be_left_out(bank: FeatureBank) -> Tensor:
    """Return all rows, or none where all are copies of one point: then nothing would be left."""
    points = bank.features
    return torch.arange(len(bank) if (points != points[:1]).any() else 0)


def _to_class(bank: FeatureBank, z: Tensor, k: int, solver: HullSolver) -> Tensor:
    """Return the distance (B,) to the hull of class `k`."""
    return _distance(hull_projection(bank, z, labels=torch.full((len(z),), k), solver=solver))
