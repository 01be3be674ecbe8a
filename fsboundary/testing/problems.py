"""Test problems: a small model, and hulls and heads with solutions in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead

WIDTH, CLASSES = 6, 4


def small_model(seed: int) -> nn.Module:
    """Return a network in eval mode; its last two hidden layers are equally wide."""
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    ]
    model = nn.Sequential(*layers)
    redraw(model, seed)
    return model.eval()


def redraw(model: nn.Module, seed: int) -> None:
    """Replace every weight by a normal number, without using the global generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            # wide enough that classes differ, small enough that deep sums stay of size 1
            spread = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(1.4 * spread * torch.randn(p.shape, generator=generator))


def small_images(rows: int, seed: int) -> Tensor:
    """Return images (rows,3,8,8), in [0, 1]."""
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HullProblem:
    """Generators (n,d), queries (B,d) and the queries' distances (B,) to the hull."""

    name: str
    points: Tensor
    queries: Tensor
    distance: Tensor


def cloud(rows: int, width: int, seed: int) -> Tensor:
    """Return normal float64 numbers (rows, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def project_on_simplex(queries: Tensor) -> Tensor:
    """Return the nearest points with coordinates >= 0 that sum to 1, by subtracting one level."""
    ordered = queries.sort(dim=1, descending=True).values
    levels = (ordered.cumsum(dim=1) - 1) / torch.arange(1, queries.shape[1] + 1)
    last = (ordered > levels).sum(dim=1, keepdim=True) - 1
    return (queries - levels.gather(1, last)).clamp_min(0.0)


def known_hulls() -> list[HullProblem]:
    """Return a cube, a simplex, a segment, and one point, each with several queries."""
    queries = 2 * cloud(6, 3, 0)
    cube = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    wide = 1.5 * cloud(6, 6, 1)
    ends, around = cloud(2, 5, 2), 2 * cloud(6, 5, 3)
    along = ends[1] - ends[0]
    fraction = ((around - ends[0]) @ along / along.square().sum()).clamp(0, 1)[:, None]
    one = cloud(1, 4, 4)
    problems = {
        "a cube": (cube, queries, queries.clamp(-1, 1)),
        "a simplex": (torch.eye(6, dtype=torch.float64), wide, project_on_simplex(wide)),
        "a segment": (ends, around, ends[0] + fraction * along),
        "one point": (one, cloud(3, 4, 5), one.expand(3, 4)),
        "a cube, every vertex twice": (cube.repeat(2, 1), queries, queries.clamp(-1, 1)),
    }
    return [
        HullProblem(name=name, points=v, queries=q, distance=torch.linalg.vector_norm(q - p, dim=1))
        for name, (v, q, p) in problems.items()
    ]


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
    """Return a head with one boundary, a hyperplane, at the textbook distance."""
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

    At the flip point the source, the target and all classes above their mean are equal.
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


def domain_problem(domain: Domain, name: str) -> FlipProblem:
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
    """Return problems in which the domain is active."""
    box = Domain.box(torch.zeros(6), torch.full((6,), 0.75))
    return [
        domain_problem(Domain.nonnegative(), "the nonnegative domain"),
        domain_problem(box, "a box"),
    ]


def unreachable() -> FlipProblem:
    """Return a head with a class that no nonnegative feature belongs to."""
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
    """Return a random head of six classes, each reachable; its distances are not known."""
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
