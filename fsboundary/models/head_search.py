"""Search for the head of a model, and its verification on every batch.

Hooks record the calls of linear maps during one forward pass and are always removed. The call that
gave the model's logits is found by value, last call first; a link (identity, softmax or
log-softmax) may lie between the logits and the model's output. A verified head stores the layer,
its weights at that time, and the largest residual since.
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
from fsboundary.models.intervals import IntervalProver
from fsboundary.models.linear_maps import (
    LayerCall,
    first_input,
    head_mismatch,
    is_linear_map,
    largest_residual,
    logit_tolerance,
    read_call,
    weight_and_bias,
)

_LAYERS_SHOWN = 5


@final
class CallSummary(NamedTuple):
    """Summary of a layer call for messages: name, class, and shapes of input and output."""

    layer: str
    kind: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None

    def __str__(self) -> str:
        name = self.layer or "(the model itself)"
        return f"{name} ({self.kind}) {self.input_shape} -> {self.output_shape}"


@final
@dataclass(slots=True)
class ForwardTrace:
    """Layer calls recorded during one forward pass.

    Attributes
    ----------
    calls : list of LayerCall
        Calls of linear maps on flat or pooled inputs, in order.
    unreadable : deque of CallSummary
        Last calls of linear maps on other inputs, such as tokens.
    last : deque of CallSummary
        Last calls of layers without children.
    """

    calls: list[LayerCall] = field(default_factory=list)
    unreadable: deque[CallSummary] = field(default_factory=lambda: deque(maxlen=_LAYERS_SHOWN))
    last: deque[CallSummary] = field(default_factory=lambda: deque(maxlen=_LAYERS_SHOWN))


@contextlib.contextmanager
def trace_linear_layers(
    modules: Iterable[tuple[str, nn.Module]], rows: int, prover: IntervalProver | None = None
) -> Iterator[ForwardTrace]:
    """Record the calls of `modules` (dotted name, module) in the block, for B = `rows` images."""
    trace = ForwardTrace()
    with contextlib.ExitStack() as stack:
        for name, module in modules:
            if is_linear_map(module) or next(module.children(), None) is None:
                hook = partial(_record, trace, name, rows, prover)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield trace


def _record(
    trace: ForwardTrace,
    layer: str,
    rows: int,
    prover: IntervalProver | None,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    source = first_input(args, kwargs)
    summary = CallSummary(layer, type(module).__name__, _shape(source), _shape(output))
    trace.last.append(summary)
    if not is_linear_map(module):
        return
    call = read_call(layer, module, source, output, rows)
    if call is None:
        trace.unreadable.append(summary)
        return
    if prover is not None:
        call = replace(call, proof=prover.proof(source))
    trace.calls.append(call)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


Link = Literal["identity", "softmax", "log_softmax"]
_LINKS: tuple[Link, ...] = ("identity", "softmax", "log_softmax")


def apply_link(link: Link, logits: Tensor) -> Tensor:
    """Return the link applied to `logits` (B,K), in float64."""
    z = logits.detach().to(torch.float64)
    if link == "identity":
        return z
    return z.softmax(dim=1) if link == "softmax" else z.log_softmax(dim=1)


def link_tolerance(link: Link, logits: Tensor, output: Tensor) -> Tensor:
    """Return the error bound (B,K) of a softmax in the model's own dtype against `apply_link`.

    The difference of a logit and the largest one is rounded once, which moves the logarithm by a
    roundoff of that difference; exponentials, their sum, its logarithm and the result add a few
    roundoffs each.
    """
    z = logits.detach().to(torch.float64)
    eps = max(torch.finfo(t).eps for t in (logits.dtype, output.dtype))
    spread = z.amax(dim=1, keepdim=True) - z
    log_error = eps * (8 + 2 * spread)
    if link == "log_softmax":
        return log_error
    return z.softmax(dim=1) * log_error + torch.finfo(output.dtype).tiny


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadMatch:
    """The call that gave the model's logits.

    Attributes
    ----------
    call : LayerCall
        Call of the head.
    from_end : int
        Index of the call among the layer's readable calls, counted from the last, which is 1.
    link : Link
        Function that the model applies to the logits before it returns them.
    """

    call: LayerCall
    from_end: int
    link: Link


def find_head_call(
    calls: Sequence[LayerCall], modules: dict[str, nn.Module], output: Tensor, finite: Tensor
) -> HeadMatch | None:
    """Return the call whose outputs are the model's logits; None if there is none.

    A plain match of any call takes precedence over a match through a softmax.

    Parameters
    ----------
    calls : sequence of LayerCall
        Calls in the order in which they ran.
    modules : dict
        Layers by dotted name.
    output : Tensor (B, K)
        Output of the model.
    finite : Tensor (B,), bool
        Mask of the rows of `output` without NaN or infinite numbers; only these are compared.
    """
    candidates = [c for c in reversed(calls) if c.outputs.shape == output.shape]
    for link in _LINKS:
        counts: dict[str, int] = {}
        for call in candidates:
            counts[call.layer] = counts.get(call.layer, 0) + 1
            excess = _excess_error(link, call, modules[call.layer], output)
            rows = finite & torch.isfinite(call.outputs).all(dim=1)
            if excess is not None and bool(rows.any()) and bool((excess[rows] <= 0).all()):
                return HeadMatch(call=call, from_end=counts[call.layer], link=link)
    return None


def _excess_error(link: Link, call: LayerCall, module: nn.Module, output: Tensor) -> Tensor | None:
    """Return the difference of ``link(outputs)`` and `output` minus its tolerance, (B,K)."""
    parameters = weight_and_bias(module)
    if parameters is None or parameters[0].shape != (output.shape[1], call.features.shape[1]):
        return None
    with torch.no_grad():
        difference = (apply_link(link, call.outputs) - output.to(torch.float64)).abs()
        if link != "identity":
            return difference - link_tolerance(link, call.outputs, output)
        return difference - logit_tolerance(call, *parameters, output)


@final
@dataclass(slots=True, kw_only=True, eq=False)
class VerifiedHead:
    """The verified head of one model.

    Attributes
    ----------
    layer, kind : str
        Dotted name and class of the layer.
    from_end : int
        Index of the head's call among the layer's calls in a pass, counted from the last.
    link : str
        Function that the model applies to the logits.
    pooled : bool
        Whether the features are means over space.
    proof : str
        Operation that proves the features nonnegative; empty if none does.
    head : LinearHead
        Head in float64, on the device of the layer.
    weight, bias : Tensor
        Copies of the layer's parameters, by which changes are noticed.
    modules : tuple of (str, type)
        Names and classes of the model's modules, without which `proof` says nothing.
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
    modules: tuple[tuple[str, type], ...]

    @classmethod
    def of(cls, match: HeadMatch, model: nn.Module) -> VerifiedHead:
        """Return the head that `match` found in `model`."""
        module = model.get_submodule(match.call.layer)
        weight, bias = _weights(match.call.layer, module)
        # an inference tensor among the head's would forbid gradients through it for good
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = weight.clone(), None if bias is None else bias.clone()
            head = LinearHead(weight, bias)
        return cls(
            layer=match.call.layer,
            kind=type(module).__name__,
            from_end=match.from_end,
            link=match.link,
            pooled=match.call.positions > 1,
            proof=match.call.proof,
            head=head,
            weight=weight,
            bias=bias,
            modules=_modules(model),
        )

    def verify_unchanged(self, model: nn.Module) -> None:
        """Raise HeadMismatchError unless the layer's parameters are unchanged.

        If the features were proved nonnegative, the modules must be the same too: another
        activation in the place of a ReLU, for example, would leave nothing of the proof.
        """
        module = dict(model.named_modules()).get(self.layer)
        if module is None:
            raise HeadMismatchError(
                f"the head, layer {self.layer!r} ({self.kind}), is no longer in the model. Make a "
                "new FeatureSpace for the changed model"
            )
        if self.proof and _modules(model) != self.modules:
            raise HeadMismatchError(
                "the modules of the model changed since its features were proved nonnegative "
                f"(they came from {self.proof}). Make a new FeatureSpace for the changed model"
            )
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
                "points of the two must not be mixed"
            )

    def select_call(self, calls: list[LayerCall]) -> LayerCall:
        """Return the call of the head among the calls of one pass."""
        head_calls = [c for c in calls if c.layer == self.layer]
        if len(head_calls) < self.from_end:
            raise HeadError(
                f"the head, layer {self.layer!r} ({self.kind}), ran {len(head_calls)} times on a "
                f"flat input in this pass; when it was found, its call number {self.from_end} from "
                "the last gave the logits. The model's path depends on its input; wrap the one "
                "path that you study in a module"
            )
        return head_calls[-self.from_end]

    @torch.no_grad()
    def verify(self, call: LayerCall, logits: Tensor) -> None:
        """Check that ``W z + b`` in float64 gives `logits` (B,K).

        Raises
        ------
        HeadMismatchError
            The residual exceeds the tolerance; the message names the layer and both. Rows that are
            not finite are ignored.
        """
        exact = self.head.logits(call.features)
        tolerance = logit_tolerance(call, self.weight, self.bias, logits)
        self._verify_residual(exact, logits, tolerance, "W z + b")

    @torch.no_grad()
    def verify_link(self, call: LayerCall, output: Tensor) -> Tensor:
        """Return the logits (B,K), after checking that the link turns them into `output`.

        Raises
        ------
        HeadMismatchError
            As :meth:`verify`.
        """
        if self.link == "identity":
            return output
        expected = apply_link(self.link, call.outputs)
        tolerance = link_tolerance(self.link, call.outputs, output)
        self._verify_residual(expected, output, tolerance, f"{self.link} of its output")
        return call.outputs

    def _verify_residual(
        self, expected: Tensor, output: Tensor, tolerance: Tensor, what: str
    ) -> None:
        worst = largest_residual(expected, output, tolerance)
        if worst is not None and worst.ratio > 1:
            raise head_mismatch(f"layer {self.layer!r} ({self.kind})", what, worst, output.dtype)


def _modules(model: nn.Module) -> tuple[tuple[str, type], ...]:
    return tuple((name, type(module)) for name, module in model.named_modules())


def _weights(layer: str, module: nn.Module) -> tuple[Tensor, Tensor | None]:
    parameters = weight_and_bias(module)
    if parameters is None:
        raise HeadError(
            f"layer {layer!r} ({type(module).__name__}) has no weight (K,d) and bias (K,) to read. "
            "Replace it with a plain nn.Linear"
        )
    return parameters


def _same(now: Tensor | None, then: Tensor | None) -> bool:
    if now is None or then is None:
        return now is then
    return now.dtype == then.dtype and torch.equal(now, then)
