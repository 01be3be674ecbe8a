"""Flip points: the closest boundary points of a batch of features.

For a head that is any differentiable function, the points are certified to lie on the boundary,
but not to be the closest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.core.checks import (
    check_features,
    check_float_tensor,
    check_head,
    check_instance,
    check_limits,
    check_targets,
    rows_and_sources,
)
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead, MultiLabelHead, NonlinearHead
from fsboundary.core.results import FeatureBatch, FlipPoints
from fsboundary.core.results.deferred import defer, stored
from fsboundary.core.rows import TensorOrArray, device_of, from_array, scatter_rows, write_rows
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.flips.nearest import nearest_classes
from fsboundary.geometry.flips.recomputed import DeferredPoints
from fsboundary.modes import in_standard_modes
from fsboundary.plugins import create
from fsboundary.plugins.grading.calls import in_thread_for
from fsboundary.plugins.grading.flips import find_and_grade, find_and_grade_nonlinear
from fsboundary.plugins.interfaces import BoundaryFinder, unsolved_flips
from fsboundary.plugins.registry.info import NONLINEAR_HEAD


def _read_targets(targets: object, rows: int, num_classes: int) -> str | Tensor:
    """Return "nearest", "all" or the targets as (B,T)."""
    found = check_targets(targets, rows, num_classes, ("nearest", "all"), (rows, "T"))
    return found[:, None] if isinstance(found, Tensor) and found.ndim == 1 else found


def _all_targets(source: Tensor, num_classes: int) -> Tensor:
    """Return all classes except the source, ascending, (B, K-1)."""
    base = torch.arange(num_classes - 1, device=source.device)
    return base + (base >= source[:, None]).long()


def _substitute_source(target: Tensor, source: Tensor, num_classes: int) -> Tensor:
    """Return `target` (B,T) with another class wherever it is the source (B,) or -1.

    Finders are given the substitute; :func:`_scatter_flips` blanks such entries afterwards.
    """
    source = source[:, None]
    return torch.where((target == source) | (target < 0), (source + 1) % num_classes, target)


def _scatter_flips(
    graded: FlipPoints,
    z: Tensor,
    source: Tensor,
    target: Tensor,
    status: Tensor,
    usable: Tensor,
) -> FlipPoints:
    """Return the graded flip points of the rows `usable` among all rows.

    The other rows are NaN with their `status`, and so are entries whose target is the source or -1.
    """
    points = stored(graded, "points")
    deferred = points if isinstance(points, DeferredPoints) else None
    fields = unsolved_flips(z, source, target, with_points=deferred is None)
    names = fields.keys() - {"source", "target"} - ({"points"} if deferred else set())
    solved = {name: getattr(graded, name) for name in names}
    write_rows(fields, usable, solved, padding={"active": -1, "multipliers": 0})
    codes = status[:, None].expand_as(target)
    fields["status"] = torch.where(codes == Status.CONVERGED, fields["status"], codes)
    own, none = target == source[:, None], target < 0
    blank = (own | none) & (codes == Status.CONVERGED)
    fields["status"][blank & own] = int(Status.TARGET_IS_SOURCE)
    fields["status"][blank & none] = int(Status.UNDECIDED)
    for name in names & {"points", "distance", "gap", "violation"}:
        fields[name][blank] = torch.nan
    fields["lower_bound"][blank] = 0.0
    fields["active"][blank] = -1
    fields["multipliers"][blank] = 0.0
    flips = FlipPoints(**fields)
    if deferred is None:
        return flips
    return defer(flips, "points", deferred.among(z, usable, flips.status == Status.CONVERGED))


_MAX_CANDIDATES = 9
"""Number of classes, the nearest by linearisation, that a finder gets for the nearest class."""

_REPEAT_TOLERANCE = 1e-3
"""Fraction of the range of the logits by which rows may differ from the same rows in another
order."""


@in_standard_modes
def _nonlinear_flip_points(
    head: object,
    features: Tensor,
    targets: object,
    *,
    domain: Domain,
    finder: str | BoundaryFinder,
    tolerance: float | None,
    max_steps: int,
) -> FlipPoints:
    """Return the flip points of a `head` that is a callable: see :func:`fsboundary.flip_points`."""
    view = _check_nonlinear_head(head, features, domain)
    z = features.detach().to(torch.float64)
    rtol = _default_tolerance(view.dtype) if tolerance is None else tolerance
    chosen = _read_targets(targets, len(z), view.num_classes)
    plugin = create("boundary_finder", finder, capability=NONLINEAR_HEAD)
    status, source = rows_and_sources(view, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    with torch.no_grad():
        defined = torch.isfinite(view.logits(z[usable])).all(dim=1)
    status[usable[~defined]] = int(Status.NOT_FINITE)
    source[usable[~defined]] = -1
    usable = usable[defined]
    rows = z[usable]
    source[usable] = view.predict(rows)
    nearest = isinstance(chosen, str) and chosen == "nearest"
    if isinstance(chosen, Tensor):
        target = chosen.to(z.device)
        wanted = target[usable]
    elif nearest:
        target = torch.full((len(z), 1), -1, dtype=torch.int64, device=z.device)
        wanted = _candidates(view, rows, source[usable])
    else:
        target = _all_targets(source, view.num_classes)
        wanted = target[usable]
    wanted = _substitute_source(wanted, source[usable], view.num_classes)
    graded = find_and_grade_nonlinear(
        plugin, view, rows, source[usable], wanted, tolerance=rtol, max_steps=max_steps
    )
    if nearest:
        graded = _select_nearest(graded)
        target[usable] = graded.target
    return _scatter_flips(graded, z, source, target, status, usable)


def _default_tolerance(dtype: torch.dtype) -> float:
    """Return the fraction of the range of the logits within which logits in `dtype` tie."""
    return max(FLIP_RTOL, 100 * torch.finfo(dtype).eps)


def _check_nonlinear_head(head: object, features: Tensor, domain: Domain) -> NonlinearHead:
    """Return `head` in the form that finders take, or raise ArgumentError if it is no head."""
    if isinstance(head, MultiLabelHead):
        check_head(head)
    if not callable(head):
        raise ArgumentError(
            "head",
            type(head).__name__,
            "a LinearHead, or a callable from features to logits",
            "pass space.head, or the layers after the one that computed the features",
        )
    fix = "flatten each row's features; a single row needs [None]"
    check_float_tensor("features", features, ("B", "d"), fix=fix)
    check_instance("domain", domain, Domain, "a Domain", "pass Domain.nonnegative()")
    domain.require_width(features.shape[1])
    dtype = _dtype_of(head, features)
    if torch.finfo(dtype).bits < 32:
        fix = "call head.float(): half precision cannot decide on which side a point lies"
        raise ArgumentError("head", f"it computes in {dtype}", "float32 or float64", fix)
    z = features.detach().to(torch.float64)
    sample = z[torch.isfinite(z).all(dim=1)][:8]
    if len(sample) == 0:
        sample = domain.clip(torch.zeros_like(z[:1] if len(z) else z.new_zeros(1, z.shape[1])))
    logits = _call_head(head, sample.to(dtype))
    view = NonlinearHead(head, z.shape[1], logits.shape[1], dtype, domain)
    again = _call_head(head, sample.flip(0).to(dtype)).flip(0)
    allowed = _REPEAT_TOLERANCE * (logits.amax(dim=1) - logits.amin(dim=1))[:, None]
    if bool(((again - logits).abs() > allowed).any()):
        raise ArgumentError(
            "head",
            "a callable whose logits of a row depend on the other rows",
            "a function of each row",
            "call head.eval(): dropout and batch normalisation in training mode are not one",
        )
    varies = bool((logits != logits[:1]).any())
    if varies and not logits.requires_grad:
        fix = "remove torch.no_grad() and .detach()"
        raise ArgumentError("head", "logits without a graph", "a differentiable callable", fix)
    return view


def _dtype_of(head: object, features: Tensor) -> torch.dtype:
    """Return the dtype of a module's first floating-point weight, or else of the features."""
    weights = [*head.parameters(), *head.buffers()] if isinstance(head, nn.Module) else []
    return next((w.dtype for w in weights if w.is_floating_point()), features.dtype)


