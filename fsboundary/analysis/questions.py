"""The questions that pixels and features are asked, one function each."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from fsboundary.analysis.point_cloud import Points, between, mean, median, rank_correlation
from fsboundary.analysis.table import Measure
from fsboundary.boundaries import class_path, find_flip_points
from fsboundary.pixels import flip_images
from fsboundary.pixels.model_calls import features_of
from fsboundary.space import FeatureSpace

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


def hulls(both: Both, yardstick: int, seed: int) -> list[Measure]:
    """Return whether rows lie in the hull of the training points, and how far from it."""
    (p, inside_p), (f, inside_f) = (s.hull(yardstick, seed) for s in (both.pixels, both.features))
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
    corners = find_flip_points(space.head, z)
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
