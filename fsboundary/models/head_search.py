"""Hooks that read the calls of linear maps during one forward pass, and always come off.

What a model may do to its logits before it returns them: nothing, softmax or log-softmax.

Which of the linear maps that ran gave the model's logits: found by value, last call first.

A head that was found: the layer, its weights at that time, and how well it has held since.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import HeadError, HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.models.linear_maps import (
    Reading,
    allowed,
    first_input,
    is_linear_map,
    read,
    weight_and_bias,
)
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


Link = Literal["identity", "softmax", "log_softmax"]
LINKS: tuple[Link, ...] = ("identity", "softmax", "log_softmax")


def applied(link: Link, logits: Tensor) -> Tensor:
    """Return the link of `logits` (B,K), in float64."""
    z = logits.detach().to(torch.float64)
    if link == "identity":
        return z
    return z.softmax(dim=1) if link == "softmax" else z.log_softmax(dim=1)


def rounding(link: Link, logits: Tensor, output: Tensor) -> Tensor:
    """Return how far (B,K) a softmax in the model's own dtype may be from `applied`.

    A logit's distance to the largest is rounded once, which moves the logarithm by a roundoff of
    that distance; exponentials, their sum, its logarithm and the result add a few roundoffs each.
    """
    z = logits.detach().to(torch.float64)
    eps = max(torch.finfo(t).eps for t in (logits.dtype, output.dtype))
    spread = z.amax(dim=1, keepdim=True) - z
    moved = eps * (8 + 2 * spread)
    if link == "log_softmax":
        return moved
    return z.softmax(dim=1) * moved + torch.finfo(output.dtype).tiny


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


_LINEAR = "W z + b"


@final
@dataclass(slots=True, kw_only=True, eq=False)
class KnownHead:
    """What is known of one model's head.

    Attributes
    ----------
    layer, kind : str
        Dotted name and class of the layer.
    from_end : int
        Which of the layer's calls in a pass, counted from the last.
    link : str
        What the model does to the logits.
    pooled : bool
        Whether the features are means over space.
    proof : str
        The operation that proves them nonnegative; empty where none does.
    head : LinearHead
        In float64, on the device of the layer.
    weight, bias : Tensor
        The layer's own at the time, to notice changes.
    worst : tuple of float, or None
        The residual that came nearest to its tolerance so far, and that tolerance.
    """

    layer: str
    kind: str
    from_end: int
    link: Link
    pooled: bool
    proof: str
    head: LinearHead
    weight: Tensor
    bias: Tensor | None
    worst: tuple[float, float] | None = None

    @classmethod
    def of(cls, match: Match, module: nn.Module) -> KnownHead:
        """Keep what a match found in `module`."""
        weight, bias = _weights(match.reading.layer, module)
        # an inference tensor among the head's would forbid gradients through it for good
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = weight.clone(), None if bias is None else bias.clone()
            head = LinearHead(weight, bias)
        return cls(
            layer=match.reading.layer,
            kind=type(module).__name__,
            from_end=match.from_end,
            link=match.link,
            pooled=match.reading.positions > 1,
            proof=match.reading.proof,
            head=head,
            weight=weight,
            bias=bias,
        )

    def refuse_changes(self, module: nn.Module) -> None:
        """Raise HeadMismatchError unless the layer's weights are what they were."""
        weight, bias = _weights(self.layer, module)
        if weight.device != self.weight.device:
            with torch.inference_mode(False), torch.no_grad():
                self.weight = self.weight.to(weight.device)
                self.bias = None if self.bias is None else self.bias.to(weight.device)
                self.head = self.head.to(weight.device)
        if not (_same(weight, self.weight) and _same(bias, self.bias)):
            raise HeadMismatchError(
                f"the weights of the head, layer {self.layer!r} ({self.kind}), changed since it "
                "was found. Make a new FeatureSpace for the changed model; features and flip "
                "points of the two do not mix"
            )

    def pick(self, readings: list[Reading]) -> Reading:
        """Return the call that gives the logits among those of one pass."""
        own = [r for r in readings if r.layer == self.layer]
        if len(own) < self.from_end:
            raise HeadError(
                f"the head, layer {self.layer!r} ({self.kind}), ran {len(own)} times on a flat "
                f"input in this pass; when it was found, its call number {self.from_end} from the "
                "last gave the logits. The model's path depends on its input; wrap the one path "
                "that you study in a module"
            )
        return own[-self.from_end]

    @torch.no_grad()
    def verify(self, reading: Reading, output: Tensor) -> Tensor:
        """Return ``W z + b`` (B,K) in float64, after a check that it gives `output`.

        Raises
        ------
        HeadMismatchError
            Names the layer, the residual and the tolerance; rows that are not finite are passed
            over.
        """
        logits = output if self.link == "identity" else reading.outputs
        exact = self.head.logits(reading.features)
        residual = (exact - logits).abs_()
        tolerance = allowed(reading, self.weight, self.bias, logits)
        self._compare(residual, tolerance, logits, _LINEAR)
        if self.link != "identity":
            residual = (applied(self.link, logits) - output).abs()
            tolerance = rounding(self.link, logits, output)
            self._compare(residual, tolerance, output, f"{self.link} of its output")
        return exact

    def _compare(self, residual: Tensor, tolerance: Tensor, other: Tensor, what: str) -> None:
        if residual.numel() == 0:
            return
        ratio = residual / tolerance
        worst, flat = ratio.flatten().max(dim=0)
        if not bool(worst <= 1):  # NaN, which is the largest of all, comes from bad rows: pass over
            ratio = torch.where(torch.isfinite(other), ratio, 0.0).nan_to_num(nan=0.0)
            worst, flat = ratio.flatten().max(dim=0)
        row, column = divmod(int(flat), ratio.shape[1])
        found = float(residual[row, column]), float(tolerance[row, column])
        if float(worst) > 1:
            raise HeadMismatchError(
                f"layer {self.layer!r} ({self.kind}): {what} differs from the model's output by "
                f"{found[0]:.3e} at row {row}, class {column}; the tolerance there is "
                f"{found[1]:.3e} ({other.dtype}). The layer's class computes something else than "
                "W z + b, or the model's path depends on its input"
            )
        nearer = self.worst is None or float(worst) > self.worst[0] / self.worst[1]
        if what == _LINEAR and nearer:
            self.worst = found


def _weights(layer: str, module: nn.Module) -> tuple[Tensor, Tensor | None]:
    found = weight_and_bias(module)
    if found is None:
        raise HeadError(
            f"layer {layer!r} ({type(module).__name__}) has no weight (K,d) and bias (K,) to read. "
            "Replace it by a plain nn.Linear"
        )
    return found


def _same(now: Tensor | None, then: Tensor | None) -> bool:
    if now is None or then is None:
        return now is then
    return now.dtype == then.dtype and torch.equal(now, then)