def _call_head(head: object, z: Tensor) -> Tensor:
    """Return the logits (B,K) of `z` (B,d), or raise ArgumentError if they are none."""
    assert callable(head)  # checked by the caller
    wanted, fix = f"logits ({len(z)}, K), K >= 2", "pass the layers after those of the features"
    try:
        with torch.enable_grad():
            logits = head(z.to(device_of(head, z.device), copy=True).requires_grad_())
    except Exception as error:
        got = f"a callable that raised {type(error).__name__}: {error}"
        raise ArgumentError("head", got, wanted, fix) from error
    if not isinstance(logits, Tensor):
        got = f"a callable that returns {type(logits).__name__}"
        raise ArgumentError("head", got, wanted, "return the tensor of logits only")
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[0] != len(z) or shape[1] < 2 or not logits.is_floating_point():
        got = f"a callable that returns {logits.dtype} of shape {shape}"
        raise ArgumentError("head", got, wanted, fix)
    return logits.to(z.device)


def _candidates(head: NonlinearHead, z: Tensor, source: Tensor) -> Tensor:
    """Return the classes (B,C) that may have the nearest boundary."""
    others = _all_targets(source, head.num_classes)
    if others.shape[1] <= _MAX_CANDIDATES:
        return others
    source = source[:, None]
    with torch.no_grad():
        logits = head.logits(z)
    # gradients of the largest logits only: a thousand classes would cost a thousand passes
    count = min(4 * _MAX_CANDIDATES, others.shape[1])
    top = logits.scatter(1, source, -torch.inf).topk(count).indices
    logits, gradients = head.gradients(z, torch.cat([source, top], dim=1))
    gaps = logits.gather(1, source) - logits.gather(1, top)
    slopes = torch.linalg.vector_norm(gradients[:, :1] - gradients[:, 1:], dim=2)
    ratio = torch.nan_to_num(gaps / slopes, nan=torch.inf, posinf=torch.inf)
    return top.gather(1, ratio.topk(_MAX_CANDIDATES, largest=False).indices)


