"""The feature extractor that every model has: the input of its last linear map."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.models.calling import answer, call, refuse_training, unwrap
from fsboundary.models.head_errors import no_head, not_finite
from fsboundary.models.head_search import KnownHead, find
from fsboundary.models.hooks import watching
from fsboundary.models.linear_maps import Reading
from fsboundary.models.nonnegativity import NonnegativityProver
from fsboundary.plugins.interfaces import FeatureExtractor


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
