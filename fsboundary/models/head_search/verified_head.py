"""A verified head: what it was made of, and its check on every batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.models.head_search.affine_tail import Tail
from fsboundary.models.head_search.graph import Ref, Selection
from fsboundary.models.head_search.links import Link, apply_link, link_tolerance
from fsboundary.models.head_search.tracing import ForwardTrace
from fsboundary.models.intervals import Interval
from fsboundary.models.linear_maps import (
    LayerCall,
    Rounding,
    exact_logits,
    head_mismatch,
    largest_residual,
    logit_tolerance,
)
from fsboundary.models.structures import modules_of


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the head was composed from.

    Attributes
    ----------
    name : str
        Dotted name in the model; empty for a tensor that is no parameter or buffer.
    tensor : Tensor or None
        The tensor itself, if it has no name.
    copy : Tensor
        Its values when the head was found.
    """

    name: str
    tensor: Tensor | None
    copy: Tensor

    def equals(self, tensor: Tensor) -> bool:
        """Return whether `tensor` has the values of this one."""
        one, other = self.copy, tensor.detach()
        same = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        return same and torch.equal(one, other)


@final
@dataclass(slots=True)
class Plan:
    """How the features are read in passes with the same operations after them."""

    selections: list[Selection]
    rounding: Rounding

    @property
    def fixed(self) -> bool:
        """Whether no input determines which numbers are read, or how they are averaged."""
        return all(s.index is None and s.weights is None for s in self.selections)


PassKind = tuple[bool, bool]
"""Whether a pass records gradients, and whether it has one row; torch then calls other operations,
for example because one row needs no copy to change its shape."""


def pass_kind(rows: int) -> PassKind:
    """Return the kind of a pass of that many rows."""
    return torch.is_grad_enabled(), rows == 1


