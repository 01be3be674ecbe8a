"""Tie points: closest points where given classes tie and no other is above.

Also the largest ties of rows, and their ambiguity: the distance to the tie of a row's top classes,
relative to the median of a reference.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsboundary.boundaries.flip_points import MAX_STEPS
from fsboundary.core.checks import (
    check_features,
    check_head,
    check_integer,
    check_integer_tensor,
    check_limits,
    check_width,
    rows_and_sources,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import PointSet
from fsboundary.core.results import FeatureBatch, LargestTies, TiePoints
from fsboundary.core.rows import TensorOrArray, scatter_rows, write_rows
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.solve import solve_ties
from fsboundary.geometry.flips.tie_problems import TieProblems, tie_problems
from fsboundary.modes import in_standard_modes
from fsboundary.progress import tqdm
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def tie_points(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    classes: Int[TensorOrArray, "*B M"],
    *,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> TiePoints:
    """Return the closest points where given classes tie and no other logit is above.

    For two classes, one of them the row's own, this is the flip point; for one class, the nearest
    point of its region; for all classes, the nearest point where all of them tie.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    classes : integer Tensor or array (M,) or (B, M)
        The same classes for all rows, or one row of classes per row of features, padded with -1.
        The order does not matter.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Limit of steps per row, default 200.

    Returns
    -------
    TiePoints
        Distances in feature units. Per row: INFEASIBLE with distance +inf where there is no such
        point; NaN with OUTSIDE_DOMAIN, NOT_FINITE, MAX_STEPS or INACCURATE where there is no
        certified answer.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, a class twice in a row or a row without a class,
        before any work.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> ties = fsb.tie_points(head, z, torch.tensor([[0, 1, 2]]))
    >>> ties.points.round(decimals=4).tolist(), ties.distance.round(decimals=4).tolist()
    ([[1.3333, 1.3333, 1.3333]], [2.1602])
    """
    check_head(head)
    z = check_features(head.num_features, features)
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    found = check_integer_tensor(
        "classes",
        classes,
        ("M",),
        (len(z), "M"),
        fix="pass torch.tensor([0, 1]), or one row of classes per row; each once, padded with -1",
        noun="classes",
        within=range(-1, head.num_classes),
        range_fix="count classes from 0; -1 pads rows with fewer classes",
        distinct=True,
    )
    if found.shape[-1] == 0:
        raise ArgumentError("classes", "no class", "at least one class", "name one or more")
    empty = (found < 0).all(dim=-1).reshape(-1)
    if bool(empty.any()):
        got = f"no class in row {int(empty.nonzero()[0, 0])}"
        raise ArgumentError("classes", got, "at least one class", "drop that row")
    chosen = found.expand(len(z), -1).to(z.device)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    solved = _solve(head, z[usable], source[usable], chosen[usable], rtol, limit)
    status[usable] = solved.pop("status")
    fields = {
        name: scatter_rows(value, usable, len(z), _FILL_VALUES.get(name, torch.nan))
        for name, value in solved.items()
    }
    return TiePoints(classes=chosen, source=source, status=status, **fields)


_FILL_VALUES = {"lower_bound": 0, "multipliers": 0, "steps": 0, "anchor": -1, "active": -1}
"""Fields of rows that are not solved; the others are NaN."""


@in_one_thread
@in_standard_modes
def largest_ties(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    max_classes: int | None = None,
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> LargestTies:
    """Return how many of each row's top logits can tie, and the closest point where they do.

    Greedy: classes are added in the order of their logits, lowest index first where equal, until
    one cannot join. If the k top classes cannot tie, the k + 1 top classes cannot either, so for
    this order the result is exact; a larger set of other classes might tie.

    Parameters
    ----------
    head : LinearHead
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    max_classes : int, optional
        Largest number of classes to try, default all. With many classes most of them can often
        tie, and each further one takes longer.
    tolerance, max_steps
        As for :func:`fsboundary.tie_points`.
    show_progress : bool
        Whether to show a progress bar on standard error.

    Returns
    -------
    LargestTies
        ``stopped`` is CONVERGED where `max_classes`, or all, tie.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or fewer than one class, before any work.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> ties = fsb.largest_ties(head, z)
    >>> ties.count.tolist(), ties.distance.round(decimals=4).tolist()
    ([3], [2.1602])
    """
    check_head(head)
    z = check_features(head.num_features, features)
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    most = head.num_classes
    if max_classes is not None:
        check_integer("max_classes", max_classes)
        most = min(most, max_classes)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    count = torch.zeros_like(status)
    order = torch.full((len(z), head.num_classes), -1, dtype=torch.int64, device=z.device)
    rows = (status == Status.CONVERGED).nonzero()[:, 0]
    order[rows] = top_classes(head, z[rows], head.num_classes)
    stopped = status.clone()
    nan = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    fields = {name: nan.clone() for name in ("distance", "gap", "violation")}
    fields |= {"points": nan[:, None].repeat(1, z.shape[1]), "lower_bound": torch.zeros_like(nan)}
    for k in tqdm(range(1, most + 1), unit="class", disable=not show_progress):
        if len(rows) == 0:
            break
        solved = _solve(head, z[rows], source[rows], order[rows, :k], rtol, limit)
        tied = solved["status"] == Status.CONVERGED
        stopped[rows] = solved["status"]
        rows = rows[tied]
        count[rows] = k
        write_rows(fields, rows, {name: solved[name][tied] for name in fields})
    # a single class always "ties"; if even that was not certified, the row has no answer
    failed = (status == Status.CONVERGED) & (count == 0)
    width = max(1, int(count.max())) if len(count) else 1
    column = torch.arange(width, device=z.device)
    return LargestTies(
        count=count,
        classes=torch.where(column < count[:, None], order[:, :width], -1),
        source=source,
        status=torch.where(failed, stopped, status),
        stopped=stopped,
        **fields,
    )


def top_classes(head: LinearHead, z: Tensor, k: int) -> Tensor:
    """Return the classes (B,k) of the largest logits, the lowest index first where equal."""
    return head.logits(z).sort(dim=1, descending=True, stable=True).indices[:, :k]


def _solve(
    head: LinearHead, z: Tensor, source: Tensor, classes: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the certified fields of usable rows."""

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        return tie_problems(head, z[part], classes[part]), source[part]

    ties = classes.shape[1]
    return solve_ties(head, len(z), make, ties=ties, rtol=rtol, max_steps=limit)


