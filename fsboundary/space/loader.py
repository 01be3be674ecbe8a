"""What a loader gives: batches of images, perhaps with labels, in a known order.

Where the features of images come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from tqdm import tqdm

from fsboundary.banks import BankInfo
from fsboundary.banks.checks import checked_labels
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.models.images import check_images

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A batch as the loader gave it, and the number of its first row.

    Attributes
    ----------
    start : int
        How many rows came before.
    images : Tensor (m, ...)
        At least one.
    labels : Tensor (m,) or None
        Int64.
    """

    start: int
    images: Tensor
    labels: Tensor | None

    @property
    def stop(self) -> int:
        """The number of the first row behind it."""
        return self.start + len(self.images)

    def digest(self) -> str:
        """Return the SHA-256 of images and labels, with their shapes and dtypes."""
        found = hashlib.sha256()
        for value in (self.images, self.labels):
            if value is not None:
                found.update(f"{value.dtype} {tuple(value.shape)} ".encode())
                raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
                found.update(raw.numpy().data)
        return found.hexdigest()


def batches(loader: Iterable[Any], show_progress: bool) -> Iterator[Drawn]:
    """Yield the loader's batches, checked; those without rows are skipped.

    Raises
    ------
    ArgumentError
        No batch at all, or one that is not images or (images, labels) throughout.
    """
    start, labelled = 0, False
    for batch in tqdm(loader, unit="batch", disable=not show_progress):
        images, labels = _parts(batch)
        check_images(images)
        if len(images) == 0:
            continue
        classes = None if labels is None else checked_labels(labels, len(images)).cpu()
        if start and labelled != (classes is not None):
            wanted = "labels with every batch, or with none"
            fix = "let the loader yield (images, labels) throughout"
            raise ArgumentError("loader", f"a change at row {start}", wanted, fix)
        labelled = classes is not None
        yield Drawn(start, images, classes)
        start += len(images)
    if start == 0:
        fix = "pass a DataLoader or a list; an iterator gives its batches once only"
        raise ArgumentError("loader", "no images", "one batch at least", fix)


def check_loader(loader: object) -> None:
    """Raise ArgumentError unless `loader` can be iterated over and is no tensor."""
    if not isinstance(loader, Iterable) or isinstance(loader, Tensor):
        fix = "pass a DataLoader, or a list of batches; a tensor goes to extract(images)"
        got = f"a {type(loader).__name__}"
        raise ArgumentError("loader", got, "an iterable of batches", fix)


def refuse_shuffling(loader: object) -> None:
    """Raise ArgumentError if `loader` is known to give another order each time."""
    within = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), within, getattr(within, "sampler", None)):
        # DistributedSampler shuffles too, by default, and says so
        if isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False) is True:
            got = f"a {type(loader).__name__} with a {type(sampler).__name__}"
            wanted = "the same order each time: a bank on disk can be resumed in that order only"
            fix = "pass shuffle=False, or leave out path to build the bank in memory"
            raise ArgumentError("loader", got, wanted, fix)


def _parts(batch: object) -> tuple[Any, Any]:
    """Return images and labels (or None) of one batch."""
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    got = f"a batch that is a {type(batch).__name__}"
    if isinstance(batch, list | tuple):
        got += f" of {len(batch)}"
    fix = "wrap the loader in a generator function, or a class with __iter__, that yields these"
    raise ArgumentError("loader", got, "images, or (images, labels)", fix)


@final
@dataclass(frozen=True, slots=True)
class Source:
    """A feature space, as far as a bank needs it.

    Attributes
    ----------
    extract : callable
        Images (m, ...) to features (m,d), in one batch: the same images give the same bits only
        in the same company.
    about : callable
        The space's BankInfo, once some features were extracted.
    """

    extract: Callable[[Tensor], Tensor]
    about: Callable[[], BankInfo]

    def features(self, batch: Drawn) -> Tensor:
        """Return the features (m,d) of a batch, float32 or float64.

        Raises
        ------
        DataError
            Features are NaN or infinite; the message says which images'.
        """
        features = self.extract(batch.images)
        bad = (~torch.isfinite(features).all(dim=1)).nonzero()[:, 0] + batch.start
        if len(bad):
            shown = ", ".join(map(str, bad[:20].tolist())) + (", .." if len(bad) > 20 else "")
            raise DataError(
                f"loader: NaN or infinite features of {len(bad)} images, at rows {shown} (counted "
                "from 0). Leave these images out or mend them, and call again: on disk, whole "
                "chunks before them are kept"
            )
        return features if features.dtype == torch.float64 else features.to(torch.float32)
