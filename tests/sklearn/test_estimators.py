"""Hulls as scikit-learn estimators: its own checks, and what the functions of hulls return."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import fsboundary as fsb
from fsboundary import ArgumentError
from fsboundary.sklearn import HullDomain, NearestHullClassifier

INSIDE = "a training row is inside the hull of the training rows, so none is an outlier"
EXPECTED = {"check_outliers_train": INSIDE, "check_outliers_fit_predict": INSIDE}
"""Checks of scikit-learn that HullDomain fails, each with the reason."""

NOT_RUN = {"check_array_api_input": "only runs where scipy's array API is switched on"}


def _checks() -> Iterator[Any]:
    for estimator in (HullDomain(), HullDomain(standardise=True), NearestHullClassifier()):
        for number, (_, check) in enumerate(estimator_checks_generator(estimator)):
            name = getattr(check, "func", check).__name__
            if name not in NOT_RUN:
                label = f"{type(estimator).__name__}-{estimator.standardise}-{number}-{name}"
                yield pytest.param(estimator, name, check, id=label)


@pytest.mark.parametrize(("estimator", "name", "check"), list(_checks()))
def test_checks_of_scikit_learn(estimator: Any, name: str, check: Callable[[Any], None]) -> None:
    if isinstance(estimator, HullDomain) and name in EXPECTED:
        # it finds 1 only, and wanted 1 and -1
        with pytest.raises(AssertionError, match=r"ACTUAL: array\(\[1\]\)|x: array\(\[1\]\)"):
            check(estimator)
    else:
        check(estimator)


def test_checks_of_scikit_learn_are_there() -> None:
    names = [p.values[1] for p in _checks()]
    assert len(names) > 120
    assert set(EXPECTED) <= set(names)


def blobs(seed: int = 0, d: int = 3) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((30, d)), 1.6 * generator.standard_normal((40, d))


def is_in_hull(points: Any, row: Any) -> bool:
    """Return whether `row` is a convex combination of `points`, by a linear program."""
    system = np.vstack([points.T, np.ones(len(points))])
    return linprog(np.zeros(len(points)), A_eq=system, b_eq=np.append(row, 1)).status == 0


@pytest.mark.parametrize("standardise", [False, True])
def test_domain_by_linear_programs_and_projections(standardise: bool) -> None:
    points, rows = blobs()
    points, rows = points * [1.0, 50.0, 0.1], rows * [1.0, 50.0, 0.1]
    domain = HullDomain(standardise=standardise).fit(points)
    expected = np.array([is_in_hull(points, row) for row in rows])
    assert 5 < expected.sum() < 35
    assert (domain.contains(rows) == expected).all()
    assert (domain.predict(rows) == np.where(expected, 1, -1)).all()
    assert domain.contains(points).all()
    unit = points.std(axis=0) if standardise else 1.0
    shift = points.mean(axis=0) if standardise else 0.0
    bank = fsb.FeatureBank((points - shift) / unit)
    distance = fsb.hull_projection(bank, (rows - shift) / unit).distance.numpy()
    np.testing.assert_allclose(-domain.score_samples(rows), distance, atol=1e-8)
    assert (domain.score_samples(rows)[expected] == 0).all()
    assert not np.signbit(domain.score_samples(rows)[expected]).any()
    lower, upper = domain.bounds(rows)
    assert (lower <= upper).all()
    assert (upper - lower <= 1e-6 * upper + 1e-9).all()
    assert ((lower > 0) == ~expected).all()


def test_domain_around_the_hull() -> None:
    points, rows = blobs()
    scores = HullDomain().fit(points).score_samples(rows)
    border = float(np.median(-scores[scores < 0]))
    domain = HullDomain(max_distance=border).fit(points)
    assert domain.offset_ == -border
    assert (domain.contains(rows) == (-scores <= border)).all()
    np.testing.assert_allclose(domain.decision_function(rows), scores + border)
    usual = fsb.leave_one_out_distances(domain.bank_).distance
    assert HullDomain(max_distance=float(usual.quantile(0.95))).fit(points).contains(points).all()
    for wrong in (-1.0, np.nan, np.inf, "far"):
        with pytest.raises(ArgumentError, match="max_distance"):
            HullDomain(max_distance=wrong).fit(points)  # type: ignore[arg-type]  # that


def test_domain_with_a_constant_column() -> None:
    points, rows = blobs()
    points[:, 1] = rows[:, 1] = 7.0
    rows[0, 1] = 9.0
    domain = HullDomain(standardise=True).fit(points)
    assert not domain.contains(rows[:1]).any()
    assert domain.contains(rows[1:]).any()
    assert np.isfinite(domain.score_samples(rows)).all()


@pytest.mark.parametrize(
    "estimator", [HullDomain(max_steps=1), NearestHullClassifier(max_steps=1)], ids=str
)
def test_unknown_distances_are_nan_with_a_warning(estimator: Any) -> None:
    points, rows = blobs(d=8)
    # this solver needs more than one step
    estimator = clone(estimator).set_params(solver="interior_point")
    estimator.fit(points, np.arange(30) % 3)
    rows = 5 * rows
    with pytest.warns(ConvergenceWarning, match=r"distances are NaN.*raise max_steps"):
        scores = estimator.decision_function(rows)
    assert np.isnan(scores).any()
    with pytest.warns(ConvergenceWarning):
        predicted = estimator.predict(rows)
    if isinstance(estimator, HullDomain):
        assert (predicted[np.isnan(scores)] == -1).all()
        with pytest.warns(ConvergenceWarning):
            lower, upper = estimator.bounds(rows)
        assert np.isnan(upper).any()
        exact = -HullDomain().fit(points).score_samples(rows)
        assert (lower <= exact * (1 + 1e-6)).all()
    else:
        assert set(predicted) <= {0, 1, 2}
        unknown = np.isnan(scores).all(axis=1)
        assert not estimator.certified(rows)[unknown].any()


def test_nearest_hulls_of_iris_are_those_of_the_function() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    train, test = slice(0, None, 2), slice(1, None, 2)
    classifier = NearestHullClassifier().fit(x[train], names[train])
    found = fsb.nearest_hulls(fsb.FeatureBank(x[train], y[train]), x[test])
    assert (classifier.predict(x[test]) == classifier.classes_[found.label.numpy()]).all()
    assert (classifier.certified(x[test]) == (found.status == 0).numpy()).all()
    scores = classifier.decision_function(x[test])
    np.testing.assert_allclose(-scores, found.distances.numpy(), atol=1e-9)
    assert classifier.score(x[test], names[test]) > 0.9


def test_ties_and_two_classes() -> None:
    square = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]
    moved = [[a + 1.0, b] for a, b in square]
    classifier = NearestHullClassifier().fit(square + moved, list("bbbbaaaa"))
    rows = [[1.5, 1.0], [-1.0, 1.0], [4.0, 1.0], [1.5, 4.0]]
    # inside both hulls, and equally far from both: the first class
    assert classifier.predict(rows).tolist() == ["a", "b", "a", "a"]
    assert classifier.certified(rows).tolist() == [False, True, True, False]
    assert classifier.decision_function(rows).tolist() == pytest.approx([0.0, 1.0, -1.0, 0.0])


def test_one_class() -> None:
    classifier = NearestHullClassifier().fit([[0.0], [1.0]], ["only", "only"])
    assert classifier.predict([[5.0]]).tolist() == ["only"]
    assert classifier.decision_function([[5.0]]).tolist() == [[-4.0]]


def test_pipelines_searches_and_files() -> None:
    x, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), NearestHullClassifier())
    assert cross_val_score(pipeline, x, y, cv=3).min() > 0.85
    search = GridSearchCV(NearestHullClassifier(), {"standardise": [False, True]}, cv=2).fit(x, y)
    restored = pickle.loads(pickle.dumps(search.best_estimator_))
    assert (restored.predict(x) == search.predict(x)).all()
    with pytest.raises(NotFittedError):
        HullDomain().contains(x)
    frame_free = HullDomain().fit(x.astype(np.float32))
    assert frame_free.bank_.features.dtype == torch.float32
    assert frame_free.contains(x.astype(np.float32)).all()


def test_nearest_hull_of_digits_is_at_least_as_accurate_as_the_nearest_neighbour() -> None:
    x, y = load_digits(return_X_y=True)
    train, test = slice(0, 600), slice(600, 1100)
    hulls = NearestHullClassifier().fit(x[train], y[train]).score(x[test], y[test])
    neighbour = KNeighborsClassifier(1).fit(x[train], y[train]).score(x[test], y[test])
    assert hulls >= neighbour > 0.9
