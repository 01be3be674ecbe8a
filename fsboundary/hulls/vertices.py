"""Which points of a bank are the vertices of its hull."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.core.checks import check_limits
from fsboundary.core.results import HullVertices
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_SHARE, EPS, absolute
from fsboundary.geometry.hulls.affine import flat_of
from fsboundary.geometry.hulls.certify import extent
from fsboundary.geometry.hulls.separation import margins
from fsboundary.hulls.leave_one_out import blocks, left_out
from fsboundary.hulls.projection import MAX_STEPS, Copies, copies_of
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver

DECIDING = 0.1
"""Default relative tolerance: what is asked is whether the distance is 0."""


def hull_vertices(
    bank: FeatureBank,
    *,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> HullVertices:
    """Return which points of `bank` are extreme, by their distance to the hull of all others.

    Most are shown to be by one direction in which they lie farther out than every other point;
    the others are projected on the hull of all others.

    Exact copies are one point. Points much nearer to each other than 1e-9 of the bank's size
    stand in for each other, so that none of them may be a vertex.

    Parameters
    ----------
    bank : FeatureBank
    solver : str or HullSolver
    tolerance : float, optional
        Relative tolerance of the leave-one-out distances that are computed, default 0.1: enough
        to tell 0 from others.
    max_steps : int, optional
        Passes over the bank, default 200.
    show_progress : bool

    Returns
    -------
    HullVertices
        With ``.indices`` and ``.count``. On the CPU.

    Raises
    ------
    ArgumentError
        Wrong types or limits, before any work.
    DataError
        A damaged bank.
    PluginError
        The solver raised or answered in the wrong shape.
    """
    copies = copies_of(check_bank(bank))
    rtol, limit = check_limits(tolerance, max_steps, (DECIDING, MAX_STEPS))
    plugin = create("hull_solver", solver)
    own = copies.first.unique()
    lower, upper = _at_a_glance(bank, own, copies, show_progress)
    status, steps = torch.full_like(own, int(Status.CONVERGED)), torch.zeros_like(own)
    size = extent(bank)
    # 4 ulp of the largest point: what projections take for 0 where the points lie far from 0
    seen = lower > torch.maximum(absolute(size.scale), 4 * EPS * size.largest)
    extreme, left = seen.long(), ~seen
    found = left_out(
        bank,
        own[left],
        own_class=False,
        solver=plugin,
        tolerance=rtol,
        max_steps=limit,
        show_progress=show_progress,
    )
    extreme[left], steps[left] = -found["membership"], found["steps"]
    lower[left] = torch.maximum(lower[left], found["lower_bound"])
    upper[left] = torch.fmin(upper[left], found["distance"])
    vague = found["status"] == Status.CONVERGED
    status[left] = torch.where(vague, int(Status.UNDECIDED), found["status"])
    status = torch.where(extreme != 0, int(Status.CONVERGED), status)
    place = torch.searchsorted(own, copies.first)
    return HullVertices(
        extreme=extreme[place],
        distance=upper[place],
        lower_bound=lower[place],
        copy_of=copies.first,
        status=status[place],
        steps=steps[place],
    )


def _at_a_glance(
    bank: FeatureBank, rows: Tensor, copies: Copies, show_progress: bool
) -> tuple[Tensor, Tensor]:
    """Return bounds (B,), (B,) of the distances of `rows` (B,), from one direction for each."""
    flat = flat_of(bank, ATOL_SHARE)
    lower = torch.empty(len(rows), dtype=torch.float64)
    upper = torch.empty_like(lower)
    with tqdm(total=len(rows), unit="point", disable=not show_progress) as bar:
        for some in blocks(torch.arange(len(rows)), copies.count[rows]):
            outward = flat.outward(bank.take(rows[some]))
            found = margins(bank, rows[some], outward, copies.of(rows[some]))
            lower[some], upper[some] = found
            bar.update(len(some))
    return lower, upper
