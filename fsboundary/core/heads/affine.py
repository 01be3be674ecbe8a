"""Heads that are linear maps, of classes and of labels, in float64."""

from __future__ import annotations

import hashlib
from functools import cached_property
from html import escape
from importlib import import_module
from typing import Protocol, Self, final, runtime_checkable

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.rows import TensorOrArray, from_array, require_float64

_UNBOUNDED = Domain.unbounded()


@runtime_checkable
class HasFeatures(Protocol):
    """What holds features, such as a FeatureBatch, which this module cannot import."""

    @property
    def features(self) -> Tensor:
        """Features (B,d)."""


def _read_map(weight: object, bias: object | None, noun: str) -> tuple[Tensor, Tensor]:
    """Return float64 copies of a weight (K,d) and bias (K,), or raise ArgumentError.

    `noun` is what a row stands for: "class" or "label".
    """
    given = torch.as_tensor(from_array(weight))
    require_float64("weight", given.device)
    w = given.detach().to(torch.float64, copy=True)
    if w.ndim != 2:
        raise ArgumentError(
            "weight", f"shape {tuple(w.shape)}", "shape (K, d)", f"pass one row per {noun}"
        )
    if w.shape[1] < 1:
        raise ArgumentError(
            "weight", f"shape {tuple(w.shape)}", "d >= 1", "pass at least one feature"
        )
    b = torch.zeros_like(w[:, 0]) if bias is None else torch.as_tensor(from_array(bias))
    b = b.detach().to(w, copy=True)
    if b.shape != w.shape[:1]:
        raise ArgumentError(
            "bias",
            f"shape {tuple(b.shape)}",
            f"shape ({w.shape[0]},)",
            f"pass one number per {noun}, or None",
        )
    bad = ~(torch.isfinite(w).all(dim=1) & torch.isfinite(b))
    if bool(bad.any()):
        rows = bad.nonzero()[:5, 0].tolist()
        raise ArgumentError(
            "weight, bias",
            f"NaN or infinite numbers in {noun} rows {rows}",
            "finite numbers",
            "retrain or reload the model",
        )
    return w, b


