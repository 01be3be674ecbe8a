"""Heads of scikit-learn classifiers, pipelines and torch layers, against their own answers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC
from torch import nn

from fsboundary import ArgumentError, Domain, LinearHead, MultiLabelHead, flip_points

X, Y = (part[:250] for part in load_digits(return_X_y=True))
NAMES = np.array(["ten", *"abcdefghi"])[Y]  # sorted by name, not by number

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(tol=1e-2),
    "logistic without intercept": lambda: LogisticRegression(tol=1e-2, fit_intercept=False),
    "lda": LinearDiscriminantAnalysis,
    "linear svc": LinearSVC,
    "linear svc without intercept": lambda: LinearSVC(fit_intercept=False),
    "crammer singer": lambda: LinearSVC(multi_class="crammer_singer"),
    "ridge": RidgeClassifier,
    "ridge cv": RidgeClassifierCV,
    "sgd": SGDClassifier,
    "perceptron": Perceptron,
    "one vs rest": lambda: OneVsRestClassifier(LogisticRegression(tol=1e-2)),
    "one vs rest of svc": lambda: OneVsRestClassifier(SVC(kernel="linear")),
    "one vs rest of pipelines": lambda: OneVsRestClassifier(
        make_pipeline(StandardScaler(), LinearSVC())
    ),
    "one vs rest of nu svc": lambda: OneVsRestClassifier(NuSVC(kernel="linear", nu=0.05)),
}


def compare(classifier: Any, x: Any, rtol: float = 1e-9) -> LinearHead:
    """Compare logits and predictions with the classifier's own."""
    head = LinearHead.from_sklearn(classifier)
    logits = head.logits(torch.as_tensor(x)).numpy()
    scores = classifier.decision_function(x)
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    np.testing.assert_allclose(logits, scores, rtol=rtol, atol=rtol * np.abs(scores).max())
    predicted = np.asarray(classifier.classes_)[head.predict(torch.as_tensor(x)).numpy()]
    ordered = np.sort(logits, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > rtol * np.abs(scores).max()
    assert clear.mean() > 0.9
    assert (predicted == classifier.predict(x))[clear].all()
    return head


# fewer steps than convergence needs: the map is read, whatever the fit
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("classes", ["ten", "two", "named"])
def test_classifiers_of_digits(name: str, classes: str) -> None:
    y = {"ten": Y, "two": Y % 2 * 3 + 4, "named": NAMES}[classes]
    head = compare(CLASSIFIERS[name]().fit(X, y), X)
    assert head.num_classes == (2 if classes == "two" else 10)
    assert head.num_features == 64


@pytest.mark.parametrize("kind", [SVC, NuSVC])
def test_support_vector_machines_of_two_classes(kind: Any) -> None:
    compare(kind(kernel="linear").fit(X, Y > 4), X)


# the defaults that change from 1.8 to 1.10 do not matter here
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_cross_validated_logistic_regression() -> None:
    compare(LogisticRegressionCV(Cs=2, cv=2, tol=1e-2).fit(X / 16, Y), X / 16)


@pytest.mark.parametrize("kind", [SVC, NuSVC])
def test_votes_between_pairs_are_refused(kind: Any) -> None:
    fitted = kind(kernel="linear").fit(X[Y < 3], Y[Y < 3])
    with pytest.raises(ArgumentError, match=r"of 3 classes, which predicts by votes.*OneVsRest"):
        LinearHead.from_sklearn(fitted)
    assert LinearHead.from_sklearn(fitted.fit(X, Y > 4)).num_classes == 2


STEPS: dict[str, Callable[[], Any]] = {
    "standard": StandardScaler,
    "only mean": lambda: StandardScaler(with_std=False),
    "only deviation": lambda: StandardScaler(with_mean=False),
    "min max": MinMaxScaler,
    "min max of a range": lambda: MinMaxScaler((-3, 5)),
    "max abs": MaxAbsScaler,
    "robust": RobustScaler,
    "only centred": lambda: RobustScaler(with_scaling=False),
    "only scaled": lambda: RobustScaler(with_centering=False),
    "pca": lambda: PCA(3),
    "whitened": lambda: PCA(3, whiten=True),
    "svd": lambda: TruncatedSVD(3),
    "best": lambda: SelectKBest(k=3),
    "variance": VarianceThreshold,
    "passthrough": lambda: "passthrough",
    "nothing": lambda: None,
    "nested": lambda: make_pipeline(StandardScaler(), MaxAbsScaler()),
}


@settings(max_examples=60)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    classes=st.integers(2, 4),
    shift=st.floats(-50, 50),
    size=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_pipelines_of_random_steps(
    names: list[str], classes: int, shift: float, size: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x = shift + size * generator.standard_normal((40, 4)) * np.array([1.0, 3.0, 0.2, 10.0])
    y = np.arange(40) % classes
    # one step that reduces the width: the next ones need the columns it leaves
    seen = [n for n in names if n in ("pca", "whitened", "svd", "best")][1:]
    names = [n for n in names if n not in seen]
    steps = [(f"{n}{i}", STEPS[n]()) for i, n in enumerate(names)]
    pipeline = Pipeline([*steps, ("last", LinearDiscriminantAnalysis())]).fit(x, y)
    compare(pipeline, x, rtol=1e-7)


def test_columns_without_variance_and_narrower_inputs() -> None:
    compare(
        make_pipeline(
            VarianceThreshold(1.0),
            StandardScaler(),
            PCA(9, whiten=True),
            SelectKBest(k=5),
            RidgeClassifier(),
        ).fit(X, Y),
        X,
    )
    compare(make_pipeline(StandardScaler(), RidgeClassifier()).fit(X.astype(np.float32), Y), X)


class Doubled(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """A step of a user."""

    def fit(self, x: Any, y: Any = None) -> Doubled:
        self.fitted_ = True
        return self

    def transform(self, x: Any) -> Any:
        return 2 * x


class Shifted(RidgeClassifier):  # type: ignore[misc]  # sklearn ships no types
    """A classifier that changes the scores of the one that it is made from."""

    def decision_function(self, x: Any) -> Any:
        return super().decision_function(x) + 0.25 * (x[:, :1] > 0)


class Votes(RidgeClassifier):  # type: ignore[misc]  # sklearn ships no types
    """A classifier whose prediction is not the largest of its scores."""

    def predict(self, x: Any) -> Any:
        return self.classes_[np.argmin(self.decision_function(x), axis=1)]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "not fitted": (LogisticRegression, r"without coef_; .*call its fit"),
    "no fitted step": (
        lambda: make_pipeline(SelectKBest(), RidgeClassifier().fit(X, Y)),
        "fit of the pipeline",
    ),
    "normalizer": (
        lambda: make_pipeline(Normalizer(), RidgeClassifier()).fit(X, Y),
        "step 'normalizer', a Normalizer",
    ),
    "polynomial": (
        lambda: make_pipeline(PCA(2), PolynomialFeatures(), RidgeClassifier()).fit(X, Y),
        "step 'polynomialfeatures', a PolynomialFeatures",
    ),
    "clip": (
        lambda: make_pipeline(MinMaxScaler(clip=True), RidgeClassifier()).fit(X, Y),
        "step 'minmaxscaler', a MinMaxScaler with clip=True",
    ),
    "nested": (
        lambda: make_pipeline(make_pipeline(PCA(2), Normalizer()), RidgeClassifier()).fit(X, Y),
        r"step 'pipeline\.normalizer', a Normalizer",
    ),
    "own step": (
        lambda: make_pipeline(Doubled(), RidgeClassifier()).fit(X, Y),
        "step 'doubled', a Doubled",
    ),
    "forest": (
        lambda: RandomForestClassifier(2).fit(X, Y),
        "a RandomForestClassifier; wanted logistic",
    ),
    "quadratic": (
        lambda: QuadraticDiscriminantAnalysis(reg_param=0.5).fit(X[:, :4] + Y[:, None] / 9, Y > 4),
        "a QuadraticDiscriminantAnalysis",
    ),
    "kernel": (lambda: SVC().fit(X, Y > 4), "a kernel 'rbf'"),
    "pairs": (lambda: OneVsOneClassifier(LinearSVC()).fit(X[:50], Y[:50]), "an OneVsOneClassifier"),
    "search": (
        lambda: GridSearchCV(RidgeClassifier(), {"alpha": [1.0]}, cv=2).fit(X, Y),
        "pass its best_estimator_",
    ),
    "other scores": (lambda: Shifted().fit(X, Y), "a Shifted that does not decide by W x"),
    "other prediction": (lambda: Votes().fit(X, Y), "a Votes that does not decide by W x"),
    "inner forest": (
        lambda: OneVsRestClassifier(RandomForestClassifier(2)).fit(X, Y),
        "a RandomForestClassifier",
    ),
    "no estimator": (lambda: 3, "an int; wanted logistic"),
    "sets of labels": (
        lambda: OneVsRestClassifier(RidgeClassifier()).fit(X, indicators()),
        r"a set of labels per row; .*MultiLabelHead\.from_sklearn",
    ),
    "outputs": (
        lambda: MultiOutputClassifier(RidgeClassifier()).fit(X, indicators()),
        r"MultiLabelHead\.from_sklearn",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ArgumentError, match=message):
        LinearHead.from_sklearn(make())


def indicators() -> Any:
    return np.stack([Y % 2, Y > 4, Y == 3], axis=1).astype(int)


MULTI_LABEL: dict[str, Callable[[], Any]] = {
    "one vs rest": lambda: OneVsRestClassifier(RidgeClassifier()),
    "outputs": lambda: MultiOutputClassifier(LinearDiscriminantAnalysis()),
    "ridge": RidgeClassifier,
    "pipeline": lambda: make_pipeline(StandardScaler(), MultiOutputClassifier(RidgeClassifier())),
}


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_classifiers_of_label_sets(name: str) -> None:
    classifier = MULTI_LABEL[name]().fit(X, indicators())
    head = MultiLabelHead.from_sklearn(classifier)
    assert head.num_labels == 3
    assert (head.predict(torch.as_tensor(X)).numpy() == classifier.predict(X)).all()
    with pytest.raises(ArgumentError, match=r"one class per row.*LinearHead\.from_sklearn"):
        MultiLabelHead.from_sklearn(RidgeClassifier().fit(X, Y))


def test_domain_and_flips_in_the_units_of_the_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-2)).fit(X, Y)
    head = LinearHead.from_sklearn(pipeline, Domain.box(np.zeros(64), np.full(64, 16.0)))
    flips = flip_points(head, X[:20])
    assert flips.ok.all()
    points = flips.points[:, 0].numpy()
    assert points.min() >= 0
    assert points.max() <= 16
    scores = pipeline.decision_function(points)
    rows = np.arange(20)
    source, target = scores[rows, flips.source], scores[rows, flips.target[:, 0]]
    np.testing.assert_allclose(source, target, atol=1e-6)
    assert (source >= scores.max(axis=1) - 1e-6).all()


def test_names_of_columns_do_not_warn() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"p{i}" for i in range(64)])
    pipeline = make_pipeline(StandardScaler(), RidgeClassifier()).fit(frame, Y)
    LinearHead.from_sklearn(pipeline)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(5, 3),
    "no bias": lambda: nn.Linear(5, 3, bias=False),
    "double": lambda: nn.Linear(5, 3, dtype=torch.float64),
    "half": lambda: nn.Linear(5, 3, dtype=torch.bfloat16),
    "convolution": lambda: nn.Conv2d(5, 3, 1),
    "stride": lambda: nn.Conv1d(5, 3, 1, stride=2, bias=False),
    "volume": lambda: nn.Conv3d(5, 3, 1),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    head = LinearHead.from_torch(layer, Domain.nonnegative())
    assert head.domain == Domain.nonnegative()
    dtype = next(layer.parameters()).dtype
    z = torch.rand(7, 5, dtype=dtype)
    shaped = z.reshape(7, 5, *[1] * (next(layer.parameters()).ndim - 2))
    shaped = z if isinstance(layer, nn.Linear) else shaped
    expected = layer(shaped).reshape(7, 3).double()
    tolerance = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(head.logits(z), expected, rtol=tolerance, atol=tolerance)
    assert MultiLabelHead.from_torch(layer).num_labels == 3


