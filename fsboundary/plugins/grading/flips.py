"""Grading of boundary finders: shapes are checked, then everything is recomputed from the inputs.

Boundary points of a non-linear head are graded with the head itself.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.results.deferred import defer, stored
from fsboundary.core.rows import cat_ragged
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.batching import chunk_rows, chunks, map_chunks
from fsboundary.geometry.flips.certify import Grade, Proposal, grade_flips
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.recomputed import DeferredPoints
from fsboundary.plugins.grading.calls import (
    Answer,
    handed_head,
    is_built_in,
    label_of,
    plugin_call,
)
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips


def find_and_grade(
    finder: BoundaryFinder,
    head: LinearHead,
    features: Tensor,
    source: Tensor,
    targets: Tensor,
    *,
    tolerance: float = FLIP_RTOL,
    max_steps: int,
    ceiling: Tensor | None = None,
) -> FlipPoints:
    """Return the graded flip points that `finder` proposes.

    Parameters
    ----------
    features : Tensor (B, d), float64
        Finite rows inside the domain.
    source : Tensor (B,)
    targets : Tensor (B, T)
        Classes other than the source.
    ceiling : Tensor (B, T), optional
        Upper limit of the lower bounds. For nearest classes: the radius within which no other
        class begins, so that the gap also covers the choice of the class.

    Raises
    ------
    PluginError
        The finder raised, or a field of its answer has another type, shape or device.
    """
    proposal, deferred = propose_flips(
        finder, head, features, targets, tolerance=tolerance, max_steps=max_steps
    )
    if deferred is not None:
        # the graded head, rows and classes, whatever the finder used
        deferred = replace(deferred, head=head, z=features, anchor=targets)
    width = targets.shape[1]
    flat_target = targets.reshape(-1)
    flat_ceiling = None if ceiling is None else ceiling.reshape(-1)

    def grade(part: slice) -> Grade:
        index = torch.arange(part.start, part.stop, device=targets.device) // max(width, 1)
        problems = FlipProblems(
            head=head, z=features[index], source=source[index], target=flat_target[part]
        )
        cap = None if flat_ceiling is None else flat_ceiling[part]
        proposed = proposal.take(part)
        if deferred is not None:
            columns = torch.arange(part.start, part.stop, device=targets.device) % width
            proposed = replace(proposed, points=deferred.at(index, columns))
        graded = grade_flips(problems, proposed, rtol=tolerance, max_steps=max_steps, ceiling=cap)
        # the same bits again when they are read, because the multipliers are the same
        return graded if deferred is None else replace(graded, points=graded.points[:, :0])

    size = max(head.num_features, head.num_classes)
    parts = map_chunks(grade, len(flat_target), size, targets.device)
    return _collect(parts, proposal, source, targets, head.num_features, deferred)


def propose_flips(
    finder: BoundaryFinder,
    head: LinearHead | NonlinearHead,
    features: Tensor,
    targets: Tensor,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[Proposal, DeferredPoints | None]:
    """Return what `finder` proposes for copies of `features` (B,d) and `targets` (B,T), flat.

    And its points, if it is built in and defers them; the proposal then has none.

    Raises
    ------
    PluginError
        The finder raised, or a field of its answer has another type, shape or device.
    """
    label, own = label_of("boundary finder", finder), is_built_in(finder)
    with contextlib.ExitStack() as stack:
        given, model = head, None
        if isinstance(head, LinearHead):
            given = stack.enter_context(handed_head(label, head, own=own))
        else:
            model = head._function  # the user's own callable, which cannot be copied
        stack.enter_context(plugin_call(label, trusted=own, model=model))
        answer = finder.find(
            cast(LinearHead, given),  # finders with the capability "nonlinear_head" take both
            features.clone(),
            targets=targets.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    fields = Answer(label, answer, FlipPoints, features.device, own=own)
    shape, width = targets.shape, features.shape[1]
    active = fields.integers("active", *shape, "S")
    slots = active.shape[-1]
    multipliers = fields.floats("multipliers", *shape, slots)
    count = targets.numel()
    points = stored(answer, "points") if own else None
    deferred = points if isinstance(points, DeferredPoints) else None
    if deferred is None:
        flat = fields.floats("points", *shape, width).reshape(count, width)
    else:
        flat = multipliers.new_empty(count, 0)
    proposal = Proposal(
        points=flat,
        active=active.reshape(count, slots),
        multipliers=multipliers.reshape(count, slots),
        steps=fields.counts("steps", *shape).reshape(count),
    )
    return proposal, deferred


def _collect(
    parts: list[Grade],
    proposal: Proposal,
    source: Tensor,
    targets: Tensor,
    width: int,
    deferred: DeferredPoints | None,
) -> FlipPoints:
    """Return the graded chunks as one result."""
    shape = targets.shape

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts]).reshape(shape)

    if not parts:
        empty = torch.zeros(shape, dtype=torch.float64, device=targets.device)
        return FlipPoints(
            points=empty[..., None].expand(*shape, width).clone(),
            distance=empty,
            lower_bound=empty,
            gap=empty,
            violation=empty,
            source=source,
            target=targets,
            active=targets[..., None].clone(),
            multipliers=empty[..., None].clone(),
            status=targets.clone(),
            steps=targets.clone(),
        )
    active = cat_ragged([p.active for p in parts], -1)
    multipliers = cat_ragged([p.multipliers for p in parts], 0)
    if deferred is None:
        points = torch.cat([p.points for p in parts]).reshape(*shape, width)
    else:
        points = deferred.placeholder()
    found = FlipPoints(
        points=points,
        distance=joined("distance"),
        lower_bound=joined("lower_bound"),
        gap=joined("gap"),
        violation=joined("violation"),
        source=source,
        target=targets,
        active=active.unflatten(0, shape),
        multipliers=multipliers.unflatten(0, shape),
        status=joined("status"),
        steps=proposal.steps.reshape(shape),
    )
    if deferred is None:
        return found
    return defer(found, "points", replace(deferred, known=found.status == Status.CONVERGED))


def find_and_grade_nonlinear(
    finder: BoundaryFinder,
    head: NonlinearHead,
    features: Tensor,
    source: Tensor,
    targets: Tensor,
    *,
    tolerance: float,
    max_steps: int,
) -> FlipPoints:
    """Return the graded boundary points of a non-linear head that `finder` proposes.

    Points are rounded to the dtype that the head computes in, and everything is recomputed from
    them. ON_BOUNDARY: neither source nor target is below the largest logit by more than
    `tolerance` times the range of the logits there or at the row, and the point is in the domain.
    Others are NaN: INACCURATE, or MAX_STEPS if the finder proposed no point.

    Parameters
    ----------
    features : Tensor (B, d), float64
        Finite rows inside the domain.
    source : Tensor (B,)
    targets : Tensor (B, T)
        Classes other than the source.

    Raises
    ------
    PluginError
        The finder raised, or a field of its answer has another type, shape or device.
    """
    proposal, _ = propose_flips(
        finder, head, features, targets, tolerance=tolerance, max_steps=max_steps
    )
    fields = unsolved_flips(features, source, targets)
    fields["steps"] = proposal.steps.to(targets).view_as(targets)
    flat = {name: fields[name].flatten(0, 1) for name in _GRADED}
    width = max(targets.shape[1], 1)
    for part in chunks(targets.numel(), chunk_rows(max(head.num_features, head.num_classes))):
        index = torch.arange(part.start, part.stop, device=targets.device) // width
        graded = _grade(
            head,
            features[index],
            proposal.points[part],
            torch.stack([source[index], targets.reshape(-1)[part]], dim=1),
            tolerance,
        )
        for name, value in graded.items():
            flat[name][part] = value
    return FlipPoints(**fields | {name: flat[name].view_as(fields[name]) for name in _GRADED})


_GRADED = ("points", "distance", "gap", "violation", "status")


def _grade(
    head: NonlinearHead, z: Tensor, points: Tensor, pair: Tensor, tolerance: float
) -> dict[str, Tensor]:
    """Return the graded fields of P points (P,d) for source and target `pair` (P,2)."""
    points = points.to(z.device, head.dtype).to(torch.float64)
    finite = torch.isfinite(points).all(dim=1)
    shown = torch.where(finite[:, None], points, z)
    logits, gradients = head.gradients(shown, pair)
    high = logits.amax(dim=1)
    with torch.no_grad():
        at_row = head.logits(z)
    # with two classes the range is 0 at a tie
    span = torch.maximum(high - logits.amin(dim=1), at_row.amax(dim=1) - at_row.amin(dim=1))
    behind = high - logits.gather(1, pair).amin(dim=1)
    # if all logits are equal, everything would tie; NaN compares false
    tied = (behind <= tolerance * span) & (span > 0) & torch.isfinite(span)
    size = torch.linalg.vector_norm(z, dim=1) + torch.linalg.vector_norm(shown, dim=1)
    outside = head.domain.violation(shown)
    # rounding the point to the head's dtype may move it across a face
    good = finite & tied & (outside <= torch.finfo(head.dtype).eps * size)
    slope = torch.linalg.vector_norm(gradients[:, 0] - gradients[:, 1], dim=1)
    missed = torch.where(behind > 0, behind / slope, 0.0)
    distance = torch.linalg.vector_norm(shown - z, dim=1)
    status = torch.where(finite, int(Status.INACCURATE), int(Status.MAX_STEPS))
    blank = torch.where(good, 0.0, torch.nan).to(distance)
    return {
        "points": shown + blank[:, None],
        "distance": distance + blank,
        "gap": distance + blank,
        "violation": torch.maximum(missed, outside) + blank,
        "status": torch.where(good, int(Status.ON_BOUNDARY), status),
    }
