"""The head of a surrogate: a penalised multinomial logistic regression.

A binary head with one logit as a head with two classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead

_FLAT = 1e-12
"""A feature that spreads less than this share of the widest carries nothing but rounding."""


def logistic_head(
    features: Tensor,
    classes: Tensor,
    num_classes: int,
    *,
    penalty: float = 1e-3,
    steps: int = 200,
) -> LinearHead:
    """Return the linear head that tells `classes` from `features` best.

    Minimises the mean cross-entropy plus `penalty` times the squared weights, both of features
    brought to mean 0 and deviation 1, by L-BFGS from zero: the loss is convex, so the start does
    not matter. The head that is returned takes features as they are.

    Parameters
    ----------
    features : Tensor (n, d)
        At least one row.
    classes : Tensor (n,)
        The model's, 0 to `num_classes` - 1; not all need to occur.
    num_classes : int
        K.
    penalty : float
        Keeps the weights finite where the classes can be told apart without error.
    steps : int
        Iterations of L-BFGS at most.

    Returns
    -------
    LinearHead
        (K, d), on an unbounded domain.
    """
    z = features.detach().double()
    mean, spread = z.mean(dim=0), z.std(dim=0, correction=0)
    scale = torch.where(spread > _FLAT * spread.max(), spread, torch.inf)
    standard = (z - mean) / scale
    weight = torch.zeros(num_classes, z.shape[1], dtype=z.dtype, device=z.device)
    bias = torch.zeros(num_classes, dtype=z.dtype, device=z.device)
    weight.requires_grad_()
    bias.requires_grad_()
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = nn.functional.cross_entropy(standard @ weight.mT + bias, classes)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        lbfgs.step(closure)
    own = weight.detach() / scale
    return LinearHead(own, bias.detach() - own @ mean)


def two_class_head(linear: nn.Linear) -> nn.Linear:
    """Return a two-class head that decides as a binary head with one logit does.

    Its logits are 0 and the old one, so class 1 is where the old logit is positive, and the
    softmax of class 1 is the old logit's sigmoid. Put it in place of the old layer, and remove any
    squeeze or sigmoid after it::

        model.fc = fsboundary.two_class_head(model.fc)

    Parameters
    ----------
    linear : nn.Linear
        One output, any number of inputs. It is left as it is.

    Returns
    -------
    nn.Linear
        Two outputs: weight rows 0 and w, biases 0 and b, on the same device, in the same dtype and
        mode.

    Raises
    ------
    ArgumentError
        The layer is not an nn.Linear with one output.
    """
    if not isinstance(linear, nn.Linear):
        got = f"a {type(linear).__name__}"  # type: ignore[unreachable]  # users may pass anything
        raise ArgumentError("linear", got, "an nn.Linear with one output", "pass the last layer")
    if linear.out_features != 1:
        got = f"a Linear with {linear.out_features} outputs"
        raise ArgumentError("linear", got, "one output", "use the layer as it is")
    weight = linear.weight.detach()
    with torch.no_grad():
        # on the meta device first, so that no random number is drawn for weights to be replaced
        made = nn.Linear(linear.in_features, 2, linear.bias is not None, "meta", weight.dtype)
        made = made.to_empty(device=weight.device).train(linear.training)
        made.weight.copy_(torch.cat([torch.zeros_like(weight), weight]))
        if linear.bias is not None:
            made.bias.copy_(torch.cat([torch.zeros_like(linear.bias), linear.bias]))
    return made.requires_grad_(linear.weight.requires_grad)
