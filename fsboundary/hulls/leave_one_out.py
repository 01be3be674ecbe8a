"""Rows of a bank, each held against the hull of all others.

The training set's own distances to its hull, as the measure of other distances.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank, check_labelled
from fsboundary.core.checks import check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Extrapolation, HullProjection, LeaveOneOutDistances
from fsboundary.core.status import Status
from fsboundary.hulls.projection import HULL_RTOL, MAX_STEPS, copies_of, hull_projection
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver

_ROWS = 4096
"""Rows that share a pass over all; what is kept of each is a few numbers."""

_COPIES = 2**17
"""Copies that are left out at once, over all rows of a block."""


def left_out(
    bank: FeatureBank,
    rows: Tensor,
    *,
    own_class: bool,
    solver: HullSolver,
    tolerance: float,
    max_steps: int,
    show_progress: bool,
) -> dict[str, Tensor]:
    """Return `distance`, `lower_bound`, `gap`, `membership`, `status` and `steps` of `rows` (B,).

    Where no other point is left, distances are +inf and the status is INFEASIBLE.

    Parameters
    ----------
    bank : FeatureBank
    rows : Tensor (B,), on the CPU
    own_class : bool
        Against the others of the row's own label only.
    """
    labels = check_labelled(bank).cpu() if own_class else None
    infinite = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    found = {
        "distance": infinite,
        "lower_bound": infinite.clone(),
        "gap": torch.zeros_like(infinite),
        "membership": torch.full_like(rows, -1),
        "status": torch.full_like(rows, int(Status.INFEASIBLE)),
        "steps": torch.zeros_like(rows),
    }
    others = _has_others(bank, labels)[rows].nonzero()[:, 0]
    with tqdm(total=len(others), unit="row", disable=not show_progress) as bar:
        for some in blocks(others, copies_of(bank).count[rows[others]]):
            answer = hull_projection(
                bank,
                bank.take(rows[some]),
                labels=None if labels is None else labels[rows[some]],
                leave_out=rows[some],
                solver=solver,
                tolerance=tolerance,
                max_steps=max_steps,
            )
            for name, value in found.items():
                value[some] = getattr(answer, name)
            bar.update(len(some))
    return found


def _has_others(bank: FeatureBank, labels: Tensor | None) -> Tensor:
    """Return which rows (n,) have another point beside them, in their class if there are any."""
    first = copies_of(bank).first
    if labels is None:
        return (first != first[0]).any().expand(len(first))
    classes, place = labels.unique(return_inverse=True)
    lowest = torch.full_like(classes, len(first)).scatter_reduce(0, place, first, "amin")
    highest = torch.zeros_like(classes).scatter_reduce(0, place, first, "amax")
    return (lowest < highest)[place]


def blocks(rows: Tensor, count: Tensor) -> Iterator[Tensor]:
    """Yield `rows` (B,) in blocks of about equally many copies `count` (B,), few where many."""
    size = count.to(torch.float64).log2().ceil().long()
    for power in size.unique().tolist():
        yield from rows[size == power].split(max(1, min(_ROWS, _COPIES >> power)))


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


def extrapolation(projection: HullProjection, reference: LeaveOneOutDistances) -> Extrapolation:
    """Return how far rows lie outside, told against the training set's own distances.

    Parameters
    ----------
    projection : HullProjection
        Of the rows in question, on the hull of the whole bank.
    reference : LeaveOneOutDistances
        Of the same bank. Rows without a finite distance do not count.

    Returns
    -------
    Extrapolation

    Raises
    ------
    ArgumentError
        Wrong types, or a reference without a finite distance.
    """
    for name, value, kind in (
        ("projection", projection, HullProjection),
        ("reference", reference, LeaveOneOutDistances),
    ):
        if not isinstance(value, kind):
            fix = "pass what hull_projection and leave_one_out_distances return, in this order"
            raise ArgumentError(name, type(value).__name__, f"a {kind.__name__}", fix)
    own = torch.where(reference.membership == 1, 0.0, reference.distance)
    own = own[torch.isfinite(own)].to(projection.distance.device).sort().values
    if len(own) == 0:
        fix = "measure more rows, of a bank with two different points at least"
        raise ArgumentError("reference", "no finite distance", "one at least", fix)
    nearer = torch.searchsorted(own, projection.lower_bound.contiguous())
    distance = torch.where(projection.membership == 1, 0.0, projection.distance)
    return Extrapolation(
        distance=distance,
        ratio=torch.where(distance == 0, 0.0, distance / own.mean()),
        fraction_below=torch.where(projection.ok, nearer.to(torch.float64) / len(own), torch.nan),
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
