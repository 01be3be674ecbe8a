"""How much of a test set the guaranteed sets of the training features cover."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank_features
from fsboundary.banks.checks import checked_labels
from fsboundary.core.checks import check_head, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import Coverage, CoverageFractions, FeatureBatch
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.regions.guaranteed_sets import first_cover
from fsboundary.regions.guaranteed_balls import guaranteed_balls
from fsboundary.regions.guaranteed_hulls import GuaranteedHulls, check_width, guaranteed_hulls


def coverage(
    head: LinearHead,
    bank: FeatureBank,
    features: Float[Tensor, "B d"] | FeatureBatch,
    labels: Int[Tensor, " B"] | None = None,
    *,
    hulls: GuaranteedHulls | None = None,
) -> Coverage:
    """Return which rows the guaranteed hulls and balls of the training features hold.

    A row is held by a ball if it is in the domain and in the guaranteed ball
    (:func:`fsboundary.guaranteed_balls`) of at least one row of the bank with its class.

    That a covered row has the class of the set that holds it is a **theorem** about the head: it
    would be true of any network, trained or not, and is no evidence of anything. Evidence is in
    the true labels: :func:`coverage_fractions` sets the accuracy of the predictions among the
    covered rows beside that among the others.

    Parameters
    ----------
    head : LinearHead
    bank : FeatureBank
        Features of training images.
    features : Tensor (B, d) or FeatureBatch
        Features of images that are not in the bank. Any float dtype; computed in float64.
    labels : Tensor (B,), optional
        True classes.
    hulls : GuaranteedHulls, optional
        To be used instead of ``guaranteed_hulls(head, bank)``, such as inflated ones.

    Returns
    -------
    Coverage

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or hulls of another head.
    HeadMismatchError
        A FeatureBatch of another head, extractor or layer than the bank's.
    """
    check_head(head)
    bank = check_width(head, bank)
    z = check_bank_features(bank, features)
    own = torch.full((len(z),), -1) if labels is None else checked_labels(labels, len(z))
    hulls = guaranteed_hulls(head, bank) if hulls is None else hulls
    _check_hulls(head, hulls)
    held = hulls.check(z)
    status = torch.where(held.status == Status.INFEASIBLE, int(Status.CONVERGED), held.status)
    return Coverage(
        hull=held.certified,
        ball=_balls(head.to(z.device), bank, z, held.source),
        predicted=held.source,
        labels=own.to(z.device),
        status=status,
    )


def coverage_fractions(rows: Coverage) -> CoverageFractions:
    """Return shares of covered rows and the accuracy inside and outside.

    Parameters
    ----------
    rows : Coverage
        Rows that failed count as not covered.

    Returns
    -------
    CoverageFractions
    """
    hull, ball = rows.hull >= 0, rows.ball >= 0
    kinds = {"hull": hull, "ball": ball, "both": hull & ball, "either": hull | ball}
    covered = torch.stack(list(kinds.values()))
    labelled = rows.labels >= 0
    right = (labelled & (rows.predicted == rows.labels)).to(torch.float64)

    def accuracy(among: Tensor) -> Tensor:
        counted = (among & labelled).to(torch.float64)
        return (counted @ right) / counted.sum(dim=1)

    count = covered.sum(dim=1)
    return CoverageFractions(
        kinds=tuple(kinds),
        covered=count,
        fraction=count.to(torch.float64) / len(hull),
        accuracy_covered=accuracy(covered),
        accuracy_uncovered=accuracy(~covered),
    )


def _check_hulls(head: LinearHead, hulls: object) -> None:
    if not isinstance(hulls, GuaranteedHulls):
        raise ArgumentError(
            "hulls",
            type(hulls).__name__,
            "GuaranteedHulls",
            "pass guaranteed_hulls(head, bank).inflated(), say",
        )
    if hulls.head.fingerprint != head.fingerprint or hulls.head.domain != head.domain:
        raise ArgumentError(
            "hulls", f"hulls of {hulls.head!r}", f"hulls of {head!r}", "make them with this head"
        )


def _balls(head: LinearHead, bank: FeatureBank, z: Tensor, source: Tensor) -> Tensor:
    """Return a bank row (B,) whose guaranteed ball holds each row of `z`, -1 for none."""
    cover = torch.full_like(source, -1)
    fine = row_status(head, z) == Status.CONVERGED
    for part in chunks(len(bank), chunk_rows(bank.num_features, 4096)):
        v = bank.take(torch.arange(part.start, part.stop)).to(z.device)
        # rows outside the domain have no ball; the others alone, for the last bit of a logit may
        # depend on the batch, and both lines below must see the same class
        place = head.domain.contains(v).nonzero()[:, 0]
        v = v[place]
        radius, own = guaranteed_balls(head, v).radius, head.predict(v)
        for k in own.unique().tolist():
            rows = (fine & (cover < 0) & (source == k)).nonzero()[:, 0]
            balls = (own == k).nonzero()[:, 0]
            found = first_cover(v[balls], radius[balls], z[rows])
            cover[rows] = torch.where(found >= 0, part.start + place[balls[found]], -1)
    return cover
