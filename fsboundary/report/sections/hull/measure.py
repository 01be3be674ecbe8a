"""Projections on the hull of the training set, also in the space of its principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.checks import labelled_classes
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import INSIDE
from fsboundary.hulls import hull_projection
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.report.measurements import MAX_CLASSES, SEED, Measurements

MAX_STEPS = 9
"""Largest number of different dimensions in the sweep."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepStep:
    """Memberships in the space of the first principal components of the generators.

    Attributes
    ----------
    dimensions : int
    images, leave_one_out : Tensor (R,)
        ``membership`` of sampled images, and of sampled training images relative to the hull of
        all others.
    """

    dimensions: int
    images: Tensor
    leave_one_out: Tensor


def dimension_grid(width: int) -> list[int]:
    """Return at most MAX_STEPS dimensions from 2 to `width`, in a geometric sequence."""
    if width < 2:
        return [width]
    powers = [k / (MAX_STEPS - 1) for k in range(MAX_STEPS)]
    return sorted({round(2 * (width / 2) ** power) for power in powers})


def _sweep_dimensions(
    bank: FeatureBank, z: Tensor, leave_one_out: Tensor, solver: HullSolver
) -> list[SweepStep]:
    """Return memberships in fewer than all dimensions.

    Parameters
    ----------
    bank : FeatureBank
        Generators of width d.
    z : Tensor (R, d)
    leave_one_out : Tensor (L,)
        Rows of the bank, each relative to the hull of all others.
    solver : HullSolver

    Returns
    -------
    list of SweepStep
        One per number of dimensions in :func:`dimension_grid`, except d itself.
    """
    excluded = torch.cat([torch.full((len(z),), -1), leave_one_out])
    points = bank.features.to(torch.float64)
    mean = points.mean(dim=0)
    axes = _principal_axes(points - mean)
    queries = torch.cat([z.to(torch.float64), points[leave_one_out]])
    steps = []
    for p in dimension_grid(bank.num_features)[:-1]:
        bank_p = FeatureBank((points - mean) @ axes[:, :p])
        queries_p = (queries - mean) @ axes[:, :p]
        projection = hull_projection(bank_p, queries_p, leave_out=excluded, solver=solver)
        images, train = projection.membership[: len(z)], projection.membership[len(z) :]
        steps.append(SweepStep(dimensions=p, images=images, leave_one_out=train))
    return steps


def _principal_axes(centred: Tensor) -> Tensor:
    """Return orthonormal columns (d, d), in descending order of the points' variance."""
    largest = centred.abs().max()
    scaled = centred / torch.where(largest > 0, largest, 1.0)  # squares must not overflow
    axes: Tensor = torch.linalg.eigh(scaled.T @ scaled).eigenvectors.flip(1)
    return axes


MAX_IMAGES = 2000
"""Largest number of images projected on the hulls; of more images, a sample is used."""

LEAVE_ONE_OUT = 1000
"""Largest number of training images projected on the hull of all others."""

NOISE = 200
"""Number of images of uniform noise."""

