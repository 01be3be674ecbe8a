"""How large regions are: shares of a uniform sample, and of given features."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.arguments import check_features, check_head
from fsboundary.domain import Domain
from fsboundary.errors import ArgumentError
from fsboundary.geometry.chunks import chunk_rows, chunks
from fsboundary.head import LinearHead
from fsboundary.regions.partition_arguments import check_integer, common_limits
from fsboundary.results.partition import RegionShares


def region_shares(
    head: LinearHead, within: Domain | None = None, *, samples: int = 100_000, seed: int = 0
) -> RegionShares:
    """Return the relative sizes of the regions in a box, from a uniform sample.

    Parameters
    ----------
    head : LinearHead
    within : Domain, optional
        As for :func:`partition`; what is left must be bounded. Features whose limits agree keep
        their value.
    samples : int
        Points drawn.
    seed : int

    Returns
    -------
    RegionShares

    Raises
    ------
    ArgumentError
        A domain that :func:`partition` refuses or that is not bounded, or fewer than one sample.
    """
    check_head(head)
    lower, upper = (torch.from_numpy(limit) for limit in common_limits(head, within))
    if not bool(torch.isfinite(upper - lower).all()):
        m = int((~torch.isfinite(upper - lower)).nonzero()[0, 0])
        raise ArgumentError(
            "within",
            f"feature {m} from {float(lower[m])} to {float(upper[m])}",
            "finite limits for every feature",
            "pass Domain.box(*bank.range()), say",
        )
    wanted, fix = "an integer above 0", "leave it out"
    check_integer("samples", samples, isinstance(samples, int) and samples > 0, wanted, fix)
    generator = torch.Generator().manual_seed(seed)
    count = torch.zeros(head.num_classes, dtype=torch.int64)
    for part in chunks(samples, chunk_rows(max(head.num_features, head.num_classes))):
        share = torch.rand(
            (part.stop - part.start, head.num_features), generator=generator, dtype=torch.float64
        )
        drawn = (lower + share * (upper - lower)).to(head.weight.device)
        count += head.predict(drawn).cpu().bincount(minlength=head.num_classes)
    return _shares(count.to(head.weight.device), samples)


def feature_shares(head: LinearHead, features: Float[Tensor, "B d"]) -> RegionShares:
    """Return which share of `features` lies in each region, for example of training features.

    Parameters
    ----------
    head : LinearHead
    features : Tensor (B, d)
        At least one row, finite; rows outside the domain count, too.

    Returns
    -------
    RegionShares
        The standard errors take the rows as independent draws.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, no row, or rows that hold NaN or infinite numbers.
    """
    check_head(head)
    z = check_features(head.num_features, features)
    bad = (~torch.isfinite(z).all(dim=1)).nonzero()[:5, 0].tolist()
    if len(z) == 0 or bad:
        raise ArgumentError(
            "features",
            f"NaN or infinite numbers in rows {bad}" if bad else "no row",
            "finite rows, at least one",
            "drop those rows" if bad else "pass features of a data set",
        )
    head = head.to(z.device)
    return _shares(head.predict(z).bincount(minlength=head.num_classes), len(z))


def _shares(count: Tensor, samples: int) -> RegionShares:
    shares = count.to(torch.float64) / samples
    error = (shares * (1 - shares)).sqrt() / math.sqrt(samples)
    return RegionShares(shares=shares, standard_error=error, samples=samples)
