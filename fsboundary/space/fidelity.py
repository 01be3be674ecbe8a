"""Surrogate heads: fitting, and fidelity to the model on held-out images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError, PluginError
from fsboundary.models.inputs import check_images, slice_arguments
from fsboundary.plugins.grading.extractors import GuardedExtractor

_HELD_OUT_EVERY = 5
"""One image in this many is held out."""


@final
@dataclass(frozen=True, slots=True)
class Fidelity:
    """Agreement of a surrogate head with the model's class on `count` held-out images."""

    num_agree: int
    count: int

    @property
    def fraction(self) -> float:
        """Fraction of the held-out images on which they agree."""
        return self.num_agree / self.count

    def __str__(self) -> str:
        return (
            f"{self.fraction:.4g}: fraction of {self.count} held-out images with the model's class"
        )


def fit_surrogate(
    extractor: GuardedExtractor,
    model: nn.Module,
    loader: Iterable[Any],
    prepare: Callable[[Tensor], Tensor],
) -> Fidelity:
    """Fit `extractor` on four fifths of the images and return its fidelity on the others.

    A digest of the pixels decides whether an image is held out. A loader that shuffles or repeats
    images therefore never shows the extractor an image that it is evaluated on.

    Parameters
    ----------
    extractor : GuardedExtractor
        Extractor with a surrogate head.
    model : nn.Module
        Model that the head approximates.
    loader : iterable
        Batches of images, or tuples of images and more; iterated over several times.
    prepare : callable
        Function from the user's images to the model's.

    Raises
    ------
    ArgumentError
        Batches of another kind, or so few images that none is held out or none is left.
    PluginError
        The extractor has no head although it was fitted.
    """
    batches = list(loader) if isinstance(loader, Iterator) else loader
    extractor.fit(model, _ImageSubset(batches, prepare, held_out=False))
    num_agree = count = 0
    with torch.no_grad():
        for batch in _ImageSubset(batches, prepare, held_out=True):
            images = batch[0] if isinstance(batch, tuple) else batch
            features, logits, _ = extractor.run(model, images)
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
class _ImageSubset:
    """The held-out images of a loader, or the others; can be iterated over repeatedly."""

    def __init__(
        self, loader: Iterable[Any], prepare: Callable[[Tensor], Tensor], held_out: bool
    ) -> None:
        self._loader, self._prepare, self._held_out = loader, prepare, held_out

    def __iter__(self) -> Iterator[Any]:
        any_images = False
        for batch in self._loader:
            is_tuple = isinstance(batch, tuple | list)
            images = batch[0] if is_tuple else batch
            check_images(images)
            mask = torch.tensor([_is_held_out(image) for image in images], dtype=torch.bool)
            rows = (mask == self._held_out).nonzero()[:, 0]
            if not len(rows):
                continue
            any_images = True
            prepared = self._prepare(images[rows.to(images.device)])
            more = slice_arguments(tuple(batch[1:]), len(images), rows) if is_tuple else ()
            yield (prepared, *more) if is_tuple else prepared
        if not (any_images or self._held_out):
            raise _too_few("none was left to fit on")


def _is_held_out(image: Tensor) -> bool:
    raw = image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.blake2b(raw.data, digest_size=8).digest()
    return int.from_bytes(digest, "big") % _HELD_OUT_EVERY == 0


def _too_few(why: str) -> ArgumentError:
    wanted = (
        f"dozens of different images: one in {_HELD_OUT_EVERY} is held out to evaluate the head"
    )
    return ArgumentError("loader", f"too few images: {why}", wanted, "pass more images")
