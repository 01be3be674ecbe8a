"""Constructors of heads: logistic regression for surrogates, two classes from one logit."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from fsboundary.core.checks import (
    batch_features,
    check_float_tensor,
    check_integer,
    check_integer_tensor,
    describe,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.modes import in_standard_modes

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_CONSTANT_FRACTION = 1e-12
"""Fraction of the largest deviation below which a feature counts as constant up to rounding."""


@in_standard_modes
def logistic_head(
    features: TensorOrArray | FeatureBatch,
    classes: TensorOrArray,
    num_classes: int,
    *,
    penalty: float = 1e-3,
    steps: int = 200,
) -> LinearHead:
    """Return the linear head fitted to predict `classes` from `features` by logistic regression.

    Minimises the mean cross-entropy plus `penalty` times the squared weights, both for features
    standardised to mean 0 and deviation 1, by L-BFGS from zero; the loss is convex, so the start
    does not matter. The returned head takes the original features.

    Parameters
    ----------
    features : Tensor or array (n, d), or FeatureBatch
        Features, at least one row.
    classes : Tensor or array (n,)
        Classes of the model, 0 to `num_classes` - 1; not all need to occur.
    num_classes : int
        Number of classes K.
    penalty : float
        Weight of the penalty, which keeps the weights finite if the classes are separable.
    steps : int
        Maximal number of L-BFGS iterations.

    Returns
    -------
    LinearHead
        Head (K, d) on an unbounded domain.

    Raises
    ------
    ArgumentError
        Features or classes of another type or shape, no rows, or a class out of range.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import logistic_head
    >>> z = torch.tensor([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.8, 0.1]])
    >>> logistic_head(z, torch.tensor([0, 0, 1, 1]), 2).predict(z)
    tensor([0, 0, 1, 1])
    """
    check_integer("num_classes", num_classes, 2)
    fix = "pass space.extract(inputs).features"
    z = check_float_tensor("features", batch_features(features), ("n", "d"), fix=fix, nonempty=True)
    z = z.double()
    fix = "pass one class per row of features"
    classes = check_integer_tensor(
        "classes", classes, (len(z),), fix=fix, noun="classes", within=range(num_classes)
    ).to(z.device)
    mean, spread = z.mean(dim=0), z.std(dim=0, correction=0)
    scale = torch.where(spread > _CONSTANT_FRACTION * spread.max(), spread, torch.inf)
    standardised = (z - mean) / scale
    weight = torch.zeros(num_classes, z.shape[1], dtype=z.dtype, device=z.device)
    bias = torch.zeros(num_classes, dtype=z.dtype, device=z.device)
    weight.requires_grad_()
    bias.requires_grad_()
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = nn.functional.cross_entropy(standardised @ weight.mT + bias, classes)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        lbfgs.step(closure)
    unscaled = weight.detach() / scale
    return LinearHead(unscaled, bias.detach() - unscaled @ mean)


@in_standard_modes
def two_class_head(linear: _Layer) -> _Layer:
    """Return a two-class head equivalent to a binary head with one logit.

    Its logits are 0 and the old logit, so class 1 is predicted where the old logit is positive,
    and the softmax of class 1 is the sigmoid of the old logit. Replace the old layer with it, and
    remove any squeeze or sigmoid after it::

        model.fc = fsboundary.two_class_head(model.fc)

    Parameters
    ----------
    linear : nn.Linear or nn.Conv1d, nn.Conv2d, nn.Conv3d
        Layer with one output and any number of inputs; it is not modified.

    Returns
    -------
    nn.Module
        Layer of the same kind with two outputs: weight rows 0 and w, biases 0 and b, with the same
        device, dtype and mode.

    Raises
    ------
    ArgumentError
        The layer is neither an nn.Linear nor a convolution with one output.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> one_logit = torch.nn.Linear(3, 1)
    >>> two = fsb.two_class_head(one_logit)
    >>> z = torch.rand(4, 3)
    >>> torch.equal(two(z).argmax(1) == 1, one_logit(z)[:, 0] > 0)
    True
    """
    wanted = "an nn.Linear or a convolution with one output"
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if type(linear) not in kinds:
        raise ArgumentError("linear", describe(linear), wanted, "pass the last layer")
    if len(linear.weight) != 1:
        got = f"a {type(linear).__name__} with {len(linear.weight)} outputs"
        raise ArgumentError("linear", got, "one output", "use the layer as it is")
    weight = linear.weight.detach()
    with torch.no_grad():
        # a copy, which has all other settings of the layer
        head = copy.deepcopy(linear)
        size = "out_features" if isinstance(linear, nn.Linear) else "out_channels"
        setattr(head, size, 2)
        head.weight = nn.Parameter(torch.cat([torch.zeros_like(weight), weight]))
        if linear.bias is not None:
            bias = linear.bias.detach()
            head.bias = nn.Parameter(torch.cat([torch.zeros_like(bias), bias]))
    return head.requires_grad_(linear.weight.requires_grad)
