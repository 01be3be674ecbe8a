"""The same images in pixels and in features, and whether the geometry is the same.

Yousefzadeh (arXiv 2202.04052) finds the decision boundaries and hulls in feature space
significantly different from those in pixel space. Each line of the table here is one such question,
answered in both spaces by the same method.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from fsboundary.analysis.point_cloud import Points
from fsboundary.analysis.questions import (
    Both,
    boundaries,
    class_hulls,
    draw_pairs,
    hulls,
    near,
    segments,
)
from fsboundary.analysis.table import Measure, TwoSpaces
from fsboundary.core.errors import ArgumentError
from fsboundary.models.images import check_batch_size
from fsboundary.pixels.checks import check_bounds, check_labels, check_pixels, told_accuracy
from fsboundary.space import FeatureSpace, space_of


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
