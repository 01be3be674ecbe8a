"""Coverage of a test set by the guaranteed sets of the training features."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_bank_features
from fsboundary.core.checks import NO_LABEL, check_head, check_instance, check_labels, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import Coverage, CoverageFractions, FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.regions.guaranteed_sets import containing_ball
from fsboundary.modes import in_standard_modes
from fsboundary.regions.guaranteed_balls import guaranteed_balls
from fsboundary.regions.guaranteed_hulls import GuaranteedHulls, guaranteed_hulls


@in_standard_modes
def coverage(
    head: LinearHead,
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    labels: Int[TensorOrArray, " B"] | None = None,
    *,
    hulls: GuaranteedHulls | None = None,
) -> Coverage:
    """Return which rows lie in the guaranteed hulls and balls of the training features.

    A row is covered by a ball if it is in the domain and in the guaranteed ball
    (:func:`fsboundary.guaranteed_balls`) of at least one row of the bank with its class.

    That a covered row has the class of the set that contains it is a **theorem** about the head:
    it would be true of any network, trained or not, and is no evidence of anything. Evidence is in
    the true labels: :func:`coverage_fractions` compares the accuracy of the predictions among the
    covered rows with that among the others.

    Parameters
    ----------
    head : LinearHead
    bank : FeatureBank
        Features of training examples.
    features : Tensor or array (B, d) or FeatureBatch
        Features of examples that are not in the bank. Any float dtype; computed in float64.
    labels : Tensor or array (B,), optional
        True classes; -1 for no label, which is the default for all.
    hulls : GuaranteedHulls, optional
        Hulls to use instead of ``guaranteed_hulls(head, bank)``, such as inflated ones.

    Returns
    -------
    Coverage

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or hulls of another head.
    HeadMismatchError
        A FeatureBatch of another head, extractor or layer than the bank's.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> rows = fsb.coverage(head, bank, z)
    >>> rows.hull.tolist(), rows.ball.tolist()
    ([0, -1], [1, -1])
    """
    check_head(head)
    bank = check_bank(bank, head.num_features)
    z = check_bank_features(bank, features)
    truth = torch.full((len(z),), NO_LABEL)
    if labels is not None:
        truth = check_labels(labels, len(z), num_classes=head.num_classes)
    hulls = guaranteed_hulls(head, bank) if hulls is None else hulls
    fix = "pass, for example, guaranteed_hulls(head, bank).inflated()"
    check_instance("hulls", hulls, GuaranteedHulls, "GuaranteedHulls", fix)
    if hulls.head.fingerprint != head.fingerprint or hulls.head.domain != head.domain:
        got, wanted = f"hulls of {hulls.head!r}", f"hulls of {head!r}"
        raise ArgumentError("hulls", got, wanted, "make them with this head")
    in_hulls = hulls.check(z)
    infeasible = in_hulls.status == Status.INFEASIBLE
    return Coverage(
        hull=in_hulls.certified,
        ball=_covering_balls(head.to(z.device), bank, z, in_hulls.source),
        predicted=in_hulls.source,
        labels=truth.to(z.device),
        status=torch.where(infeasible, int(Status.CONVERGED), in_hulls.status),
    )


@in_standard_modes
def coverage_fractions(rows: Coverage) -> CoverageFractions:
    """Return the fractions of covered rows, and the accuracy inside and outside.

    Parameters
    ----------
    rows : Coverage
        Covered and other rows; rows that failed count as not covered.

    Returns
    -------
    CoverageFractions

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> points = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 1]))
    >>> z = torch.tensor([[3.5, 0.5], [9.0, 1.0]])
    >>> fractions = fsb.coverage_fractions(fsb.coverage(head, bank, z, torch.tensor([0, 0])))
    >>> dict(zip(fractions.kinds, fractions.fraction.tolist(), strict=True))
    {'hull': 0.5, 'ball': 0.5, 'both': 0.5, 'either': 0.5}
    """
    hull, ball = rows.hull >= 0, rows.ball >= 0
    kinds = {"hull": hull, "ball": ball, "both": hull & ball, "either": hull | ball}
    covered = torch.stack(list(kinds.values()))
    labelled = rows.labels >= 0
    correct = (labelled & (rows.predicted == rows.labels)).to(torch.float64)

    def accuracy(among: Tensor) -> Tensor:
        counted = (among & labelled).to(torch.float64)
        return (counted @ correct) / counted.sum(dim=1)

    count = covered.sum(dim=1)
    return CoverageFractions(
        kinds=tuple(kinds),
        covered=count,
        fraction=count.to(torch.float64) / len(hull),
        accuracy_covered=accuracy(covered),
        accuracy_uncovered=accuracy(~covered),
    )


def _covering_balls(head: LinearHead, bank: FeatureBank, z: Tensor, source: Tensor) -> Tensor:
    """Return a bank row (B,) whose guaranteed ball contains each row of `z`, -1 for none."""
    cover = torch.full_like(source, -1)
    usable = row_status(head, z) == Status.CONVERGED
    for part in chunks(len(bank), chunk_rows(bank.num_features, 4096)):
        v = bank.take(torch.arange(part.start, part.stop)).to(z.device)
        found = guaranteed_balls(head, v)
        kept = torch.where(found.ok, found.source, -1)
        for k in kept[found.ok].unique().tolist():
            rows = (usable & (cover < 0) & (source == k)).nonzero()[:, 0]
            balls = (kept == k).nonzero()[:, 0]
            ball = containing_ball(v[balls], found.radius[balls], z[rows])
            cover[rows] = torch.where(ball >= 0, part.start + balls[ball], -1)
    return cover
