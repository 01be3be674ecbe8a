"""Arguments that are a model or the space of one."""

from __future__ import annotations

from torch import nn

from fsboundary.core.checks import check_instance
from fsboundary.space.feature_space import FeatureSpace


def space_of(model: object) -> FeatureSpace:
    """Return `model` if it is a FeatureSpace, else a FeatureSpace of it with default options.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> import torch
    >>> from fsboundary.space import space_of
    >>> space = fsb.FeatureSpace(torch.nn.Linear(4, 3).eval())
    >>> space_of(space) is space
    True
    """
    wanted, fix = "a torch nn.Module or a FeatureSpace", "pass the model itself, in eval mode"
    if isinstance(model, FeatureSpace):
        return model
    return FeatureSpace(check_instance("model", model, nn.Module, wanted, fix))
