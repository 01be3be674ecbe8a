"""Files of certificates with one number changed, and the truth of what they then claim.

The truth is what the package itself and plain floats say.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import torch

import fsboundary as fsb
from support.certificates import places

Data = dict[str, Any]


def floats(rows: Any) -> torch.Tensor:
    """Return hexadecimal floats as a tensor; "inf" is infinite."""
    flat = [
        floats(r) if isinstance(r, list) else torch.tensor(_float(r), dtype=torch.float64)
        for r in rows
    ]
    return torch.stack(flat)


def _float(text: str) -> float:
    return float(text) if text.endswith("inf") else float.fromhex(text)


def head_of(data: Data) -> fsb.LinearHead:
    """Return the head of a file."""
    limits = floats(data["head"]["lower"]), floats(data["head"]["upper"])
    domain = fsb.Domain.box(*limits)
    return fsb.LinearHead(floats(data["head"]["weight"]), floats(data["head"]["bias"]), domain)


CLOSE = 1e-7
"""The package's own distances are this accurate; a mutation changes a number by at least 1e-6."""


def distance_is_true(claim: Data, distance: float) -> bool:
    """Return whether a claim's bounds enclose a distance."""
    lower, upper = _float(claim["lower"]), _float(claim.get("upper", "inf"))
    return lower <= distance * (1 + CLOSE) + CLOSE and distance <= upper * (1 + CLOSE) + CLOSE


def flip_is_true(data: Data, claim: Data) -> bool:
    """Compare with the flip point or tie point of the mutated problem."""
    z = floats(data["rows"])[claim["row"]][None]
    head = head_of(data)
    if claim["kind"] == "tie":
        found: Any = fsb.tie_points(head, z, torch.tensor([claim["classes"]]))
        distance = float(found.distance[0])
    else:
        # the row may have become one of another class: then the point asked for is the tie of two
        source, target = claim["source"], claim["target"]
        if int(head.predict(z)[0]) == source:
            distance = float(fsb.flip_points(head, z, torch.tensor([[target]])).distance[0, 0])
        else:
            pair = torch.tensor([[source, target]])
            distance = float(fsb.tie_points(head, z, pair).distance[0])
    # a point that misses conditions by its violation may be nearer than all that meet them
    loose = _float(claim.get("violation", "0x0.0p+0"))
    return math.isnan(distance) or distance_is_true(claim, distance) or loose > CLOSE


def ball_is_true(data: Data, claim: Data) -> bool:
    """Sample the ball: towards each other class, and at random."""
    head, z = head_of(data), floats(data["rows"])[claim["row"]]
    radius = min(_float(claim["radius"]), 1e3)
    g = torch.Generator().manual_seed(0)
    steps = torch.cat(
        [torch.randn(200, len(z), generator=g).double(), head.weight - head.weight[claim["source"]]]
    )
    norms = steps.norm(dim=1) if claim["norm"] == "l2" else steps.abs().amax(dim=1)
    inside = z + (1 - 1e-9) * radius * steps / norms.clamp_min(1e-300)[:, None]
    logits = head.logits(head.domain.clip(inside))
    return radius <= 0 or bool((logits.argmax(dim=1) == claim["source"]).all())


def box_is_true(data: Data, claim: Data) -> bool:
    """Evaluate the worst corner for each other class in plain floats."""
    head = head_of(data)
    w, b, i = head.weight, head.bias, claim["source"]
    lower, upper = floats(claim["lower"]).clamp_min(-1e9), floats(claim["upper"]).clamp_max(1e9)
    for k in range(len(w)):
        normal = w[k] - w[i]
        corner = torch.where(normal > 0, upper, lower)
        if k != i and float(normal @ corner + b[k] - b[i]) > 1e-9:
            return False
    return True


def point_is_true(data: Data, claim: Data) -> bool:
    """Evaluate the logits at the point of a region or facet."""
    head = head_of(data)
    logits = head.logits(floats(claim["point"])[None])[0]
    top = claim["classes"] if claim["kind"] == "facet" else [claim["class"]]
    rest = [k for k in range(len(logits)) if k not in top]
    # a facet's point is moved to the tie, by what the two logits differ
    off = 4 * float(logits[top].max() - logits[top].min())
    return bool(logits[rest].max() <= logits[top].min() + off + 1e-9)


def hull_is_true(data: Data, claim: Data) -> bool:
    """Compare with the distance of the mutated problem."""
    labels = data["labels"]
    # a bank takes no negative labels, which one mutation makes; names of classes do not matter
    names = sorted({*labels, *claim.get("classes", [])})
    bank = fsb.FeatureBank(
        floats(data["generators"]), torch.tensor([names.index(k) for k in labels])
    )
    if claim["kind"] == "projection":
        z = floats(data["rows"])[claim["row"]][None]
        return distance_is_true(claim, float(fsb.hull_projection(bank, z).distance[0]))
    found = fsb.hull_separation(bank, *map(names.index, claim["classes"]))
    return distance_is_true(claim, float(found.distance[0]))


TRUTH: dict[str, Callable[[Data, Data], bool]] = {
    "flip": flip_is_true,
    "unreachable": flip_is_true,
    "tie": flip_is_true,
    "ball": ball_is_true,
    "box": box_is_true,
    "region": point_is_true,
    "facet": point_is_true,
    "projection": hull_is_true,
    "separation": hull_is_true,
}


def mutate(data: Data, chance: random.Random) -> Data:
    """Return a file with one number changed, in half of the cases one of a claim."""
    changed = copy.deepcopy(data)
    paths = [p for p in places(data) if p[0] in ("head", "rows", "generators", "labels", "claims")]
    of_claims = chance.random() < 0.5
    path = chance.choice([p for p in paths if (p[0] == "claims") == of_claims])
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    if isinstance(old, int):
        holder[path[-1]] = chance.choice([old + 1, old - 1, -old - 1, 0])
    else:
        value = float.fromhex(old)
        new = chance.choice([-value, 2 * value, value * 1.01, value * (1 + 1e-5), value + 0.1, 0.0])
        holder[path[-1]] = new.hex()
    return changed
