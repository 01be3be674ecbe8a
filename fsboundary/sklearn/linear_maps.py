"""Linear maps read from the fitted attributes of scikit-learn's classifiers, float64.

:meth:`fsboundary.LinearHead.from_sklearn` loads this module by name. A classifier is recognised by
the names of its classes, and the map is compared with what the classifier computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_Rows = tuple[Array, Array, Array, Array]
"""W (R,d) and b (R,), then bounds of the absolute terms of both, to which rounding is relative."""

_LINEAR = (
    "LogisticRegression",
    "LogisticRegressionCV",
    "LinearSVC",
    "LinearDiscriminantAnalysis",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
    "Perceptron",
    "PassiveAggressiveClassifier",
)
"""Classifiers whose decision function is ``X @ coef_.T + intercept_``."""

_NAMES = (
    "logistic regression, LinearSVC, SVC(kernel='linear') of two classes, linear discriminant "
    "analysis, ridge, SGD, perceptron, or one-vs-rest of these, after scalers, PCA or a selection"
)

_RTOL = 1e-6
"""Difference from the estimator relative to the sum of absolute terms: above the rounding of
float64 by far, below every map that is not this one."""


def read_classifier(classifier: object, *, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Return the weight (K,d) and bias (K,) of a fitted classifier, or (L,d) and (L,) of labels.

    Parameters
    ----------
    classifier : object
        A fitted scikit-learn classifier, or a pipeline that ends with one.
    multi_label : bool
        Whether rows stand for labels, each decided separately, instead of classes.

    Raises
    ------
    ArgumentError
        Not fitted, a step that is not affine or not known, or scores that do not decide the
        prediction as the head would.
    """
    rows = _decisions(classifier, multi_label)
    x = _probes(rows[0].shape[1])
    scores, predicted = _outputs(classifier, x)
    if (predicted.ndim == 2) != multi_label:
        got, wanted, head = "one class per row", "a set of labels per row", "LinearHead"
        if not multi_label:
            got, wanted, head = wanted, got, "MultiLabelHead"
        got = f"{_name(classifier)} that predicts {got}"
        raise ArgumentError("classifier", got, wanted, f"call {head}.from_sklearn")
    if not multi_label and len(rows[0]) == 1:
        rows = _two_classes(rows)
        scores = None if scores is None else np.stack([0 * scores, scores], axis=1)
    if not _verify(classifier, rows, x, scores, predicted):
        got = f"{_name(classifier)} that does not decide by W x + b"
        fix = "pass W and b of its scores to the head, if they are linear"
        raise ArgumentError("classifier", got, _NAMES, fix)
    return torch.from_numpy(rows[0]), torch.from_numpy(rows[1])


def _probes(width: int) -> Array:
    """Return rows (24,width) of several sizes, at which a map is compared with its estimator."""
    sizes = np.repeat([0.0, 0.01, 1.0, 100.0], 6)
    rows: Array = np.random.default_rng(0).standard_normal((24, width)) * sizes[:, None]
    return rows


def _outputs(classifier: Any, x: Array) -> tuple[Array | None, Any]:
    """Return the scores of rows `x`, None if the classifier has none, and the predictions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these rows have no names of features
            predicted = np.asarray(classifier.predict(x))
            # MultiOutputClassifier has no decision function
            decide = getattr(classifier, "decision_function", None)
            scores = None if decide is None else np.asarray(decide(x), dtype=np.float64)
    except Exception as error:
        got = f"{_name(classifier)} that raised {type(error).__name__}: {error}"
        fix = "call its predict on a few rows first"
        raise ArgumentError("classifier", got, "a fitted classifier", fix) from error
    return scores, predicted


def _verify(classifier: Any, rows: _Rows, x: Array, scores: Array | None, predicted: Any) -> bool:
    """Return whether the map gives the scores and the predictions of `classifier` at rows `x`."""
    weight, bias, weight_size, bias_size = rows
    logits = x @ weight.T + bias
    allowed = _RTOL * (np.abs(x) @ weight_size.T + bias_size)
    if scores is not None and (
        scores.size != logits.size
        or not bool((np.abs(scores.reshape(logits.shape) - logits) <= allowed).all())
    ):
        return False
    if predicted.ndim == 2:
        clear = np.abs(logits) > allowed
        return bool(((predicted > 0) == (logits > 0))[clear].all())
    ordered = np.sort(logits, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * allowed.max(axis=1)
    expected = np.asarray(classifier.classes_)[logits.argmax(axis=1)]
    return bool((predicted == expected)[clear].all())


def _name(estimator: object) -> str:
    name = type(estimator).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' or name[:2] in ('SV', 'SG') else 'a'} {name}"


def _is(estimator: object, *names: str) -> bool:
    """Return whether `estimator` is of one of scikit-learn's classes `names`."""
    return any(
        kind.__name__ in names and kind.__module__.partition(".")[0] == "sklearn"
        for kind in type(estimator).__mro__
    )


