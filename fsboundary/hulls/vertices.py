"""Vertices of the hull of a bank: its extreme points."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.core.checks import check_limits
from fsboundary.core.results import HullVertices
from fsboundary.core.status import Status
from fsboundary.core.tolerance import ATOL_FRACTION
from fsboundary.geometry.hulls.affine import fit_affine_hull
from fsboundary.geometry.hulls.separation import separation_bounds
from fsboundary.hulls.copies import Copies, copies_of
from fsboundary.hulls.leave_one_out import project_left_out, row_blocks
from fsboundary.hulls.projection import MAX_STEPS
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.progress import tqdm

DEFAULT_RTOL = 0.1
"""Default relative tolerance: it need only show whether a distance is 0."""


@in_standard_modes
def hull_vertices(
    bank: FeatureBank,
    *,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> HullVertices:
    """Return which points of `bank` are extreme, by their distance to the hull of all others.

    For most extreme points, one direction in which they lie farther out than every other point is
    the proof; the remaining points are projected on the hull of all others.

    Exact copies are one point. A point within tolerance of the hull of the others, and not proved
    to be outside it, is not a vertex: points that differ by rounding stand in for each other, so
    that possibly none of them is one.

    Parameters
    ----------
    bank : FeatureBank
    solver : str or HullSolver
    tolerance : float, optional
        Relative tolerance of the leave-one-out distances that are computed, default 0.1: enough
        to distinguish 0 from other values.
    max_steps : int, optional
        Passes over the bank, default 200.
    show_progress : bool

    Returns
    -------
    HullVertices
        On the CPU, with ``.indices`` and ``.count``.

    Raises
    ------
    ArgumentError
        Wrong types or limits, before any work.
    DataError
        A damaged bank.
    PluginError
        The solver raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    >>> fsb.hull_vertices(fsb.FeatureBank(square)).indices.tolist()
    [0, 1, 2, 3]
    """
    copies = copies_of(check_bank(bank))
    rtol, limit = check_limits(tolerance, max_steps, (DEFAULT_RTOL, MAX_STEPS))
    plugin = create("hull_solver", solver)
    distinct = copies.first.unique()
    lower, upper = _separation_bounds(bank, distinct, copies, show_progress)
    status, steps = torch.full_like(distinct, int(Status.CONVERGED)), torch.zeros_like(distinct)
    proved = lower > 0
    extreme, rest = proved.long(), ~proved
    result = project_left_out(
        bank,
        distinct[rest],
        own_class=False,
        solver=plugin,
        tolerance=rtol,
        max_steps=limit,
        show_progress=show_progress,
    )
    extreme[rest], steps[rest] = -result["membership"], result["steps"]
    lower[rest] = torch.maximum(lower[rest], result["lower_bound"])
    upper[rest] = torch.fmin(upper[rest], result["distance"])
    # a certified distance does not decide by itself: the membership may be open
    status[rest] = torch.where(
        result["status"] == Status.CONVERGED, int(Status.UNDECIDED), result["status"]
    )
    status = torch.where(extreme != 0, int(Status.CONVERGED), status)
    index = torch.searchsorted(distinct, copies.first)
    return HullVertices(
        extreme=extreme[index],
        distance=upper[index],
        lower_bound=lower[index],
        copy_of=copies.first,
        status=status[index],
        steps=steps[index],
    )


def _separation_bounds(
    bank: FeatureBank, rows: Tensor, copies: Copies, show_progress: bool
) -> tuple[Tensor, Tensor]:
    """Return bounds (B,), (B,) of the distances of `rows` (B,), from one direction per row."""
    flat = fit_affine_hull(bank, ATOL_FRACTION)
    lower = torch.empty(len(rows), dtype=torch.float64)
    upper = torch.empty_like(lower)
    with tqdm(total=len(rows), unit="point", disable=not show_progress) as bar:
        for block in row_blocks(torch.arange(len(rows)), copies.count[rows]):
            outward = flat.outward_directions(bank.take(rows[block]))
            lower[block], upper[block] = separation_bounds(
                bank, rows[block], outward, copies.of(rows[block])
            )
            bar.update(len(block))
    return lower, upper
