"""Exceptions that the package raises deliberately."""

from __future__ import annotations


class FsboundaryError(Exception):
    """Base class of the errors that fsboundary raises deliberately."""


class ArgumentError(FsboundaryError, ValueError):
    """A malformed argument, detected before any computation.

    Parameters
    ----------
    name : str
        Name of the argument.
    got : str
        Value or description of what was passed.
    wanted : str
        Description of what was wanted.
    fix : str
        Instruction that fixes it.
    """

    def __init__(self, name: str, got: str, wanted: str, fix: str) -> None:
        self.name, self.got, self.wanted, self.fix = name, got, wanted, fix
        super().__init__(f"{name}: got {got}; wanted {wanted}. Fix: {fix}.")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str, str]]:
        """Rebuild from the four parts, so that worker processes can return the error."""
        return type(self), (self.name, self.got, self.wanted, self.fix)


class HeadError(FsboundaryError, RuntimeError):
    """The model's last linear map was not found, or does not compute the model's logits."""


class HeadMismatchError(HeadError):
    """Head, features or bank do not belong together.

    ``W z + b`` does not equal the model's logits within the stated tolerance, or features and
    bank have different fingerprints.
    """


class PluginError(FsboundaryError, RuntimeError):
    """A plugin could not be loaded or selected, raised, or returned something malformed."""


class PluginWarning(UserWarning):
    """A plugin changed what is not its own, such as torch's modes; it was put right."""


class StatusError(FsboundaryError, RuntimeError):
    """A result contains failed entries; raised by ``raise_for_status``."""


class DataError(FsboundaryError, ValueError):
    """A file is damaged, of another kind, or cannot be written."""


class ReportWarning(UserWarning):
    """What a report is made from is probably not what the user meant."""
