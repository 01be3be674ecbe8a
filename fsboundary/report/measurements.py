"""Subject of a report and the measurements that its sections share, computed once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.boundaries import flip_points
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch, FlipPoints, GuaranteedBalls
from fsboundary.core.status import OK_CODES, Status
from fsboundary.core.tolerance import absolute
from fsboundary.plugins.interfaces import BoundaryFinder, HullSolver
from fsboundary.regions import guaranteed_balls
from fsboundary.report.clock import Clock
from fsboundary.space import FeatureSpace

MAX_CLASSES = 30
"""With more classes than this, pairs are studied only for the SHOWN_CLASSES predicted most often,
because a larger table is unreadable and all pairs of 1,000 classes are 999 problems per image."""

SHOWN_CLASSES = 20
"""Classes predicted equally often are ordered by the number of images whose nearest boundary is
that of the class, so that which of them are shown depends on the images."""

SEED = 0
"""Seed of all random samples of a report."""

POINTS_BYTES = 64 << 20
"""Memory of the flip points of one chunk of rows."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """Model, images and plugins that a report studies.

    Attributes
    ----------
    space : FeatureSpace
    images : Tensor (N, C, H, W)
        Pixels in [0, 1].
    labels : Tensor (N,) or None
        True classes; -1 for an image without a label.
    class_names : tuple of str
        K names.
    file_names : tuple of str or None
        N names.
    train_images : Tensor (M, C, H, W) or None
        Training images, for the mean feature of each class and the hull of the training set.
    train_labels : Tensor (M,) or None
        True classes of the training images, -1 for none; if None, the predicted classes are used
        instead.
    finder : BoundaryFinder
    hull_solver : HullSolver
    batch_size : int
        Number of images per forward pass.
    title : str
    facts : dict of str to str
        Further lines of the provenance, such as the origin of the weights.
    """

    space: FeatureSpace
    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    file_names: tuple[str, ...] | None
    train_images: Tensor | None
    train_labels: Tensor | None
    finder: BoundaryFinder
    hull_solver: HullSolver
    batch_size: int
    title: str
    facts: dict[str, str]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flips:
    """Flip distances of B rows to T targets, without the flip points.

    The points are omitted because B x T x d numbers may not fit in memory.

    Attributes
    ----------
    target, status : Tensor (B, T)
    distance, lower_bound, relative_gap : Tensor (B, T), float64
    """

    target: Tensor
    distance: Tensor
    lower_bound: Tensor
    relative_gap: Tensor
    status: Tensor

    @property
    def ok(self) -> Tensor:
        """Whether each entry is a final result, bool (B, T)."""
        return torch.isin(self.status, torch.tensor(OK_CODES))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """Measurements of a subject, on the CPU.

    Attributes
    ----------
    subject : Subject
    clock : Clock
        Clock with which sections time the parts of a long computation.
    head : LinearHead
    batch, train : FeatureBatch
        Features of the images and, if there are any, of the training images.
    flips : Flips
        Flip points to all classes if there are at most MAX_CLASSES, else to the `shown` ones.
    nearest : Flips
        Flip points to the nearest class, T = 1.
    balls : GuaranteedBalls
    shown : list of int
        Classes that tables and small multiples show.
    means : Tensor (K, d), float64
        Mean feature of each class; NaN for a class without images.
    """

    subject: Subject
    clock: Clock
    head: LinearHead
    batch: FeatureBatch
    train: FeatureBatch | None
    flips: Flips
    nearest: Flips
    balls: GuaranteedBalls
    shown: list[int]
    means: Tensor

    @property
    def labelled(self) -> Tensor:
        """Which images have a label, bool (N,)."""
        labels = self.subject.labels
        return torch.zeros_like(self.batch.ok) if labels is None else labels >= 0

    @property
    def misclassified(self) -> Tensor:
        """Which images have a label that is not the predicted class, bool (N,)."""
        labels = self.subject.labels
        return self.labelled if labels is None else self.labelled & (self.batch.predicted != labels)


def certified_nearest_first(m: Measurements) -> Tensor:
    """Return the rows with a certified finite distance to the nearest class, nearest first."""
    distance = m.nearest.distance[:, 0]
    usable = distance.isfinite() & (m.nearest.status[:, 0] == int(Status.CONVERGED))
    rows = usable.nonzero()[:, 0]
    ordered: Tensor = rows[distance[rows].argsort(stable=True)]
    return ordered


def measure(subject: Subject, clock: Clock) -> Measurements:
    """Extract features and compute flip points and guaranteed balls."""
    space, cpu = subject.space, torch.device("cpu")
    with clock.stage("features of the training images"):
        train = None
        if subject.train_images is not None:
            train = space.extract(subject.train_images, batch_size=subject.batch_size).to(cpu)
    with clock.stage("features of the images"):
        batch = space.extract(subject.images, batch_size=subject.batch_size).to(cpu)
    head = space.head.to(cpu)
    with clock.stage("flip points"):
        nearest = _flips(head, batch.features, "nearest", subject.finder)
        shown = _shown_classes(batch.predicted, nearest.target[:, 0], head.num_classes)
        targets: Literal["all"] | list[int] = "all" if len(shown) == head.num_classes else shown
        flips = _flips(head, batch.features, targets, subject.finder)
    with clock.stage("guaranteed balls"):
        balls = guaranteed_balls(head, batch.features)
    return Measurements(
        subject=subject,
        clock=clock,
        head=head,
        batch=batch,
        train=train,
        flips=flips,
        nearest=nearest,
        balls=balls,
        shown=shown,
        means=_means(subject, batch, train, head.num_classes),
    )


def _shown_classes(predicted: Tensor, nearest: Tensor, classes: int) -> list[int]:
    """Return the classes to show, ascending; see MAX_CLASSES and SHOWN_CLASSES."""
    if classes <= MAX_CLASSES:
        return list(range(classes))
    images, beyond = (
        torch.bincount(numbers[numbers >= 0], minlength=classes) for numbers in (predicted, nearest)
    )
    order = (images * (len(predicted) + 1) + beyond).argsort(descending=True, stable=True)
    return sorted(order[:SHOWN_CLASSES].tolist())


def _flips(
    head: LinearHead,
    features: Tensor,
    targets: Literal["nearest", "all"] | list[int],
    finder: BoundaryFinder,
) -> Flips:
    """Compute flip points chunk by chunk; a list of targets applies to all rows."""
    width = {"nearest": 1, "all": head.num_classes - 1}.get(str(targets), len(targets))
    rows = max(1, POINTS_BYTES // (8 * width * head.num_features))
    parts = []
    for z in features.split(rows):
        chunk_targets = targets if isinstance(targets, str) else torch.tensor([targets] * len(z))
        parts.append(_summarise_flips(z, flip_points(head, z, chunk_targets, finder=finder)))
    names = [field.name for field in dataclasses.fields(Flips)]
    return Flips(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _summarise_flips(features: Tensor, points: FlipPoints) -> Flips:
    """Return the results without the points, which take most of the memory."""
    ends = torch.linalg.vector_norm(points.points, dim=-1)
    starts = torch.linalg.vector_norm(features.to(torch.float64), dim=-1)[:, None]
    floor = absolute((ends + starts).nan_to_num())
    relative = torch.where(
        points.distance.isfinite(), points.gap / torch.maximum(points.distance, floor), torch.nan
    )
    return Flips(
        target=points.target,
        distance=points.distance,
        lower_bound=points.lower_bound,
        relative_gap=relative,
        status=points.status,
    )


def _means(
    subject: Subject, batch: FeatureBatch, train: FeatureBatch | None, classes: int
) -> Tensor:
    """Return the mean feature (K, d) of each class, over the training images if there are any."""
    if train is None:
        features, labels = batch, subject.labels
    else:
        features, labels = train, subject.train_labels
    labels = features.predicted if labels is None else labels
    valid = features.ok & (labels >= 0)
    z, labels = features.features[valid].to(torch.float64), labels[valid]
    sums = torch.zeros(classes, z.shape[1], dtype=torch.float64).index_add_(0, labels, z)
    counts = torch.bincount(labels, minlength=classes)[:, None]
    return torch.where(counts > 0, sums / counts, torch.nan)