def _fitted(estimator: object, attribute: str, wanted: str | None = None) -> Any:
    """Return a fitted attribute, or raise ArgumentError."""
    value = getattr(estimator, attribute, None)
    if value is None:
        fix = "call its fit first, or the fit of the pipeline that contains it"
        got = f"{_name(estimator)} without {attribute}"
        raise ArgumentError("classifier", got, wanted or "a fitted estimator", fix)
    return value


def _dense(value: Any) -> Array:
    """Return numbers as a float64 array, also those of a sparse matrix."""
    dense = value.toarray() if hasattr(value, "toarray") else value
    return np.array(dense, dtype=np.float64)


def _decisions(classifier: object, multi_label: bool) -> _Rows:
    """Return the rows of a classifier's decision function: one only for two classes."""
    if _is(classifier, "Pipeline"):
        *steps, (_, last) = _fitted(classifier, "steps")
        rows = _decisions(last, multi_label)
        for name, step in reversed(steps):
            rows = _before(rows, name, step)
        return rows
    if _is(classifier, "OneVsRestClassifier", "MultiOutputClassifier"):
        if _is(classifier, "MultiOutputClassifier") and not multi_label:
            got, wanted = "a MultiOutputClassifier", "one class per row"
            raise ArgumentError("classifier", got, wanted, "call MultiLabelHead.from_sklearn")
        return _stack([_decisions(e, False) for e in _fitted(classifier, "estimators_")])
    if _is(classifier, "SVC", "NuSVC"):
        kernel = getattr(classifier, "kernel", None)
        if kernel != "linear":
            got, fix = f"a kernel {kernel!r}", "pass SVC(kernel='linear') or LinearSVC"
            raise ArgumentError("classifier", got, "a linear classifier", fix)
        count = len(_fitted(classifier, "classes_"))
        if count > 2:
            got = f"{_name(classifier)} of {count} classes, which predicts by votes between pairs"
            fix = "fit LinearSVC, or OneVsRestClassifier(SVC(kernel='linear'))"
            wanted = "one score per class, of which the largest decides"
            raise ArgumentError("classifier", got, wanted, fix)
    elif not _is(classifier, *_LINEAR):
        fix = "pass a linear classifier, or W and b of its scores to LinearHead"
        if hasattr(classifier, "best_estimator_"):
            fix = "pass its best_estimator_"
        raise ArgumentError("classifier", _name(classifier), _NAMES, fix)
    weight = np.atleast_2d(_dense(_fitted(classifier, "coef_")))
    bias = np.broadcast_to(_dense(_fitted(classifier, "intercept_")), weight.shape[:1]).copy()
    return weight, bias, np.abs(weight), np.abs(bias)


def _stack(parts: list[_Rows]) -> _Rows:
    """Return the rows of binary classifiers below each other."""
    several = next((part for part in parts if len(part[0]) != 1), None)
    if several is not None:
        got = f"an inner classifier with {len(several[0])} scores"
        fix = "fit it to labels that are 0 or 1"
        raise ArgumentError("classifier", got, "binary inner classifiers", fix)
    weight, bias, weight_size, bias_size = (np.concatenate(p) for p in zip(*parts, strict=True))
    return weight, bias, weight_size, bias_size


def _two_classes(rows: _Rows) -> _Rows:
    """Return the rows of the logits 0 and the decision function, from its only row."""
    weight, bias, weight_size, bias_size = (np.concatenate([0 * one, one]) for one in rows)
    return weight, bias, weight_size, bias_size


