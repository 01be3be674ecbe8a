"""Why no head was found, and what to do about it.

The feature extractor that every model has: the input of its last linear map.
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
from fsboundary.models.calling import answer, call, refuse_training, unwrap
from fsboundary.models.head_search import KnownHead, Sighting, Watched, find, watching
from fsboundary.models.linear_maps import Reading
from fsboundary.models.nonnegativity import NonnegativityProver
from fsboundary.plugins.interfaces import FeatureExtractor


def no_head(watched: Watched, output: Tensor, finite: Tensor, asked: str | None) -> HeadError:
    """Return the error for a pass in which no linear map gave the model's output.

    Parameters
    ----------
    watched : Watched
        What the pass showed.
    output : Tensor (B, K)
        What the model returned.
    finite : Tensor (B,), bool
        Which rows of it are finite.
    asked : str or None
        The layer that the user named, if any.
    """
    if asked is not None:
        reason = _asked(watched, output, asked)
    else:
        reason = _probabilities(watched.readings, output[finite])
        reason = reason or _tokens(watched.unread, output.shape[1])
        reason = reason or _changed(watched.readings, output) or _NONE
    return HeadError(f"{reason}. {_last_layers(watched)}")


def not_finite(finite: Tensor) -> HeadError:
    """Return the error for a first batch without a finite row."""
    shown = ", ".join(str(row) for row in range(min(len(finite), 10)))
    more = ", ..." if len(finite) > 10 else ""
    return HeadError(
        f"all {len(finite)} rows of the first batch (rows {shown}{more}) have NaN or infinite "
        "features or logits, so the head cannot be found. Check the images and the model's "
        "weights, or extract a batch with at least one finite row first"
    )


_NONE = (
    "the model has no linear head: none of the linear layers or 1x1 convolutions that ran gave "
    "its output. fsboundary needs logits that are W z + b of one flat feature vector z, with "
    "nothing but a reshape, an average over space or a softmax after it; the map must be an "
    "nn.Linear or a 1x1 nn.Conv module"
)


def _asked(watched: Watched, output: Tensor, asked: str) -> str:
    calls = [r for r in watched.readings if r.layer == asked]
    seen = [s for s in watched.unread if s.layer == asked]
    if seen and not calls:
        return (
            f"head={asked!r} took shape {seen[-1].taken}, not one flat vector an image: pool "
            "tokens or positions before it, or name another layer"
        )
    if not calls:
        return (
            f"head={asked!r} was not called as a linear layer in the forward pass: name the "
            "nn.Linear or 1x1 convolution that gives the logits, or leave head out"
        )
    if calls[-1].outputs.shape != output.shape:
        return (
            f"head={asked!r} gave shape {tuple(calls[-1].outputs.shape)} but the model returned "
            f"{tuple(output.shape)}: name the layer that gives the logits, or leave head out"
        )
    return (
        f"head={asked!r} gave other numbers than the model returned "
        f"({_distance(calls[-1], output)}): name the layer that gives the logits, or leave head out"
    )


def _distance(reading: Reading, output: Tensor) -> str:
    difference = (reading.outputs.double() - output.double()).abs().nan_to_num(0.0, 0.0)
    return f"largest difference {float(difference.detach().max()):.3g}"


def _probabilities(readings: Sequence[Reading], output: Tensor) -> str:
    if bool((output < 0).any()) or bool((output > 1).any()):
        return ""
    for reading in readings:
        if reading.outputs.shape == output.shape and torch.allclose(
            reading.outputs.sigmoid().to(output.dtype), output, atol=1e-3
        ):
            return (
                f"the model returns the sigmoid of layer {reading.layer!r}, one probability a "
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


def _tokens(unread: Sequence[Sighting], classes: int) -> str:
    calls = [s for s in unread if s.given is not None and classes in s.given[1:]]
    if not calls:
        return ""
    return (
        f"the last linear layer with {classes} outputs, {calls[-1].layer!r}, took shape "
        f"{calls[-1].taken}, not one flat vector an image (token features). Pool the tokens "
        "before the last linear layer, or wrap the model in a module that does"
    )


def _changed(readings: Sequence[Reading], output: Tensor) -> str:
    alike = [r for r in readings if r.outputs.shape == output.shape]
    if not alike:
        return ""
    bounded = bool((output >= 0).all()) and bool((output <= 1).all())
    hint = ". The outputs lie in [0, 1], as probabilities do: return the logits" if bounded else ""
    return (
        "the model has no linear head: the last linear layer with outputs of the right shape, "
        f"{alike[-1].layer!r}, gave other numbers than the model returned "
        f"({_distance(alike[-1], output)}). An activation, a scale, a maximum or an average with "
        "another head after it makes the logits something else than W z + b; return that layer's "
        "own output, or fold the scale into its weights"
        f"{hint}"
    )


def _last_layers(watched: Watched) -> str:
    if not watched.last:
        return "No layer was seen running (is the model built of nn.Module layers?)"
    return f"The last layers seen were {'; '.join(str(s) for s in watched.last)}"


@final
class HeadInput(FeatureExtractor):
    """Features are the input of the model's last linear map, its head.

    The head is found by watching the first forward pass: the linear layer or 1x1 convolution
    whose output, directly, flattened or averaged over space, is the model's. A softmax or
    log-softmax after it is seen through. On every batch ``W z + b`` is then checked against the
    model's logits (the tolerance is stated in
    :mod:`fsboundary.models.linear_maps`). The model is called as it is: nothing of it
    is moved or changed, and no hook stays on it.

    Parameters
    ----------
    head : nn.Module or str, optional
        The layer, or its dotted name; found where it is not given. It is verified all the same.
    """

    def __init__(self, head: nn.Module | str | None = None) -> None:
        self._head = head
        self._known: weakref.WeakKeyDictionary[nn.Module, KnownHead] = weakref.WeakKeyDictionary()

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        """Return features (B,d) and logits (B,K) of `images`, with the graph kept.

        Raises
        ------
        HeadError
            The model is in training mode, has no linear head, or returns something else than
            logits; the message says what to do.
        HeadMismatchError
            ``W z + b`` is not what the model computes, or the head's weights changed.
        """
        return self.graded(model, images, *additional)[:2]

    def graded(
        self, model: nn.Module, images: Tensor, *additional: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return also the detached float64 ``W z + b`` (B,K), which the check computes anyway."""
        inner = unwrap(model)
        refuse_training(inner)
        known = self._known.get(inner)
        if known is None:
            return self._first(model, inner, images, additional)
        module = inner.get_submodule(known.layer)
        known.refuse_changes(module)
        with watching([(known.layer, module)], len(images)) as watched:
            output = call(inner, images, additional)
        reading = known.pick(watched.readings)
        output = answer(output, len(images))
        return _answer(known, reading, output)

    def _first(
        self, model: nn.Module, inner: nn.Module, images: Tensor, additional: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(inner, torch.jit.ScriptModule):
            raise HeadError(
                "the model is a TorchScript module, whose layers cannot be watched. Pass the "
                "nn.Module that it was made from"
            )
        if len(images) == 0:
            raise HeadError("the head is not known yet: extract a batch with at least one image")
        asked = None if self._head is None else _name_of(self._head, model, inner)
        modules = dict(inner.named_modules())
        prover = NonnegativityProver()
        with watching(modules.items(), len(images), prover) as watched, prover:
            raw = call(inner, images, additional)
        output = answer(raw, len(images))
        finite = torch.isfinite(output.detach()).all(dim=1)
        if not bool(finite.any()):
            raise not_finite(finite)
        readings = [r for r in watched.readings if asked in (None, r.layer)]
        match = find(readings, modules, output, finite)
        if match is None:
            raise no_head(watched, output, finite, asked)
        known = KnownHead.of(match, modules[match.reading.layer])
        found = _answer(known, match.reading, output)
        self._known[inner] = known
        return found

    def head(self, model: nn.Module) -> LinearHead | None:
        """Return the head, without a domain; None before the first batch."""
        known = self._known.get(unwrap(model))
        return None if known is None else known.head

    def domain(self, model: nn.Module) -> Domain:
        """Return the nonnegative domain where the first pass proved it, else no bounds."""
        known = self._known.get(unwrap(model))
        return Domain.nonnegative() if known is not None and known.proof else Domain.unbounded()

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return the layer, what it is, the proof of its domain, the link and the residual."""
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
            "residual": "{:.3g} (tolerance {:.3g})".format(*known.worst or (0.0, 0.0)),
        }

    def __repr__(self) -> str:
        # head= says where to look and not what the features are, so fingerprints leave it out
        return "HeadInput()"


def _answer(known: KnownHead, reading: Reading, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, logits and ``W z + b`` after verification."""
    exact = known.verify(reading, output)
    return reading.features, output if known.link == "identity" else reading.outputs, exact


def _name_of(head: nn.Module | str, model: nn.Module, inner: nn.Module) -> str:
    """Return the dotted name, inside the unwrapped model, of the layer that the user gave."""
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