_ROWS = 4096
"""Rows of the reference in memory at a time."""


@in_one_thread
@in_standard_modes
def ambiguity(
    head: LinearHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    k: int = 3,
    reference: Float[TensorOrArray, "N d"] | FeatureBatch | PointSet | None = None,
) -> Tensor:
    """Return how ambiguous each row is, (B,), float64: the smaller, the more ambiguous.

    The distance to the closest point where the row's `k` largest logits tie and no other is
    above, divided by the median of this distance over the reference. So 1 is typical there.

    Parameters
    ----------
    head : LinearHead
        For example ``space.head``.
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    k : int
        Number of largest logits, 2 to K; where equal, the lowest index counts first.
    reference : Tensor or array (N, d), FeatureBatch or PointSet, optional
        For example the bank of training features, which is read in pieces. By default the rows
        themselves: the values then only rank the rows, and depend on the batch.

    Returns
    -------
    Tensor (B,), float64
        +inf where the top classes cannot tie. NaN where there is no certified answer, and
        everywhere if the median is 0 or no reference row has a finite distance. The median is
        that of the finite distances.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or `k`, before any work.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> spread = fsb.ambiguity(head, torch.tensor([[3.0, 1.0, 0.0], [1.1, 1.0, 0.9]]))
    >>> spread.round(decimals=3).tolist()  # smaller: nearer to a point where three classes meet
    [1.877, 0.123]
    """
    check_head(head)
    z = check_features(head.num_features, features)
    check_integer("k", k, 2, head.num_classes, fix="leave it out for 3")
    others = None if reference is None else _read_reference(head, reference)
    head = head.to(z.device)
    distance = _tie_distances(head, z, k)
    if others is None:
        typical = distance
    else:
        typical = torch.cat([z.new_zeros(0), *(_tie_distances(head, v, k) for v in others)])
    typical = typical[torch.isfinite(typical)]
    if len(typical) == 0:
        return torch.full_like(distance, torch.nan)
    median = typical.quantile(0.5)
    return torch.where(median > 0, distance / median, torch.nan)


def _tie_distances(head: LinearHead, z: Tensor, k: int) -> Tensor:
    """Return the distance (B,) to the tie of the `k` largest logits of each row."""
    z = z.to(head.device)
    status, _ = rows_and_sources(head, z)
    # unusable rows get arbitrary classes; their result is NaN
    top = torch.arange(k, device=z.device).repeat(len(z), 1)
    usable = status == Status.CONVERGED
    top[usable] = top_classes(head, z[usable], k)
    return tie_points(head, z, top).distance


def _read_reference(
    head: LinearHead, reference: TensorOrArray | FeatureBatch | PointSet
) -> Iterator[Tensor]:
    """Return the pieces of `reference`, float64; its width is checked before any is read."""
    width = head.num_features
    if not isinstance(reference, PointSet):
        return iter((check_features(width, reference, "reference"),))
    check_width("reference", reference.num_features, width)
    return (
        reference.take(torch.arange(part.start, part.stop)).to(torch.float64)
        for part in chunks(len(reference), chunk_rows(width, _ROWS))
    )
