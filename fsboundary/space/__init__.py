"""Feature spaces: features and logits of examples, and the head that maps one to the other."""

from fsboundary.space.feature_space import FeatureSpace
from fsboundary.space.given import space_of
from fsboundary.space.zero_shot import ZeroShotClassifier

__all__ = ["FeatureSpace", "ZeroShotClassifier", "space_of"]
