"""Fixtures of the tests of models."""

from support.models.threads import one_thread

__all__ = ["one_thread"]
