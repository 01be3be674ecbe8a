"""Slow formulas of the scores, one row at a time, and small reference sets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fsboundary import FeatureSpace
from fsboundary.scores import Reference
from support.hulls.oracles import clarabel_distances

CLASSES, WIDTH = 3, 4


def space_of_features(seed: int = 0) -> FeatureSpace:
    """Return a space whose features are its inputs (B,4), with three classes."""
    g = torch.Generator().manual_seed(seed)
    layer = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=g, dtype=torch.float64))
        layer.bias.copy_(0.1 * torch.randn(CLASSES, generator=g, dtype=torch.float64))
    example = torch.zeros(1, WIDTH, dtype=torch.float64)
    return FeatureSpace(layer.eval(), head=layer, domain="unbounded", example=example)


def rows_and_labels(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return rows around three centres, and labels of which one in eight is another class."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=g)
    centres = 2 * space_of_features().model.weight.detach()
    noise = torch.randn(count, WIDTH, generator=g, dtype=torch.float64)
    wrong = torch.rand(count, generator=g) < 1 / 8
    return centres[labels] + noise, torch.where(wrong, (labels + 1) % CLASSES, labels)


def reference_of(rows: Tensor, given: Tensor, **options: object) -> Reference:
    return Reference.fit(space_of_features(), TensorDataset(rows, given), **options)  # type: ignore[arg-type]


def slow_distance(points: Tensor, row: Tensor, left_out: Tensor | None = None) -> float:
    """Return the distance of a row to the hull of points, without those equal to `left_out`."""
    if left_out is not None and len(points):
        points = points[(points != left_out).any(dim=1)]
    if not len(points):
        return float("inf")
    distance = float(clarabel_distances(points, row[None]))
    # inside, the distance is exactly 0; the interior-point method stops at about 1e-9
    return distance if distance > 1e-7 else 0.0


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def slow_novelty(rows: Tensor, labels: Tensor, row: Tensor, label: int, out: bool) -> float:
    """Return the distance of a row's direction to those of its class, by the issue's words."""
    own = unit(rows[labels == label])
    return slow_distance(own, unit(row), unit(row) if out else None)


def slow_hulls(
    rows: Tensor, labels: Tensor, row: Tensor, label: int, out: bool
) -> tuple[float, float, int]:
    """Return the distances to the own hull and to the nearest other one, and the latter's class."""
    distances = [
        slow_distance(rows[labels == k], row, row if out else None) for k in range(CLASSES)
    ]
    others = [d if k != label else float("inf") for k, d in enumerate(distances)]
    return distances[label], min(others), int(np.argmin(others))


def slow_p_value(reference: list[float], score: float) -> float:
    return (1 + sum(one >= score for one in reference)) / (len(reference) + 1)


def slow_rank(known: list[float], value: float) -> float:
    """Return the rank of a value among `known`, ties counted half."""
    below = sum(one < value for one in known)
    return (below + sum(one == value for one in known) / 2) / len(known)
