"""A binary head with one logit as a head with two classes."""

from __future__ import annotations

import torch
from torch import nn

from fsboundary.core.errors import ArgumentError


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
