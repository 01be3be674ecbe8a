"""Feature spaces: features and logits of images, and the head between them."""

from fsboundary.space.feature_space import FeatureSpace, space_of

__all__ = ["FeatureSpace", "space_of"]
