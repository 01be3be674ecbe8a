"""Which of the linear maps that ran gave the model's logits: found by value, last call first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from fsboundary.models.agreement import allowed
from fsboundary.models.linear_maps import Reading, weight_and_bias
from fsboundary.models.links import LINKS, Link, applied, rounding


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """The call that gave the logits.

    Attributes
    ----------
    reading : Reading
        The call.
    from_end : int
        It is the layer's `from_end`-th readable call, counted from the last, which is 1.
    link : Link
        What the model does to the logits before it returns them.
    """

    reading: Reading
    from_end: int
    link: Link


def find(
    readings: Sequence[Reading], modules: dict[str, nn.Module], output: Tensor, finite: Tensor
) -> Match | None:
    """Return the call whose outputs are the model's; None where there is none.

    A plain match of any call goes before a match through a softmax.

    Parameters
    ----------
    readings : sequence of Reading
        In the order of the calls.
    modules : dict
        The layers by dotted name.
    output : Tensor (B, K)
        What the model returned.
    finite : Tensor (B,), bool
        Rows of `output` without NaN or infinite numbers; only these are compared.
    """
    candidates = [r for r in reversed(readings) if r.outputs.shape == output.shape]
    for link in LINKS:
        later: dict[str, int] = {}
        for reading in candidates:
            later[reading.layer] = later.get(reading.layer, 0) + 1
            slack = _slack(link, reading, modules[reading.layer], output)
            rows = finite & torch.isfinite(reading.outputs).all(dim=1)
            if slack is not None and bool(rows.any()) and bool((slack[rows] <= 0).all()):
                return Match(reading=reading, from_end=later[reading.layer], link=link)
    return None


def _slack(link: Link, reading: Reading, module: nn.Module, output: Tensor) -> Tensor | None:
    """Return difference minus tolerance (B,K) of ``link(outputs)`` and `output`."""
    found = weight_and_bias(module)
    if found is None or found[0].shape != (output.shape[1], reading.features.shape[1]):
        return None
    with torch.no_grad():
        difference = (applied(link, reading.outputs) - output.to(torch.float64)).abs()
        if link != "identity":
            return difference - rounding(link, reading.outputs, output)
        return difference - allowed(reading, *found, output)
