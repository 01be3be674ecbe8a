"""What the tests of feature spaces share."""

from support.models.threads import one_thread

__all__ = ["one_thread"]
