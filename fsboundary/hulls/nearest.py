"""Nearest class hulls: the class whose hull is nearest to each row."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank_features
from fsboundary.core.results import FeatureBatch, NearestHulls
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.core.tolerance import EPS
from fsboundary.geometry.hulls.certify import INSIDE, distance_above
from fsboundary.geometry.hulls.point_sets import point_set_stats
from fsboundary.hulls.class_hulls import class_members
from fsboundary.hulls.projection import distances_by_class
from fsboundary.modes import in_standard_modes
from fsboundary.plugins.interfaces import HullSolver


@in_standard_modes
def nearest_hulls(
    bank: FeatureBank,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    *,
    leave_out: Int[TensorOrArray, " B"] | None = None,
    solver: str | HullSolver = "active_set",
    tolerance: float | None = None,
    max_steps: int | None = None,
    show_progress: bool = False,
) -> NearestHulls:
    """Return the class whose hull is nearest to each row, certified where it is the only one.

    Parameters
    ----------
    bank : FeatureBank
        A bank with labels.
    features : Tensor or array (B, d) or FeatureBatch
        As in :func:`hull_projection`.
    leave_out : Tensor or array (B,), optional
        A bank row that does not count as a generator for this row, together with all its exact
        copies; -1 for none. The distance to a class without another generator is +inf.
    solver : str or HullSolver
    tolerance : float, optional
        Relative tolerance of the distances, default 1e-6.
    max_steps : int, optional
        Passes over the points of a class, default 200.
    show_progress : bool

    Returns
    -------
    NearestHulls

    Raises
    ------
    ArgumentError
        The bank has no labels, or wrong types or shapes, before any work.
    HeadMismatchError
        A batch and a bank whose fingerprints differ.
    PluginError
        The solver raised, or returned tensors of another type, shape or device.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    >>> bank = fsb.FeatureBank(points, torch.tensor([0, 0, 0, 1, 1]))
    >>> found = fsb.nearest_hulls(bank, torch.tensor([[0.5, 0.5], [6.0, 4.0]]))
    >>> found.label.tolist(), found.distance.round(decimals=4).tolist()
    ([0, 1], [0.0, 1.0])
    """
    z = check_bank_features(bank, features)
    found = distances_by_class(
        bank,
        features,
        leave_out,
        solver=solver,
        tolerance=tolerance,
        max_steps=max_steps,
        show_progress=show_progress,
    )
    classes = class_members(bank).classes.to(z.device)
    distances, lower_bounds = found["distance"], found["lower_bound"]
    inside = found["membership"] == INSIDE
    # among several hulls that contain the row: the first, not the one that rounding makes nearest
    known = torch.where(inside, 0.0, torch.where(distances.isnan(), torch.inf, distances))
    column = known.sort(dim=1, stable=True).indices[:, :1]
    distance, lower_bound = (t.gather(1, column)[:, 0] for t in (distances, lower_bounds))
    largest, width = point_set_stats(bank).largest.to(z.device), int(found["width"])
    above = distance_above(distance, z, largest, width)
    others = lower_bounds.scatter(1, column, torch.inf).amin(dim=1)
    # the factor covers the rounding of the subtraction, which never changes the sign
    runner_up_gap = (others - above) * (1 - EPS)
    certified = runner_up_gap > 0
    finite = torch.isfinite(z).all(dim=1)
    failed = torch.where(finite, int(Status.UNDECIDED), int(Status.NOT_FINITE))
    return NearestHulls(
        label=torch.where(torch.isfinite(distance), classes[column[:, 0]], -1),
        distance=distance,
        lower_bound=lower_bound,
        runner_up_gap=runner_up_gap,
        # a copy: the bank keeps these numbers for later calls
        classes=classes.repeat(len(z), 1),
        distances=distances,
        lower_bounds=lower_bounds,
        status=torch.where(certified, int(Status.CONVERGED), failed),
    )
