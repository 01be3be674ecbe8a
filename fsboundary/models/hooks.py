"""Hooks that read the calls of linear maps during one forward pass, and always come off."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, final

from torch import Tensor, nn

from fsboundary.models.linear_maps import Reading, first_input, is_linear_map, read
from fsboundary.models.nonnegativity import NonnegativityProver

LAYERS_SHOWN = 5


@final
class Sighting(NamedTuple):
    """A call of a layer, for messages: its name and the shapes that went in and came out."""

    layer: str
    kind: str
    taken: tuple[int, ...] | None
    given: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.layer or '(the model itself)'} ({self.kind}) {self.taken} -> {self.given}"


@final
@dataclass(slots=True)
class Watched:
    """What one pass showed.

    Attributes
    ----------
    readings : list of Reading
        Calls of linear maps on flat or pooled inputs, in order.
    unread : deque of Sighting
        The last calls of linear maps on other inputs, such as tokens.
    last : deque of Sighting
        The last calls of layers without children.
    """

    readings: list[Reading] = field(default_factory=list)
    unread: deque[Sighting] = field(default_factory=lambda: deque(maxlen=LAYERS_SHOWN))
    last: deque[Sighting] = field(default_factory=lambda: deque(maxlen=LAYERS_SHOWN))


@contextlib.contextmanager
def watching(
    modules: Iterable[tuple[str, nn.Module]], rows: int, prover: NonnegativityProver | None = None
) -> Iterator[Watched]:
    """Read the calls of `modules` (dotted name, module) inside the block, for B = `rows` images."""
    seen = Watched()
    with contextlib.ExitStack() as stack:
        for name, module in modules:
            if is_linear_map(module) or next(module.children(), None) is None:
                hook = partial(_note, seen, name, rows, prover)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield seen


def _note(
    seen: Watched,
    layer: str,
    rows: int,
    prover: NonnegativityProver | None,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    source = first_input(args, kwargs)
    sighting = Sighting(layer, type(module).__name__, _shape(source), _shape(output))
    seen.last.append(sighting)
    if not is_linear_map(module):
        return
    reading = read(layer, module, source, output, rows)
    if reading is None:
        seen.unread.append(sighting)
        return
    if prover is not None:
        reading = replace(reading, proof=prover.proof(source))
    seen.readings.append(reading)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
