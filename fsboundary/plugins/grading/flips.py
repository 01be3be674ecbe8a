"""Every finder's answer is checked for shape, then graded from the raw inputs."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fsboundary.core.errors import PluginError
from fsboundary.core.heads import LinearHead, NonlinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.certify import Grade, Proposal, grade_flips
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.plugins.interfaces import BoundaryFinder


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
    """Ask `finder` for flip points and return the graded answer.

    Parameters
    ----------
    features : Tensor (B, d), float64
        Finite rows inside the domain.
    source : Tensor (B,)
    targets : Tensor (B, T)
        Classes other than the source.
    ceiling : Tensor (B, T), optional
        No lower bound may be above it. For nearest classes: the radius within which no class at
        all begins, so that the gap also covers the choice of the class.

    Raises
    ------
    PluginError
        The finder raised, or its answer has the wrong type or shapes.
    """
    proposal = ask(finder, head, features, targets, tolerance=tolerance, max_steps=max_steps)
    rows = chunk_rows(max(head.num_features, head.num_classes))
    width = targets.shape[1]
    flat_target = targets.reshape(-1)
    flat_ceiling = None if ceiling is None else ceiling.reshape(-1)
    parts = []
    for part in chunks(len(flat_target), rows):
        index = torch.arange(part.start, part.stop, device=targets.device) // max(width, 1)
        problems = FlipProblems(
            head=head, z=features[index], source=source[index], target=flat_target[part]
        )
        cap = None if flat_ceiling is None else flat_ceiling[part]
        parts.append(
            grade_flips(
                problems, proposal.take(part), rtol=tolerance, max_steps=max_steps, ceiling=cap
            )
        )
    return _collect(parts, proposal, source, targets, head.num_features)


def ask(
    finder: BoundaryFinder,
    head: LinearHead | NonlinearHead,
    features: Tensor,
    targets: Tensor,
    *,
    tolerance: float,
    max_steps: int,
) -> Proposal:
    """Return what `finder` says of copies of `features` (B,d) and `targets` (B,T), flat.

    Raises
    ------
    PluginError
        The finder raised, or its answer has the wrong type or shapes.
    """
    name = type(finder).__name__
    try:
        answer = finder.find(
            cast(LinearHead, head),  # finders with the capability "nonlinear_head" take both
            features.clone(),
            targets=targets.clone(),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    except Exception as error:
        raise PluginError(
            f"boundary finder {name} raised {type(error).__name__}: {error}"
        ) from error
    return _proposal(name, answer, features, targets)


def _proposal(name: str, answer: object, features: Tensor, targets: Tensor) -> Proposal:
    """Return the flat proposal of a finder's answer, or raise if its shapes are wrong."""
    if not isinstance(answer, FlipPoints):
        raise PluginError(
            f"boundary finder {name} returned {type(answer).__name__}; wanted FlipPoints"
        )
    shape = tuple(targets.shape)
    wanted = {
        "points": (*shape, features.shape[1]),
        "steps": shape,
        "active": (*shape, answer.active.shape[-1] if answer.active.ndim else 0),
        "multipliers": tuple(answer.active.shape),
    }
    for field, want in wanted.items():
        got = tuple(getattr(answer, field).shape)
        if got != want:
            raise PluginError(f"boundary finder {name}: {field} has shape {got}; wanted {want}")
    count = targets.numel()
    slots = answer.active.shape[-1]
    return Proposal(
        points=answer.points.detach().reshape(count, features.shape[1]),
        active=answer.active.detach().reshape(count, slots),
        multipliers=answer.multipliers.detach().reshape(count, slots),
        steps=answer.steps.detach().reshape(count),
    )


def _collect(
    parts: list[Grade], proposal: Proposal, source: Tensor, targets: Tensor, width: int
) -> FlipPoints:
    """Return the graded chunks as one result."""
    shape = targets.shape
    slots = max((p.active.shape[1] for p in parts), default=1)

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
    active = torch.full((len(proposal.steps), slots), -1, device=targets.device)
    multipliers = torch.zeros(active.shape, dtype=torch.float64, device=targets.device)
    start = 0
    for p in parts:
        stop = start + len(p.active)
        active[start:stop, : p.active.shape[1]] = p.active
        multipliers[start:stop, : p.active.shape[1]] = p.multipliers
        start = stop
    return FlipPoints(
        points=torch.cat([p.points for p in parts]).reshape(*shape, width),
        distance=joined("distance"),
        lower_bound=joined("lower_bound"),
        gap=joined("gap"),
        violation=joined("violation"),
        source=source,
        target=targets,
        active=active.reshape(*shape, slots),
        multipliers=multipliers.reshape(*shape, slots),
        status=joined("status"),
        steps=proposal.steps.reshape(shape),
    )
