"""Certified radii beside the distances of flip images, as far as the time of the section allows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import Affine, Body, trace_body
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.errors import HeadError
from fsboundary.core.results import FlipImages
from fsboundary.pixels import certify
from fsboundary.plot.values import median
from fsboundary.report.measurements import Measurements

MAX_WORK = 1e8
"""Largest product of the arguments of nonlinear operations and of all values of a body, per image,
for which linear bounds are used: two seconds an image, on one processor. Larger bodies get
intervals, whose time is that of a few passes."""

MAX_VALUES = 2**24
"""Largest number of values of all operations for which intervals are computed at once: about half a
gigabyte."""

_TOLERANCE = 0.02
_STEPS = {"linear_bounds": 16, "interval": 8}
"""Of the search for a radius: the page shows two digits, and intervals of large bodies mostly
certify nothing, which eight radii show."""


def certified_radii(m: Measurements, rows: Tensor, flips: FlipImages) -> dict[str, Any]:
    """Return the method, and one radius per row of `flips`; `refused` is why there are none."""
    space, images = m.subject.space, m.subject.images[rows]
    nothing: dict[str, Any] = {"method": None, "shown": [], "certified": 0, "share": None}
    if space.surrogate:
        return nothing | {
            "refused": "the head was fitted, so its class may differ from the model's"
        }
    with m.clock.stage("certified radii"):
        try:
            body = trace_body(space, images, rule_of)
            method = "linear_bounds" if _work(body) <= MAX_WORK else "interval"
            # each step of a batch traces the body anew
            rows_at_once = max(1, MAX_VALUES // sum(_sizes(body))) if method == "interval" else 1
            found = certify(
                space, images, norm="l2", method=method, upper=flips,
                tolerance=_TOLERANCE, max_steps=_STEPS[method], batch_size=rows_at_once,
            )  # fmt: skip
        except HeadError as error:
            return nothing | {"refused": str(error)}
    positive = found.radius > 0
    known = positive & torch.isfinite(found.upper)
    radii = torch.where(found.radius.isnan(), 0.0, found.radius)
    return {
        "method": method,
        "refused": None,
        "shown": [{"radius": r, "whole": math.isinf(r)} for r in radii.tolist()],
        "certified": int(positive.sum()),
        "share": median((found.radius / found.upper)[known]) if bool(known.any()) else None,
    }


def _sizes(body: Body) -> list[int]:
    """Return the number of values of each operation, per image."""
    return [math.prod(node.shape) for node in body.nodes]


def _work(body: Body) -> float:
    sizes = _sizes(body)
    bent = sum(
        sizes[parent]
        for node in body.nodes[1:] if not isinstance(node.rule, Affine)
        for parent in node.parents
    )  # fmt: skip
    return float(bent) * sum(sizes)
