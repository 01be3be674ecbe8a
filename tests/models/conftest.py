"""What the tests of models share."""

from support.models.threads import one_thread

__all__ = ["one_thread"]
