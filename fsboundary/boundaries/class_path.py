"""Classes met on the segment from one feature to another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fsboundary.core.checks import check_features, check_head, check_shape, row_status
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import ClassPath, FeatureBatch
from fsboundary.core.rows import TensorOrArray, cat_ragged
from fsboundary.core.status import Status
from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.batching import map_chunks
from fsboundary.geometry.norms import TINY, lengths, pair_norms
from fsboundary.geometry.upper_envelope import upper_envelope
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def class_path(
    head: LinearHead,
    start: Float[TensorOrArray, "B d"] | FeatureBatch,
    end: Float[TensorOrArray, "B d"] | FeatureBatch,
) -> ClassPath:
    """Return the classes met on the segments from `start` to `end`, and where they change.

    Along a segment every logit is a straight line in t, so the classes are those of the upper
    envelope of K lines and the crossings are computed, not sampled. Every path is checked: at a
    crossing the two classes tie and no other is above, up to the rounding of float64 logits, and
    in the middle of a stretch its class is above all others by more than that.

    A class that is largest at a single point only (the segment touches its region) is left out,
    also at either end: if a row starts on a boundary, its path starts with the class that it
    enters. Of classes that tie along a stretch, the one with the lowest index counts. A class that
    rises above the others by less than rounding may be missing.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    start, end : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64. A single segment needs ``start[None]``.

    Returns
    -------
    ClassPath
        UNDECIDED where rounding hides which class is largest on some stretch: the path then
        contains a class that is largest up to rounding. Rows with OUTSIDE_DOMAIN, NOT_FINITE or
        INACCURATE have no path.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, before any work.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> path = fsb.class_path(head, z, torch.tensor([[0.0, 1.0, 3.0]]))
    >>> path.classes.tolist(), path.crossings.round(decimals=4).tolist()
    ([[0, 2]], [[0.5]])
    """
    check_head(head)
    a = check_features(head.num_features, start, "start")
    b = check_features(head.num_features, end, "end").to(a.device)
    fix = "pass one end for each start; end.expand_as(start) shares one"
    check_shape("end", b, tuple(a.shape), fix=fix)
    head = head.to(a.device)
    status = torch.maximum(row_status(head, a), row_status(head, b))

    def find(part: slice) -> tuple[Tensor, Tensor]:
        # unusable rows are replaced with 0 here and blanked afterwards
        usable = (status[part] == Status.CONVERGED)[:, None]
        first, last = (torch.where(usable, v[part], 0.0) for v in (a, b))
        classes, crossings = _find_path(head, first, last)
        correct, decided = _grade_path(head, first, last, classes, crossings)
        code = torch.where(decided, int(Status.CONVERGED), int(Status.UNDECIDED))
        code = torch.where(correct, code, int(Status.INACCURATE))
        status[part] = torch.where(usable[:, 0], code, status[part])
        return classes, crossings

    found = map_chunks(find, len(a), max(head.num_features, head.num_classes), a.device)
    # an empty piece gives the tables their shape if there are no rows
    classes = cat_ragged([status.new_zeros(0, 1), *(part[0] for part in found)], -1)
    crossings = cat_ragged([a.new_zeros(0, 0), *(part[1] for part in found)], torch.nan)
    failed = (status != Status.CONVERGED) & (status != Status.UNDECIDED)
    classes[failed], crossings[failed] = -1, torch.nan
    points = _interpolate(head, a, b, crossings)
    return ClassPath(classes=classes, crossings=crossings, points=points, status=status)


def _interpolate(head: LinearHead, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Return the points (B,S,d) of the segments at `t` (B,S), clipped to the domain."""
    step = end - start
    return head.domain.clip(torch.addcmul(start[:, None], t[..., None], step[:, None]))


def _dominated(head: LinearHead) -> Tensor:
    """Return the classes (K,) below one with equal weights, or equal to one of lower index."""
    b, index = head._bias, torch.arange(head.num_classes, device=head.device)
    above = (b > b[:, None]) | ((b == b[:, None]) & (index < index[:, None]))
    return ((pair_norms(head) == 0) & above).any(dim=1)


def _find_path(head: LinearHead, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes (B,S) and crossings (B,S-1) of one chunk."""
    lines = torch.where(_dominated(head), -torch.inf, head.logits(start))
    return upper_envelope(lines, (end - start) @ head._weight.T)


def _grade_path(
    head: LinearHead, start: Tensor, end: Tensor, classes: Tensor, crossings: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whether the paths are correct up to rounding (B,), and whether it hides nothing (B,).

    The lead of a class over another is linear along the segment: it is nowhere below its smaller
    end, and it exceeds rounding in the middle only if the stretch is real.
    """
    ends = torch.ones_like(start[:, :1])
    stops = torch.cat([crossings, ends], dim=1).nan_to_num(nan=1.0)
    begin = torch.zeros_like(ends)
    size, offset = lengths(head._weight), head._bias.abs()
    span = lengths(start) + 2 * lengths(end - start)
    gamma = dot_error(2 * head.num_features + 32)
    dominated = _dominated(head)
    correct = torch.ones_like(classes[:, 0], dtype=torch.bool)
    decided = correct.clone()
    for s in range(classes.shape[1]):
        c, padded = classes[:, s : s + 1].clamp_min(0), classes[:, s] < 0
        rounding = gamma * ((size[c] + size) * span[:, None] + offset[c] + offset + TINY)
        stop = stops[:, s : s + 1]
        for t in (begin, 0.5 * (begin + stop), stop):
            logits = head.logits(_interpolate(head, start, end, t)[:, 0])
            lead = logits.gather(1, c) - logits
            correct &= (lead >= -rounding).all(dim=1) | padded
            if t is not begin and t is not stop:
                clear = (lead > rounding) | dominated
                decided &= clear.scatter(1, c, True).all(dim=1) | padded
        begin = stop
    return correct, decided
