"""Loading of the demo's network and images."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, final

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from fsboundary.core.results.base.display import title
from fsboundary.demo.network import Normalize, SmallResNet

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DemoData:
    """A trained network and part of its real data.

    Attributes
    ----------
    model : SmallResNet
        Network in evaluation mode; takes normalised images.
    preprocess : Normalize
        Normalisation of pixels in [0, 1] for the network; in evaluation mode.
    train_images, test_images : Tensor (N, 1, 28, 28), float32
        Pixels in [0, 1]; the same number of images of each class.
    train_labels, test_labels : Tensor (N,), int64
    class_names : tuple of str
    facts : dict
        Facts about the training: ``test_accuracy`` on all 10,000 test images, ``seed``,
        ``epochs``, ``minutes``, ``torch`` and ``parameters``.

    Examples
    --------
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> demo.facts["test_accuracy"]
    0.9441
    """

    model: SmallResNet
    preprocess: Normalize
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    facts: dict[str, Any]

    def __repr__(self) -> str:
        counts = {"train": len(self.train_labels), "test": len(self.test_labels)}
        return title("DemoData", {"classes": len(self.class_names), **counts})


def load_demo() -> DemoData:
    """Read the demo's network and images from the package.

    Returns
    -------
    DemoData
        A new copy at each call.

    Examples
    --------
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> demo.test_images.shape, demo.class_names[:3]
    (torch.Size([500, 1, 28, 28]), ('T-shirt/top', 'Trouser', 'Pullover'))
    """
    folder = files("fsboundary.demo") / "data"
    model = SmallResNet()
    model.load_state_dict(load((folder / "weights.safetensors").read_bytes()))
    stream = io.BytesIO((folder / "images.npz").read_bytes())
    with np.load(stream, allow_pickle=False) as arrays:
        data = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return DemoData(
        model=model.eval(),
        preprocess=Normalize(),
        train_images=data["train_images"].float() / 255,
        train_labels=data["train_labels"].long(),
        test_images=data["test_images"].float() / 255,
        test_labels=data["test_labels"].long(),
        class_names=CLASS_NAMES,
        facts=json.loads((folder / "training.json").read_text("utf-8")),
    )
