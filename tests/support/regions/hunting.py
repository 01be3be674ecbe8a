"""Search of all guaranteed sets of a head for a point of another class."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

import fsboundary as fsb
from fsboundary.demo import load_demo
from support.flips.run_family import FAMILIES, draw
from support.regions.attacks import (
    Array,
    Generator,
    ball_points,
    box_points,
    changed,
    hull_points,
    query_points,
    wide,
)


def crowd(head: fsb.LinearHead, rows: torch.Tensor, g: Generator) -> torch.Tensor:
    """Return `rows` (n,d) and ten times as many around them, within the domain of `head`."""
    pick = rows[torch.from_numpy(g.integers(0, len(rows), 10 * len(rows)))]
    noise = torch.from_numpy(g.standard_normal(pick.shape))
    size = torch.from_numpy(10 ** g.uniform(-6, 0, (len(pick), 1)))
    return head.domain.clip(torch.cat([rows, pick + size * noise * pick.abs()]))


def hunt(
    head: fsb.LinearHead, bank: fsb.FeatureBank, z: torch.Tensor, count: int, g: Generator
) -> tuple[Counter[str], list[str]]:
    """Return the number of points tried per kind of set, and those that changed their class."""
    tried: Counter[str] = Counter()
    faults: list[str] = []

    def judge(kind: str, points: Array, source: Array, name: Array, strict: bool) -> None:
        tried[kind] += len(points)
        bad = changed(head, points, source, strict=strict)
        faults.extend(f"{kind} {name[p]}: {points[p].tolist()}" for p in np.flatnonzero(bad))

    some = torch.from_numpy(g.permutation(len(bank))[: len(z)])
    every = torch.cat([z.double(), bank.take(some)])
    for norm in ("l2", "linf"):
        balls = fsb.guaranteed_balls(head, every, norm)
        points, rows = ball_points(head, balls, count, g)
        judge(f"{norm} balls", points, balls.source.numpy()[rows], rows, False)
    boxes = fsb.guaranteed_boxes(head, z)
    points, rows = box_points(head, boxes, count, g)
    judge("boxes", points, boxes.source.numpy()[rows], rows, True)
    hulls = fsb.guaranteed_hulls(head, bank)
    for kind, each in (("hulls", hulls), ("inflated hulls", hulls.inflated(g.uniform(0, 1)))):
        points, classes = hull_points(each, 64 * count, g)
        judge(kind, points, classes, classes, True)
        queries = torch.cat([query_points(each, 4 * count, g), z.double()])
        result = each.check(queries)
        rows = (result.certified >= 0).nonzero()[:, 0].numpy()
        judge(
            f"certified by {kind}", wide(queries)[rows], result.certified.numpy()[rows], rows, True
        )
    return tried, faults


def hunt_everywhere(points: int, seed: int, *, count: int, thin: int = 0) -> dict[str, Any]:
    """Return counts and faults: half of `points` on the demo's network, half on random heads.

    Parameters
    ----------
    points : int
        Minimum number of points; the demo and every family of heads are searched at least once.
    seed : int
        Seed of the first head of each family.
    count : int
        Number of random points per set.
    thin : int
        Subsampling: one in 8 `thin` of the demo's images and one in `thin` families; 0 for all.
    """
    tried = {"demo": Counter[str](), "random heads": Counter[str]()}
    all_faults: list[str] = []
    data = load_demo()
    space = fsb.FeatureSpace(data.model, preprocess=data.preprocess)
    images, families = slice(None, None, 8 * thin or 1), list(FAMILIES)[:: thin or 1]
    bank = fsb.FeatureBank(space.extract(data.train_images[images]).features)
    test = space.extract(data.test_images[images]).features
    here = seed
    while not tried["demo"] or tried["demo"].total() < points / 2:
        counts, faults = hunt(space.head, bank, test, count, np.random.default_rng(here))
        tried["demo"] += counts
        all_faults += [f"demo, seed {here}: {fault}" for fault in faults]
        here += 1
    while not tried["random heads"] or tried["random heads"].total() < points / 2:
        for name in families:
            case = draw(name, seed)
            head, z = case.head(), torch.tensor(case.features).double()
            rows, g = z[torch.isfinite(z).all(dim=1)], np.random.default_rng([seed, 1])
            if len(rows):
                counts, faults = hunt(head, fsb.FeatureBank(crowd(head, rows, g)), z, count, g)
                tried["random heads"] += counts
                all_faults += [f"{name}, seed {seed}: {fault}" for fault in faults]
        seed += 1
    total = sum(c.total() for c in tried.values())
    return {
        "points": {where: dict(counts) for where, counts in tried.items()},
        "total": total,
        "changed": len(all_faults),
        "first": all_faults[:20],
    }
