"""Fitting a surrogate head, and how often it agrees with the model on images it never saw."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError, PluginError
from fsboundary.models.images import check_images, rows_of
from fsboundary.plugins.interfaces import FeatureExtractor

_SHARE = 5
"""One image in so many is held out."""


@final
@dataclass(frozen=True, slots=True)
class Fidelity:
    """How often a surrogate head chooses the model's class, on `count` held-out images."""

    agreed: int
    count: int

    @property
    def share(self) -> float:
        """The share of held-out images on which they agree."""
        return self.agreed / self.count

    def __str__(self) -> str:
        return f"{self.share:.4g}: share of {self.count} held-out images with the model's class"


def fitted(
    extractor: FeatureExtractor,
    model: nn.Module,
    loader: Iterable[Any],
    prepare: Callable[[Tensor], Tensor],
) -> Fidelity:
    """Fit `extractor` on four fifths of the images and return its fidelity on the others.

    An image's own pixels decide whether it is held out, so a loader that shuffles, or that draws
    an image twice, never shows an extractor what it will be judged by.

    Parameters
    ----------
    loader : iterable
        Batches of images, or tuples of images and more; drawn several times.
    prepare : callable
        From the user's images to the model's.

    Raises
    ------
    ArgumentError
        Batches of another kind, or so few images that none is held out or none is left.
    PluginError
        The extractor has no head although it was fitted.
    """
    drawn = list(loader) if isinstance(loader, Iterator) else loader
    extractor.fit(model, _Part(drawn, prepare, held=False))
    agreed = count = 0
    with torch.no_grad():
        for batch in _Part(drawn, prepare, held=True):
            images = batch[0] if isinstance(batch, tuple) else batch
            features, logits = extractor.features(model, images)
            head = extractor.head(model)
            if head is None:
                raise PluginError(f"extractor {extractor!r} has no head although it was fitted")
            same = head.predict(features) == logits.argmax(dim=1)
            agreed, count = agreed + int(same.sum()), count + len(same)
    if count == 0:
        raise _too_few("none of them was held out")
    return Fidelity(agreed, count)


@final
class _Part:
    """The held-out images of a loader, or the others; may be drawn any number of times."""

    def __init__(
        self, loader: Iterable[Any], prepare: Callable[[Tensor], Tensor], held: bool
    ) -> None:
        self._loader, self._prepare, self._held = loader, prepare, held

    def __iter__(self) -> Iterator[Any]:
        some = False
        for batch in self._loader:
            several = isinstance(batch, tuple | list)
            images = batch[0] if several else batch
            check_images(images)
            mask = torch.tensor([_is_held_out(image) for image in images], dtype=torch.bool)
            kept = (mask == self._held).nonzero()[:, 0]
            if not len(kept):
                continue
            some = True
            chosen = self._prepare(images[kept.to(images.device)])
            more = rows_of(tuple(batch[1:]), len(images), kept) if several else ()
            yield (chosen, *more) if several else chosen
        if not (some or self._held):
            raise _too_few("none was left to fit on")


def _is_held_out(image: Tensor) -> bool:
    raw = image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.blake2b(raw.data, digest_size=8).digest()
    return int.from_bytes(digest, "big") % _SHARE == 0


def _too_few(why: str) -> ArgumentError:
    wanted = f"some dozens of different images: one in {_SHARE} is held out to judge the head"
    return ArgumentError("loader", f"too few images: {why}", wanted, "give more images")
