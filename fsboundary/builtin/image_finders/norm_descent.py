"""Descents that update the direction and the norm of the change to an image separately."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.builtin.image_finders.search_state import SearchState

_LAST = 0.01
"""Gradient steps fall to this fraction of their first length."""

_SHORTEST = 0.8
"""One forward pass shortens a change to this fraction at most: a linearisation is not trusted
farther."""


def descend(
    search: SearchState, steps: int, *, initial_norm: float, step_size: float, norm_change: float
) -> None:
    """Descend for `steps` gradients from the clean images; `search` keeps the nearest across.

    After J. Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses", CVPR 2019: each change is turned by a gradient step and
    rescaled to a separate norm, which shrinks where the image is across and grows where it is not.

    Parameters
    ----------
    initial_norm : float
        First norm of the change, pixel units.
    step_size : float
        First length of a gradient step, pixel units; falls as :func:`_cosine_decay`.
    norm_change : float
        Fraction by which the norm changes in a step.
    """
    change, rows = torch.zeros_like(search.clean), search.all_rows
    norm = torch.full_like(search.distance, initial_norm)
    for step in range(steps):
        if len(rows) == 0:
            return
        here = _evaluate_step(search, rows, change)
        rows = here.rows
        if step:
            smaller = torch.minimum(norm[rows] * (1 - norm_change), search.distance[rows])
            norm[rows] = torch.where(here.across, smaller, norm[rows] * (1 + norm_change))
        length = step_size * _cosine_decay(step, steps)
        change[rows] = _turn_change(search, here, length, norm[rows])


def norm_bounded_descent(
    search: SearchState,
    steps: int,
    change: Tensor,
    *,
    radius: float,
    step_size: float,
    norm_decrease: float,
    norm_increase: float,
) -> None:
    """Descend for `steps` gradients per image; `search` keeps the nearest images across.

    As :func:`descend`, with three differences. A change is never longer than the shortest that
    is across, so that all gradients are spent where something nearer may be. An image that is
    across is cut back along its ray to where the linearised gap is 0, by one forward pass. And
    step sizes are relative to the norm of the change, several times as long at first: far away on
    the sphere lie other parts of the boundary, so that it pays to begin again.

    Parameters
    ----------
    change : Tensor (B, n)
        First change to the clean images.
    radius : float
        First norm of the change where nothing is known to be across, pixel units.
    step_size : float
        First length of a gradient step, relative to the norm of the change; falls as
        :func:`_cosine_decay`.
    norm_decrease, norm_increase : float
        Fraction by which the norm falls where the image is across, and grows where it is not.
    """
    change, rows = change.clone(), search.all_rows
    norm = search.distance.clamp_max(radius)
    # in float32 whatever torch's default dtype is
    factors = torch.tensor([1 - norm_decrease, 1 + norm_increase], dtype=torch.float32)
    lower, raised = factors.to(norm)
    for step in range(steps):
        if len(rows) == 0:
            return
        here = _evaluate_step(search, rows, change)
        rows = here.rows
        _cut_back(search, here)
        norm[rows] = torch.minimum(
            norm[rows] * torch.where(here.across, lower, raised), search.distance[rows]
        )
        length = step_size * _cosine_decay(step, steps) * norm[rows]
        change[rows] = _turn_change(search, here, length, norm[rows])


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescentStep:
    """Images ``x`` (R,n) of ``rows`` (R,) where the gap has a direction to fall in.

    ``gap`` (R,), ``gradient`` (R,n) of the smooth gap, and whether they are ``across`` (R,).
    """

    rows: Tensor
    x: Tensor
    gap: Tensor
    gradient: Tensor
    across: Tensor


def _evaluate_step(search: SearchState, rows: Tensor, change: Tensor) -> DescentStep:
    """Compute a gradient at the clean images of `rows` plus `change` (B,n); update the best.

    Rows where a flat or broken model gives no direction are left out.
    """
    x = search.clean[rows] + change[rows]
    slope = search.gap_gradient(rows, x, smooth=True)
    search.update_best(rows, x, slope.gap, slope.slack)
    size = torch.linalg.vecdot(slope.gradient, search.steepest_step(slope.gradient))
    alive = (size > 0) & torch.isfinite(size)
    return DescentStep(
        rows=rows[alive],
        x=x[alive],
        gap=slope.gap[alive],
        gradient=slope.gradient[alive],
        across=((slope.gap <= 0) & (slope.slack >= 0))[alive],
    )


def _cosine_decay(step: int, steps: int) -> float:
    """Return the fraction of its first length that a step has: a cosine, down to a hundredth."""
    return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * step / steps)) / 2


def _turn_change(
    search: SearchState, here: DescentStep, length: Tensor | float, norm: Tensor
) -> Tensor:
    """Return the changes (R,n) of images `here`, turned by a step and rescaled to `norm` (R,).

    The step goes `length` pixel units, one number or one per row, in the steepest direction.
    """
    clean, x = search.clean[here.rows], here.x
    size = torch.as_tensor(length, dtype=x.dtype, device=x.device).reshape(-1, 1)
    moved = x - clean - size * search.steepest_step(here.gradient)
    size = search.length(moved).clamp_min(torch.finfo(x.dtype).tiny)
    return (clean + moved * (norm / size)[:, None]).clamp(*search.box) - clean


def _cut_back(search: SearchState, here: DescentStep) -> None:
    """Evaluate the images at which the rays to those across probably meet the boundary."""
    across = here.across.nonzero()[:, 0]
    if len(across) == 0:
        return
    rows = here.rows[across]
    clean = search.clean[rows]
    ray = here.x[across] - clean
    rate = torch.linalg.vecdot(here.gradient[across], ray)
    fraction = torch.where(rate < 0, 1 - here.gap[across] / rate, 1.0).clamp(_SHORTEST, 1.0)
    search.evaluate(rows, clean + fraction[:, None] * ray)
