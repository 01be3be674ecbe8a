"""Measures of points in one space, the same for pixels and for features.

The questions that pixels and features are asked, one function each.

The same images in pixels and in features, and whether the geometry is the same.

Yousefzadeh (arXiv 2202.04052) finds the decision boundaries and hulls in feature space
significantly different from those in pixel space. Each line of the table here is one such question,
answered in both spaces by the same method.
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
from tqdm import tqdm

from fsboundary.analysis.table import Measure, TwoSpaces
from fsboundary.banks import FeatureBank
from fsboundary.boundaries import class_path, flip_points
from fsboundary.core.errors import ArgumentError
from fsboundary.hulls import (
    extrapolation,
    hull_projection,
    hull_separation,
    leave_one_out_distances,
)
from fsboundary.models.images import check_batch_size
from fsboundary.pixels import flip_images
from fsboundary.pixels.checks import check_bounds, check_labels, check_pixels, told_accuracy
from fsboundary.pixels.model_calls import features_of
from fsboundary.space import FeatureSpace, space_of

_ROWS = 64
"""Rows whose distances to every training point are in memory at a time."""

_NARROW = 128
"""Dimensions up to which the default solver is the faster one, and closes the nearer pairs."""

_WIDE = 4096
"""Most dimensions in which a table of width by width is made ..."""

_MOST = 2**27
"""... and most numbers of all points, of which copies are made: 1 GiB each."""


@final
class Points:
    """Training points with labels, and rows to be measured against them, in one space.

    Parameters
    ----------
    rows : Tensor (B, d)
    train : Tensor (N, d)
    labels : Tensor (N,)
    """

    def __init__(self, rows: Tensor, train: Tensor, labels: Tensor) -> None:
        self.rows, self.train = rows.double(), train.double()
        self.labels = labels
        # hulls need the span of the points alone, and memory for its square
        self._hull_rows, hull_train = _in_their_span(self.rows, self.train)
        self.bank = FeatureBank(hull_train, labels)

    def usual(self, pairs: Tensor) -> float:
        """Return the median distance between training points `pairs` (P,2): a unit of length."""
        apart = self.train[pairs[:, 0]] - self.train[pairs[:, 1]]
        return median(torch.linalg.vector_norm(apart, dim=1))

    def hull(self, reference: int, seed: int) -> tuple[Tensor, float]:
        """Return hull distances over the mean leave-one-out distance (B,), and the share inside."""
        found = hull_projection(self.bank, self._hull_rows)
        own = leave_one_out_distances(self.bank, reference, seed=seed)
        if not bool((torch.isfinite(own.distance) & (own.distance > 0)).any()):
            return torch.full_like(found.distance, torch.nan), mean(found.membership == 1)
        return extrapolation(found, own).ratio, mean(found.membership == 1)

    def class_hulls(self) -> tuple[Tensor, Tensor]:
        """Return the distances between the hulls of all pairs of classes, and which are apart.

        Distances (P,) are 0 where hulls meet, NaN where none is certified. The second table (P,)
        has 1 for hulls proved not to meet, 0 for hulls that meet, NaN where that stays open.
        """
        pairs = torch.combinations(self.labels.unique().cpu())
        if len(pairs) == 0:
            return self.train.new_zeros(0), self.train.new_zeros(0)
        width, size = self.bank.num_features, self.bank.num_features * len(self.bank)
        wide = _NARROW < width <= _WIDE and size <= _MOST
        solver = "interior_point" if wide else "active_set"
        found = hull_separation(self.bank, pairs[:, 0], pairs[:, 1], solver=solver)
        distance = torch.where(found.intersect == 1, 0.0, found.distance)
        apart = (found.intersect == -1).double()
        return distance, torch.where(found.intersect == 0, torch.nan, apart)

    def neighbours(self, count: int) -> Tensor:
        """Return the training rows nearest to each row, nearest first, (B,count)."""
        count = min(count, len(self.train))
        parts = [
            torch.cdist(part, self.train).topk(count, largest=False).indices
            for part in self.rows.split(_ROWS)
        ]
        return torch.cat(parts)


def _in_their_span(rows: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in an orthonormal basis of their span where it has fewer dimensions."""
    whole = torch.cat([train, rows])
    if whole.shape[1] > len(whole):
        whole = whole @ torch.linalg.qr(whole.T).Q
    return whole[len(train) :], whole[: len(train)]


def mean(values: Tensor) -> float:
    """Return the mean of `values` that are not NaN; NaN if there are none."""
    return float(values.double().nanmean())


def median(values: Tensor) -> float:
    """Return the median of finite `values`; NaN if there are none."""
    finite = values[torch.isfinite(values)]
    return float(finite.double().quantile(0.5)) if len(finite) else math.nan


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of the entries finite in both; NaN if one is constant."""
    both = torch.isfinite(a) & torch.isfinite(b)
    x, y = a[both].numpy(), b[both].numpy()
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def between(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles in degrees between the rows of `a` and of `b` (B,d), (B,)."""
    a = a.double() / torch.linalg.vector_norm(a.double(), dim=1, keepdim=True)
    b = b.double() / torch.linalg.vector_norm(b.double(), dim=1, keepdim=True)
    # of the half angle, so that rounding near 0 and 180 degrees does no harm
    half = torch.atan2(
        torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1)
    )
    return torch.rad2deg(2 * half)


