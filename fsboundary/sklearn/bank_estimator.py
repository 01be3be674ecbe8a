"""Base of the estimators: training rows in a bank, new rows in its units."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.results import HullProjection
from fsboundary.geometry.hulls.certify import INSIDE
from fsboundary.plugins.interfaces import HullSolver

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class BankEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Estimator that keeps its training rows in a bank, in units of their own if wanted."""

    def __init__(
        self,
        *,
        standardise: bool = False,
        solver: str | HullSolver = "active_set",
        tolerance: float = 1e-6,
        max_steps: int = 200,
    ) -> None:
        self.standardise = standardise
        self.solver = solver
        self.tolerance = tolerance
        self.max_steps = max_steps

    def _fit_bank(self, x: Array, labels: Array | None) -> None:
        self.mean_ = self.scale_ = None
        if self.standardise:
            x = x.astype(np.float64)
            self.mean_, deviation = x.mean(axis=0), x.std(axis=0)
            # a constant column keeps its unit
            self.scale_ = np.where(deviation > 0, deviation, 1.0)
        self.bank_ = FeatureBank(self._scaled(x), labels)

    def _scaled(self, x: Array) -> Array:
        return x if self.mean_ is None else (x - self.mean_) / self.scale_

    def _rows(self, x: object) -> Array:
        """Return new rows in the units of the bank, or raise."""
        check_is_fitted(self)
        return self._scaled(validate_data(self, x, dtype=(np.float64, np.float32), reset=False))

    def _options(self) -> dict[str, Any]:
        return {
            "solver": self.solver,
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
        }

    @staticmethod
    def _distance(projection: HullProjection) -> Tensor:
        """Return the distances (B,): 0 where a row is certified to be inside up to rounding."""
        return torch.where(projection.membership == INSIDE, 0.0, projection.distance)


def warn_unknown(unknown: int, total: int) -> None:
    """Warn of rows whose distance is not certified."""
    if unknown:
        warnings.warn(
            f"{unknown} of {total} distances are NaN, because none was certified within max_steps "
            "and tolerance: raise max_steps, loosen tolerance, or choose another solver",
            ConvergenceWarning,
            stacklevel=3,
        )
