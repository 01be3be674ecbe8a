"""Boundary points of a non-linear head are graded by the head itself."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.heads import NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.status import Status
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.plugins.grading.flips import ask
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips


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
    """Ask `finder` for boundary points of a non-linear head and return the graded answer.

    Points are rounded to the dtype that the head computes in, and everything is recomputed from
    them. ON_BOUNDARY: neither source nor target is below the largest logit by more than
    `tolerance` times the range of the logits there or at the row, and the point is in the domain.
    Others are NaN: INACCURATE, or MAX_STEPS where the finder gave no point.

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
        The finder raised, or its answer has the wrong type or shapes.
    """
    proposal = ask(finder, head, features, targets, tolerance=tolerance, max_steps=max_steps)
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
    # with two classes there is no range left at a tie
    span = torch.maximum(high - logits.amin(dim=1), at_row.amax(dim=1) - at_row.amin(dim=1))
    behind = high - logits.gather(1, pair).amin(dim=1)
    # where all logits are equal everything would tie; NaN compares false
    tied = (behind <= tolerance * span) & (span > 0) & torch.isfinite(span)
    size = torch.linalg.vector_norm(z, dim=1) + torch.linalg.vector_norm(shown, dim=1)
    outside = head.domain.violation(shown)
    # rounding the point to the head's dtype may carry it over a face
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
