"""The first passes of a model, from which its head is composed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fsboundary.core.errors import HeadError
from fsboundary.core.heads import LinearHead
from fsboundary.models.head_search.affine_tail import NotAffineError, Tail
from fsboundary.models.head_search.graph import Ref, Selection
from fsboundary.models.head_search.search import (
    HeadSearch,
    compose,
    read_features,
    row_scales,
)
from fsboundary.models.head_search.verified_head import Plan, VerifiedHead, classes_of, pass_kind
from fsboundary.models.intervals import Interval, IntervalProver
from fsboundary.models.outputs import as_logits, find_outputs

RECENT = 2**27
"""Bytes of operands kept in the first pass, so that mostly no second one is needed."""

Traced = tuple[Tensor, Tail]
"""Output of the last pass, and its affine end."""


def find_head(
    model: nn.Module, search: HeadSearch, rows: int, layer_name: str | None, output: str | None
) -> tuple[VerifiedHead, Traced | None]:
    """Return the head that the first passes of a model show, and the last if it can be read."""
    prover = IntervalProver(model)
    proofs: dict[Ref, Interval | None] = {}

    def observe(ref: Ref, tensor: Tensor) -> None:
        proofs[ref] = prover.interval(tensor)

    def run(keep: frozenset[int] = frozenset(), copy: frozenset[Ref] = frozenset()) -> Any:
        with prover:
            return search.run(keep, copy, observe, recent=RECENT)

    if any(map(nn.parameter.is_lazy, model.parameters())):
        search.run()  # their values come from the first pass, and are constants of the next
    raw = run()
    outputs = chosen(find_outputs(raw, rows), output)
    tails: dict[str, Tail] = {}
    reasons: dict[str, NotAffineError] = {}
    for name, tensor in outputs.items():
        try:
            tails[name] = search.tail(tensor, layer_name)
            if not (tails[name].products or _multiplies(search, tails[name])):
                reasons[name] = NotAffineError(_source_reason(search, tails[name]))
        except NotAffineError as reason:
            reasons[name] = reason
    _require_finite(outputs)
    heads: dict[str, VerifiedHead] = {}
    traced: Traced | None = None
    for name in [name for name in outputs if name not in reasons]:
        try:
            tail, copy = tails[name], frozenset[Ref]()
            if not search.has_kept(tail):
                traced = None  # what was read in the pass before is gone
                outputs, copy = _keep_operands(run, search, tail, name, rows, layer_name)
            known = _compose(model, search, tail, outputs[name], rows, proofs)
            known.output, known.stop_at = name, layer_name
            known.keep[pass_kind(rows)] = search.calls_of(tail.keep), copy
            heads[name], traced = known, (outputs[name], tail)
        except NotAffineError as reason:
            reasons[name] = reason
    if not heads:
        raise _no_head_error(search, reasons, layer_name)
    if len(heads) > 1:
        raise _several_error(heads, type(raw).__name__)
    return next(iter(heads.values())), traced


def _multiplies(search: HeadSearch, tail: Tail) -> bool:
    return not {"mul", "addcmul"}.isdisjoint(tail.names(search.trace))


def _keep_operands(
    run: Callable[..., Any],
    search: HeadSearch,
    tail: Tail,
    name: str,
    rows: int,
    layer_name: str | None,
) -> tuple[dict[str, Tensor], frozenset[Ref]]:
    """Run again so that all operands of `tail` are kept; return outputs and copied operands."""
    copy = search.trace.overwritten() & frozenset(tail.sources)
    calls = search.calls_of(tail.keep)
    while True:
        outputs = find_outputs(run(calls, copy), rows)
        again = search.tail(outputs[name], layer_name) if name in outputs else None
        if again is None or (again.operations, again.sources) != (tail.operations, tail.sources):
            raise HeadError(
                "two passes of the same batch run different operations: the model's path depends "
                "on chance or on earlier calls, so its features do too"
            )
        changed = search.trace.overwritten() & frozenset(tail.sources)
        if changed <= copy:
            return outputs, copy
        copy |= changed


def chosen(outputs: dict[str, Tensor], output: str | None) -> dict[str, Tensor]:
    """Return the output of that name, or all if it is None."""
    if output is None:
        return outputs
    if output not in outputs:
        raise HeadError(
            f"output={output!r} names no output (B,K) of the model; it has "
            f"{', '.join(map(_quoted, outputs))}"
        )
    return {output: outputs[output]}


def _quoted(name: str) -> str:
    return repr(name) if name else "one unnamed output (leave output= out)"


def _compose(
    model: nn.Module,
    search: HeadSearch,
    tail: Tail,
    output: Tensor,
    rows: int,
    proofs: dict[Ref, Interval | None],
) -> VerifiedHead:
    """Return the head of one output, from a pass that kept what its tail needs."""
    plan, composed = compose(search, tail, rows, as_logits(output).shape[1])
    if not tail.products and _mixes_nothing(composed.weight):
        raise NotAffineError(_source_reason(search, tail))
    layers = search.layers_of(tail.products)
    sphere = _sphere(search, tail, plan, composed.bias)
    sources = tail.sources
    if sphere == "cones" and tail.direction is not None:
        sources = [tail.direction]
    known = VerifiedHead(
        layer=", ".join(layer or _MODEL for layer in layers) or "(no module)",
        kind=", ".join(_kinds(model, layers)),
        link=tail.link,
        pooled=any(s.pooled for s in plan.selections),
        sphere=sphere,
        proofs=[
            _of_means(proofs.get(ref), search.trace.kept[ref], selection)
            for ref, selection in zip(sources, plan.selections, strict=True)
        ],
        widths=composed.widths,
        head=LinearHead(composed.weight, composed.bias),
        magnitude=composed.magnitude,
        constants=search.constants(tail),
        modules=classes_of(model),
    )
    known.add_plan(search.trace, tail, plan)
    return known


def _sphere(
    search: HeadSearch, tail: Tail, plan: Plan, bias: Tensor
) -> Literal["", "cones", "bound"]:
    """Return whether regions are cones, because the features are normalised and b moves none."""
    if tail.direction is None:
        return ""
    z, s = (
        read_features(search.trace, [ref], plan.selections)[0]
        for ref in (tail.direction, tail.sources[0])
    )
    if row_scales(z, s) is None:  # normalised position by position, for example
        return ""
    # classes are compared with each other, but a label with 0
    moves_none = bias == (0 if search.multi_label else bias[0])
    return "cones" if bool(moves_none.all()) else "bound"


def _of_means(interval: Interval | None, source: Tensor, selection: Selection) -> Interval | None:
    """Return the limits of the means of numbers within `interval`, which are rounded too."""
    if interval is None or not selection.pooled:
        return interval
    lower, upper = interval.lower, interval.upper
    # a sum of n numbers and its division: fewer than n + 2 roundoffs, and those of weights
    more = 2 if selection.weights is None else 6
    relative = (source[0].numel() + more) * torch.finfo(source.dtype).eps
    below, above = (abs(limit) * relative for limit in (lower, upper))
    return interval._replace(lower=lower - below, upper=upper + above)


def _mixes_nothing(weight: Tensor) -> bool:
    """Return whether no feature, or no class, takes part in more than one product."""
    used = weight != 0
    return any(bool((used.sum(dim=axis) <= 1).all()) for axis in (0, 1))


_MODEL = "(the model itself)"


def _kinds(model: nn.Module, layers: Sequence[str]) -> list[str]:
    kinds: dict[str, None] = {}
    for layer in layers:
        with contextlib.suppress(AttributeError, RuntimeError):  # TorchScript has no get_submodule
            kinds[type(model.get_submodule(layer)).__name__] = None
    return list(kinds)


def _require_finite(outputs: dict[str, Tensor]) -> None:
    """Raise HeadError if a batch has no finite row."""
    finite = torch.stack(
        [torch.isfinite(as_logits(t.detach())).all(dim=1) for t in outputs.values()]
    ).any(dim=0)
    if bool(finite.any()):
        return
    masked = [torch.isneginf(t).all(dim=0) for t in map(as_logits, outputs.values())]
    if any(bool(m.any()) for m in masked):
        classes = next(m for m in masked if bool(m.any())).nonzero()[:, 0].tolist()
        raise HeadError(
            f"the logits of classes {classes} are -inf in every row, as of masked classes: leave "
            "these columns out, so that the model returns logits of the other classes only"
        )
    shown = ", ".join(str(row) for row in range(min(len(finite), 10)))
    more = ", ..." if len(finite) > 10 else ""
    raise HeadError(
        f"all {len(finite)} rows of the first batch (rows {shown}{more}) have NaN or infinite "
        "features or logits, so the head cannot be found. Check the inputs and the model's "
        "weights, or extract a batch with at least one finite row first"
    )


def _several_error(heads: dict[str, VerifiedHead], kind: str) -> HeadError:
    """Return the error for a model of which several outputs have a linear head."""
    listed = "; ".join(
        f"{name!r}: {h.head.num_classes} outputs of {h.where}" for name, h in heads.items()
    )
    first = next(iter(heads))
    return HeadError(
        f"the model returns a {kind} of which several parts are linear in features, and any of "
        f"them may be the logits: {listed}. Choose one: FeatureSpace(model, output={first!r})"
    )


def _no_head_error(
    search: HeadSearch,
    reasons: dict[str, NotAffineError],
    layer_name: str | None,
) -> HeadError:
    """Return the error for a model without a linear head."""
    if layer_name is not None:
        made = search.products_of(layer_name)
        if not made:
            return HeadError(
                f"head={layer_name!r} was not called as a linear layer in the forward pass: name "
                "the layer that gives the logits, or leave head out"
            )
    texts = "; ".join(
        f"output {name!r}: {reason}" if len(reasons) > 1 else str(reason)
        for name, reason in reasons.items()
    )
    named = "" if layer_name is None else f" with head={layer_name!r}"
    return HeadError(
        f"the model has no linear head{named}: {texts}. fsboundary needs logits that are W z + b "
        "of features z; only affine operations, a softmax or a log-softmax may follow the last "
        f"product with weights. {search.last_operations()}"
    )


def _source_reason(search: HeadSearch, tail: Tail) -> str:
    """Return why a tail in which every class is one number has no head."""
    operation = search.trace.operations[tail.sources[0].operation]
    name = operation.name
    before = search.layer_before(tail.sources[0])
    if "quantized" in name:
        return f"its last layer is quantised ({name}): it rounds its input or output"
    if name == "sigmoid" and before:
        return (
            f"it returns the sigmoid of {before}, one probability per label: labels that do not "
            'exclude each other have no common decision regions. Pass head="multi_label" for '
            "such labels; if the classes do exclude each other, return the logits instead of "
            "their sigmoid"
        )
    if before:
        return (
            f"the non-affine operation {name!r} follows its last linear map, {before} (if its "
            "outputs are features of an encoder, as with num_classes=0, it has no classifier: add "
            "a trained linear head)"
        )
    return (
        f"no product with weights gives its output: the last operation that is not affine, "
        f"{name!r}, gives one number per output. Is it an encoder without a classifier "
        "(num_classes=0)? Add a trained linear head, or use an extractor with a surrogate head"
    )
