"""What a user gives: a model, images, names and labels, read in the order in which they can fail.

All that can be refused without the model is refused before it is made, and the rest before any
pass but that of one image, which shows the number of classes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from torch import nn

from fsboundary import plugins
from fsboundary.core.errors import ArgumentError, DataError, FsboundaryError
from fsboundary.report.inputs.factories import build_model, build_preprocess
from fsboundary.report.inputs.loading import ImageSet, load_images, source_files
from fsboundary.report.inputs.names import ClassNames, read_class_names, read_labels
from fsboundary.report.inputs.sizes import parse_size
from fsboundary.report.inputs.weights import load_weights
from fsboundary.space import FeatureSpace

DomainName = Literal["auto", "unbounded", "nonnegative"]
DOMAINS: tuple[DomainName, ...] = ("auto", "unbounded", "nonnegative")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What was read.

    Attributes
    ----------
    space : FeatureSpace
    images : ImageSet
        Images to study, whose labels are numbered as the model's classes.
    training : ImageSet or None
        Training images, likewise; those of an npz file with both are in `images` too.
    class_names : tuple of str
        K names.
    """

    space: FeatureSpace
    images: ImageSet
    training: ImageSet | None
    class_names: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Arguments of :func:`fsboundary.report.user.run_report` that say what to study."""

    model: str
    data: Path
    weights: Path | None = None
    train: Path | None = None
    preprocess: str | None = None
    head: str | None = None
    domain: str = "auto"
    labels: Path | None = None
    size: str | None = None
    class_names: Path | None = None
    extractor: str = "head_input"
    extractor_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 256
    module_folder: Path | None = None

    def files(self) -> Iterator[Path]:
        """Yield the files that are read, those of imported modules included."""
        for path in (self.data, self.train):
            if path is not None:
                yield from source_files(path)
        yield from (p for p in (self.weights, self.labels, self.class_names) if p is not None)
        for module in list(sys.modules.values()):
            file = getattr(module, "__dict__", {}).get("__file__")
            if isinstance(file, str):
                yield Path(file)

    def read(self) -> Inputs:
        """Read images, names and labels, then make the model, and check that they fit.

        Raises
        ------
        ArgumentError, DataError, HeadError
            As :func:`fsboundary.report.user.run_report`.
        """
        domain = next((name for name in DOMAINS if name == self.domain), None)
        if domain is None:
            fix = "take auto, which proves what it can"
            raise ArgumentError("domain", repr(self.domain), f"one of {', '.join(DOMAINS)}", fix)
        options = self.extractor_options | ({} if self.head is None else {"head": self.head})
        extractor = plugins.create("feature_extractor", self.extractor, options=options)
        images, training, source = self._read_images()
        network = build_model(self.model, self.module_folder)
        preprocess = None
        if self.preprocess is not None:
            preprocess = build_preprocess(self.preprocess, self.module_folder)
        if self.weights is not None:
            load_weights(network, self.weights)
        space = FeatureSpace(
            network.eval(), domain=domain, extractor=extractor, preprocess=preprocess
        )
        classes = _count_classes(space, network, images, training, self)
        images.verify_classes(classes, source)
        if training is not None:
            training.verify_classes(classes, self.train or source)
        names = (training and training.class_names) or images.class_names
        return Inputs(
            space=space,
            images=images,
            training=training,
            class_names=names or tuple(f"class {k}" for k in range(classes)),
        )

    def _read_images(self) -> tuple[ImageSet, ImageSet | None, Path]:
        """Return the images and the training images, with their labels, and whence the names."""
        size = parse_size(self.size)
        names = None if self.class_names is None else read_class_names(self.class_names)
        images, training = load_images(self.data, size), None
        if self.train is not None:
            if images.train_images is not None:
                fix = "leave it out, or save the images to study in a file of their own"
                got = f"{self.train}, but {self.data} contains train_images too"
                raise ArgumentError("train", got, "training images in one place", fix)
            training = load_images(self.train, size)
        if names is not None:
            images = names.map_labels(images, self.data)
            training = training and names.map_labels(training, self.train or self.data)
        elif training is not None:
            images = _as_training(images, training, self.data, self.train or self.data)
        if self.labels is not None:
            labels = read_labels(self.labels, images, names or images.class_names)
            images = dataclasses.replace(images, labels=labels)
        if names is not None:
            for part in (images, training):
                if part is not None:
                    part.verify_labels(len(names.names), self.labels or self.data)
        return images, training, self.class_names or self.data


def _as_training(images: ImageSet, training: ImageSet, data: Path, train: Path) -> ImageSet:
    """Return `images` with the classes numbered as those of the training images, by name."""
    here, there = images.class_names, training.class_names
    if here is None or there is None or here == there:
        return images
    if not set(here) <= set(there):
        raise DataError(
            f"{data}: its classes are {', '.join(here[:5])}, those of {train} are "
            f"{', '.join(there[:5])}. Name the subfolders alike"
        )
    numbers = {name: k for k, name in enumerate(there)}
    return ClassNames(names=there, numbers=numbers, source=train).map_labels(images, data)


def _count_classes(
    space: FeatureSpace,
    model: nn.Module,
    images: ImageSet,
    training: ImageSet | None,
    given: Given,
) -> int:
    """Return the number of classes from a forward pass of one image of each set."""
    both = [(given.data, images.images), (given.data, images.train_images)]
    if training is not None:
        both.append((given.train or given.data, training.images))
    # a head is fitted on training images, where there are any
    fit_on = next((part for _, part in both[:0:-1] if part is not None), images.images)
    for source, part in both:
        if part is None:
            continue
        try:
            if space.surrogate and space.fidelity is None:
                space.fit(fit_on.split(given.batch_size))
            space.extract(part[:1])
        except FsboundaryError:
            raise
        except Exception as error:
            raise DataError(
                f"{source}: the model ({type(model).__name__}) does not accept images of shape "
                f"{tuple(part.shape[1:])}: {error}. Check their size and channels"
                f"{images.remark and f': {images.remark}'}"
                "; --size resizes and crops them"
            ) from error
    return space.head.num_classes
