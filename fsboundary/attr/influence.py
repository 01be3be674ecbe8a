"""Influence of training examples, measured by their weights in a hull projection."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from captum.influence import DataInfluence
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.attr.methods.arguments import as_arguments
from fsboundary.banks import FeatureBank
from fsboundary.banks.arguments import check_bank
from fsboundary.core.checks import check_integer
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import HullProjection
from fsboundary.core.rows import pad_columns
from fsboundary.hulls import hull_projection
from fsboundary.modes import in_standard_modes
from fsboundary.space import FeatureSpace, space_of


class Supports(NamedTuple):
    """Training examples and their weights, most influential first.

    Attributes
    ----------
    indices : Tensor (B, k)
        Rows of the bank; -1 where fewer than k carry weight.
    weights : Tensor (B, k), float64
        Convex weights of the nearest point of the hull; positive, and their sum over a row is 1
        if k is large enough. 0 as padding, NaN where the projection failed.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> bank = fsb.FeatureBank(space.extract(demo.train_images[:50]).features)
    >>> supports = fsb.attr.HullInfluence(space, bank).influence(images)
    >>> bool((supports.weights[:, 0] >= supports.weights[:, 1]).all())  # the weightiest first
    True
    """

    indices: Int[Tensor, "B k"]
    weights: Float[Tensor, "B k"]


@final
class HullInfluence(DataInfluence):  # type: ignore[misc]  # Captum ships no types
    """The training examples whose weighted mean is the point of their hull nearest to an example.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    bank : FeatureBank
        Features of the training examples; row n belongs to training example n.

    Raises
    ------
    ArgumentError
        `bank` is not a FeatureBank.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> bank = fsb.FeatureBank(space.extract(demo.train_images[:50]).features)
    >>> supports = fsb.attr.HullInfluence(space, bank).influence(images)
    >>> supports.weights.sum(1).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    def __init__(self, space: FeatureSpace | nn.Module, bank: FeatureBank) -> None:
        self._space, self._bank = space_of(space), check_bank(bank)

    @in_standard_modes
    def influence(
        self,
        inputs: Float[Tensor, "B ..."] | tuple[Tensor, ...],
        k: int | None = None,
        *,
        labels: Int[Tensor, " B"] | None = None,
        leave_out: Int[Tensor, " B"] | None = None,
        additional_forward_args: Any = None,
    ) -> Supports:
        """Return the `k` training examples with the largest weights, for each example.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), tuple of such, mapping or list
            Inputs of the model, as for :meth:`fsboundary.FeatureSpace.extract`.
        k : int, optional
            Number of training examples per row. Default: the largest support of any row.
        labels : Tensor (B,), optional
            Classes; each example is projected on the hull of its class only.
        leave_out : Tensor (B,), optional
            Bank row to exclude for each example, -1 for none: the example itself, if these are
            training examples.
        additional_forward_args : object, optional
            One argument of the model after the inputs, or a tuple of them.

        Raises
        ------
        ArgumentError
            `k` is larger than the support of any projection can be: the number of rows of the
            bank, or one more than its number of features.
        HeadMismatchError
            The bank was made with another head, extractor or layer.
        """
        if k is not None:
            self._check(k)
        batch = self._space.extract(inputs, *as_arguments(additional_forward_args))
        projection = hull_projection(self._bank, batch, labels=labels, leave_out=leave_out)
        sizes = (projection.weights > 0).sum(dim=1)
        largest = int(sizes.max()) if len(sizes) else 0
        return _top_weights(projection, max(largest, 1) if k is None else k)

    def by_layer(
        self, inputs: Float[Tensor, "B ..."] | tuple[Tensor, ...], top_k: int = 1, **options: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the influences by layer name, as ``captum.influence.SimilarityInfluence`` does.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), or tuple of such
        top_k : int
            Number of training examples per row.
        **options : object
            As for :meth:`influence`.

        Returns
        -------
        dict
            Name of the layer before the head, mapped to (indices (B,k), weights (B,k)).
        """
        supports = self.influence(inputs, top_k, **options)
        layer = self._space.notes().get("layer", "features")
        return {layer: (supports.indices, supports.weights)}

    def _check(self, k: int) -> None:
        check_integer("k", k)
        limit = min(len(self._bank), self._bank.num_features + 1)
        if k > limit:
            raise ArgumentError(
                "k",
                str(k),
                f"at most {limit}: a nearest point needs no more of {len(self._bank)} rows with "
                f"{self._bank.num_features} features",
                "leave k out for all rows with a positive weight",
            )


def _top_weights(projection: HullProjection, k: int) -> Supports:
    """Return the k largest weights of each row and their bank rows."""
    weights, order = projection.weights.sort(dim=1, descending=True, stable=True)
    indices = torch.where(weights > 0, projection.support.gather(1, order), -1)
    weights, indices = pad_columns(weights, k, 0), pad_columns(indices, k, -1)
    failed = ~projection.ok[:, None]
    return Supports(indices.masked_fill(failed, -1), weights.masked_fill(failed, torch.nan))
