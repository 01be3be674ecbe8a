"""Comparison of pixel space and feature space on the same images.

Yousefzadeh (arXiv 2202.04052) finds the decision boundaries and hulls in feature space
significantly different from those in pixel space. Each line of the table here is one measure,
computed in both spaces by the same method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor, nn

from fsboundary.analysis.table import Measure, TwoSpaces
from fsboundary.banks import FeatureBank
from fsboundary.banks.checks import labelled_classes
from fsboundary.boundaries import class_path, flip_points
from fsboundary.core.checks import check_integer, check_labels
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import FlipPoints
from fsboundary.core.rows import TensorOrArray
from fsboundary.hulls import (
    extrapolation,
    hull_projection,
    hull_separation,
    leave_one_out_distances,
)
from fsboundary.modes import in_standard_modes
from fsboundary.pixels import flip_images
from fsboundary.pixels.checks import check_bounds, check_pixels, measure_accuracy
from fsboundary.pixels.model_calls import features_of
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of

_ROWS = 64
"""Number of rows whose distances to every training point are in memory at a time."""

_NARROW = 128
"""Dimensions up to which the default solver is faster, and decides more of the near pairs."""

_WIDE = 4096
"""Maximum number of dimensions for the interior-point solver, whose table is their square."""

_MAX_ELEMENTS = 2**27
"""Maximum number of elements of all points for that solver, which makes copies of 1 GiB each."""


@final
class Points:
    """Training points with labels, and rows to compare with them, in one space.

    Parameters
    ----------
    rows : Tensor (B, d)
    train : Tensor (N, d)
    labels : Tensor (N,)
    """

    def __init__(self, rows: Tensor, train: Tensor, labels: Tensor) -> None:
        self.rows, self.train = rows.double(), train.double()
        self.labels = labels
        # hulls need only the span of the points, and memory for the square of its dimension
        self._hull_rows, hull_train = _to_common_span(self.rows, self.train)
        self.bank = FeatureBank(hull_train, labels)

    def usual_distance(self, pairs: Tensor) -> float:
        """Return the median distance between training points `pairs` (P,2): a unit of length."""
        differences = self.train[pairs[:, 0]] - self.train[pairs[:, 1]]
        return _median(torch.linalg.vector_norm(differences, dim=1))

    def hull_distances(self, reference: int, seed: int) -> tuple[Tensor, float]:
        """Return hull distances over the mean leave-one-out distance (B,), and the fraction inside.

        The distances are NaN if no leave-one-out distance is positive and finite.
        """
        projection = hull_projection(self.bank, self._hull_rows)
        inside = _mean(projection.membership == 1)
        left_out = leave_one_out_distances(self.bank, reference, seed=seed)
        if not bool((torch.isfinite(left_out.distance) & (left_out.distance > 0)).any()):
            return torch.full_like(projection.distance, torch.nan), inside
        return extrapolation(projection, left_out).ratio, inside

    def class_hull_distances(self) -> tuple[Tensor, Tensor]:
        """Return the distances between the hulls of all pairs of classes, and which are apart.

        Distances (P,) are 0 where hulls meet, NaN where none is certified. The second table (P,)
        has 1 for hulls proved not to meet, 0 for hulls that meet, NaN where this is undecided.
        """
        pairs = torch.combinations(torch.tensor(labelled_classes(self.bank), dtype=torch.int64))
        if len(pairs) == 0:
            return self.train.new_zeros(0), self.train.new_zeros(0)
        width, size = self.bank.num_features, self.bank.num_features * len(self.bank)
        wide = _NARROW < width <= _WIDE and size <= _MAX_ELEMENTS
        solver = "interior_point" if wide else "active_set"
        result = hull_separation(self.bank, pairs[:, 0], pairs[:, 1], solver=solver)
        distance = torch.where(result.intersect == 1, 0.0, result.distance)
        apart = (result.intersect == -1).double()
        return distance, torch.where(result.intersect == 0, torch.nan, apart)

    def neighbours(self, count: int) -> Tensor:
        """Return the training rows nearest to each row, nearest first, (B,count)."""
        count = min(count, len(self.train))
        parts = [
            torch.cdist(part, self.train).topk(count, largest=False).indices
            for part in self.rows.split(_ROWS)
        ]
        return torch.cat(parts)


def _to_common_span(rows: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in an orthonormal basis of their common span if it has fewer dimensions."""
    points = torch.cat([train, rows])
    if points.shape[1] > len(points):
        points = points @ torch.linalg.qr(points.T).Q
    return points[len(train) :], points[: len(train)]


