"""Checks and grading of the results of plugins."""
