"""Feature extractor "head_input": features are what the model's last linear map is applied to.

If no head is found, the error explains the reason and what to do about it.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, final

from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.models.calling import call, call_arguments, require_eval_mode, unwrap
from fsboundary.models.head_search.find import find_head
from fsboundary.models.head_search.passes import read_pass
from fsboundary.models.head_search.search import HeadSearch
from fsboundary.models.head_search.verified_head import VerifiedHead
from fsboundary.models.inputs import num_rows
from fsboundary.models.linear_maps import LayerCall
from fsboundary.models.structures import leaves_of, modules_of
from fsboundary.plugins.interfaces import FeatureExtractor


@final
class HeadInput(FeatureExtractor):
    """Features are what the model's last linear map, its head, is applied to.

    The head is found by tracing the first forward pass: from the logits back through affine
    operations to the last product with weights on each path. Weight and bias are composed of all
    of them, so a temperature, a scale, a normalisation, an average or a mean of several heads may
    follow the product; of positions that are only averaged, the average is the feature. A softmax
    or log-softmax may follow the logits. On every batch ``W z + b`` is then checked against the
    model's logits (for the tolerance see :mod:`fsboundary.models.linear_maps`). The model is called
    unchanged: it is never moved or modified.

    Parameters
    ----------
    head : nn.Module or str, optional
        Layer, or its dotted name, whose input is the feature vector; by default, the last linear
        map. It is verified in any case.
    output : str or int, optional
        Which part of the model's output is the logits: a key, an attribute or a position, joined
        by dots where nested. By default the only part that a linear head gives.
    multi_label : bool
        Whether the outputs are separate labels instead of classes that exclude each other, so that
        a sigmoid may follow the logits instead of a softmax.
    """

    def __init__(
        self,
        head: nn.Module | str | None = None,
        output: str | int | None = None,
        multi_label: bool = False,
    ) -> None:
        self._separate = multi_label
        self._head, self._output = head, None if output is None else str(output)
        self._known: weakref.WeakKeyDictionary[nn.Module, VerifiedHead] = (
            weakref.WeakKeyDictionary()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling and copying: verified heads stay with this object."""
        return {n: getattr(self, n) for n in ("_head", "_output", "_separate")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew: the head is found again with the first batch."""
        HeadInput.__init__(self, *state.values())

    def features(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the features (B,d) and logits (B,K) of `inputs`, with the graph kept.

        Raises
        ------
        HeadError
            The model is in training mode, has no linear head, or returns something other than
            logits; the message says what to do.
        HeadMismatchError
            ``W z + b`` is not what the model computes, or the head's weights changed.
        """
        features, logits, head_call = self.features_and_call(model, inputs, *additional, **keywords)
        known = self._known[unwrap(model)]
        known.verify_unchanged(unwrap(model))
        known.verify(head_call, logits)
        return features, logits

    def features_and_call(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor, LayerCall]:
        """Return features, logits and how they were computed.

        The core asks for the head afterwards, which raises if it changed, and verifies the product.
        """
        inner = unwrap(model)
        modules = modules_of(inner).values()
        require_eval_mode(inner, modules=modules)
        known = self._known.get(inner)
        given = call_arguments(inner, inputs, additional, keywords)
        rows = num_rows((inputs, additional, keywords))
        search = HeadSearch(
            inner,
            lambda: call(inner, inputs, additional, keywords),
            _tensors(given),
            rows,
            self._separate,
            modules,
        )
        if known is not None:
            try:
                return read_pass(known, search, rows)
            except HeadError:
                known.verify_unchanged(inner)  # raises where that is the reason
                raise
        if rows == 0:
            raise HeadError("the head is not known yet: extract a batch with at least one example")
        layer_name = None if self._head is None else _layer_name(self._head, model, inner)
        known, traced = find_head(inner, search, rows, layer_name, self._output)
        found = read_pass(known, search, rows, traced)
        # before the head is kept: a head that fails is not known
        known.verify(found[2], found[1])
        known.verify_unchanged(inner)
        self._known[inner] = known
        return found

    def head(self, model: nn.Module) -> LinearHead | None:
        """Return the head, without a domain; None before the first batch.

        Raises
        ------
        HeadMismatchError
            The head changed since it was found, or the modules that prove its domain.
        """
        known = self._unchanged_head(unwrap(model))
        return None if known is None else known.head

    def _unchanged_head(self, inner: nn.Module) -> VerifiedHead | None:
        """Return the head, None before the first batch, or raise if it is not the model's now."""
        known = self._known.get(inner)
        if known is not None:
            known.verify_unchanged(inner)
        return known

    def domain(self, model: nn.Module) -> Domain:
        """Return the limits of the features that the first pass proved."""
        known = self._known.get(unwrap(model))
        return Domain.unbounded() if known is None else known.domain()

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return layer, class, features, link, proof of the domain and residual, as text."""
        known = self._known.get(unwrap(model))
        if known is None:
            return {}
        features = "mean over space of the layer's input" if known.pooled else "the layer's input"
        features += _SPHERE[known.sphere]
        link = {"identity": "none: the model returns its logits"}.get(
            known.link, f"{known.link}: logits are the layer's own outputs, before it"
        )
        return {
            "layer": known.layer,
            "layer class": known.kind,
            "features": features,
            "link": link,
            "proof": known.reason and f"the features come from {known.reason}",
        }

    def __repr__(self) -> str:
        # head= selects where to search and not the features, so fingerprints ignore it
        return "HeadInput()"


_SPHERE = {
    "": "",
    "cones": ", before its normalisation: decision regions are cones, the same with and without it",
    "bound": (
        ", on a sphere: the biases differ, so regions are no cones, and points off the sphere "
        "count as features (bounds hold, flip points may lie off it)"
    ),
}


def _layer_name(head: nn.Module | str, model: nn.Module, inner: nn.Module) -> str:
    """Return the dotted name, in the unwrapped model, of the layer that the user passed."""
    module = head if isinstance(head, nn.Module) else _submodule(head, inner, model)
    names: list[str] = [name for name, m in inner.named_modules() if m is module]
    if names:
        return names[0]
    known = [n for n, m in inner.named_modules() if isinstance(m, nn.Linear)][-5:]
    raise ArgumentError(
        "head",
        repr(head) if isinstance(head, str) else f"a {type(head).__name__}",
        "a layer of the model, or its dotted name",
        f"choose one of the model's last linear layers, {known}, or leave head out",
    )


def _submodule(name: str, *roots: nn.Module) -> nn.Module | None:
    """Return the submodule of that name in the first of `roots` that has it."""
    for root in roots:
        with contextlib.suppress(AttributeError):
            return root.get_submodule(name)
    return None


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in leaves_of(values) if isinstance(t, Tensor)]
