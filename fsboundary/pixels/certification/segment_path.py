"""Path of classes along one segment of images, from its linear pieces, and its check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.body_bounds.body import Body
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.geometry.upper_envelope import upper_envelope
from fsboundary.pixels.certification.pieces import ends_of_pieces, evaluate

_RTOL = 1e-9
"""Differences of features and of logits, relative to the largest, that count as rounding: more than
that of float64 sums of a million terms."""

_TIED = 1e-13
"""Lead of a class, relative to the terms of the logits, below which rounding may have made it."""

_SHORTEST = 1e-12
"""Length of a stretch, in t, below which its class counts as met at a point only."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentPath:
    """Fields of one row of :class:`fsboundary.core.results.SegmentClasses`.

    Attributes
    ----------
    classes : Tensor (S,)
    crossings : Tensor (S-1,), float64
    residual : float
    pieces : int
    status : Status
    """

    classes: Tensor
    crossings: Tensor
    residual: float
    pieces: int
    status: Status

    @staticmethod
    def failed(status: Status, pieces: int = 0, residual: float = torch.nan) -> SegmentPath:
        """Return a path without classes."""
        none = torch.full((1,), -1, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        return SegmentPath(
            classes=none[0], crossings=none[1], residual=residual, pieces=pieces, status=status
        )


def path_of(
    body: Body, head: LinearHead, start: Tensor, end: Tensor, limit: int, batch_size: int
) -> SegmentPath:
    """Return the path of the segment from `start` to `end` (C,H,W), float64.

    Parameters
    ----------
    body : Body
        Piecewise linear.
    head : LinearHead
        On the CPU.
    start, end : Tensor (C, H, W), float64
    limit : int
        Number of pieces above which there is no path.
    batch_size : int
        Number of images per pass.
    """
    t = ends_of_pieces(body, start, end, limit)
    pieces = len(t) - 1
    if pieces > limit:
        return SegmentPath.failed(Status.MAX_STEPS, pieces)

    def features_at(places: Tensor) -> Tensor:
        images = torch.lerp(start, end, places.reshape(-1, *[1] * start.dim()))
        return evaluate(body, images, batch_size)

    met, begins, bend = [], [], 0.0
    for first in range(0, pieces, batch_size):
        part = t[first : first + batch_size + 1]
        ends, middles = features_at(part), features_at(part[:-1] + part.diff() / 2)
        error = (middles - (ends[:-1] / 2 + ends[1:] / 2)).abs().amax()
        bend = max(bend, float(error / ends.abs().amax().clamp_min(1e-300)))
        logits = head.logits(ends)
        lines, crossings = upper_envelope(logits[:-1], logits.diff(dim=0))
        inside = part[:-1, None] + crossings * part.diff()[:, None]
        kept = lines >= 0
        met.append(lines[kept])
        begins.append(torch.cat([part[:-1, None], inside], dim=1)[kept])
    classes, begin = _stretches(torch.cat(met), torch.cat(begins))
    stops = torch.cat([begin[1:], begin.new_ones(1)])
    leads = _leads(head, features_at(begin + (stops - begin) / 2), classes)
    checked = [leads]
    if len(classes) > 1:
        ties = features_at(begin[1:])
        checked += [_leads(head, ties, classes[1:]), _leads(head, ties, classes[:-1])]
    residual = max(bend, -float(torch.cat(checked).amin()), 0.0)
    if not residual <= _RTOL:
        return SegmentPath.failed(Status.INACCURATE, pieces, residual)
    return SegmentPath(
        classes=classes,
        crossings=begin[1:],
        residual=residual,
        pieces=pieces,
        status=Status.CONVERGED if bool((leads > _TIED).all()) else Status.UNDECIDED,
    )


def _stretches(classes: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes (S,) of the stretches that have a length, and where they begin (S,)."""
    stops = torch.cat([begin[1:], begin.new_ones(1)])
    long = stops - begin > _SHORTEST
    classes, begin = classes[long], begin[long]
    new = torch.ones_like(classes, dtype=torch.bool)
    new[1:] = classes[1:] != classes[:-1]
    classes, begin = classes[new], begin[new].clone()
    begin[0] = 0.0
    return classes, begin


def _leads(head: LinearHead, features: Tensor, classes: Tensor) -> Tensor:
    """Return the smallest lead of `classes` (N,) over another class, (N,), negative below one.

    Relative to the largest sum of the absolute terms of a logit.
    """
    logits = head.logits(features)
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -torch.inf)
    size = features.abs() @ head.weight.abs().T + head.bias.abs()
    return (own - others).amin(dim=1) / size.amax(dim=1).clamp_min(1e-300)
