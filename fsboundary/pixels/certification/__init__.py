"""Radii in pixels within which the predicted class cannot change."""
