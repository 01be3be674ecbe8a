"""Exceptions that the package raises deliberately."""

from __future__ import annotations


class FsboundaryError(Exception):
    """Base class of the errors that fsboundary raises deliberately.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> issubclass(fsb.DataError, fsb.FsboundaryError), issubclass(fsb.DataError, ValueError)
    (True, True)
    """


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

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> try:
    ...     fsb.LinearHead(torch.eye(3), torch.zeros(2))
    ... except fsb.ArgumentError as error:
    ...     print(error)
    bias: got shape (2,); wanted shape (3,). Fix: pass one number per class, or None.
    """

    def __init__(self, name: str, got: str, wanted: str, fix: str) -> None:
        self.name, self.got, self.wanted, self.fix = name, got, wanted, fix
        super().__init__(f"{name}: got {got}; wanted {wanted}. Fix: {fix}.")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str, str]]:
        """Rebuild from the four parts, so that worker processes can return the error."""
        return type(self), (self.name, self.got, self.wanted, self.fix)


class HeadError(FsboundaryError, RuntimeError):
    """The model's last linear map was not found, or does not compute the model's logits.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()
    >>> try:
    ...     fsb.FeatureSpace(model).extract(torch.rand(2, 4))
    ... except fsb.HeadError as error:
    ...     print("no linear map from features to logits was found")
    no linear map from features to logits was found
    """


class HeadMismatchError(HeadError):
    """Head, features or bank do not belong together.

    ``W z + b`` does not equal the model's logits within the stated tolerance, or features and
    bank have different fingerprints.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model, other = torch.nn.Linear(2, 2).eval(), torch.nn.Linear(2, 2).eval()
    >>> bank = fsb.FeatureSpace(other).bank([torch.rand(5, 2)])
    >>> batch = fsb.FeatureSpace(model).extract(torch.rand(1, 2))
    >>> try:
    ...     fsb.hull_projection(bank, batch)
    ... except fsb.HeadMismatchError as error:
    ...     print("the features are of one model, the bank is of another")
    the features are of one model, the bank is of another
    """


class PluginError(FsboundaryError, RuntimeError):
    """A plugin could not be loaded or selected, raised, or returned something malformed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> class Broken(fsb.BoundaryFinder):
    ...     def find(self, head, features, *, targets, tolerance, max_steps):
    ...         raise RuntimeError("no licence")
    >>> try:
    ...     fsb.flip_points(head, z, finder=Broken())
    ... except fsb.PluginError as error:
    ...     print("no licence" in str(error))
    True
    """


class PluginWarning(UserWarning):
    """A plugin changed what is not its own, such as torch's modes; it was put right.

    Examples
    --------
    >>> import warnings
    >>> import fsboundary as fsb
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", fsb.PluginWarning)  # stop instead of going on
    ...     info = fsb.plugins.describe()
    """


class StatusError(FsboundaryError, RuntimeError):
    """A result contains failed entries; raised by ``raise_for_status``.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(2), None)
    >>> flips = fsb.flip_points(head, torch.tensor([[torch.nan, 1.0]]))
    >>> try:
    ...     flips.raise_for_status()
    ... except fsb.StatusError as error:
    ...     print(error)
    FlipPoints: 1 of 1 failed.
    NOT_FINITE x 1 (first at (0, 0)): the row contains NaN or infinite values. ...
    """


class DataError(FsboundaryError, ValueError):
    """A file is damaged, of another kind, or cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fsboundary as fsb
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "balls.safetensors"
    >>> _ = path.write_text("not a result")
    >>> try:
    ...     fsb.GuaranteedBalls.open(path)
    ... except fsb.DataError as error:
    ...     print(type(error).__name__)
    DataError
    """


class ReportWarning(UserWarning):
    """What a report is made from is probably not what the user meant.

    Examples
    --------
    >>> import warnings
    >>> from fsboundary.core.errors import ReportWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", ReportWarning)  # no report of doubtful inputs
    """
