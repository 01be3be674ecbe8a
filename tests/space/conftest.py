"""Fixtures of the tests of feature spaces."""

from support.models.threads import one_thread

__all__ = ["one_thread"]
