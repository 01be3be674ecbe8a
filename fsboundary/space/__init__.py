"""Feature spaces: features and logits of examples, and the head that maps one to the other."""

from fsboundary.space.feature_space import FeatureSpace, space_of

__all__ = ["FeatureSpace", "space_of"]