SWEEP_ROWS = 100
"""Largest number of images, and of training images, in the sweep over dimensions."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProjectedRows:
    """Rows and their projections on the hull.

    Attributes
    ----------
    rows : Tensor (B,)
        Rows of the images, of the bank or of the noise; only those with usable features.
    hull : HullProjection
    """

    rows: Tensor
    hull: HullProjection

    @property
    def distance(self) -> Tensor:
        """Distance to the hull (B,): 0 inside, NaN without a certified result."""
        return _distance(self.hull)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hulls:
    """Measurements of the hull of the training set.

    Attributes
    ----------
    bank : FeatureBank
        Usable features of the training images, with their labels or, if there are none, their
        predicted classes.
    train_rows : Tensor (n,)
        Training image of each row of the bank.
    images, leave_one_out, noise : ProjectedRows
        Images; training images, each relative to the hull of all others (none if all features are
        equal); images of uniform noise.
    classes : list of int
        Classes in the bank.
    class_distance : Tensor (B, len(classes)) or None
        Distance of each row of `images` to the hull of each class; None for many classes.
    sweep : list of SweepStep
        Results in ascending numbers of dimensions; the last has all of them.
    """

    bank: FeatureBank
    train_rows: Tensor
    images: ProjectedRows
    leave_one_out: ProjectedRows
    noise: ProjectedRows
    classes: list[int]
    class_distance: Tensor | None
    sweep: list[SweepStep]


def measure_hulls(m: Measurements) -> Hulls | None:
    """Project images, training images and noise on the hull; None without training features."""
    training = training_bank(m)
    if training is None:
        return None
    bank, train_rows = training
    subject, solver, stage = m.subject, m.subject.hull_solver, m.clock.stage
    generator = torch.Generator().manual_seed(SEED)
    with stage("noise images"):
        shape = (NOISE, *subject.images.shape[1:])
        pixels = torch.rand(shape, generator=generator, dtype=torch.float32).to(subject.images)
        noise_batch = subject.space.extract(pixels, batch_size=subject.batch_size).to("cpu")
    with stage("hull of the training set"):
        rows = sample(m.batch.ok.nonzero()[:, 0], MAX_IMAGES, generator)
        z = m.batch.features[rows]
        images = ProjectedRows(rows=rows, hull=hull_projection(bank, z, solver=solver))
        rows = sample(_leave_one_out_rows(bank), LEAVE_ONE_OUT, generator)
        projection = hull_projection(bank, bank.take(rows), leave_out=rows, solver=solver)
        leave_one_out = ProjectedRows(rows=rows, hull=projection)
        rows = noise_batch.ok.nonzero()[:, 0]
        projection = hull_projection(bank, noise_batch.features[rows], solver=solver)
        noise = ProjectedRows(rows=rows, hull=projection)
    classes = labelled_classes(bank)
    with stage("hulls of the classes"):
        class_distance = None
        if len(classes) <= MAX_CLASSES:
            distances = [_class_distance(bank, z, k, solver) for k in classes]
            class_distance = torch.stack(distances, dim=1)
    with stage("hulls in fewer dimensions"):
        swept = sample(torch.arange(len(z)), SWEEP_ROWS, generator)
        swept_train = sample(torch.arange(len(leave_one_out.rows)), SWEEP_ROWS, generator)
        full = SweepStep(
            dimensions=bank.num_features,
            images=images.hull.membership[swept],
            leave_one_out=leave_one_out.hull.membership[swept_train],
        )
        fewer = _sweep_dimensions(bank, z[swept], leave_one_out.rows[swept_train], solver)
    return Hulls(
        bank=bank,
        train_rows=train_rows,
        images=images,
        leave_one_out=leave_one_out,
        noise=noise,
        classes=classes,
        class_distance=class_distance,
        sweep=[*fewer, full],
    )


def training_bank(m: Measurements) -> tuple[FeatureBank, Tensor] | None:
    """Return a bank of the usable training features and its training images; None without any.

    The labels of the bank are the true classes, or the predicted classes if there are no labels.
    """
    if m.train is None or not m.train.ok.any():
        return None
    rows = m.train.ok.nonzero()[:, 0]
    labels = m.train.predicted if m.subject.train_labels is None else m.subject.train_labels
    return FeatureBank(m.train.features[rows], labels[rows]), rows


def sample(rows: Tensor, max_rows: int, generator: torch.Generator) -> Tensor:
    """Return at most `max_rows` random `rows`, in ascending order."""
    if len(rows) <= max_rows:
        return rows
    chosen: Tensor = rows[torch.randperm(len(rows), generator=generator)[:max_rows]].sort().values
    return chosen


def _distance(hull: HullProjection) -> Tensor:
    return torch.where(hull.membership == INSIDE, 0.0, hull.distance)


def _leave_one_out_rows(bank: FeatureBank) -> Tensor:
    """Return all rows, or none if all are copies of one point, because no other point remains."""
    points = bank.features
    return torch.arange(len(bank) if (points != points[:1]).any() else 0)


def _class_distance(bank: FeatureBank, z: Tensor, k: int, solver: HullSolver) -> Tensor:
    """Return the distance (B,) to the hull of class `k`."""
    return _distance(hull_projection(bank, z, labels=torch.full((len(z),), k), solver=solver))
