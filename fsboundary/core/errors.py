"""The error tree: every exception that the package raises on purpose."""

from __future__ import annotations


class FsboundaryError(Exception):
    """Base of all errors raised on purpose by fsboundary."""


class ArgumentError(FsboundaryError, ValueError):
    """A malformed argument, found before any work started.

    Parameters
    ----------
    name : str
        The argument.
    got : str
        What came.
    wanted : str
        What was wanted.
    fix : str
        How to fix it.
    """

    def __init__(self, name: str, got: str, wanted: str, fix: str) -> None:
        self.name, self.got, self.wanted, self.fix = name, got, wanted, fix
        super().__init__(f"{name}: got {got}; wanted {wanted}. Fix: {fix}.")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str, str]]:
        """Rebuild from the four parts, so that worker processes can send it back."""
        return type(self), (self.name, self.got, self.wanted, self.fix)


class HeadError(FsboundaryError, RuntimeError):
    """The model's last linear map was not found, or is not what the model computes."""


class HeadMismatchError(HeadError):
    """Two things do not belong together.

    ``W z + b`` does not equal the model's logits within the stated tolerance, or features and
    bank carry different fingerprints.
    """


class PluginError(FsboundaryError, RuntimeError):
    """A plugin could not be loaded, selected, or gave an answer of the wrong shape."""


class StatusError(FsboundaryError, RuntimeError):
    """Raised by ``raise_for_status`` when a result holds failed entries."""


class DataError(FsboundaryError, ValueError):
    """A file of images, weights or features cannot be read as what it should be."""
