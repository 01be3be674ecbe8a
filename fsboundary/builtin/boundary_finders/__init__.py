"""Boundary finders, one per file."""