def _select_nearest(graded: FlipPoints) -> FlipPoints:
    """Return the nearest of the targets of each row, T = 1."""
    best = torch.nan_to_num(graded.distance, nan=torch.inf).argmin(dim=1)
    row = torch.arange(len(best), device=best.device)
    fields = {
        name: value if name == "source" else value[row, best][:, None]
        for name, value in graded.to_dict().items()
    }
    return FlipPoints(**fields)


MAX_STEPS = 200
"""Default limit of steps per problem; real heads need fewer than twenty."""


def flip_points(
    head: LinearHead | Callable[[Tensor], Tensor],
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    targets: Literal["nearest", "all"] | Int[TensorOrArray, "B ..."] = "nearest",
    *,
    finder: str | BoundaryFinder = "dual_newton",
    tolerance: float | None = None,
    max_steps: int | None = None,
    domain: Domain | None = None,
) -> FlipPoints:
    """Return the closest boundary points of features, with float64 certificates.

    The source of a row is its predicted class, also for misclassified rows. A flip point of
    source i and target j is the closest point of the domain where logits i and j tie and no
    other logit is above (design.md, section 1).

    A `head` that is not linear, such as all layers after an intermediate one, needs a finder with
    the capability "nonlinear_head", such as "linearised". Its points are certified to lie on the
    boundary, but not to be the closest: the status is ON_BOUNDARY, the lower bound 0.

    Parameters
    ----------
    head : LinearHead or callable
        For example ``space.head``. A callable maps features (B,d) to logits (B,K), differentiably
        and each row independently of the others; it is called in the dtype of its weights, or in
        that of `features` if it is no module.
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    targets : "nearest", "all" or integer Tensor or array (B,) or (B, T)
        "nearest": T = 1, the class whose boundary is nearest in the domain; the certificate
        then also covers the choice of the class. "all": T = K - 1, all classes except the source,
        ascending. A tensor (B,) gives T = 1; an entry of -1, such as the predicted class of a NaN
        row, has no target and is UNDECIDED.
    finder : str or BoundaryFinder
        Name of a plugin ("dual_newton", "closed_form", "cvxpy", ...) or an instance.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed. For a callable: the fraction of the range of the logits by which source and target
        may be below the largest, default 1e-8, and 1.2e-5 if it computes in float32.
    max_steps : int, optional
        Limit of steps per problem, default 200.
    domain : Domain, optional
        Domain of the features of a callable, default unbounded. A LinearHead carries its own.

    Returns
    -------
    FlipPoints
        Distances in feature units. Per entry: INFEASIBLE with distance +inf where no such point
        exists; NaN with OUTSIDE_DOMAIN, NOT_FINITE, TARGET_IS_SOURCE, MAX_STEPS or INACCURATE
        where there is no certified answer. For a callable: ON_BOUNDARY where a point was found;
        ``gap`` is the distance, ``violation`` the distance to the tie by linearisation.

    Notes
    -----
    Points of more than 16 MiB, of at least 256 features, are certified in chunks, not kept, and
    computed again, to the same bits, when ``points`` is read: then they take B x T x d x 8 bytes.
    Until then the memory is that of B x T x S multipliers, S a few active constraints, and some
    arrays of 1 MiB per thread. Other finders keep all points.

    Raises
    ------
    ArgumentError
        Wrong types, shapes or class numbers, before any work.
    PluginError
        The finder raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> flips = fsb.flip_points(head, z)
    >>> flips.target.tolist(), flips.distance.round(decimals=4).tolist()
    ([[1]], [[1.4142]])
    >>> fsb.flip_points(head, z, "all").points.round(decimals=4).tolist()
    [[[2.0, 2.0, 0.0], [1.5, 1.0, 1.5]]]
    """
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    if not isinstance(head, LinearHead):
        return _nonlinear_flip_points(
            head,
            from_array(features),
            targets,
            domain=Domain.unbounded() if domain is None else domain,
            finder=finder,
            tolerance=None if tolerance is None else rtol,
            max_steps=limit,
        )
    if domain is not None:
        fix = "leave it out, or pass LinearHead(weight, bias, domain)"
        raise ArgumentError("domain", repr(domain), "None with a LinearHead", fix)
    plugin = create("boundary_finder", finder)
    return in_thread_for(plugin, _linear_flip_points)(plugin, head, features, targets, rtol, limit)


