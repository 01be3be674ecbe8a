"""Classifier of the class whose convex hull is nearest."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from fsboundary.core.status import Status
from fsboundary.geometry.hulls.certify import INSIDE
from fsboundary.hulls.nearest import nearest_hulls
from fsboundary.hulls.projection import distances_by_class
from fsboundary.sklearn.bank_estimator import Array, BankEstimator, warn_unknown


class NearestHullClassifier(ClassifierMixin, BankEstimator):  # type: ignore[misc]  # ships no types
    """Classifier of the class whose convex hull is nearest.

    It has no parameters to fit, and is the nearest neighbour among all convex combinations of the
    training rows of a class instead of the rows only.

    A row inside several hulls is given the first of these classes. So is a row whose distances are
    equal; :meth:`certified` says for which rows the nearest hull is certain.

    Parameters
    ----------
    standardise : bool
        Whether distances are measured after each column was shifted and scaled to mean 0 and
        deviation 1.
    solver : str or HullSolver
        Name or instance of a hull solver.
    tolerance : float
        Relative tolerance of the distances.
    max_steps : int
        Maximal number of passes over the training rows of a class.

    Attributes
    ----------
    bank_ : FeatureBank
        The training rows, standardised if wanted, with the numbers of their classes.
    classes_ : array (K,)
        Classes, sorted.
    mean_, scale_ : array (d,) or None
        Shift and scale of each column, None unless `standardise`.
    n_features_in_ : int
        Number of columns.

    Examples
    --------
    >>> from fsboundary.sklearn import NearestHullClassifier
    >>> rows, classes = [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 3.0]], ["a", "a", "b", "b"]
    >>> NearestHullClassifier().fit(rows, classes).predict([[0.5, 1.0], [0.5, 2.0]])
    array(['a', 'b'], dtype='<U1')
    """

    def fit(self, X: object, y: object) -> Self:  # noqa: N803  # scikit-learn's name
        """Keep the training rows of each class.

        Parameters
        ----------
        X : array (n, d)
            Training rows, finite.
        y : array (n,)
            Class of each row.

        Returns
        -------
        NearestHullClassifier
        """
        x, classes = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(classes)
        self.classes_, labels = np.unique(classes, return_inverse=True)
        self._fit_bank(x, labels)
        return self

    def _distances(self, rows: Array) -> Tensor:
        """Return the distances (n,K) to the hulls: NaN where unknown."""
        by_class = distances_by_class(self.bank_, rows, **self._options())
        found = torch.where(by_class["membership"] == INSIDE, 0.0, by_class["distance"])
        warn_unknown(int(found.isnan().sum()), found.numel())
        return found

    def decision_function(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return minus the distance (n,K) to the hull of each class.

        Of two classes, the distance (n,) to the first minus that to the second.
        """
        distances = self._distances(self._rows(X)).numpy()
        if len(self.classes_) == 2:
            return np.asarray(distances[:, 0] - distances[:, 1])
        return np.asarray(0.0 - distances)

    def predict(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return the class (n,) whose hull is nearest, the first where several are."""
        distances = self._distances(self._rows(X))
        nearest = distances.nan_to_num(nan=torch.inf, posinf=torch.inf).argmin(dim=1)
        return np.asarray(self.classes_[nearest.numpy()])

    def certified(self, X: object) -> Array:  # noqa: N803  # scikit-learn's name
        """Return whether the predicted class (n,) is certified to have the nearest hull.

        Not where the row is inside several hulls, or where rounding hides which is nearest.
        """
        rows = self._rows(X)
        found = nearest_hulls(self.bank_, rows, **self._options())
        return np.asarray((found.status == Status.CONVERGED).numpy())
