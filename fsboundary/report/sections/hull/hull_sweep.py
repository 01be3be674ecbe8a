"""Inside or outside in fewer dimensions: the first principal components of the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.hulls import project_on_hull
from fsboundary.plugins.interfaces import HullSolver

MOST_STEPS = 9
"""So many dimensions are looked at, at most."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """Memberships in the space of the first principal components of the generators.

    Attributes
    ----------
    dimensions : int
    images, left_out : Tensor (R,)
        ``membership`` of sampled images and of sampled training images, each left out.
    """

    dimensions: int
    images: Tensor
    left_out: Tensor


def ladder(width: int) -> list[int]:
    """Return at most MOST_STEPS dimensions from 2 to `width` in equal ratios."""
    if width < 2:
        return [width]
    powers = [k / (MOST_STEPS - 1) for k in range(MOST_STEPS)]
    return sorted({round(2 * (width / 2) ** power) for power in powers})


def sweep(bank: FeatureBank, z: Tensor, left_out: Tensor, solver: HullSolver) -> list[Step]:
    """Ask whether rows are inside in fewer dimensions than all.

    Parameters
    ----------
    bank : FeatureBank
        The generators, of width d.
    z : Tensor (R, d)
    left_out : Tensor (L,)
        Rows of the bank, each held against the hull of all others.
    solver : HullSolver

    Returns
    -------
    list of Step
        One for each number of dimensions that :func:`ladder` names, but for d itself.
    """
    skip = torch.cat([torch.full((len(z),), -1), left_out])
    points = bank.features.to(torch.float64)
    mean = points.mean(dim=0)
    axes = _principal_axes(points - mean)
    queries = torch.cat([z.to(torch.float64), points[left_out]])
    steps = []
    for p in ladder(bank.num_features)[:-1]:
        part = FeatureBank((points - mean) @ axes[:, :p])
        seen = (queries - mean) @ axes[:, :p]
        found = project_on_hull(part, seen, leave_out=skip, solver=solver).membership
        steps.append(Step(dimensions=p, images=found[: len(z)], left_out=found[len(z) :]))
    return steps


def _principal_axes(centred: Tensor) -> Tensor:
    """Return orthonormal columns (d, d), those along which the points vary most first."""
    largest = centred.abs().max()
    scaled = centred / torch.where(largest > 0, largest, 1.0)  # squares must not overflow
    axes: Tensor = torch.linalg.eigh(scaled.T @ scaled).eigenvectors.flip(1)
    return axes