@final
@dataclass(slots=True, kw_only=True, eq=False)
class VerifiedHead:
    """The verified head of one model.

    Attributes
    ----------
    layer, kind : str
        Dotted names and classes of the modules whose weights make the head.
    link : str
        Function that the model applies to the logits.
    output : str
        Which of the model's outputs are the logits.
    features : str
        What the features are, as text.
    pooled : bool
        Whether the features are means over space.
    sphere : str
        "cones" if the model normalises the features and the head is the same for all classes up
        to W, so that regions are cones and the features are those before; "bound" if it has other
        biases, so that the features are those on the sphere; else empty.
    proofs : list of Interval or None
        Limits of each source of features.
    widths : list of int
        Number of features of each source.
    head : LinearHead
        Head in float64, on the device of the model.
    magnitude : (Tensor, Tensor) or None
        See :class:`fsboundary.models.linear_maps.LayerCall`.
    constants : list of Constant
        Tensors that the head was composed from, by which changes are noticed.
    stop_at : str or None
        Layer that the user named.
    modules : tuple of (str, type)
        Names and classes of the model's modules, without which the proofs say nothing.
    plans : dict
        How passes with these operations are read.
    keep : dict
        Calls whose operands are kept, and operands that are copied, per kind of pass.
    starts : dict
        First call that is recorded, per kind of pass; 0 where all are.
    misses : int
        Batches that were traced twice, because their end did not suffice.
    """

    layer: str
    kind: str
    link: Link
    pooled: bool
    proofs: list[Interval | None]
    widths: list[int]
    head: LinearHead
    magnitude: tuple[Tensor, Tensor] | None
    constants: list[Constant]
    modules: tuple[tuple[str, type], ...]
    sphere: Literal["", "cones", "bound"] = ""
    output: str = ""
    stop_at: str | None = None
    plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict)
    keep: dict[PassKind, tuple[frozenset[int], frozenset[Ref]]] = field(default_factory=dict)
    starts: dict[PassKind, int] = field(default_factory=dict)
    misses: int = 0

    def plan_of(self, trace: ForwardTrace, tail: Tail) -> Plan | None:
        """Return how passes with these operations are read, if that is known."""
        names = tail.names(trace)
        plan = self.plans.get(names) or self.plans.get((*names, *tail.shapes(trace)))
        same = plan is not None and len(plan.selections) == len(tail.sources)
        return plan if same else None

    def add_plan(self, trace: ForwardTrace, tail: Tail, plan: Plan) -> None:
        """Keep how passes with these operations are read."""
        names: tuple[Any, ...] = tail.names(trace)
        if any(p is not None for s in plan.selections for p in s.axes):
            names = (*names, *tail.shapes(trace))  # positions of sources of this shape only
        self.plans[names] = plan

    def is_head(self, weight: Tensor, bias: Tensor) -> bool:
        """Return whether `weight` and `bias` are those of this head, up to rounding in float64."""
        return _close(weight, self.head._weight) and _close(bias, self.head._bias)

    def another_head(self) -> HeadMismatchError:
        """Return the error for a pass with another head."""
        return HeadMismatchError(
            f"the head, {self.where}, is another in this pass: the model's path depends on its "
            "input. Wrap the one path that you study in a module"
        )

    @property
    def where(self) -> str:
        """The layer and its class, for messages."""
        return f"layer {self.layer!r} ({self.kind})" if self.kind else f"{self.layer}"

    def verify_unchanged(self, model: nn.Module) -> None:
        """Raise HeadMismatchError unless all tensors of which the head is made are unchanged.

        If limits of the features were proved, the modules must be the same too: another activation
        in the place of a ReLU, for example, would leave nothing of the proof.
        """
        for index, constant in enumerate(self.constants):
            now = constant.tensor if constant.tensor is not None else _tensor(model, constant.name)
            if now is None and not _has_module(model, constant.name):
                raise HeadMismatchError(
                    f"the head, {self.where}, is no longer in the model: {constant.name!r} is "
                    "missing. Make a new FeatureSpace for the changed model"
                )
            then = constant.copy
            if now is not None and now.device != then.device:
                with torch.inference_mode(False), torch.no_grad():
                    then = then.to(now.device)
                    self.constants[index] = Constant(constant.name, constant.tensor, then)
                    self.head = self.head.to(now.device)
                    if self.magnitude is not None:
                        one, other = self.magnitude
                        self.magnitude = one.to(now.device), other.to(now.device)
            if now is None or now.dtype != then.dtype or not torch.equal(now.detach(), then):
                raise HeadMismatchError(
                    f"the weights of the head, {self.where}, changed since it was found. Make a "
                    "new FeatureSpace for the changed model; features and flip points of the two "
                    "must not be mixed"
                )
        if any(self.proofs) and classes_of(model) != self.modules:
            raise HeadMismatchError(
                "the modules of the model changed since limits of its features were proved "
                f"(by {self.reason}). Make a new FeatureSpace for the changed model"
            )
        if not all(p.holds(model) for p in self.proofs if p is not None):
            raise HeadMismatchError(
                "parameters or buffers of the model changed since they proved limits of its "
                f"features (by {self.reason}). Make a new FeatureSpace for the changed model"
            )

    def domain(self) -> Domain:
        """Return the domain of the features that was proved."""
        nothing = Interval(-torch.inf, torch.inf, "")
        limits = [p or nothing for p, n in zip(self.proofs, self.widths, strict=True) if n]
        if all(p.lower >= 0 and p.upper == torch.inf for p in limits):
            return Domain.nonnegative()
        if all(p.lower == -torch.inf and p.upper == torch.inf for p in limits):
            return Domain.unbounded()
        counts = torch.tensor([n for n in self.widths if n])
        low, high = (
            torch.tensor([p[k] for p in limits], dtype=torch.float64).repeat_interleave(counts)
            for k in (0, 1)
        )
        return Domain.box(low, high)

    @property
    def reason(self) -> str:
        """The operations that prove limits of the features, as text."""
        return " and ".join(dict.fromkeys(p.reason for p in self.proofs if p is not None))

    @torch.no_grad()
    def verify(self, call: LayerCall, logits: Tensor) -> None:
        """Check that ``W z + b`` in float64 gives `logits` (B,K).

        Raises
        ------
        HeadMismatchError
            The residual exceeds the tolerance; the message names the layer and both. Rows that are
            not finite are ignored.
        """
        exact = exact_logits(call, self.head, call.features)
        tolerance = logit_tolerance(call, self.head, logits)
        self._verify_residual(exact, logits, tolerance, "W z + b")

    @torch.no_grad()
    def verify_link(self, logits: Tensor, output: Tensor) -> None:
        """Check that the link turns `logits` into `output`.

        Raises
        ------
        HeadMismatchError
            As :meth:`verify`.
        """
        if self.link == "identity":
            return
        expected = apply_link(self.link, logits)
        tolerance = link_tolerance(self.link, logits, output)
        self._verify_residual(expected, output, tolerance, f"{self.link} of its output")

    def _verify_residual(
        self, expected: Tensor, output: Tensor, tolerance: Tensor, what: str
    ) -> None:
        worst = largest_residual(expected, output, tolerance)
        if worst is not None and worst.ratio > 1:
            raise head_mismatch(self.where, what, worst, output.dtype)


def _close(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape
    return same and bool(((one - other).abs() <= 1e-12 * other.abs().max()).all())


def _tensor(model: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer; None if it is gone."""
    *path, last = name.split(".")
    module: Any = model
    for part in path:
        module = getattr(module, part, None)
    value = getattr(module, last, None)
    return value if isinstance(value, Tensor) else None


def _has_module(model: nn.Module, name: str) -> bool:
    return name.rpartition(".")[0] in modules_of(model)


def classes_of(model: nn.Module) -> tuple[tuple[str, type], ...]:
    """Return the names and classes of the modules of `model`, in order."""
    return tuple((name, type(module)) for name, module in modules_of(model).items())