@in_standard_modes
def _linear_flip_points(
    plugin: BoundaryFinder,
    head: LinearHead,
    features: object,
    targets: object,
    tolerance: float,
    max_steps: int,
) -> FlipPoints:
    """Return the flip points of a LinearHead: see :func:`fsboundary.flip_points`."""
    z = check_features(head.num_features, features)
    chosen = _read_targets(targets, len(z), head.num_classes)
    head = head.to(z.device)
    status, source = rows_and_sources(head, z)
    usable = (status == Status.CONVERGED).nonzero()[:, 0]
    rows = z[usable]
    # again, because a finder gets only these rows and a logit's last bit may depend on the batch
    source[usable] = head.predict(rows)
    ceiling = None
    if isinstance(chosen, Tensor):
        target = chosen.to(z.device)
    elif chosen == "all":
        target = _all_targets(source, head.num_classes)
    else:
        nearest = nearest_classes(head, rows, source[usable], allow_ties=False)
        target = scatter_rows(nearest.target[:, None], usable, len(z), -1)
        ceiling = nearest.radius[:, None]
    graded = find_and_grade(
        plugin,
        head,
        rows,
        source[usable],
        _substitute_source(target[usable], source[usable], head.num_classes),
        tolerance=tolerance,
        max_steps=max_steps,
        ceiling=ceiling,
    )
    return _scatter_flips(graded, z, source, target, status, usable)
