"""Fields of results that are computed when they are read, because they would fill the memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


class Deferred(ABC):
    """A field (B, ...) that is not computed yet."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the field."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the field."""

    @abstractmethod
    def compute(self) -> Tensor:
        """Return the field, float64; the same bits each time, whatever rows are left."""

    @abstractmethod
    def __getitem__(self, index: Any) -> Self:
        """Return the same field of the rows at `index`."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same field, to be computed on `device`."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors from which :meth:`from_state` makes the same field."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Return the field of a :meth:`state`, which comes from a file.

        Raises
        ------
        ValueError
            Tensors of other names or shapes, or numbers that do not belong together.
        """

    def placeholder(self) -> Tensor:
        """Return NaN in the shape of the field, without memory."""
        nan = torch.full((), torch.nan, dtype=torch.float64, device=self.device)
        return nan.expand(self.shape)


class _DeferrableField:
    """A slot of a result that holds a tensor, or what computes it at the first access."""

    def __init__(self, slot: Any) -> None:
        self.slot = slot

    def __get__(self, result: object, owner: type | None = None) -> Any:
        if result is None:
            return self
        value = self.slot.__get__(result, owner)
        if isinstance(value, Deferred):
            value = value.compute()
            self.slot.__set__(result, value)
        return value

    def __set__(self, result: object, value: Any) -> None:
        self.slot.__set__(result, value)


def deferrable(name: str) -> Callable[[type[_T]], type[_T]]:
    """Return a decorator of a result class whose field `name` may be deferred."""

    def decorate(cls: type[_T]) -> type[_T]:
        setattr(cls, name, _DeferrableField(cls.__dict__[name]))
        return cls

    return decorate


def defer(result: _T, name: str, value: Deferred) -> _T:
    """Return `result` with the field `name`, a placeholder so far, deferred."""
    type(result).__dict__[name].slot.__set__(result, value)
    return result


def may_defer(kind: type[Any], name: str) -> bool:
    """Return whether a field of a result class may be deferred."""
    return isinstance(kind.__dict__.get(name), _DeferrableField)


def stored(result: object, name: str) -> Any:
    """Return a field of `result` as it is stored, which may be deferred."""
    field = type(result).__dict__.get(name)
    return (
        field.slot.__get__(result) if isinstance(field, _DeferrableField) else getattr(result, name)
    )
