"""Flip points: the closest boundary points, their duals and their certificates."""
