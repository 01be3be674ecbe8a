"""A classifier for captum.concept that separates the hulls of the concepts' activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from captum.concept import Classifier
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.errors import ArgumentError
from fsboundary.hulls import hull_separation
from fsboundary.modes import in_standard_modes


@final
class HullClassifier(Classifier):  # type: ignore[misc]  # Captum has no types
    """Concept activation vectors that are normals of separating hyperplanes between hulls.

    For each concept, the hull of its activations is separated from the hull of all the others';
    the vector is the unit normal of the hyperplane half-way between the two, pointing towards the
    concept. So nothing is random, no example is on the wrong side, and the distance between the
    hulls measures how clear the separation is.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> points = torch.cat([torch.rand(20, 2), torch.rand(20, 2) + 3.0])
    >>> classifier = fsb.attr.HullClassifier()
    >>> _ = classifier.train_and_eval([(points, torch.arange(40) // 20)])
    >>> classifier.classes()
    [0, 1]
    """

    def __init__(self) -> None:
        self._weights: Tensor | None = None
        self._classes: list[int] = []

    @in_standard_modes
    def train_and_eval(
        self, dataloader: Iterable[tuple[Tensor, Tensor]], **kwargs: Any
    ) -> dict[str, Any]:
        """Separate the concepts.

        Parameters
        ----------
        dataloader : iterable of (Tensor (n, F), Tensor (n,))
            Activations and the indices of their concepts.
        **kwargs : object
            Ignored; Captum passes the arguments of its own classifiers.

        Returns
        -------
        dict
            "distance": distance (C,) from the hull of each concept to the hull of the others, in
            units of the activations.

        Raises
        ------
        ArgumentError
            Fewer than two concepts, or a concept whose hull meets that of the others or is too
            close to it to decide.
        """
        batches = [(rows.flatten(1).detach().cpu(), ids.cpu()) for rows, ids in dataloader]
        if not batches:
            raise ArgumentError("dataloader", "no batches", "activations and labels", "pass some")
        rows, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        classes = labels.unique()
        if len(classes) < 2:
            got = f"{len(classes)} concept"
            raise ArgumentError("dataloader", got, "at least two", "add a random concept")
        normals, distances = [], []
        for concept in classes.tolist():
            bank = FeatureBank(rows.double(), (labels == concept).long())
            separation = hull_separation(bank, 0, 1)
            if int(separation.intersect[0]) != -1:
                raise ArgumentError(
                    "dataloader",
                    f"concept {concept}, whose hull meets that of the others",
                    "concepts that a hyperplane separates",
                    "use fewer examples, a later layer, or captum.concept.DefaultClassifier",
                )
            normals.append(separation.normal[0])
            distances.append(separation.distance[0])
        self._weights, self._classes = torch.stack(normals), classes.tolist()
        return {"distance": torch.stack(distances)}

    def weights(self) -> Tensor:
        """Return one unit vector per concept, (C,F), float64; a copy.

        Raises
        ------
        RuntimeError
            Called before :meth:`train_and_eval`.
        """
        if self._weights is None:
            raise RuntimeError("no weights yet: call train_and_eval first")
        return self._weights.clone()

    def classes(self) -> list[int]:
        """Return the indices of the concepts, in the order of the weights."""
        return list(self._classes)
