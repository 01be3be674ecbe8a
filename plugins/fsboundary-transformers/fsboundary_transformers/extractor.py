"""Feature extractor: image processor, logits, choice of layer, pooling of tokens."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import plugins
from fsboundary_transformers.processing import process_images, processor_options

Pooling = Literal["first", "mean", "patches"]


def pool_tokens(states: Tensor, pooling: Pooling) -> Tensor:
    """Return features (B,d) of tokens (B,T,d), or (B,d,H,W) of a convolutional model."""
    if states.ndim == 4:
        return states.mean(dim=(2, 3))
    if pooling == "first":
        return states[:, 0]
    return (states if pooling == "mean" else states[:, 1:]).mean(dim=1)


@dataclass(frozen=True, eq=False)
class HuggingFace(fsb.FeatureExtractor):
    """Features of a Hugging Face image classifier: the input of its head, or an earlier layer.

    Parameters
    ----------
    size : tuple of int, or None
        Height and width that images are resized to; None keeps their size.
    mean, std : tuple of float
        Values per channel that are subtracted and divided by; one number applies to all channels.
    layer : str or None
        Dotted name of the layer whose output is used; None uses the input of the model's own
        head. The head of a layer is fitted.
    pooling : {"first", "mean", "patches"}
        Tokens of a layer's output that are averaged.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layer: str | None = None
    pooling: Pooling = "first"

    _head_input: fsb.FeatureExtractor = field(
        default_factory=lambda: plugins.create("feature_extractor", "head_input"),
        init=False,
        repr=False,
    )
    _fitted: weakref.WeakKeyDictionary[nn.Module, fsb.LinearHead] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Raise for an unknown pooling."""
        if self.pooling not in ("first", "mean", "patches"):
            wanted = "'first', 'mean' or 'patches'"
            raise fsb.ArgumentError("pooling", repr(self.pooling), wanted, "choose one of these")

    @classmethod
    def like(cls, processor: Any, **options: Any) -> Self:
        """Return an extractor that processes images in [0, 1] like an image processor."""
        return cls(**processor_options(processor), **options)

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted: True with a `layer`."""
        return self.layer is not None

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> Self:
        """Fit the head of a layer to the classes of `model`."""
        if self.layer is None:
            return self
        rows, classes, count = [], [], 0
        with torch.no_grad():
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) else batch
                z, logits = self._states(model, images)
                rows.append(z)
                classes.append(logits.argmax(dim=1))
                count = logits.shape[1]
        self._fitted[model] = fsb.logistic_head(torch.cat(rows), torch.cat(classes), count)
        return self

    def _states(
        self, model: nn.Module, images: Tensor, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        # output_hidden_states=True would leave the library's hooks on the model
        outputs: list[Tensor] = []
        thread = threading.get_ident()

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() != thread:
                return  # the hook sees the passes of all threads
            outputs.append(output if isinstance(output, Tensor) else output[0])

        handle = model.get_submodule(self.layer or "").register_forward_hook(keep)
        try:
            pixels = process_images(images, self.size, self.mean, self.std)
            logits = model(pixels, *additional, **keywords).logits
        finally:
            handle.remove()
        return pool_tokens(outputs[-1], self.pooling), logits

    def features(
        self, model: nn.Module, images: Tensor, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Return features (B,d) and the model's logits (B,K), with the graph kept."""
        if self.layer is not None:
            return self._states(model, images, *additional, **keywords)
        pixels = process_images(images, self.size, self.mean, self.std)
        return self._head_input.features(model, pixels, *additional, **keywords)

    def head(self, model: nn.Module) -> fsb.LinearHead | None:
        """Return the model's own head, or the fitted one; None until it is known."""
        return self._head_input.head(model) if self.layer is None else self._fitted.get(model)

    def domain(self, model: nn.Module) -> fsb.Domain:
        """Return the domain that the model's structure proves for the input of its head."""
        return self._head_input.domain(model) if self.layer is None else fsb.Domain.unbounded()

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return the layer and the processing of the images."""
        description = {
            "images": f"resized to {self.size}, minus {self.mean}, divided by {self.std}"
        }
        if self.layer is None:
            return self._head_input.notes(model) | description
        layer = f"{self.layer}, tokens pooled: {self.pooling}"
        return {"layer": layer, "fitted head": "a logistic regression on its classes"} | description

    def example(self, rows: int, seed: int) -> tuple[nn.Module, Tensor]:
        """Return a tiny vision transformer and images for the conformance suite."""
        from fsboundary_transformers.tiny import tiny_classifier

        return tiny_classifier().eval(), torch.rand(rows, 3, 16, 16)