_RANKS = "rank correlation"


@final
class Both:
    """The same rows in pixels and in features, with a unit of length in each.

    Parameters
    ----------
    pixels, features : Points
    pairs : Tensor (P, 2)
        Training points whose median distance is the unit.
    """

    def __init__(self, pixels: Points, features: Points, pairs: Tensor) -> None:
        self.pixels, self.features = pixels, features
        self.units = pixels.usual(pairs), features.usual(pairs)


def draw_pairs(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` pairs (P,2) of different rows of `total`, with repetition."""
    first = torch.randint(total, (count,), generator=generator)
    step = torch.randint(1, total, (count,), generator=generator)
    return torch.stack([first, (first + step) % total], dim=1)


def hulls(both: Both, reference: int, seed: int) -> list[Measure]:
    """Return whether rows lie in the hull of the training points, and how far from it."""
    (p, inside_p), (f, inside_f) = (s.hull(reference, seed) for s in (both.pixels, both.features))
    return [
        Measure(
            name="inside",
            question="share of images inside the hull of the training images",
            pixels=inside_p,
            features=inside_f,
        ),
        Measure(
            name="hull_distance",
            question="distance to that hull over the mean leave-one-out distance, median",
            pixels=median(p),
            features=median(f),
            agreement=rank_correlation(p, f),
            agreement_is=_RANKS,
        ),
    ]


def class_hulls(both: Both) -> list[Measure]:
    """Return whether the hulls of two classes meet, and how far apart they are."""
    (p, apart_p), (f, apart_f) = (s.class_hulls() for s in (both.pixels, both.features))
    told = [int(torch.isfinite(apart).sum()) for apart in (apart_p, apart_f)]
    left = "" if min(told) == len(p) else f" (of {len(p)}, {told[0]} and {told[1]} are decided)"
    return [
        Measure(
            name="classes_apart",
            question=f"share of pairs of classes whose hulls do not meet{left}",
            pixels=mean(apart_p),
            features=mean(apart_f),
        ),
        Measure(
            name="class_hull_distance",
            question="distance between the hulls of two classes, usual distances, median",
            pixels=median(p / both.units[0]),
            features=median(f / both.units[1]),
            agreement=rank_correlation(p, f),
            agreement_is=_RANKS,
        ),
    ]


def near(both: Both, labels: Tensor, count: int) -> list[Measure]:
    """Return whose class the nearest training points are of, and how many are the same."""
    p, f = (s.neighbours(count) for s in (both.pixels, both.features))
    own = both.pixels.labels
    common = (p[:, :, None] == f[:, None, :]).any(dim=2)
    return [
        Measure(
            name="neighbours",
            question=f"share of the {p.shape[1]} nearest training images of the image's own class",
            pixels=mean(own[p] == labels[:, None]),
            features=mean(own[f] == labels[:, None]),
            agreement=mean(common),
            agreement_is="share of neighbours in common",
        )
    ]


def boundaries(
    space: FeatureSpace,
    both: Both,
    images: Tensor,
    bounds: tuple[float, float],
    pairs: Tensor,
) -> list[Measure]:
    """Return how far the nearest boundary is and in which direction."""
    z = both.features.rows[: len(images)]
    flips = flip_images(space, images, bounds=bounds)
    corners = flip_points(space.head, z)
    p = (flips.images - images).flatten(1).double()
    f = corners.points[:, 0] - z
    moved = features_of(space, flips.images.nan_to_num(), 256) - z
    found = torch.isfinite(flips.distance)
    moved = torch.where(found[:, None], moved, torch.nan)
    # of the same source and target, so that in a linear classifier all directions were one
    pairs = pairs % len(images)
    one, other = pairs[:, 0], pairs[:, 1]
    kind = corners.source * space.head.num_classes + corners.target[:, 0]
    same = (kind[one] == kind[other]) & (one != other)
    one, other = one[same], other[same]
    turned_p, turned_f = between(p[one], p[other]), between(f[one], f[other])
    return [
        Measure(
            name="boundary_distance",
            question="distance to the nearest boundary, usual distances, median",
            pixels=median(flips.distance / both.units[0]),
            features=median(corners.distance[:, 0] / both.units[1]),
            agreement=rank_correlation(flips.distance, corners.distance[:, 0]),
            agreement_is=_RANKS,
        ),
        Measure(
            name="same_target",
            question="the other class on the nearest boundary",
            pixels=math.nan,
            features=math.nan,
            agreement=mean(corners.target[found, 0] == flips.target[found]),
            agreement_is="share of images where it is the same",
        ),
        Measure(
            name="direction",
            question="angle between the directions to the boundary of two images of one pair of "
            "classes, degrees, median",
            pixels=median(turned_p),
            features=median(turned_f),
            agreement=median(between(moved, f)),
            agreement_is="angle in features between the move to the flip image and the flip point",
        ),
    ]


def segments(
    space: FeatureSpace, both: Both, images: Tensor, pairs: Tensor, points: int, batch_size: int
) -> list[Measure]:
    """Return which classes are met on the way from one image to another of another class."""
    z = both.features.rows
    predicted = space.head.predict(z)
    pairs = pairs[predicted[pairs[:, 0]] != predicted[pairs[:, 1]]]
    start, end = pairs[:, 0], pairs[:, 1]
    paths = class_path(space.head, z[start], z[end])
    exact = [[k for k in row if k >= 0] for row in paths.classes.tolist()]
    times = torch.linspace(0, 1, points, dtype=images.dtype)
    asked = []
    for one, other in zip(images[start], images[end], strict=True):
        frames = torch.lerp(one[None], other[None], times.reshape(-1, 1, 1, 1))
        classes = space.head.predict(features_of(space, frames, batch_size))
        asked.append(classes.unique_consecutive().tolist())
    met = [torch.tensor([len(way) for way in ways]) for ways in (asked, exact)]
    return [
        Measure(
            name="classes_met",
            question="classes met on the segment between two images of different class, mean",
            pixels=mean(met[0]),
            features=mean(met[1]),
            agreement=mean(torch.tensor([a == b for a, b in zip(asked, exact, strict=True)])),
            agreement_is="share of segments with the same classes in the same order",
        ),
        Measure(
            name="third_class",
            question="share of such segments that meet a third class",
            pixels=mean(torch.tensor([len(set(way)) > 2 for way in asked])),
            features=mean(torch.tensor([len(set(way)) > 2 for way in exact])),
        ),
    ]


def two_spaces(
    space: nn.Module | FeatureSpace,
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, " B"],
    train_images: Float[Tensor, "N C H W"],
    train_labels: Int[Tensor, " N"],
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
    """Return what pixels and features say of the same images, question by question.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images, labels : Tensor (B, C, H, W), Tensor (B,)
        Images that are measured; a UserWarning tells where the model's accuracy is near chance.
    train_images, train_labels : Tensor (N, C, H, W), Tensor (N,)
        All of them span the hulls.
    sample : int
        Images drawn from `images` for hulls and neighbours, and training images for the
        leave-one-out distances.
    flips : int
        Images of the sample whose nearest boundary is looked for in pixels.
    pairs : int
        Pairs of images of the sample for angles and segments, and of training images for the
        usual distance.
    neighbours : int
        Nearest training images.
    points : int
        Images on a segment in pixels whose class is asked; in features the classes are computed.
    bounds : (float, float)
        Least and largest pixel value.
    seed : int
        Of every draw.
    batch_size : int
        Images at once.
    show_progress : bool
        Show a bar of the stages.

    Returns
    -------
    TwoSpaces
        Distances are told in usual distances: the median between two training images.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, fewer than 3 images, images outside the bounds or not finite.
    HeadError, HeadMismatchError
        As :meth:`fsboundary.FeatureSpace.extract`.
    """
    model, limits = space_of(space), check_bounds(bounds)
    x, train = check_pixels(images, limits), check_pixels(train_images, limits, "train_images")
    check_batch_size(batch_size)
    for name, part in (("images", x), ("train_images", train)):
        if len(part) < 3:
            raise ArgumentError(name, f"{len(part)} images", "at least 3", "pass more")
        if not bool(torch.isfinite(part).all()):
            fix = "leave such images out: a hull and a mean are of all rows"
            raise ArgumentError(name, "NaN or infinite pixels", "finite pixels", fix)
    check_labels(train_labels, len(train), "train_labels")
    check_labels(labels, len(x))
    sizes = {"sample": sample, "flips": flips, "pairs": pairs, "neighbours": neighbours}
    for name, size in (sizes | {"points": points}).items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise ArgumentError(name, repr(size), "a whole number, at least 2", "leave it out")
    predicted = model.extract(x, batch_size=batch_size).predicted
    told_accuracy(predicted, labels, model.head.num_classes)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(x), generator=generator)[:sample]
    x, own = x[drawn], labels[drawn]
    batch = model.extract(x, batch_size=batch_size)
    learned = model.extract(train, batch_size=batch_size, show_progress=show_progress).features
    both = Both(
        Points(x.flatten(1), train.flatten(1), train_labels),
        Points(batch.features, learned, train_labels),
        draw_pairs(len(train), pairs, generator),
    )
    chosen = draw_pairs(len(x), pairs, generator)
    stages: tuple[Callable[[], list[Measure]], ...] = (
        lambda: hulls(both, sample, seed),
        lambda: class_hulls(both),
        lambda: near(both, own, neighbours),
        lambda: boundaries(model, both, x[:flips], limits, chosen),
        lambda: segments(model, both, x, chosen, points, batch_size),
    )
    measures: list[Measure] = []
    for stage in tqdm(stages, unit="stage", disable=not show_progress):
        measures += stage()
    counts = {
        "images": len(x),
        "training images": len(train),
        "flip images": min(flips, len(x)),
        "pairs": len(chosen),
        "neighbours": min(neighbours, len(train)),
    }
    return TwoSpaces(measures=tuple(measures), sizes=counts)
