"""A set of images and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from fsboundary.core.errors import DataError


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images and what is known of them.

    Attributes
    ----------
    images : Tensor (N, C, H, W), float32
        Pixels in [0, 1].
    labels : Tensor (N,), int64, or None
    class_names : tuple of str or None
    file_names : tuple of str or None
        Of each image, where it came from a folder.
    train_images, train_labels : Tensor or None
        Like `images` and `labels`.
    """

    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    file_names: tuple[str, ...] | None = None
    train_images: Tensor | None = None
    train_labels: Tensor | None = None

    def require_classes(self, classes: int, source: Path) -> None:
        """Raise DataError unless labels and names fit a model of so many classes."""
        if self.class_names is not None and len(self.class_names) != classes:
            raise DataError(
                f"{source}: {len(self.class_names)} class names ({', '.join(self.class_names[:5])}"
                f", ...) for a model of {classes} classes. Give one name (one subfolder) a class, "
                "in the model's order, or leave names and subfolders out"
            )
        for name, labels in (("labels", self.labels), ("train_labels", self.train_labels)):
            if labels is not None and len(labels) and int(labels.max()) >= classes:
                raise DataError(
                    f"{source}: {name} go up to {int(labels.max())}, but the model has {classes} "
                    f"classes. Number the classes from 0 to {classes - 1} in the model's order"
                )