class Cosine(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.normalize(x))


def hooked() -> nn.Linear:
    layer = nn.Linear(5, 3)
    layer.register_forward_hook(lambda module, args, output: 1.01 * output)
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nn.ReLU, "layer: got a ReLU; wanted an nn.Linear"),
        (lambda: nn.Conv2d(5, 3, 3), "kernel 1"),
        (lambda: nn.Conv2d(5, 3, 1, padding=1), "no padding"),
        (lambda: nn.Conv2d(6, 3, 1, groups=3), "one group"),
        (lambda: nn.LazyLinear(3), "call the model once"),
        (lambda: nn.Linear(5, 1), "at least two classes"),
        (lambda: Cosine(5, 3), "a Cosine whose output is not W x"),
        (hooked, "remove its hooks"),
    ],
)
def test_other_layers_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        LinearHead.from_torch(make())


def test_heads_do_not_keep_the_estimator() -> None:
    fitted = RidgeClassifier().fit(X, Y)
    head = LinearHead.from_sklearn(fitted)
    before = head.fingerprint
    fitted.coef_ += 1
    assert LinearHead(head.weight, head.bias).fingerprint == before
    assert len(pickle.dumps(head)) < 20_000


WITHOUT = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
import torch
import fsboundary as fsb
head = fsb.LinearHead.from_torch(torch.nn.Linear(3, 2))
assert fsb.flip_points(head, torch.zeros(1, 3)).ok.all()
assert fsb.hull_projection(fsb.FeatureBank(torch.eye(3)), torch.zeros(1, 3)).ok.all()
try:
    fsb.LinearHead.from_sklearn(head)
except fsb.ArgumentError as error:
    print(error)
"""


def test_scikit_learn_is_optional() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wanted scikit-learn. Fix: pip install scikit-learn" in done.stdout
