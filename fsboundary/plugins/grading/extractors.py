"""Guarded calls of feature extractors, and verification of their heads on every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import FsboundaryError, HeadMismatchError, PluginError
from fsboundary.core.heads import LinearHead
from fsboundary.models.linear_maps import (
    LayerCall,
    Residual,
    head_mismatch,
    largest_residual,
    logit_tolerance,
)
from fsboundary.plugins.grading.calls import is_built_in, label_of, plain_tensor, plugin_call
from fsboundary.plugins.interfaces import FeatureExtractor


@final
class GuardedExtractor:
    """The methods of an extractor, with the type of every answer checked.

    Parameters
    ----------
    extractor : FeatureExtractor
        The plugin. The model that it is called with is the user's own, and runs inside its calls:
        exceptions of these keep their types, because the model may have raised them.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self._label, self._own = label_of("feature extractor", extractor), is_built_in(extractor)

    def run(
        self, model: nn.Module, images: Tensor, *additional: Any
    ) -> tuple[Tensor, Tensor, LayerCall | None]:
        """Return features, logits and the call of the head, if known; see the interface."""
        extractor = self.extractor
        plain = type(extractor).features_and_call is FeatureExtractor.features_and_call
        method: Callable[..., Any] = extractor.features if plain else extractor.features_and_call
        given = (images, *additional)
        if not self._own:  # the user's own tensors
            given = tuple(x.clone() if isinstance(x, Tensor) else x for x in given)
        with self._running(model):
            answer = method(model, *given)
        wanted = "(features, logits)" if plain else "(features, logits, call)"
        if not isinstance(answer, tuple) or len(answer) != (2 if plain else 3):
            got = (
                f"a tuple of {len(answer)}" if isinstance(answer, tuple) else type(answer).__name__
            )
            raise PluginError(f"{self._label} returned {got}; wanted {wanted}")
        features, logits = (
            self._read_tensor(name, value)
            for name, value in zip(("features", "logits"), answer, strict=False)
        )
        if features.device != logits.device:
            raise PluginError(
                f"{self._label}: features are on {features.device}, logits on {logits.device}; "
                "wanted both on one device"
            )
        return features, logits, self._read_call(None if plain else answer[2], features)

    def head(self, model: nn.Module) -> LinearHead | None:
        """Return the head, or None until it is known."""
        answer: LinearHead | None = self._ask("head", LinearHead | None, self.extractor.head, model)
        return answer

    def domain(self, model: nn.Module) -> Domain:
        """Return the domain that the model's structure proves."""
        answer: Domain = self._ask("domain", Domain, self.extractor.domain, model)
        return answer

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return facts for the report."""
        notes = self._ask("notes", dict, self.extractor.notes, model)
        return {str(name): str(value) for name, value in notes.items()}

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted and replaces the model."""
        answer: bool = self._ask("surrogate", bool, lambda: self.extractor.surrogate)
        return answer

    @property
    def options(self) -> str:
        """The repr, empty if it would contain an address, which differs between processes."""
        if type(self.extractor).__repr__ is object.__repr__:
            return ""
        answer: str = self._ask("repr", str, repr, self.extractor)
        return answer

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> None:
        """Fit the surrogate head."""
        with self._running(model):
            self.extractor.fit(model, loader)

    def _running(self, model: nn.Module) -> AbstractContextManager[None]:
        return plugin_call(self._label, trusted=self._own, passes=(Exception,), model=model)

    def _ask(self, name: str, wanted: Any, method: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `method` returns, or raise PluginError if it is not of type `wanted`."""
        with plugin_call(self._label, trusted=self._own, passes=(FsboundaryError,)):
            answer = method(*arguments)
        if not isinstance(answer, wanted):
            text = getattr(wanted, "__name__", "LinearHead or None")
            raise PluginError(
                f"{self._label}: {name} is of type {type(answer).__name__}; wanted {text}"
            )
        return answer

    def _read_tensor(self, name: str, value: object) -> Tensor:
        """Return a tensor with its graph, which the extractor cannot write to afterwards."""
        tensor = plain_tensor(self._label, name, value)
        if not tensor.is_floating_point():
            raise PluginError(
                f"{self._label}: {name} has dtype {tensor.dtype}; wanted floating-point numbers"
            )
        return tensor if self._own else tensor.clone()

    def _read_call(self, call: object, features: Tensor) -> LayerCall | None:
        """Return how the layer computed the logits, with `features` as they were returned."""
        if call is None or self._own:
            return call  # type: ignore[return-value]  # the built-in extractor is typed
        if not isinstance(call, LayerCall):
            raise PluginError(
                f"{self._label}: call is of type {type(call).__name__}; wanted LayerCall or None"
            )
        outputs = self._read_tensor("call.outputs", call.outputs)
        size = None if call.size is None else self._read_tensor("call.size", call.size)
        count = call.positions if isinstance(call.positions, int) else 0
        shape = None if size is None else tuple(size.shape)
        if count < 1 or shape != (tuple(features.shape) if count > 1 else None):
            raise PluginError(
                f"{self._label}: call has positions {call.positions!r} and a size of shape "
                f"{shape}; wanted 1 and None, or more and {tuple(features.shape)}"
            )
        return replace(call, features=features, outputs=outputs, size=size)


@torch.no_grad()
def verify_head(
    extractor: FeatureExtractor,
    head: LinearHead,
    features: Tensor,
    logits: Tensor,
    call: LayerCall | None = None,
) -> tuple[Tensor, Residual | None] | None:
    """Return ``W z + b`` (B,K) in float64 after a check that it equals the logits.

    Parameters
    ----------
    extractor : FeatureExtractor
        The plugin, for messages.
    head : LinearHead
        The head that it claims.
    features, logits : Tensor (B, d) and (B, K)
        What it returned.
    call : LayerCall, optional
        How the layer computed the logits. Without it, as many rounded sums are assumed as there
        are features, because the operations between the two are unknown.

    Returns
    -------
    (Tensor (B, K), Residual or None), or None
        The product and the largest residual; None if shapes do not match, which the caller
        reports. Rows that are not finite are ignored.

    Raises
    ------
    HeadMismatchError
        The difference exceeds rounding (:mod:`fsboundary.models.linear_maps`).
    """
    rows = features.shape[:1]
    if (features.shape, logits.shape) != ((*rows, head.num_features), (*rows, head.num_classes)):
        return None
    exact = head.logits(features)
    known = call or LayerCall(
        layer="",
        features=features,
        outputs=logits,
        size=None,
        positions=head.num_features,
        convolution=True,
    )
    tolerance = logit_tolerance(known, head._weight, head._bias, logits)
    worst = largest_residual(exact, logits, tolerance)
    if worst is not None and worst.ratio > 1:
        if call is not None:
            raise head_mismatch(f"layer {call.layer!r}", "W z + b", worst, logits.dtype)
        raise HeadMismatchError(
            f"extractor {extractor!r}: W z + b differs from the model's logits by {worst.size:.3e} "
            f"at row {worst.row}, class {worst.column}; the tolerance there is "
            f"{worst.tolerance:.3e} ({logits.dtype}). Its features are not the input of its head, "
            "or it is a surrogate that does not declare itself one"
        )
    return exact, worst