def _mean(values: Tensor) -> float:
    """Return the mean of `values` that are not NaN; NaN if there are none."""
    return float(values.double().nanmean())


def _median(values: Tensor) -> float:
    """Return the median of finite `values`; NaN if there are none."""
    finite = values[torch.isfinite(values)]
    return float(finite.double().quantile(0.5)) if len(finite) else math.nan


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of the entries finite in both; NaN if one is constant."""
    both = torch.isfinite(a) & torch.isfinite(b)
    x, y = a[both].cpu().numpy(), b[both].cpu().numpy()
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def angles_between(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles in degrees between the rows of `a` and of `b` (B,d), (B,)."""
    a = a.double() / torch.linalg.vector_norm(a.double(), dim=1, keepdim=True)
    b = b.double() / torch.linalg.vector_norm(b.double(), dim=1, keepdim=True)
    # from the half angle, which is accurate near 0 and 180 degrees too
    half = torch.atan2(
        torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1)
    )
    return torch.rad2deg(2 * half)


_RANKS = "rank correlation"


@final
class PairedPoints:
    """The same rows in pixels and in features, with a unit of length in each space.

    Parameters
    ----------
    pixels, features : Points
    pairs : Tensor (P, 2)
        Training points whose median distance is the unit.
    """

    def __init__(self, pixels: Points, features: Points, pairs: Tensor) -> None:
        self.pixels, self.features = pixels, features
        self.units = pixels.usual_distance(pairs), features.usual_distance(pairs)


