"""Heads: maps from features to logits, with the domain of the features.

:class:`LinearHead` is the last linear map of a classifier, in float64; :class:`MultiLabelHead` that
of a network that decides each label separately; :class:`NonlinearHead` is any differentiable
function of the features.
"""

from fsboundary.core.heads.affine import LinearHead, MultiLabelHead
from fsboundary.core.heads.nonlinear import NonlinearHead

__all__ = ["LinearHead", "MultiLabelHead", "NonlinearHead"]
