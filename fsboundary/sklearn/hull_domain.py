"""Domain of applicability: the convex hull of the training rows."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import OutlierMixin
from sklearn.utils.validation import validate_data

from fsboundary.core.checks import check_number
from fsboundary.hulls.projection import hull_projection
from fsboundary.plugins.interfaces import HullSolver
from fsboundary.sklearn.bank_estimator import Array, BankEstimator, warn_unknown


class HullDomain(OutlierMixin, BankEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Domain of applicability: the convex hull of the training rows, with certified distances.

    Inside the hull a model interpolates between its training rows, outside it extrapolates, by the
    distance to the hull. Every distance is certified: no point of the hull is nearer than its lower
    bound, and one is as near as the distance.

    A training row is always inside. In many dimensions nearly all other rows are outside, so the
    distance says more than the sign; :func:`fsboundary.leave_one_out_distances` of ``bank_`` are
    distances that are usual, from which `max_distance` may be chosen.

    Parameters
    ----------
    max_distance : float
        Distance from the hull up to which a row is in the domain, in the units of the rows, or of
        the standardised rows.
    standardise : bool
        Whether distances are measured after each column was shifted and scaled to mean 0 and
        deviation 1. Which rows are inside does not depend on it.
    solver : str or HullSolver
        Name or instance of a hull solver.
    tolerance : float
        Relative tolerance of the distances.
    max_steps : int
        Maximal number of passes over the training rows.

    Attributes
    ----------
    bank_ : FeatureBank
        The training rows, standardised if wanted.
    mean_, scale_ : array (d,) or None
        Shift and scale of each column, None unless `standardise`.
    offset_ : float
        ``-max_distance``, the score at the border of the domain.
    n_features_in_ : int
        Number of columns.

    Examples
    --------
    >>> from fsboundary.sklearn import HullDomain
    >>> domain = HullDomain().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> domain.contains([[0.2, 0.2], [3.0, 0.0]])
    array([ True, False])
    >>> domain.score_samples([[0.2, 0.2], [3.0, 0.0]])
    array([ 0., -2.])
    """

    def __init__(
        self,
        *,
        max_distance: float = 0.0,
        standardise: bool = False,
        solver: str | HullSolver = "active_set",
        tolerance: float = 1e-6,
        max_steps: int = 200,
    ) -> None:
        super().__init__(
            standardise=standardise, solver=solver, tolerance=tolerance, max_steps=max_steps
        )
        self.max_distance = max_distance

    def fit(self, X: object, y: object = None) -> Self:  # noqa: N803  # scikit-learn's name
        """Keep the training rows, whose hull is the domain.

        Parameters
        ----------
        X : array (n, d)
            Training rows, finite.
        y : object
            Ignored.

        Returns
        -------
        HullDomain
        """
        fix = "pass 0 for the hull itself"
        allowed = check_number("max_distance", self.max_distance, 0.0, closed="low", fix=fix)
        self._fit_bank(validate_data(self, X, dtype=(np.float64, np.float32)), None)
        self.offset_ = -allowed
        return self

    def bounds(self, X: object) -> tuple[Array, Array]:  # noqa: N803  # scikit-learn's name
        """Return certified lower and upper bounds (n,) of the distances to the hull.

        Parameters
        ----------
        X : array (n, d)
            Rows.

        Returns
        -------
        array (n,), array (n,)
            The upper bound is 0 where a row is inside up to rounding, and NaN, with a
            ConvergenceWarning, where the solver did not come close enough.
        """
        rows = self._rows(X)
        projection = hull_projection(self.bank_, rows, **self._options())
        upper = self._distance(projection)
        warn_unknown(int(upper.isnan().sum()), len(upper))
        return projection.lower_bound.numpy(), upper.numpy()

    def score_samples(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return minus the distance (n,) to the hull: 0 inside, and NaN where it is unknown."""
        return 0.0 - self.bounds(X)[1]

    def decision_function(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return the score (n,) minus ``offset_``: not negative in the domain."""
        scores: Array = self.score_samples(X) - self.offset_
        return scores

    def contains(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return whether each row (n,) is certified to be in the domain.

        Rows within rounding of the border, or with an unknown distance, are not.
        """
        inside: Array = self.decision_function(X) >= 0
        return inside

    def predict(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return 1 for each row (n,) that is certified to be in the domain, otherwise -1."""
        return np.where(self.contains(X), 1, -1)
