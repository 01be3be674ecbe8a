"""The classes met on the way from one feature to another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, row_status
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import ClassPath
from fsboundary.core.status import Status
from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.norms import TINY, lengths, pair_norms
from fsboundary.geometry.upper_envelope import upper_envelope


def class_path(
    head: LinearHead, start: Float[Tensor, "B d"], end: Float[Tensor, "B d"]
) -> ClassPath:
    """Return the classes met on the segments from `start` to `end`, and where they change.

    Along a segment every logit is a straight line in t, so the classes are those of the upper
    envelope of K lines and the crossings are computed, not sampled. All are checked: on a crossing
    the two classes tie and no other is above, up to the rounding of float64 logits, and in the
    middle of a stretch its class is above all others by more than that.

    A class that is largest in a single point only (the segment touches its region) is left out,
    also at either end: where a row starts on a boundary, the path starts with the class that it
    enters. Of classes that tie along the way the lowest index counts. A class that rises above the
    others by less than rounding may be missing.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    start, end : Tensor (B, d)
        Any float dtype; computed in float64. A single segment needs ``start[None]``.

    Returns
    -------
    ClassPath
        UNDECIDED where rounding hides which class is largest on some stretch: the path then
        names one that is, up to rounding. Rows with OUTSIDE_DOMAIN, NOT_FINITE or INACCURATE have
        no path.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, before any work.
    """
    check_head(head)
    a = check_features(head.num_features, start, "start")
    b = check_features(head.num_features, end, "end").to(a.device)
    if len(a) != len(b):
        raise ArgumentError(
            "end",
            f"{len(b)} rows",
            f"{len(a)} rows, as many as start",
            "pass one end for each start; end.expand_as(start) shares one",
        )
    head = head.to(a.device)
    status = torch.maximum(row_status(head, a), row_status(head, b))
    parts = []
    for part in chunks(len(a), chunk_rows(max(head.num_features, head.num_classes))):
        # rows that failed are walked as if they were 0 and blanked afterwards
        fine = (status[part] == Status.CONVERGED)[:, None]
        first, last = (torch.where(fine, v[part], 0.0) for v in (a, b))
        found = _walk(head, first, last)
        right, decided = _verified(head, first, last, *found)
        code = torch.where(decided, int(Status.CONVERGED), int(Status.UNDECIDED))
        code = torch.where(right, code, int(Status.INACCURATE))
        status[part] = torch.where(fine[:, 0], code, status[part])
        parts.append(found)
    width = max((lines.shape[1] for lines, _ in parts), default=1)
    classes = torch.full((len(a), width), -1, dtype=torch.int64, device=a.device)
    crossings = torch.full((len(a), width - 1), torch.nan, dtype=a.dtype, device=a.device)
    row = 0
    for lines, where in parts:
        rows = slice(row, row + len(lines))
        classes[rows, : lines.shape[1]], crossings[rows, : where.shape[1]] = lines, where
        row = rows.stop
    failed = (status != Status.CONVERGED) & (status != Status.UNDECIDED)
    classes[failed], crossings[failed] = -1, torch.nan
    points = _points(head, a, b, crossings)
    return ClassPath(classes=classes, crossings=crossings, points=points, status=status)


def _points(head: LinearHead, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Return the points (B,S,d) of the segments at `t` (B,S), inside the domain."""
    step = end - start
    return head.domain.clip(torch.addcmul(start[:, None], t[..., None], step[:, None]))


def _hidden(head: LinearHead) -> Tensor:
    """Whether a class with the same weights is above, or equal with a lower index, (K,)."""
    b, index = head.bias, torch.arange(head.num_classes, device=head.bias.device)
    better = (b > b[:, None]) | ((b == b[:, None]) & (index < index[:, None]))
    return ((pair_norms(head) == 0) & better).any(dim=1)


def _walk(head: LinearHead, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes (B,S) and crossings (B,S-1) of one chunk."""
    lines = torch.where(_hidden(head), -torch.inf, head.logits(start))
    return upper_envelope(lines, (end - start) @ head.weight.T)


def _verified(
    head: LinearHead, start: Tensor, end: Tensor, classes: Tensor, crossings: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whether the paths hold up to rounding (B,), and whether rounding hides nothing (B,).

    The lead of a class over another is linear along the segment: it is nowhere below its smaller
    end, and above rounding in the middle only if the stretch is real.
    """
    ends = torch.ones_like(start[:, :1])
    stops = torch.cat([crossings, ends], dim=1).nan_to_num(nan=1.0)
    since = torch.zeros_like(ends)
    size, offset = lengths(head.weight), head.bias.abs()
    span = lengths(start) + 2 * lengths(end - start)
    gamma = dot_error(2 * head.num_features + 32)
    hidden = _hidden(head)
    right = torch.ones_like(classes[:, 0], dtype=torch.bool)
    decided = right.clone()
    for s in range(classes.shape[1]):
        c, padded = classes[:, s : s + 1].clamp_min(0), classes[:, s] < 0
        rounding = gamma * ((size[c] + size) * span[:, None] + offset[c] + offset + TINY)
        stop = stops[:, s : s + 1]
        for t in (since, 0.5 * (since + stop), stop):
            logits = head.logits(_points(head, start, end, t)[:, 0])
            lead = logits.gather(1, c) - logits
            right &= (lead >= -rounding).all(dim=1) | padded
            if t is not since and t is not stop:
                clear = (lead > rounding) | hidden
                decided &= clear.scatter(1, c, True).all(dim=1) | padded
        since = stop
    return right, decided
