"""Leave-one-out distances: each row of a bank compared with the hull of all others.

They are the reference for the distances of other rows to the hull of the training set.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.banks.checks import labels_of
from fsboundary.core.checks import check_instance, check_integer, check_integer_tensor, check_limits
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Extrapolation, HullProjection, LeaveOneOutDistances
from fsboundary.core.rows import TensorOrArray, from_array, write_rows
from fsboundary.core.status import Status
from fsboundary.hulls.copies import copies_of
from fsboundary.hulls.projection import HULL_RTOL, MAX_STEPS, hull_projection
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.progress import tqdm

_ROWS = 4096
"""Maximum number of rows that share a pass over the bank; only a few numbers of each are kept."""

_COPIES = 2**17
"""Maximum number of copies that are left out at once, over all rows of a block."""


def project_left_out(
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

    If no other point is left, distances are +inf and the status is INFEASIBLE.

    Parameters
    ----------
    bank : FeatureBank
    rows : Tensor (B,), on the CPU
    own_class : bool
        Whether only the others of the row's own label form the hull.
    """
    labels = labels_of(bank).cpu() if own_class else None
    infinite = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    fields = {
        "distance": infinite,
        "lower_bound": infinite.clone(),
        "gap": torch.zeros_like(infinite),
        "membership": torch.full_like(rows, -1),
        "status": torch.full_like(rows, int(Status.INFEASIBLE)),
        "steps": torch.zeros_like(rows),
    }
    others = _has_others(bank, labels)[rows].nonzero()[:, 0]
    with tqdm(total=len(others), unit="row", disable=not show_progress) as bar:
        for block in row_blocks(others, copies_of(bank).count[rows[others]]):
            projection = hull_projection(
                bank,
                bank.take(rows[block]),
                labels=None if labels is None else labels[rows[block]],
                leave_out=rows[block],
                solver=solver,
                tolerance=tolerance,
                max_steps=max_steps,
            )
            write_rows(fields, block, {name: getattr(projection, name) for name in fields})
            bar.update(len(block))
    return fields


def _has_others(bank: FeatureBank, labels: Tensor | None) -> Tensor:
    """Return which rows (n,) have another point in the bank, or in their class with `labels`.

    A row without a label (-1) has no class.
    """
    first = copies_of(bank).first
    if labels is None:
        return (first != first[0]).any().expand(len(first))
    classes, group = labels.unique(return_inverse=True)
    lowest = torch.full_like(classes, len(first)).scatter_reduce(0, group, first, "amin")
    highest = torch.zeros_like(classes).scatter_reduce(0, group, first, "amax")
    return (lowest < highest)[group] & (labels >= 0)


def row_blocks(rows: Tensor, count: Tensor) -> Iterator[Tensor]:
    """Yield `rows` (B,) in blocks of similar numbers of copies `count` (B,).

    The more copies its rows have, the smaller is a block.
    """
    size = count.to(torch.float64).log2().ceil().long()
    for power in size.unique().tolist():
        yield from rows[size == power].split(max(1, min(_ROWS, _COPIES >> power)))


@in_standard_modes
def leave_one_out_distances(
    bank: FeatureBank,
    sample: int | Int[TensorOrArray, " B"] = 1000,
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
    sample : int or Tensor or array (B,)
        Number of rows to draw without replacement, all rows if the bank has no more; or the rows
        themselves.
    own_class : bool
        Whether only the other rows of the row's own label form the hull: the reference for
        distances to the hull of one class. A row without a label (-1) has no such hull: its
        distance is +inf, its status INFEASIBLE.
    seed : int
        Seed of the draw.
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
        The solver raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.leave_one_out_distances(bank, 5)
    >>> found.distance.round(decimals=4).tolist()
    [1.4142, 1.1625, 1.4142, 0.7878, 2.0]
    """
    rows = _sample_rows(sample, len(check_bank(bank)), seed)
    rtol, limit = check_limits(tolerance, max_steps, (HULL_RTOL, MAX_STEPS))
    fields = project_left_out(
        bank,
        rows,
        own_class=own_class,
        solver=create("hull_solver", solver),
        tolerance=rtol,
        max_steps=limit,
        show_progress=show_progress,
    )
    return LeaveOneOutDistances(rows=rows, **fields)


@in_standard_modes
def extrapolation(projection: HullProjection, reference: LeaveOneOutDistances) -> Extrapolation:
    """Return how far rows lie outside, relative to the training set's leave-one-out distances.

    Parameters
    ----------
    projection : HullProjection
        Projection of the rows on the hull of the whole bank.
    reference : LeaveOneOutDistances
        Distances of rows of the same bank. Rows without a finite distance do not count.

    Returns
    -------
    Extrapolation

    Raises
    ------
    ArgumentError
        Wrong types, or a reference without a finite distance.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> reference = fsb.leave_one_out_distances(bank, 5)
    >>> hull = fsb.hull_projection(bank, torch.tensor([[0.5, 0.5], [3.0, -1.0]]))
    >>> fsb.extrapolation(hull, reference).ratio.round(decimals=4).tolist()
    [0.0, 1.0431]
    """
    fix = "pass what hull_projection and leave_one_out_distances return, in this order"
    check_instance("projection", projection, HullProjection, "a HullProjection", fix)
    wanted = "a LeaveOneOutDistances"
    check_instance("reference", reference, LeaveOneOutDistances, wanted, fix)
    usual = torch.where(reference.membership == 1, 0.0, reference.distance)
    usual = usual[torch.isfinite(usual)].to(projection.distance.device).sort().values
    if len(usual) == 0:
        fix = "measure more rows, of a bank with at least two different points"
        raise ArgumentError("reference", "no finite distance", "at least one", fix)
    nearer = torch.searchsorted(usual, projection.lower_bound.contiguous())
    fraction = nearer.to(torch.float64) / len(usual)
    distance = torch.where(projection.membership == 1, 0.0, projection.distance)
    return Extrapolation(
        distance=distance,
        ratio=torch.where(distance == 0, 0.0, distance / usual.mean()),
        fraction_below=torch.where(projection.ok, fraction, torch.nan),
        status=projection.status,
    )


def _sample_rows(sample: object, count: int, seed: int) -> Tensor:
    """Return the rows (B,) that `sample` selects among `count` rows, on the CPU."""
    fix = "pass a number of rows, or a tensor of the bank's rows"
    sample = from_array(sample)
    if isinstance(sample, Tensor):
        rows = check_integer_tensor(
            "sample", sample, ("B",), fix=fix, noun="rows", within=range(count)
        )
        return rows.cpu()
    limit = check_integer("sample", sample, fix=fix)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:limit].sort().values