def _read_classifier(classifier: object, *, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Return the weight (K,d) and bias (K,) of a scikit-learn classifier, or raise."""
    try:
        # by name: it is on the highest floor, and scikit-learn is optional
        module = import_module("fsboundary.sklearn.linear_maps")
    except ImportError as error:
        fix = "pip install scikit-learn"
        raise ArgumentError("classifier", str(error), "scikit-learn", fix) from error
    found: tuple[Tensor, Tensor] = module.read_classifier(classifier, multi_label=multi_label)
    return found


def _read_layer(layer: object) -> tuple[Tensor, Tensor | None]:
    """Return the weight (K,d) and bias (K,) of a linear layer or a 1x1 convolution, or raise."""
    wanted = "an nn.Linear, or a convolution with kernel 1, no padding and one group"
    fix = "pass the model's last layer, or its weight and bias to the head"
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise ArgumentError("layer", f"a {type(layer).__name__}", wanted, fix)
    sizes: tuple[int, ...] = ()
    if not isinstance(layer, nn.Linear):
        sizes = (1,) * len(layer.kernel_size)
        padding = not isinstance(layer.padding, str) and any(layer.padding)
        if tuple(layer.kernel_size) != sizes or padding or layer.groups != 1:
            raise ArgumentError("layer", repr(layer), wanted, fix)
    if any(isinstance(one, nn.UninitializedParameter) for one in layer.parameters()):
        got, fix = f"a {type(layer).__name__} without weights", "call the model once"
        raise ArgumentError("layer", got, wanted, fix)
    weight = layer.weight.detach()
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, width, *sizes, generator=generator).to(weight)
    with torch.no_grad():
        found = layer(x)
        # read afterwards: weight normalisation computes the weight when the layer is called
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        # the same product in the same precision as the layer's own
        if isinstance(layer, nn.Linear):
            expected = nn.functional.linear(x, weight, bias)
        else:
            expected = layer._conv_forward(x, weight, bias)
        terms = x.abs().flatten(1) @ weight.abs().flatten(1).T
        terms = terms if bias is None else terms + bias.abs()
    allowed = width * torch.finfo(weight.dtype).eps * terms.reshape(expected.shape)
    if found.shape != expected.shape or bool(((found - expected).abs() > allowed).any()):
        got = f"a {type(layer).__name__} whose output is not W x + b"
        fix = "remove its hooks, or pass the weight and bias of the map to the head"
        raise ArgumentError("layer", got, wanted, fix)
    return weight.flatten(1), bias


class _AffineHead:
    """A weight, bias and domain that cannot be changed; what the heads below have in common.

    Norms, fingerprints and certificates are derived from a head once, so it owns its numbers.
    """

    _kind = ""

    def _set(self, weight: Tensor, bias: Tensor, domain: Domain) -> None:
        domain.require_width(weight.shape[1])
        # read by the rest of the package without a copy; never written to, never handed out
        self._weight, self._bias, self._domain = weight, bias, domain

    @property
    def weight(self) -> Tensor:
        """One row per class or label, float64; a copy, so that writing to it changes no head."""
        return self._weight.clone()

    @property
    def bias(self) -> Tensor:
        """Bias per class or label, float64; a copy like :attr:`weight`."""
        return self._bias.clone()

    @property
    def domain(self) -> Domain:
        """Set of features that the model's body can produce."""
        return self._domain

    @property
    def device(self) -> torch.device:
        """Device of weights and bias."""
        return self._weight.device

    @property
    def num_features(self) -> int:
        """Number of features d."""
        return self._weight.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights and bias that identifies the head."""
        digest = hashlib.sha256(f"{self._kind}{tuple(self._weight.shape)}".encode())
        digest.update(self._weight.cpu().numpy().tobytes())
        digest.update(self._bias.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Absolute values of weight and bias in float32, the same for every batch."""
        return self._weight.to(torch.float32).abs(), self._bias.to(torch.float32).abs()

    def __getstate__(self) -> dict[str, object]:
        """Return the state for pickling and copying, without what is computed from the rest."""
        return {name: value for name, value in vars(self).items() if name != "_sizes"}

    def _repr_html_(self) -> str:
        """Return the one line for notebooks."""
        return f"<code>{escape(repr(self))}</code>"

    def to(self, device: torch.device) -> Self:
        """Return the head on `device`; self if it is already there."""
        if self.device == device:
            return self
        return type(self)(self._weight.to(device), self._bias.to(device), self.domain)  # type: ignore[call-arg]  # both heads are made so

    def logits(self, z: TensorOrArray | HasFeatures) -> Tensor:
        """Return the float64 logits of `z` (B,d), on its device; differentiable.

        Here and in the other methods `z` may be a tensor, an array, or a FeatureBatch.
        """
        rows: Tensor = from_array(getattr(z, "features", z))
        if rows.shape[-1:] != self._weight.shape[1:]:
            wanted = f"{self.num_features} features in each row"
            fix = "pass the features that belong to this head, such as FeatureSpace.extract(images)"
            raise ArgumentError("z", f"shape {tuple(rows.shape)}", wanted, fix)
        weight, bias = self._weight.to(rows.device), self._bias.to(rows.device)
        return rows.to(torch.float64) @ weight.T + bias


@final
class LinearHead(_AffineHead):
    """Linear head: features z (B,d) to logits ``W z + b`` (B,K), with the domain of z; immutable.

    Norms, fingerprints and certificates are derived from a head once, so it owns its numbers: it
    copies what it is given, and :attr:`weight` and :attr:`bias` return copies.

    Parameters
    ----------
    weight : Tensor or array (K, d)
        One row per class. Stored as a detached float64 copy; upcasting is exact.
    bias : Tensor or array (K,) or None
        Bias per class; None means zeros.
    domain : Domain
        Set of features that the model's body can produce.

    Raises
    ------
    ArgumentError
        Wrong rank or shape, fewer than two classes, NaN or infinite numbers, or a box domain of
        another width.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), torch.zeros(3))
    >>> head
    LinearHead(K=3, d=3, domain=Domain.unbounded())
    >>> head.predict(torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor([0, 2])
    """

    @torch.inference_mode(False)  # gradients pass through heads made in inference mode too
    def __init__(
        self, weight: TensorOrArray, bias: TensorOrArray | None, domain: Domain = _UNBOUNDED
    ) -> None:
        w, b = _read_map(weight, bias, "class")
        if w.shape[0] < 2:
            raise ArgumentError(
                "weight",
                f"{w.shape[0]} row",
                "at least two classes",
                "turn a binary head into a two-class head with fsboundary.two_class_head",
            )
        self._set(w, b, domain)

    @classmethod
    def from_sklearn(cls, classifier: object, domain: Domain = _UNBOUNDED) -> LinearHead:
        """Return the head of a fitted scikit-learn classifier, or of a pipeline that ends with one.

        Its features are the input of the classifier or pipeline: the scalers before a classifier
        are composed with it in float64. Class k of the head is ``classifier.classes_[k]``. The
        logits are the decision function, and 0 before it if there are two classes. They and the
        predictions are compared with the classifier's own.

        Parameters
        ----------
        classifier : object
            LogisticRegression, LinearSVC, SVC(kernel="linear") of two classes,
            LinearDiscriminantAnalysis, RidgeClassifier, SGDClassifier, Perceptron,
            PassiveAggressiveClassifier, their variants with cross-validation, or
            OneVsRestClassifier of these. Steps of a pipeline before it: StandardScaler,
            RobustScaler, MinMaxScaler, MaxAbsScaler, PCA, IncrementalPCA, TruncatedSVD, selections
            of columns and "passthrough".
        domain : Domain
            Set of the rows that may occur.

        Returns
        -------
        LinearHead

        Raises
        ------
        ArgumentError
            Not fitted, another classifier or step, which is named, or SVC of more than two
            classes: it counts votes between pairs, which the largest of K linear scores does not.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from fsboundary import LinearHead
        >>> x, y = load_iris(return_X_y=True)
        >>> LinearHead.from_sklearn(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y))
        LinearHead(K=3, d=4, domain=Domain.unbounded())
        """
        return cls(*_read_classifier(classifier, multi_label=False), domain)

    @classmethod
    def from_torch(cls, layer: nn.Module, domain: Domain = _UNBOUNDED) -> LinearHead:
        """Return the head of a linear layer, or of a convolution with kernel 1.

        Parameters
        ----------
        layer : nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d
            Layer with at least two outputs; its output is compared with ``W x + b``.
        domain : Domain
            Set of features that reach the layer.

        Returns
        -------
        LinearHead

        Raises
        ------
        ArgumentError
            Another layer, a convolution with a larger kernel, padding or groups, or a layer whose
            output is not ``W x + b``, for example because of a hook.

        Examples
        --------
        >>> import torch
        >>> from fsboundary import Domain, LinearHead
        >>> LinearHead.from_torch(torch.nn.Linear(4, 3), Domain.nonnegative())
        LinearHead(K=3, d=4, domain=Domain.nonnegative())
        """
        return cls(*_read_layer(layer), domain)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self._weight.shape[0]

    def predict(self, z: TensorOrArray | HasFeatures) -> Tensor:
        """Return the class (B,) of the largest float64 logit, the lowest index on ties."""
        return self.logits(z).argmax(dim=-1)

    def margins(self, z: TensorOrArray | HasFeatures) -> Tensor:
        """Return the predicted class's logit minus every logit, (B,K), logit units."""
        logits = self.logits(z)
        return logits.amax(dim=-1, keepdim=True) - logits

    def __repr__(self) -> str:
        return f"LinearHead(K={self.num_classes}, d={self.num_features}, domain={self.domain!r})"


@final
class MultiLabelHead(_AffineHead):
    """Head that decides each of L labels separately: ``w_k z + b_k > 0``; immutable.

    Label k is assigned where its logit is positive, that is, where its sigmoid is above one half,
    so each label is a half-space, and a set of labels a polyhedron. Like :class:`LinearHead`, it
    copies what it is given, and :attr:`weight` and :attr:`bias` return copies.

    Parameters
    ----------
    weight : Tensor or array (L, d)
        One row per label, L >= 1. Stored as a detached float64 copy.
    bias : Tensor or array (L,) or None
        Bias per label; None means zeros. For another threshold than one half, subtract its logit.
    domain : Domain
        Set of features that the model's body can produce.

    Raises
    ------
    ArgumentError
        Wrong rank or shape, no labels, NaN or infinite numbers, or a box domain of another width.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import MultiLabelHead
    >>> head = MultiLabelHead(torch.eye(2), torch.tensor([-1.0, 0.5]))
    >>> head.predict(torch.tensor([[2.0, 0.0]]))
    tensor([[True, True]])
    """

    _kind = "labels"

    @torch.inference_mode(False)  # as for LinearHead
    def __init__(
        self, weight: TensorOrArray, bias: TensorOrArray | None, domain: Domain = _UNBOUNDED
    ) -> None:
        w, b = _read_map(weight, bias, "label")
        if w.shape[0] < 1:
            fix = "pass one row per label"
            raise ArgumentError("weight", "no rows", "at least one label", fix)
        self._set(w, b, domain)

    @classmethod
    def from_sklearn(cls, classifier: object, domain: Domain = _UNBOUNDED) -> MultiLabelHead:
        """Return the head of a fitted scikit-learn classifier that predicts sets of labels.

        Parameters
        ----------
        classifier : object
            OneVsRestClassifier, MultiOutputClassifier or RidgeClassifier of indicator targets
            (n,L), or a pipeline that ends with one; otherwise as for
            :meth:`LinearHead.from_sklearn`.
        domain : Domain
            Set of the rows that may occur.

        Returns
        -------
        MultiLabelHead

        Raises
        ------
        ArgumentError
            As for :meth:`LinearHead.from_sklearn`.
        """
        return cls(*_read_classifier(classifier, multi_label=True), domain)

    @classmethod
    def from_torch(cls, layer: nn.Module, domain: Domain = _UNBOUNDED) -> MultiLabelHead:
        """Return the head of a layer with one output per label; see LinearHead.from_torch."""
        return cls(*_read_layer(layer), domain)

    @property
    def num_labels(self) -> int:
        """Number of labels L."""
        return self._weight.shape[0]

    def predict(self, z: TensorOrArray | HasFeatures) -> Tensor:
        """Return whether each label is assigned (B,L), bool: where its logit is positive."""
        return self.logits(z) > 0

    def label_head(self, k: int) -> LinearHead:
        """Return the two-class head of label `k`: class 1 where the label is assigned.

        Its logits are 0 and the label's logit, so every function that takes a
        :class:`LinearHead` works on one label.

        Raises
        ------
        ArgumentError
            No label `k`.
        """
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k < self.num_labels:
            fix = "count labels from 0"
            raise ArgumentError("k", repr(k), f"an integer from 0 to {self.num_labels - 1}", fix)
        weight, bias = self._weight[k : k + 1], self._bias[k : k + 1]
        zero_weight, zero_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        return LinearHead(
            torch.cat([zero_weight, weight]), torch.cat([zero_bias, bias]), self.domain
        )

    def __repr__(self) -> str:
        return f"MultiLabelHead(L={self.num_labels}, d={self.num_features}, domain={self.domain!r})"
