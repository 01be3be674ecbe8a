"""Feature spaces: features and logits of images, and the head between them."""

from fsboundary.space.feature_space import FeatureSpace

__all__ = ["FeatureSpace"]
