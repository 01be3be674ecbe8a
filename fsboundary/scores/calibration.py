"""Fitting of a reference: cross-validated heads, and the leave-one-out distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsboundary.models.new_heads import logistic_head
from fsboundary.progress import tqdm
from fsboundary.scores.formulas import (
    KINDS,
    boundary_ratio_of,
    label_doubt_of,
    label_probability,
    mean_rank,
    novelty_of,
    region_ratio_of,
    trust_of,
)

if TYPE_CHECKING:
    from fsboundary.scores.reference import Reference

FOLDS = 5
"""Number of folds of the cross-validation."""

_CONFIRMED = 0.5
"""Probability above which a cross-validated prediction confirms a label."""


def cross_validate(
    features: Tensor, given: Tensor, num_classes: int, seed: int
) -> dict[str, Tensor]:
    """Return the heads of all folds, the fold of each row, and the labels that they confirm.

    Rows without a label belong to no fold. Fewer than two labelled rows give heads of zeros, which
    confirm nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = (given >= 0).nonzero()[:, 0]
    order = torch.randperm(len(rows), generator=generator)
    fold = torch.full_like(given, -1)
    fold[rows[order]] = torch.arange(len(rows)) % FOLDS
    weights = torch.zeros(FOLDS, num_classes, features.shape[1], dtype=torch.float64)
    biases = torch.zeros(FOLDS, num_classes, dtype=torch.float64)
    clean = torch.full_like(given, -1)
    for k in range(min(FOLDS, len(rows)) if len(rows) > 1 else 0):
        others = (fold >= 0) & (fold != k)
        head = logistic_head(features[others], given[others], num_classes)
        weights[k], biases[k] = head.weight, head.bias
        here = (fold == k).nonzero()[:, 0]
        logits = features[here].double() @ weights[k].mT + biases[k]
        probability, best = logits.softmax(dim=1).max(dim=1)
        confirmed = (best == given[here]) & (probability > _CONFIRMED)
        clean[here[confirmed]] = given[here[confirmed]]
    return {"fold": fold, "fold_weight": weights, "fold_bias": biases, "clean": clean}


def calibrate(
    reference: Reference, count: int, seed: int, show_progress: bool
) -> dict[str, Tensor]:
    """Return the leave-one-out distributions of all scores, of at most `count` rows drawn.

    A row whose distance is not certified counts as +inf, so that it never lowers a p-value.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(reference), generator=generator)[:count].sort().values
    z = reference.bank.take(rows)
    group, predicted = reference.group[rows], reference.predicted[rows]
    given = reference.given[rows]
    found: dict[str, Tensor] = {}

    def keep(name: str, scores: Tensor, labels: Tensor, known: Tensor) -> None:
        chosen = scores[known]
        found[f"{name} scores"] = torch.where(chosen.isnan(), torch.inf, chosen)
        found[f"{name} labels"] = labels[known]

    known = group >= 0
    directed = known & (z != 0).any(dim=1)
    with tqdm(total=6, unit="score", disable=not show_progress) as bar:
        keep("novelty", novelty_of(reference, z, group, rows).upper, group, directed)
        bar.update()
        keep("trust", trust_of(reference, z, group, rows).upper, group, known)
        bar.update()
        labelled = given >= 0
        doubt = 1 - label_probability(reference, z, given, rows)
        keep("label doubt", doubt, given, labelled)
        for kind in KINDS:
            values = label_doubt_of(reference, z[labelled], given[labelled], rows[labelled], kind)
            value = torch.where(values.value.isnan(), torch.inf, values.value)
            score = (mean_rank(value, value) + mean_rank(doubt[labelled], doubt[labelled])) / 2
            found[f"label {kind} scores"], found[f"label {kind} labels"] = value, given[labelled]
            keep(f"label_issues {kind}", score, given[labelled], torch.ones_like(score).bool())
            bar.update()
        ratio = boundary_ratio_of(reference, z, predicted, rows).value
        correct = torch.where(labelled, (given == predicted).long(), -1)
        keep("accuracy", ratio, correct, labelled & ~ratio.isnan())
        bar.update()
        ratio = region_ratio_of(reference, z, predicted, rows).value
        keep("drift", ratio, predicted, ~ratio.isnan())
        bar.update()
    return found
