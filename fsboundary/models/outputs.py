"""Which parts of a model's output may be its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fsboundary.core.errors import HeadError


def find_outputs(output: Any, rows: int) -> dict[str, Tensor]:
    """Return the outputs of a model for B = `rows` inputs that may be logits (B,K), by name.

    The name of a part of a tuple, mapping or object is its position, key or attribute; a tensor
    that is the whole output has the empty name. A part named "logits" is the only candidate.

    Raises
    ------
    HeadError
        No such output; the message says what to return instead.
    """
    parts = dict(_parts(output))
    named = [name for name in parts if name.rpartition(".")[2] == "logits"]
    if len(named) == 1:
        parts = {named[0]: parts[named[0]]}
    found = {
        name: tensor
        for name, tensor in parts.items()
        if tensor.is_floating_point() and _is_table(tensor, rows)
    }
    if not found:
        raise _no_logits(output, list(parts.values()), rows)
    return found


def as_logits(tensor: Tensor) -> Tensor:
    """Return an output of :func:`find_outputs` as (B,K)."""
    return tensor.flatten(1) if tensor.ndim > 2 else tensor


def _is_table(tensor: Tensor, rows: int) -> bool:
    shape = tensor.shape
    if tensor.ndim < 2 or shape[0] != rows:
        return False
    return max(shape[1:]) >= 2 and sum(n != 1 for n in shape[1:]) == 1


def _parts(output: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        if output.layout == torch.strided and not output.is_nested:
            yield name, output
        return
    items: Any = ()
    if isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, tuple | list):
        items = zip(getattr(output, "_fields", range(len(output))), output, strict=True)
    elif hasattr(output, "__dict__"):
        items = vars(output).items()
    for key, part in items if depth else ():
        yield from _parts(part, f"{name}.{key}" if name else str(key), depth - 1)


def _no_logits(output: Any, tensors: list[Tensor], rows: int) -> HeadError:
    floating = [t for t in tensors if t.is_floating_point() and t.ndim]
    logits = next((t for t in floating if t.ndim == 2), next(iter(floating), None))
    if logits is None and [t for t in tensors if t.ndim == 1 and len(t) == rows]:
        return HeadError(
            "the model returns class numbers (integers), as argmax does; wanted logits (B,K). "
            "Wrap the model in a module that returns its logits, before the argmax"
        )
    if logits is None:
        return HeadError(
            f"the model returned {_describe(output)}; wanted logits (B,K): a tensor, or a tuple, "
            "mapping or object that contains it. Wrap the model in a module that returns its logits"
        )
    shape = tuple(logits.shape)
    if logits.ndim == 1 and rows == 1 and shape[0] > 1:
        return HeadError(
            f"the model returned shape {shape} for one example; wanted (1, K): it dropped the "
            "batch dimension, as .squeeze() does with a batch of one, which is also the last batch "
            "of 7 examples in threes. Write .squeeze(1), .flatten(1) or .squeeze((-2, -1)) "
            "instead, so that the first dimension stays"
        )
    if logits.ndim >= 1 and shape[0] == rows and logits[0].numel() == 1:
        return HeadError(
            f"the model returned a single logit per example (shape {shape}): a binary head. Turn "
            "its last layer into a two-class head, with 0 and the old logit as logits: "
            "model.fc = fsboundary.two_class_head(model.fc), with the layer's name in place of fc, "
            "and remove any squeeze or sigmoid after it"
        )
    return HeadError(
        f"the model returned shape {shape} for {rows} examples; wanted ({rows}, K), one row "
        "of logits per example. For outputs per token, position or crop, wrap the model in a "
        "module that pools them before its last linear layer"
    )


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with keys {sorted(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {[type(part).__name__ for part in output]}"
    return f"a {type(output).__name__}"
