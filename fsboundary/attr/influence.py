"""Which training images a projection on the hull of the training set rests on."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from captum.influence import DataInfluence
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.attr.comparison.arguments import check_count
from fsboundary.attr.methods.arguments import as_tuple, extra
from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import HullProjection
from fsboundary.hulls import hull_projection
from fsboundary.space import FeatureSpace, space_of


class Supports(NamedTuple):
    """Training images and their weights, most influential first.

    Attributes
    ----------
    indices : Tensor (B, k)
        Rows of the bank; -1 where fewer than k carry weight.
    weights : Tensor (B, k), float64
        What each contributes to the nearest point of the hull; a row's weights are positive and
        sum to 1 where k is large enough. 0 as padding, NaN where the projection failed.
    """

    indices: Int[Tensor, "B k"]
    weights: Float[Tensor, "B k"]


@final
class HullInfluence(DataInfluence):  # type: ignore[misc]  # Captum ships no types
    """The training images whose weighted mean is the nearest point of their hull to an image.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    bank : FeatureBank
        Of the training images' features; row n belongs to training image n.

    Raises
    ------
    ArgumentError
        No bank.
    """

    def __init__(self, space: FeatureSpace | nn.Module, bank: FeatureBank) -> None:
        self._space, self._bank = space_of(space), check_bank(bank)

    def influence(
        self,
        inputs: Float[Tensor, "B ..."] | tuple[Tensor, ...],
        k: int | None = None,
        *,
        labels: Int[Tensor, " B"] | None = None,
        leave_out: Int[Tensor, " B"] | None = None,
        additional_forward_args: Any = None,
    ) -> Supports:
        """Return the `k` training images that carry most weight, for each image.

        Parameters
        ----------
        inputs : Tensor (B, ...) or tuple of such
            Images, and further inputs of the model.
        k : int, optional
            Default: as many as the widest row has.
        labels : Tensor (B,), optional
            Take each image to the hull of this class only.
        leave_out : Tensor (B,), optional
            A bank row that does not count for this image, -1 for none: itself, where the images
            are training images.
        additional_forward_args : object, optional
            One argument of the model after the images, or a tuple of them.

        Raises
        ------
        ArgumentError
            `k` is larger than any projection's support can be: the rows of the bank, or one more
            than it has features.
        HeadMismatchError
            The bank was made with another head, extractor or layer.
        """
        if k is not None:
            self._check(k)
        parts = as_tuple("inputs", inputs)
        batch = self._space.extract(*parts, *extra(additional_forward_args))
        found = hull_projection(self._bank, batch, labels=labels, leave_out=leave_out)
        widest = int((found.weights > 0).sum(dim=1).max()) if len(found.weights) else 0
        return _largest(found, max(widest, 1) if k is None else k)

    def by_layer(
        self, inputs: Float[Tensor, "B ..."] | tuple[Tensor, ...], top_k: int = 1, **options: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the same as ``captum.influence.SimilarityInfluence``: by the layer's name.

        Parameters
        ----------
        inputs : Tensor (B, ...) or tuple of such
        top_k : int
        **options : object
            As for :meth:`influence`.

        Returns
        -------
        dict
            From the layer before the head to (indices (B,k), weights (B,k)).
        """
        found = self.influence(inputs, top_k, **options)
        return {self._space.notes().get("layer", "features"): (found.indices, found.weights)}

    def _check(self, k: int) -> None:
        check_count("k", k, 1)
        most = min(len(self._bank), self._bank.num_features + 1)
        if k > most:
            raise ArgumentError(
                "k",
                str(k),
                f"at most {most}: a nearest point needs no more of {len(self._bank)} rows with "
                f"{self._bank.num_features} features",
                "leave k out for all that carry weight",
            )


def _largest(found: HullProjection, k: int) -> Supports:
    """Return the k largest weights of each row and whose they are."""
    weights, order = found.weights.sort(dim=1, descending=True, stable=True)
    indices = torch.where(weights > 0, found.support.gather(1, order), -1)
    lack = max(k - weights.shape[1], 0)
    weights = torch.nn.functional.pad(weights, (0, lack))[:, :k]
    indices = torch.nn.functional.pad(indices, (0, lack), value=-1)[:, :k]
    failed = ~found.ok[:, None]
    return Supports(indices.masked_fill(failed, -1), weights.masked_fill(failed, torch.nan))