def draw_pairs(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` pairs (P,2) of different rows of `total`, with repetition."""
    first = torch.randint(total, (count,), generator=generator)
    step = torch.randint(1, total, (count,), generator=generator)
    return torch.stack([first, (first + step) % total], dim=1)


def _hull_measures(both: PairedPoints, reference: int, seed: int) -> list[Measure]:
    """Return the measures of rows relative to the hull of the training points."""
    p, inside_p = both.pixels.hull_distances(reference, seed)
    f, inside_f = both.features.hull_distances(reference, seed)
    return [
        Measure(
            name="inside",
            question="fraction of images inside the hull of the training images",
            pixels=inside_p,
            features=inside_f,
        ),
        Measure(
            name="hull_distance",
            question="median distance to that hull, relative to the mean leave-one-out distance",
            pixels=_median(p),
            features=_median(f),
            agreement=rank_correlation(p, f),
            agreement_is=_RANKS,
        ),
    ]


def class_hull_measures(both: PairedPoints) -> list[Measure]:
    """Return the measures of the hulls of two classes: whether they meet, and their distance."""
    p, apart_p = both.pixels.class_hull_distances()
    f, apart_f = both.features.class_hull_distances()
    decided = [int(torch.isfinite(apart).sum()) for apart in (apart_p, apart_f)]
    note = f" (of {len(p)}, {decided[0]} and {decided[1]} are decided)"
    note = "" if min(decided) == len(p) else note
    return [
        Measure(
            name="classes_apart",
            question=f"fraction of pairs of classes whose hulls do not meet{note}",
            pixels=_mean(apart_p),
            features=_mean(apart_f),
        ),
        Measure(
            name="class_hull_distance",
            question="median distance between the hulls of two classes, in usual distances",
            pixels=_median(p / both.units[0]),
            features=_median(f / both.units[1]),
            agreement=rank_correlation(p, f),
            agreement_is=_RANKS,
        ),
    ]


def _neighbour_measures(both: PairedPoints, labels: Tensor, count: int) -> list[Measure]:
    """Return the measure of the classes of the nearest training points."""
    p, f = (s.neighbours(count) for s in (both.pixels, both.features))
    known, train_labels = labels >= 0, both.pixels.labels
    labels = labels[known, None]
    common = (p[:, :, None] == f[:, None, :]).any(dim=2)
    return [
        Measure(
            name="neighbours",
            question=f"fraction of the {p.shape[1]} nearest training images with the image's class",
            pixels=_mean(train_labels[p[known]] == labels),
            features=_mean(train_labels[f[known]] == labels),
            agreement=_mean(common),
            agreement_is="fraction of neighbours in common",
        )
    ]


def _boundary_measures(
    space: FeatureSpace,
    both: PairedPoints,
    images: Tensor,
    bounds: tuple[float, float],
    pairs: Tensor,
) -> list[Measure]:
    """Return the measures of the nearest boundary: its distance, its class and its direction."""
    z = both.features.rows[: len(images)]
    flips = flip_images(space, images, bounds=bounds)
    corners = flip_points(space.head, z)
    p = (flips.images - images).flatten(1).double()
    f = corners.points[:, 0] - z
    displacement = features_of(space, flips.images.nan_to_num(), 256) - z
    found = torch.isfinite(flips.distance)
    displacement = torch.where(found[:, None], displacement, torch.nan)
    one, other = _same_boundary(corners, space.head.num_classes, pairs % len(images))
    return [
        Measure(
            name="boundary_distance",
            question="median distance to the nearest boundary, in usual distances",
            pixels=_median(flips.distance / both.units[0]),
            features=_median(corners.distance[:, 0] / both.units[1]),
            agreement=rank_correlation(flips.distance, corners.distance[:, 0]),
            agreement_is=_RANKS,
        ),
        Measure(
            name="same_target",
            question="other class at the nearest boundary",
            pixels=math.nan,
            features=math.nan,
            agreement=_mean(corners.target[found, 0] == flips.target[found]),
            agreement_is="fraction of images where it is the same",
        ),
        Measure(
            name="direction",
            question="median angle between the directions of two images to the boundary of the "
            "same pair of classes, degrees",
            pixels=_median(angles_between(p[one], p[other])),
            features=_median(angles_between(f[one], f[other])),
            agreement=_median(angles_between(displacement, f)),
            agreement_is="angle in features between the directions to flip image and flip point",
        ),
    ]


def _same_boundary(flips: FlipPoints, num_classes: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (Q,), (Q,) of those `pairs` (P,2) with equal source and equal target.

    In a linear classifier, all their directions to the boundary would be the same.
    """
    one, other = pairs[:, 0], pairs[:, 1]
    kind = flips.source * num_classes + flips.target[:, 0]
    same = (kind[one] == kind[other]) & (one != other)
    return one[same], other[same]


def _segment_measures(
    space: FeatureSpace,
    both: PairedPoints,
    images: Tensor,
    pairs: Tensor,
    points: int,
    batch_size: int,
) -> list[Measure]:
    """Return the measures of the classes met between two images of different predicted class."""
    z = both.features.rows
    predicted = space.head.predict(z)
    pairs = pairs[predicted[pairs[:, 0]] != predicted[pairs[:, 1]]]
    start, end = pairs[:, 0], pairs[:, 1]
    paths = class_path(space.head, z[start], z[end])
    exact = [[k for k in row if k >= 0] for row in paths.classes.tolist()]
    times = torch.linspace(0, 1, points, dtype=images.dtype, device=images.device)
    sampled = []
    for one, other in zip(images[start], images[end], strict=True):
        frames = torch.lerp(one[None], other[None], times.reshape(-1, 1, 1, 1))
        classes = space.head.predict(features_of(space, frames, batch_size))
        sampled.append(classes.unique_consecutive().tolist())
    counts = [torch.tensor([len(path) for path in paths]) for paths in (sampled, exact)]
    third = [torch.tensor([len(set(path)) > 2 for path in paths]) for paths in (sampled, exact)]
    return [
        Measure(
            name="classes_met",
            question="mean number of classes met on the segment between two images of different "
            "classes",
            pixels=_mean(counts[0]),
            features=_mean(counts[1]),
            agreement=_mean(torch.tensor([a == b for a, b in zip(sampled, exact, strict=True)])),
            agreement_is="fraction of segments with the same classes in the same order",
        ),
        Measure(
            name="third_class",
            question="fraction of such segments that meet a third class",
            pixels=_mean(third[0]),
            features=_mean(third[1]),
        ),
    ]


@in_standard_modes
def two_spaces(
    space: nn.Module | FeatureSpace,
    images: Float[TensorOrArray, "B C H W"],
    labels: Int[TensorOrArray, " B"],
    train_images: Float[Tensor, "N C H W"],
    train_labels: Int[TensorOrArray, " N"],
    *,
    sample: int = 200,
    flips: int = 100,
    pairs: int = 500,
    neighbours: int = 10,
    points: int = 101,
    bounds: tuple[float, float] = (0, 1),
    seed: int = 0,
    batch_size: int = 256,
    show_progress: bool = False,
) -> TwoSpaces:
    """Return measures of the same images in pixels and in features.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images, labels : Tensor (B, C, H, W), Tensor (B,)
        Images that are measured, and their true classes; a UserWarning reports an accuracy near
        chance.
    train_images, train_labels : Tensor (N, C, H, W), Tensor (N,)
        Training images; all of them span the hulls.
    sample : int
        Number of images drawn from `images` for hulls and neighbours, and of training images for
        the leave-one-out distances.
    flips : int
        Number of images of the sample whose nearest boundary is searched in pixels.
    pairs : int
        Number of pairs of images of the sample for angles and segments, and of training images for
        the usual distance.
    neighbours : int
        Number of nearest training images.
    points : int
        Number of images on a segment in pixels whose class is computed; in features the classes on
        a segment are exact.
    bounds : (float, float)
        Smallest and largest pixel value.
    seed : int
        Seed of every draw.
    batch_size : int
        Number of images per batch.
    show_progress : bool
        Whether to show a progress bar of the stages.

    Returns
    -------
    TwoSpaces
        Distances are in units of the usual distance: the median between two training images.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, fewer than 3 images, images outside the bounds or not finite.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> space = fsb.FeatureSpace(model)
    >>> labels = space.extract(images).predicted
    >>> found = fsb.analysis.two_spaces(
    ...     space, images[:10], labels[:10], images[10:], labels[10:], flips=2, pairs=5
    ... )
    >>> [measure.name for measure in found.measures][:3]
    ['inside', 'hull_distance', 'classes_apart']
    """
    model, limits = space_of(space), check_bounds(bounds)
    fix = "drop such images: hulls and means use all rows"
    x = check_pixels(images, limits, finite_fix=fix)
    train = check_pixels(train_images, limits, "train_images", finite_fix=fix).to(x.device)
    check_integer("batch_size", batch_size)
    for name, part in (("images", x), ("train_images", train)):
        if len(part) < 3:
            raise ArgumentError(name, f"{len(part)} images", "at least 3", "pass more")
    train_labels = check_labels(train_labels, len(train), "train_labels").to(x.device)
    labels = check_labels(labels, len(x)).to(x.device)
    sizes = {"sample": sample, "flips": flips, "pairs": pairs, "neighbours": neighbours}
    for name, size in (sizes | {"points": points}).items():
        check_integer(name, size, 2)
    predicted = model.extract(x, batch_size=batch_size).predicted
    classes = model.head.num_classes
    measure_accuracy(predicted, labels, classes)
    check_labels(train_labels, len(train), "train_labels", classes)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(x), generator=generator)[:sample]
    x, sample_labels = x[drawn], labels[drawn]
    z = model.extract(x, batch_size=batch_size).features
    train_z = model.extract(train, batch_size=batch_size, show_progress=show_progress).features
    both = PairedPoints(
        Points(x.flatten(1), train.flatten(1), train_labels),
        Points(z, train_z, train_labels),
        draw_pairs(len(train), pairs, generator),
    )
    image_pairs = draw_pairs(len(x), pairs, generator).to(x.device)
    stages: tuple[Callable[[], list[Measure]], ...] = (
        lambda: _hull_measures(both, sample, seed),
        lambda: class_hull_measures(both),
        lambda: _neighbour_measures(both, sample_labels, neighbours),
        lambda: _boundary_measures(model, both, x[:flips], limits, image_pairs),
        lambda: _segment_measures(model, both, x, image_pairs, points, batch_size),
    )
    measures: list[Measure] = []
    for stage in tqdm(stages, unit="stage", disable=not show_progress):
        measures += stage()
    counts = {
        "images": len(x),
        "training images": len(train),
        "flip images": min(flips, len(x)),
        "pairs": len(image_pairs),
        "neighbours": min(neighbours, len(train)),
    }
    return TwoSpaces(measures=tuple(measures), sizes=counts)