def _before(rows: _Rows, name: str, step: object) -> _Rows:
    """Return the rows as functions of the input of a `step`, from those of its output."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return rows
    if _is(step, "Pipeline"):
        for inner_name, inner in reversed(_fitted(step, "steps")):
            rows = _before(rows, f"{name}.{inner_name}", inner)
        return rows
    if getattr(step, "clip", False):
        got = f"step {name!r}, {_name(step)} with clip=True"
        raise ArgumentError("classifier", got, "affine steps", "fit it with clip=False")
    for kind, change in _STEPS.items():
        if _is(step, kind):
            return change(rows, step)
    fix = "apply it to the features yourself, and pass the rest of the pipeline"
    wanted = "scalers, PCA, TruncatedSVD or a selection of columns before the classifier"
    raise ArgumentError("classifier", f"step {name!r}, {_name(step)}", wanted, fix)


def _scaled(rows: _Rows, centre: Any, factor: Any) -> _Rows:
    """Return the rows as functions of x, from those of ``(x - centre) * factor``."""
    weight, bias, weight_size, bias_size = rows
    weight, weight_size = weight * factor, weight_size * np.abs(factor)
    shift = np.broadcast_to(_dense(centre), weight.shape[1:])
    return weight, bias - weight @ shift, weight_size, bias_size + weight_size @ np.abs(shift)


def _projected(rows: _Rows, components: Any) -> _Rows:
    """Return the rows as functions of x, from those of ``x @ components.T``."""
    matrix = _dense(components)
    return rows[0] @ matrix, rows[1], rows[2] @ np.abs(matrix), rows[3]


def _standard(rows: _Rows, step: Any) -> _Rows:
    scale = _dense(_fitted(step, "scale_")) if step.with_std else 1.0
    return _scaled(rows, _fitted(step, "mean_") if step.with_mean else 0.0, 1 / scale)


def _robust(rows: _Rows, step: Any) -> _Rows:
    scale = _dense(_fitted(step, "scale_")) if step.with_scaling else 1.0
    return _scaled(rows, _fitted(step, "center_") if step.with_centering else 0.0, 1 / scale)


def _min_max(rows: _Rows, step: Any) -> _Rows:
    weight, bias, weight_size, bias_size = rows
    offset, scale = _dense(_fitted(step, "min_")), _dense(_fitted(step, "scale_"))
    shifted = (weight, bias + weight @ offset, weight_size, bias_size + weight_size @ abs(offset))
    return _scaled(shifted, 0.0, scale)


def _max_abs(rows: _Rows, step: Any) -> _Rows:
    return _scaled(rows, 0.0, 1 / _dense(_fitted(step, "scale_")))


def _pca(rows: _Rows, step: Any) -> _Rows:
    components = _fitted(step, "components_")
    if step.whiten:
        deviation = np.sqrt(_dense(step.explained_variance_))
        # as scikit-learn: directions without variance are not divided by 0
        rows = _scaled(rows, 0.0, 1 / np.maximum(deviation, np.finfo(deviation.dtype).eps))
    return _scaled(_projected(rows, components), _fitted(step, "mean_"), 1.0)


def _truncated(rows: _Rows, step: Any) -> _Rows:
    return _projected(rows, _fitted(step, "components_"))


def _selected(rows: _Rows, step: Any) -> _Rows:
    try:
        chosen = np.asarray(step.get_support())
    except Exception as error:  # scikit-learn's own NotFittedError, which is not imported here
        got = f"{_name(step)} that raised {type(error).__name__}"
        fix = "call the fit of the pipeline first"
        raise ArgumentError("classifier", got, "a fitted estimator", fix) from error
    tables = []
    for table in (rows[0], rows[2]):
        full = np.zeros((len(table), len(chosen)))
        full[:, chosen] = table
        tables.append(full)
    return tables[0], rows[1], tables[1], rows[3]


_STEPS: dict[str, Callable[[_Rows, Any], _Rows]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "PCA": _pca,
    "IncrementalPCA": _pca,
    "TruncatedSVD": _truncated,
    "SelectorMixin": _selected,
}
"""Affine steps by the name of their class."""
