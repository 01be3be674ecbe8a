"""Sizes of regions: fractions of a uniform sample, and of given features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, check_integer, rows_and_sources
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch, RegionFractions
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.modes import in_standard_modes
from fsboundary.regions.limits import common_limits
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def region_fractions(
    head: LinearHead, within: Domain | None = None, *, samples: int = 100_000, seed: int = 0
) -> RegionFractions:
    """Return the relative sizes of the regions in a box, from a uniform sample.

    Parameters
    ----------
    head : LinearHead
    within : Domain, optional
        Limits in addition to those of the head's domain, such as ``Domain.box(*bank.range())``;
        together they must be finite. Features whose limits agree keep their value.
    samples : int
        Number of points to draw.
    seed : int

    Returns
    -------
    RegionFractions

    Raises
    ------
    ArgumentError
        Limits of another width, with an empty intersection or not finite; fewer than one sample.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> box = fsb.Domain.box(torch.zeros(3), torch.ones(3))
    >>> found = fsb.region_fractions(head, box, samples=3000)
    >>> bool((found.fractions - 1 / 3).abs().max() < 4 * found.standard_error.max())
    True
    """
    check_head(head)
    lower, upper = (torch.from_numpy(limit) for limit in common_limits(head, within))
    unbounded = (~torch.isfinite(upper - lower)).nonzero()[:, 0].tolist()
    if unbounded:
        m = unbounded[0]
        raise ArgumentError(
            "within",
            f"feature {m} from {float(lower[m])} to {float(upper[m])}",
            "finite limits for every feature",
            "pass, for example, Domain.box(*bank.range())",
        )
    check_integer("samples", samples)
    generator = torch.Generator().manual_seed(seed)
    count = torch.zeros_like(head._bias, dtype=torch.int64)
    for part in chunks(samples, chunk_rows(max(head.num_features, head.num_classes))):
        shape = (part.stop - part.start, head.num_features)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
        points = (lower + drawn * (upper - lower)).to(count.device)
        count += head.predict(points).bincount(minlength=head.num_classes)
    return _fractions(count)


@in_one_thread
@in_standard_modes
def feature_fractions(
    head: LinearHead, features: Float[TensorOrArray, "B d"] | FeatureBatch
) -> RegionFractions:
    """Return the fraction of `features`, such as training features, in each region.

    Parameters
    ----------
    head : LinearHead
    features : Tensor or array (B, d), or FeatureBatch
        Rows that are not finite or outside the domain do not count.

    Returns
    -------
    RegionFractions
        The standard errors assume that the rows are independent draws.

    Raises
    ------
    ArgumentError
        Wrong types or shapes.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> fsb.feature_fractions(head, torch.eye(3)[[0, 0, 0, 1]]).fractions.tolist()
    [0.75, 0.25, 0.0]
    """
    check_head(head)
    z = check_features(head.num_features, features)
    status, source = rows_and_sources(head.to(z.device), z)
    return _fractions(source[status == Status.CONVERGED].bincount(minlength=head.num_classes))


def _fractions(count: Tensor) -> RegionFractions:
    """Return the fractions of `count` (K,) points and their standard errors."""
    samples = int(count.sum())
    fractions = count.to(torch.float64) / samples
    error = (fractions * (1 - fractions) / samples).sqrt()
    return RegionFractions(fractions=fractions, standard_error=error, samples=samples)
