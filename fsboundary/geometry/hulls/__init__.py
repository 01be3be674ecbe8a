"""Convex hulls: point sets, projections, separation and their certificates."""
