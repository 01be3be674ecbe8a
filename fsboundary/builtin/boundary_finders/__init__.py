"""Boundary finders, one a file."""
