"""Affine hulls of feature banks: their dimension, and distances of rows from them."""

from __future__ import annotations

import torch
from jaxtyping import Float

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_bank_features
from fsboundary.core.checks import check_limits
from fsboundary.core.results import AffineRank, AffineResiduals, FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_FRACTION, EPS
from fsboundary.geometry.batching import chunk_rows
from fsboundary.geometry.hulls.affine import bound_singular_values, fit_affine_hull
from fsboundary.modes import in_standard_modes


@in_standard_modes
def affine_rank(bank: FeatureBank, *, tolerance: float | None = None) -> AffineRank:
    """Return the dimension of the affine hull of `bank`, certified where rounding allows.

    Parameters
    ----------
    bank : FeatureBank
    tolerance : float, optional
        A direction counts if its singular value is above this fraction of the norm of all singular
        values, that is, if the points spread along it by more than this fraction of their RMS norm
        about the mean. Default 1e-9.

    Returns
    -------
    AffineRank
        With fields of shape (), on the CPU. Computed in three passes over the bank.

    Raises
    ------
    ArgumentError
        Wrong types or limits, before any work.
    DataError
        A damaged bank.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> line = fsb.FeatureBank(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    >>> int(fsb.affine_rank(line).rank)
    1
    """
    rtol, _ = check_limits(tolerance, None, (ATOL_FRACTION, 1))
    flat = fit_affine_hull(check_bank(bank), rtol)
    sure = bound_singular_values(bank, flat)
    # the two factors cover the rounding of the products
    above = sure.last_lower > rtol * sure.norm_upper * (1 + EPS)
    below = sure.next_upper <= rtol * sure.norm_lower * (1 - EPS)
    return AffineRank(
        rank=torch.tensor(flat.basis.shape[1]),
        singular_values=flat.values / flat.unit,
        kept=flat.to_lower_bound(sure.last_lower),
        rest=flat.to_upper_bound(sure.next_upper),
        thickness=flat.to_upper_bound(sure.thickness),
        status=torch.where(above & below, int(Status.CONVERGED), int(Status.UNDECIDED)),
    )


@in_standard_modes
def affine_residuals(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    tolerance: float | None = None,
) -> AffineResiduals:
    """Return how far `features` lie from the affine hull of `bank`.

    Parameters
    ----------
    bank : FeatureBank
    features : Tensor or array (B, d) or FeatureBatch
        As in :func:`hull_projection`.
    tolerance : float, optional
        As in :func:`affine_rank`.

    Returns
    -------
    AffineResiduals
        ``lower_bound`` is also a lower bound of the distance to the convex hull.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or limits, before any work.
    HeadMismatchError
        A batch and a bank whose fingerprints differ.
    DataError
        A damaged bank.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> line = fsb.FeatureBank(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    >>> found = fsb.affine_residuals(line, torch.tensor([[3.0, 3.0], [1.0, 0.0]]))
    >>> found.residual.round(decimals=4).tolist()
    [0.0, 0.7071]
    """
    z = check_bank_features(bank, features)
    rtol, _ = check_limits(tolerance, None, (ATOL_FRACTION, 1))
    flat = fit_affine_hull(bank, rtol)
    thickness = bound_singular_values(bank, flat).thickness
    parts = z.cpu().split(chunk_rows(bank.num_features))
    bounds = [torch.stack(flat.distance_bounds(part, thickness)) for part in parts]
    residual, lower = torch.cat(bounds, dim=1).to(z.device)
    valid, finite = torch.isfinite(residual), torch.isfinite(z).all(dim=1)
    failed = torch.where(finite, int(Status.INACCURATE), int(Status.NOT_FINITE))
    return AffineResiduals(
        residual=torch.where(valid, residual, torch.nan),
        lower_bound=torch.where(valid, lower, 0.0),
        status=torch.where(valid, int(Status.CONVERGED), failed),
    )
