"""Flip points that are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.testing.hull_problems import cloud


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlipProblem:
    """A head, features (B,d), targets (B,) and the distances (B,) of the flip points."""

    name: str
    head: LinearHead
    features: Tensor
    targets: Tensor
    distance: Tensor


def two_classes() -> FlipProblem:
    """Return a head with one boundary, a hyperplane: its distance is the textbook's."""
    head = LinearHead(cloud(2, 4, 20), cloud(1, 2, 21)[0])
    features = cloud(6, 4, 22)
    source, normal = head.predict(features), head.weight[0] - head.weight[1]
    logits = head.logits(features)
    distance = (logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(normal)
    return FlipProblem(
        name="two classes", head=head, features=features, targets=1 - source, distance=distance
    )


def third_classes() -> FlipProblem:
    """Return a head whose logits are the features: the tied ones must not be below the others.

    At the flip point source, target, and whatever is above their mean, are all at one level.
    """
    head = LinearHead(torch.eye(5), torch.zeros(5))
    features = cloud(6, 5, 23)
    source = head.predict(features)
    targets = features.argsort(dim=1)[:, 0]
    distance = []
    for row, i, j in zip(features, source.tolist(), targets.tolist(), strict=True):
        level, tied = (row[i] + row[j]) / 2, [i, j]
        for k in row.argsort(descending=True).tolist():
            if k not in (i, j) and row[k] > level:
                tied.append(k)
                level = row[tied].mean()
        distance.append(torch.linalg.vector_norm(row[tied] - level))
    return FlipProblem(
        name="third classes in the way",
        head=head,
        features=features,
        targets=targets,
        distance=torch.stack(distance),
    )


def in_a_domain(domain: Domain, name: str) -> FlipProblem:
    """Return a boundary on which the features sum to 2, with features where the domain cuts."""
    head = LinearHead(torch.stack([torch.ones(6), torch.zeros(6)]), torch.tensor([-2.0, 0]), domain)
    low, high = domain.limits(head.weight)
    features = domain.clip(cloud(6, 6, 24))
    # z' = clip(z - t) for the t at which it sums to 2: found by bisection
    bottom, top = torch.full((6, 1), -10.0).double(), torch.full((6, 1), 10.0).double()
    for _ in range(100):
        middle = (bottom + top) / 2
        above = (features - middle).clamp(low, high).sum(dim=1, keepdim=True) > 2
        bottom, top = torch.where(above, middle, bottom), torch.where(above, top, middle)
    nearest = (features - bottom).clamp(low, high)
    return FlipProblem(
        name=name,
        head=head,
        features=features,
        targets=1 - head.predict(features),
        distance=torch.linalg.vector_norm(features - nearest, dim=1),
    )


def domains() -> list[FlipProblem]:
    """Return the problems in which the domain matters."""
    box = Domain.box(torch.zeros(6), torch.full((6,), 0.75))
    return [
        in_a_domain(Domain.nonnegative(), "the nonnegative domain"),
        in_a_domain(box, "a box"),
    ]


def unreachable() -> FlipProblem:
    """Return a class that no nonnegative feature belongs to."""
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]])
    head = LinearHead(weight, torch.tensor([1.0, 0.0, 0.0]), Domain.nonnegative())
    features = cloud(4, 2, 25).abs()
    return FlipProblem(
        name="an unreachable class",
        head=head,
        features=features,
        targets=torch.full((4,), 2),
        distance=torch.full((4,), torch.inf).double(),
    )


def ordinary(kind: str = "unbounded") -> FlipProblem:
    """Return a random head of six classes, each within reach; its distances are not known."""
    box = Domain.box(torch.full((5,), -0.5), torch.full((5,), 1.5))
    named = {"unbounded": Domain.unbounded(), "nonnegative": Domain.nonnegative(), "box": box}
    domain = named[kind]
    head = LinearHead(cloud(6, 5, 526), 0.3 * cloud(1, 6, 527)[0], domain)
    features = domain.clip(cloud(5, 5, 528))
    targets = (head.predict(features) + torch.tensor([1, 2, 3, 4, 5])) % 6
    return FlipProblem(
        name=kind,
        head=head,
        features=features,
        targets=targets,
        distance=torch.full((5,), torch.nan).double(),
    )
