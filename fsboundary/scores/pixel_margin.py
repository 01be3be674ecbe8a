"""Pixel margins: how far an image is from another class, to first order, in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.boundaries import region_distances
from fsboundary.core.checks import check_float_tensor, check_instance, check_integer
from fsboundary.core.results import Scores
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import OK_CODES, Status
from fsboundary.modes import in_standard_modes
from fsboundary.scores.conformal import check_per_class, judge
from fsboundary.space import FeatureSpace


@in_standard_modes
def pixel_margin(
    space: FeatureSpace,
    images: Float[TensorOrArray, "B ..."],
    *,
    threshold: float | Sequence[float] | TensorOrArray | None = None,
    batch_size: int = 64,
) -> Scores:
    """Return how little each image must change for another class, to first order.

    The margin, in ``value``, is the minimum over the other classes of the distance to the class's
    region, divided by the norm of that distance's gradient with respect to the pixels: the length
    of the step after which a linear distance would be 0. The score is 1 divided by it: larger is
    more fragile. It is no certificate: ``lower`` and ``upper`` are NaN.

    Parameters
    ----------
    space : FeatureSpace
    images : Tensor or array (B, ...)
        Inputs of the model, floating point.
    threshold : float, or one per class (K,), optional
        Score above which an image is fragile: 1 divided by the smallest margin that is enough.
        Without it, verdicts are open.
    batch_size : int
        Number of images per forward pass; each pass is followed by one backward pass per class.

    Returns
    -------
    Scores
        Without p-values. ``label`` is the predicted class, ``other`` the one with the smallest
        margin; UNBOUNDED where no other class can be reached.

    Raises
    ------
    ArgumentError
        Wrong types or shapes.
    HeadError
        As for :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> found = fsb.scores.pixel_margin(space, images)
    >>> found.value.round(decimals=2).tolist()  # step in pixels to another class, to first order
    [0.12, 0.28]
    """
    check_instance("space", space, FeatureSpace, "a FeatureSpace", "pass FeatureSpace(model)")
    fix = "pass images as the model takes them; one image needs [None]"
    pixels = check_float_tensor("images", images, ("B", ...), fix=fix, nonempty=True)
    check_integer("batch_size", batch_size)
    margins, others, labels, status = (
        torch.cat(parts)
        for parts in zip(*(_margins(space, x) for x in pixels.split(batch_size)), strict=True)
    )
    score = 1 / margins
    nan = torch.full_like(score, torch.nan)
    limit = nan
    if threshold is not None:
        classes = space.head.num_classes
        limits = check_per_class("threshold", threshold, classes, -torch.inf, torch.inf, "2.0")
        limit = torch.where(score.isnan(), nan, limits[labels.clamp_min(0)])
    return Scores(
        name="pixel margin: 1 / (distance to the nearest region / norm of its gradient)",
        score=score,
        lower=nan,
        upper=nan,
        value=margins,
        p_value=nan,
        threshold=limit,
        label=labels,
        other=others,
        support=labels.new_full((len(score), 3), -1),
        verdict=judge(score, nan, nan, limit),
        status=status,
    ).to(pixels.device)


def _margins(space: FeatureSpace, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the margins, classes of these, predicted classes and statuses (B,), on the CPU."""
    with torch.enable_grad():
        x = pixels.clone().requires_grad_()
        z = space.features(x)
    regions = region_distances(space.head, z.detach())
    distance, gradient = regions.distance.abs(), regions.gradient.nan_to_num()
    margins = torch.full_like(distance, torch.inf)
    for k in range(distance.shape[1]):
        wanted = (regions.source != k) & torch.isfinite(distance[:, k])
        if not bool(wanted.any()):
            continue
        seed = torch.where(wanted[:, None], gradient[:, k], 0.0).to(z)
        (found,) = torch.autograd.grad(z, x, seed, retain_graph=True)
        size = found.detach().flatten(1).to(torch.float64).norm(dim=1)
        margins[:, k] = torch.where(wanted, distance[:, k] / size, torch.inf)
    margins = torch.where(distance == 0, 0.0, margins)  # also where the gradient is 0
    source = regions.source.clamp_min(0)[:, None]
    margins = margins.scatter(1, source, torch.inf).cpu()
    margin, other = margins.min(dim=1)
    ok = torch.isin(regions.status, torch.tensor(OK_CODES, device=z.device))
    code = torch.where(ok, int(Status.CONVERGED), regions.status).amax(dim=1).cpu()
    fine = ok.all(dim=1).cpu()
    status = torch.where(fine & torch.isinf(margin), int(Status.UNBOUNDED), code)
    return (
        torch.where(fine, margin, torch.nan),
        torch.where(fine & torch.isfinite(margin), other, -1),
        regions.source.cpu(),
        status,
    )
