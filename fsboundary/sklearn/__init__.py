"""Estimators of scikit-learn's interface, on convex hulls of training rows.

This package needs scikit-learn, ``pip install 'fsboundary[sklearn]'``; nothing else imports it.
Heads of scikit-learn's own classifiers are made by :meth:`fsboundary.LinearHead.from_sklearn`.
"""

from fsboundary.sklearn.hull_domain import HullDomain
from fsboundary.sklearn.nearest_hull_classifier import NearestHullClassifier

__all__ = ["HullDomain", "NearestHullClassifier"]
