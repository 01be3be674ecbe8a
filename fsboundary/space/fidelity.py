"""Surrogate heads: fitting, and fidelity to the model on held-out examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError, PluginError
from fsboundary.models.inputs import ModelArguments, model_arguments
from fsboundary.models.structures import leaves_of
from fsboundary.plugins.grading.extractors import GuardedExtractor
from fsboundary.space.loaders import split_batch

_HELD_OUT_EVERY = 5
"""One example in this many is held out."""


@final
@dataclass(frozen=True, slots=True)
class Fidelity:
    """Agreement of a surrogate head with the model's class on `count` held-out examples."""

    num_agree: int
    count: int

    @property
    def fraction(self) -> float:
        """Fraction of the held-out examples on which they agree."""
        return self.num_agree / self.count

    def __str__(self) -> str:
        return (
            f"{self.fraction:.4g}: fraction of {self.count} held-out examples with the model's "
            "class"
        )


def fit_surrogate(
    extractor: GuardedExtractor,
    model: nn.Module,
    loader: Iterable[Any],
    prepare: Callable[[Any], Any],
) -> Fidelity:
    """Fit `extractor` on four fifths of the examples and return its fidelity on the others.

    A digest of its inputs decides whether an example is held out. A loader that shuffles or repeats
    examples therefore never shows the extractor an example that it is evaluated on.

    Parameters
    ----------
    extractor : GuardedExtractor
        Extractor with a surrogate head.
    model : nn.Module
        Model that the head approximates.
    loader : iterable
        Batches of inputs, or tuples of inputs and more; iterated over several times.
    prepare : callable
        Function from the user's inputs to the model's.

    Raises
    ------
    ArgumentError
        Batches of another kind, or so few examples that none is held out or none is left.
    PluginError
        The extractor has no head although it was fitted.
    """
    batches = list(loader) if isinstance(loader, Iterator) else loader
    extractor.fit(model, _Subset(model, batches, prepare, held_out=False))
    num_agree = count = 0
    with torch.no_grad():
        for batch in _Subset(model, batches, prepare, held_out=True):
            inputs = batch[0] if isinstance(batch, tuple) else batch
            features, logits, _ = extractor.run(model, inputs)
            head = extractor.head(model)
            if head is None:
                raise PluginError(
                    f"extractor {extractor.extractor!r} has no head although it was fitted"
                )
            same = head.predict(features) == logits.argmax(dim=1)
            num_agree, count = num_agree + int(same.sum()), count + len(same)
    if count == 0:
        raise _too_few("none of them was held out")
    return Fidelity(num_agree, count)


@final
class _Subset:
    """The held-out examples of a loader, or the others; can be iterated over repeatedly."""

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        prepare: Callable[[Any], Any],
        held_out: bool,
    ) -> None:
        self._model, self._loader = model, loader
        self._prepare, self._held_out = prepare, held_out

    def __iter__(self) -> Iterator[Any]:
        any_examples = False
        for batch in self._loader:
            is_tuple = isinstance(batch, tuple | list)
            inputs = batch[0] if is_tuple else split_batch(batch)[0]
            more = tuple(batch[1:]) if is_tuple else ()
            arguments = model_arguments(self._model, inputs, more)
            for same_shape in arguments.batches(max(arguments.rows, 1)):
                mask = torch.tensor(_held_out_rows(same_shape), dtype=torch.bool)
                rows = (mask == self._held_out).nonzero()[:, 0]
                if not len(rows):
                    continue
                any_examples = True
                chosen = same_shape.take(rows.to(arguments.device))
                prepared = self._prepare(chosen.inputs)
                yield (prepared, *chosen.additional) if is_tuple else prepared
        if not (any_examples or self._held_out):
            raise _too_few("none was left to fit on")


def _held_out_rows(batch: ModelArguments) -> list[bool]:
    """Return for each example whether the digest of its inputs holds it out."""
    tensors = [leaf for leaf in leaves_of(batch.inputs) if isinstance(leaf, Tensor) and leaf.ndim]
    digests = [hashlib.blake2b(digest_size=8) for _ in range(batch.rows)]
    for tensor in tensors:
        for digest, row in zip(digests, tensor.detach().cpu(), strict=True):
            digest.update(row.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return [int.from_bytes(d.digest(), "big") % _HELD_OUT_EVERY == 0 for d in digests]


def _too_few(why: str) -> ArgumentError:
    wanted = (
        f"dozens of different examples: one in {_HELD_OUT_EVERY} is held out to evaluate the head"
    )
    return ArgumentError("loader", f"too few examples: {why}", wanted, "pass more examples")
