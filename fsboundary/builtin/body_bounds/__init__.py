"""Bounds of linear functions of the features over sets of images."""
