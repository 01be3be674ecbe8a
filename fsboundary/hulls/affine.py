"""How many dimensions a bank spans, and how far rows lie from what it spans."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_bank_features
from fsboundary.core.checks import check_limits
from fsboundary.core.results import AffineRank, AffineResiduals, FeatureBatch
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_SHARE, EPS
from fsboundary.geometry.batching import chunk_rows
from fsboundary.geometry.hulls.affine import flat_of, spread_of


def affine_rank(bank: FeatureBank, *, tolerance: float | None = None) -> AffineRank:
    """Return the dimension of the affine hull of `bank`, certified where rounding allows.

    Parameters
    ----------
    bank : FeatureBank
    tolerance : float, optional
        A direction counts if its singular value is above this share of the norm of all singular
        values, that is, if the points spread along it by more than this share of their RMS norm
        about the mean. Default 1e-9.

    Returns
    -------
    AffineRank
        Of shape (), on the CPU. Found from three passes over the bank.

    Raises
    ------
    ArgumentError
        Wrong types or limits, before any work.
    DataError
        A damaged bank.
    """
    share, _ = check_limits(tolerance, None, (ATOL_SHARE, 1))
    flat = flat_of(check_bank(bank), share)
    sure = spread_of(bank, flat)
    # the two factors cover the rounding of the products
    above = sure.kept > share * sure.most * (1 + EPS)
    below = sure.rest <= share * sure.least * (1 - EPS)
    return AffineRank(
        rank=torch.tensor(flat.basis.shape[1]),
        singular_values=flat.values / flat.unit,
        kept=flat.at_least(sure.kept),
        rest=flat.at_most(sure.rest),
        thickness=flat.at_most(sure.thickness),
        status=torch.where(above & below, int(Status.CONVERGED), int(Status.UNDECIDED)),
    )


def affine_residuals(
    bank: FeatureBank,
    features: Float[Tensor, "B d"] | FeatureBatch,
    *,
    tolerance: float | None = None,
) -> AffineResiduals:
    """Return how far `features` lie from the affine hull of `bank`.

    Parameters
    ----------
    bank : FeatureBank
    features : Tensor (B, d) or FeatureBatch
        As in :func:`hull_projection`.
    tolerance : float, optional
        As in :func:`affine_rank`.

    Returns
    -------
    AffineResiduals
        Their ``lower_bound`` is one of the distance to the hull itself.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or limits, before any work.
    HeadMismatchError
        A batch and a bank whose fingerprints differ.
    DataError
        A damaged bank.
    """
    z = check_bank_features(bank, features)
    share, _ = check_limits(tolerance, None, (ATOL_SHARE, 1))
    flat = flat_of(bank, share)
    thickness = spread_of(bank, flat).thickness
    parts = z.cpu().split(chunk_rows(bank.num_features))
    found = [torch.stack(flat.beyond(part, thickness)) for part in parts]
    residual, lower = torch.cat(found, dim=1).to(z.device)
    fine, finite = torch.isfinite(residual), torch.isfinite(z).all(dim=1)
    failed = torch.where(finite, int(Status.INACCURATE), int(Status.NOT_FINITE))
    return AffineResiduals(
        residual=torch.where(fine, residual, torch.nan),
        lower_bound=torch.where(fine, lower, 0.0),
        status=torch.where(fine, int(Status.CONVERGED), failed),
    )
