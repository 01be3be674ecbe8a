"""The training set's own distances to its hull, as the measure of other distances."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.checks import check_bank, check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Extrapolation, HullProjection, LeaveOneOutDistances
from fsboundary.hulls.left_out import left_out
from fsboundary.hulls.projection import HULL_RTOL, MAX_STEPS
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver


def leave_one_out_distances(
    bank: FeatureBank,
    sample: int | Int[Tensor, " B"] = 1000,
    *,
    own_class: bool = False,
    seed: int = 0,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> LeaveOneOutDistances:
    """Return how far rows of `bank` lie from the hull of all others.

    Parameters
    ----------
    bank : FeatureBank
    sample : int or Tensor (B,)
        So many rows, drawn without replacement, all where the bank has no more; or these rows.
    own_class : bool
        Against the other rows of the row's own label, the measure of distances to the hull of
        one class.
    seed : int
        Of the draw.
    solver : str or HullSolver
    tolerance : float, optional
        Relative tolerance of the distance, default 1e-6.
    max_steps : int, optional
        Passes over the bank, default 200.
    show_progress : bool

    Returns
    -------
    LeaveOneOutDistances
        On the CPU. Exact copies of a row are left out with it.

    Raises
    ------
    ArgumentError
        Wrong types or limits, rows that the bank does not have, or `own_class` of a bank without
        labels, before any work.
    DataError
        A damaged bank.
    PluginError
        The solver raised or answered in the wrong shape.
    """
    rows = _sampled(sample, len(check_bank(bank)), seed)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    found = left_out(
        bank,
        rows,
        own_class=own_class,
        solver=create("hull_solver", solver),
        tolerance=rtol,
        max_steps=limit,
        show_progress=show_progress,
    )
    return LeaveOneOutDistances(rows=rows, **found)


def extrapolation(projection: HullProjection, yardstick: LeaveOneOutDistances) -> Extrapolation:
    """Return how far rows lie outside, told against the training set's own distances.

    Parameters
    ----------
    projection : HullProjection
        Of the rows in question, on the hull of the whole bank.
    yardstick : LeaveOneOutDistances
        Of the same bank. Rows without a finite distance do not count.

    Returns
    -------
    Extrapolation

    Raises
    ------
    ArgumentError
        Wrong types, or a yardstick without a finite distance.
    """
    for name, value, kind in (
        ("projection", projection, HullProjection),
        ("yardstick", yardstick, LeaveOneOutDistances),
    ):
        if not isinstance(value, kind):
            fix = "pass what project_on_hull and leave_one_out_distances return, in this order"
            raise ArgumentError(name, type(value).__name__, f"a {kind.__name__}", fix)
    own = torch.where(yardstick.membership == 1, 0.0, yardstick.distance)
    own = own[torch.isfinite(own)].to(projection.distance.device).sort().values
    if len(own) == 0:
        fix = "measure more rows, of a bank with two different points at least"
        raise ArgumentError("yardstick", "no finite distance", "one at least", fix)
    nearer = torch.searchsorted(own, projection.lower_bound.contiguous())
    distance = torch.where(projection.membership == 1, 0.0, projection.distance)
    return Extrapolation(
        distance=distance,
        ratio=torch.where(distance == 0, 0.0, distance / own.mean()),
        share=torch.where(projection.ok, nearer.to(torch.float64) / len(own), torch.nan),
        status=projection.status,
    )


def _sampled(sample: object, count: int, seed: int) -> Tensor:
    """Return the rows (B,) that `sample` asks for, of `count` rows, on the CPU."""
    if isinstance(sample, int) and not isinstance(sample, bool) and sample >= 1:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(count, generator=generator)[:sample].sort().values
    if (
        isinstance(sample, Tensor)
        and sample.ndim == 1
        and sample.dtype in (torch.int32, torch.int64)
    ):
        rows = sample.detach().cpu().long()
        if not bool(((rows < 0) | (rows >= count)).any()):
            return rows
        got = f"rows from {int(rows.min())} to {int(rows.max())}"
    elif isinstance(sample, Tensor):
        got = f"{sample.dtype} {tuple(sample.shape)}"
    else:
        got = repr(sample)
    wanted = f"a number of rows, at least 1, or an integer tensor (B,) of rows below {count}"
    raise ArgumentError("sample", got, wanted, "count the bank's rows from 0")
