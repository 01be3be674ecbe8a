"""Feature extractor "head_input": features are the input of the model's last linear map.

If no head is found, the error explains the reason and what to do about it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.models.calling import call, extract_logits, require_eval_mode, unwrap
from fsboundary.models.head_search import (
    CallSummary,
    ForwardTrace,
    VerifiedHead,
    find_head_call,
    trace_linear_layers,
)
from fsboundary.models.inputs import num_rows
from fsboundary.models.intervals import IntervalProver
from fsboundary.models.linear_maps import LayerCall
from fsboundary.plugins.interfaces import FeatureExtractor


def _no_head_error(
    trace: ForwardTrace, output: Tensor, finite: Tensor, layer_name: str | None
) -> HeadError:
    """Return the error for a pass in which no linear map gave the model's output.

    Parameters
    ----------
    trace : ForwardTrace
        Layer calls of the pass.
    output : Tensor (B, K)
        Output of the model.
    finite : Tensor (B,), bool
        Mask of the finite rows of `output`.
    layer_name : str or None
        Layer that the user named, if any.
    """
    if layer_name is not None:
        reason = _explain_named_layer(trace, output, layer_name)
    else:
        reason = _explain_probabilities(trace.calls, output[finite])
        reason = reason or _explain_tokens(trace.unreadable, output.shape[1])
        reason = reason or _explain_changed_output(trace.calls, output) or _NO_LINEAR_HEAD
    return HeadError(f"{reason}. {_list_last_layers(trace)}")


def _not_finite_error(finite: Tensor) -> HeadError:
    """Return the error for a first batch without a finite row."""
    shown = ", ".join(str(row) for row in range(min(len(finite), 10)))
    more = ", ..." if len(finite) > 10 else ""
    return HeadError(
        f"all {len(finite)} rows of the first batch (rows {shown}{more}) have NaN or infinite "
        "features or logits, so the head cannot be found. Check the images and the model's "
        "weights, or extract a batch with at least one finite row first"
    )


_NO_LINEAR_HEAD = (
    "the model has no linear head: none of the linear layers or 1x1 convolutions that ran gave "
    "its output. fsboundary needs logits that are W z + b of one flat feature vector z, with "
    "only a reshape, an average over space or a softmax after it; the map must be an "
    "nn.Linear or a 1x1 nn.Conv module"
)


def _explain_named_layer(trace: ForwardTrace, output: Tensor, layer_name: str) -> str:
    calls = [c for c in trace.calls if c.layer == layer_name]
    unreadable = [s for s in trace.unreadable if s.layer == layer_name]
    if unreadable and not calls:
        return (
            f"head={layer_name!r} took shape {unreadable[-1].input_shape}, not one flat vector per "
            "image: pool tokens or positions before it, or name another layer"
        )
    if not calls:
        return (
            f"head={layer_name!r} was not called as a linear layer in the forward pass: name the "
            "nn.Linear or 1x1 convolution that gives the logits, or leave head out"
        )
    if calls[-1].outputs.shape != output.shape:
        return (
            f"head={layer_name!r} gave shape {tuple(calls[-1].outputs.shape)} but the model "
            f"returned {tuple(output.shape)}: name the layer that gives the logits, or leave head "
            "out"
        )
    return (
        f"head={layer_name!r} gave other numbers than the model returned "
        f"({_largest_difference(calls[-1], output)}): name the layer that gives the logits, or "
        "leave head out"
    )


def _largest_difference(layer_call: LayerCall, output: Tensor) -> str:
    difference = (layer_call.outputs.double() - output.double()).abs().nan_to_num(0.0, 0.0)
    return f"largest difference {float(difference.detach().max()):.3g}"


def _explain_probabilities(calls: Sequence[LayerCall], output: Tensor) -> str:
    if bool((output < 0).any()) or bool((output > 1).any()):
        return ""
    for layer_call in calls:
        if layer_call.outputs.shape == output.shape and torch.allclose(
            layer_call.outputs.sigmoid().to(output.dtype), output, atol=1e-3
        ):
            return (
                f"the model returns the sigmoid of layer {layer_call.layer!r}, one probability per "
                "label: labels that do not exclude each other have no common decision regions. If "
                "the classes do exclude each other, return the logits instead of their sigmoid"
            )
    if bool(((output.to(torch.float64).sum(dim=1) - 1).abs() > 1e-2).any()):
        return ""
    return (
        "the model returns numbers in [0, 1] that sum to 1 in every row: they look like "
        "probabilities, and no linear layer gave their logits. Let the model return the logits, "
        "before any softmax"
    )


def _explain_tokens(unreadable: Sequence[CallSummary], classes: int) -> str:
    calls = [s for s in unreadable if s.output_shape is not None and classes in s.output_shape[1:]]
    if not calls:
        return ""
    return (
        f"the last linear layer with {classes} outputs, {calls[-1].layer!r}, took shape "
        f"{calls[-1].input_shape}, not one flat vector per image (token features). Pool the tokens "
        "before the last linear layer, or wrap the model in a module that does"
    )


def _explain_changed_output(calls: Sequence[LayerCall], output: Tensor) -> str:
    candidates = [c for c in calls if c.outputs.shape == output.shape]
    if not candidates:
        return ""
    bounded = bool((output >= 0).all()) and bool((output <= 1).all())
    hint = ". The outputs lie in [0, 1], as probabilities do: return the logits" if bounded else ""
    return (
        "the model has no linear head: the last linear layer with outputs of the right shape, "
        f"{candidates[-1].layer!r}, gave other numbers than the model returned "
        f"({_largest_difference(candidates[-1], output)}). An activation, a scale, a maximum or an "
        "average with another head after it makes the logits something other than W z + b; return "
        "the layer's output itself, or fold the scale into its weights"
        f"{hint}"
    )


def _list_last_layers(trace: ForwardTrace) -> str:
    if not trace.last:
        return "No layer was seen (is the model built of nn.Module layers?)"
    return f"The last layers seen were {'; '.join(str(s) for s in trace.last)}"


@final
class HeadInput(FeatureExtractor):
    """Features are the input of the model's last linear map, its head.

    The head is found by tracing the first forward pass: it is the linear layer or 1x1 convolution
    whose output, directly, flattened or averaged over space, is the model's. A softmax or
    log-softmax may follow it. On every batch ``W z + b`` is then checked against the model's
    logits (for the tolerance see :mod:`fsboundary.models.linear_maps`). The model is called
    unchanged: it is never moved or modified, and all hooks are removed.

    Parameters
    ----------
    head : nn.Module or str, optional
        Layer or its dotted name; found automatically by default. It is verified in any case.
    """

    def __init__(self, head: nn.Module | str | None = None) -> None:
        self._head = head
        self._known: weakref.WeakKeyDictionary[nn.Module, VerifiedHead] = (
            weakref.WeakKeyDictionary()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling and copying: verified heads stay with this object."""
        return {"_head": self._head}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew: the head is found again with the first batch."""
        HeadInput.__init__(self, state["_head"])

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
        self._known[unwrap(model)].verify(head_call, logits)
        return features, logits

    def features_and_call(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor, LayerCall]:
        """Return features, logits and the call of the head, whose product the core verifies."""
        inner = unwrap(model)
        require_eval_mode(inner)
        known = self._unchanged_head(inner)
        if known is None:
            return self._find_head(model, inner, inputs, additional, keywords)
        rows = num_rows((inputs, additional, keywords))
        module = inner.get_submodule(known.layer)
        with trace_linear_layers([(known.layer, module)], rows) as trace:
            output = call(inner, inputs, additional, keywords)
        head_call = known.select_call(trace.calls)
        output = extract_logits(output, rows)
        return head_call.features, known.verify_link(head_call, output), head_call

    def _find_head(
        self,
        model: nn.Module,
        inner: nn.Module,
        inputs: Any,
        additional: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> tuple[Tensor, Tensor, LayerCall]:
        if isinstance(inner, torch.jit.ScriptModule):
            raise HeadError(
                "the model is a TorchScript module, whose layers cannot be traced. Pass the "
                "nn.Module that it was made from"
            )
        rows = num_rows((inputs, additional, keywords))
        if rows == 0:
            raise HeadError("the head is not known yet: extract a batch with at least one example")
        layer_name = None if self._head is None else _layer_name(self._head, model, inner)
        modules = dict(inner.named_modules())
        prover = IntervalProver()
        with trace_linear_layers(modules.items(), rows, prover) as trace, prover:
            raw = call(inner, inputs, additional, keywords)
        output = extract_logits(raw, rows)
        finite = torch.isfinite(output.detach()).all(dim=1)
        if not bool(finite.any()):
            raise _not_finite_error(finite)
        calls = [c for c in trace.calls if layer_name in (None, c.layer)]
        match = find_head_call(calls, modules, output, finite)
        if match is None:
            raise _no_head_error(trace, output, finite, layer_name)
        known = VerifiedHead.of(match, inner)
        logits = known.verify_link(match.call, output)
        # before the head is kept: a head that fails is not known
        known.verify(match.call, logits)
        self._known[inner] = known
        return match.call.features, logits, match.call

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
        """Return the nonnegative domain if the first pass proved it, else the unbounded one."""
        known = self._known.get(unwrap(model))
        return Domain.nonnegative() if known is not None and known.proof else Domain.unbounded()

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return layer, class, features, link, proof of the domain and residual, as text."""
        known = self._known.get(unwrap(model))
        if known is None:
            return {}
        features = "mean over space of the layer's input" if known.pooled else "the layer's input"
        link = {"identity": "none: the model returns its logits"}.get(
            known.link, f"{known.link}: logits are the layer's own outputs, before it"
        )
        return {
            "layer": known.layer or "(the model itself)",
            "layer class": known.kind,
            "features": features,
            "link": link,
            "proof": known.proof and f"the features come from {known.proof}",
        }

    def __repr__(self) -> str:
        # head= selects where to search and not the features, so fingerprints ignore it
        return "HeadInput()"


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
