"""Later passes of a model: features and logits, read where the known head begins."""

from __future__ import annotations

import torch
from torch import Tensor

from fsboundary.core.errors import HeadError, HeadMismatchError
from fsboundary.models.calling import chance_state, restore_chance
from fsboundary.models.head_search.affine_tail import NotAffineError, Tail
from fsboundary.models.head_search.find import RECENT, Traced, chosen
from fsboundary.models.head_search.graph import UnseenOperationError
from fsboundary.models.head_search.search import (
    HeadSearch,
    compose,
    positions_of,
    read_features,
    row_scales,
)
from fsboundary.models.head_search.verified_head import Plan, VerifiedHead, pass_kind
from fsboundary.models.linear_maps import LayerCall
from fsboundary.models.outputs import as_logits, find_outputs


def read_pass(
    known: VerifiedHead, search: HeadSearch, rows: int, traced: Traced | None = None
) -> tuple[Tensor, Tensor, LayerCall]:
    """Return features, logits and their rounding, from a traced pass."""
    output, tail = traced or _trace(known, search, rows)
    logits, plan = as_logits(output), _plan(known, search, tail, rows, output)
    features, size, positions = read_features(search.trace, tail.sources, plan.selections)
    scale = None
    if known.sphere == "cones":
        if tail.direction is None:
            raise known.another_head()
        before = read_features(search.trace, [tail.direction], plan.selections)[0]
        scale = row_scales(before, features)
        if scale is None:
            raise HeadMismatchError(
                f"the head, {known.where}, takes features that are not normalised in this pass: "
                "the model's path depends on its input"
            )
        features = before
    if features.shape[1] != known.head.num_features:
        raise known.another_head()
    if tail.link != "identity":
        before = search.trace.kept[tail.root].reshape(rows, -1).clone()
        known.verify_link(before, logits)
        logits = before
    head_call = LayerCall(
        layer=known.layer,
        features=features,
        outputs=logits,
        size=size,
        positions=positions,
        convolution=plan.rounding.convolutions > 0,
        rounding=plan.rounding,
        magnitude=known.magnitude,
        scale=scale,
    )
    return features, logits, head_call


def _trace(known: VerifiedHead, search: HeadSearch, rows: int) -> Traced:
    """Return the logits of a pass and their affine end, with the operands of that kept."""
    kind = pass_kind(rows)
    keep, copy = known.keep.get(kind, (frozenset(), frozenset()))
    device = known.head.device
    # a pass that is run again draws the same numbers: it would else be run until a model with a
    # coin took the known path, so that nobody could see the coin
    chance = chance_state(device)
    if known.starts.get(kind, 0) and not torch.is_inference_mode_enabled():
        traced = _trace_end(known, search, rows, keep, known.starts[kind])
        if traced is not None:
            return traced
        known.misses += 1
        restore_chance(chance, device)
    while True:
        raw = search.run(keep, copy, recent=0 if keep else RECENT, constants=known.constants)
        output = chosen(find_outputs(raw, rows), known.output)[known.output]
        try:
            tail = search.tail(output, known.stop_at)
            if not tail.operations:
                name = search.trace.operations[tail.root.operation].name
                raise NotAffineError(f"the non-affine operation {name!r} gives its output")
        except NotAffineError as reason:
            raise HeadMismatchError(
                f"the head, {known.where}, is not the last linear map of this pass: {reason}. The "
                "model's path depends on its input; wrap the one path that you study in a module"
            ) from None
        calls = search.calls_of(tail.keep)
        if search.has_kept(tail):
            known.keep[kind] = calls, copy
            # unnamed constants are recognised by value, which the end of a pass cannot show
            late = not copy and known.misses < _MISSES and all(c.name for c in known.constants)
            known.starts[kind] = search.first_call(tail) if late else 0
            break
        changed = search.trace.overwritten() & frozenset(tail.sources)
        if calls <= keep and changed <= copy:
            raise HeadError(
                "two passes of the same batch run different operations: the model's path depends "
                "on chance or on earlier calls, so its features do too"
            )
        keep, copy = calls, copy | changed
        restore_chance(chance, device)
    if copy and output.requires_grad:
        raise HeadError(
            "the model overwrites its features in place after its head used them, so no gradient "
            "leads through them. Remove that in-place operation, or use extract(), which needs "
            "no gradient"
        )
    return output, tail


_MISSES = 4
"""Batches that may be traced twice, because their end did not suffice; then all are traced whole.
A model with several paths misses at each change of the path."""


def _trace_end(
    known: VerifiedHead, search: HeadSearch, rows: int, keep: frozenset[int], start: int
) -> Traced | None:
    """Return the same as :func:`_trace` from the end of a pass; None if all must be recorded."""
    raw = search.run(keep, constants=known.constants, start=start)
    output = chosen(find_outputs(raw, rows), known.output)[known.output]
    try:
        tail = search.tail(output, known.stop_at)
        plan = known.plan_of(search.trace, tail)
        known_plan = plan is not None and plan.fixed
        seen = search.trace.complete and known_plan and search.has_kept(tail)
        return (output, tail) if seen else None
    except (NotAffineError, UnseenOperationError):
        return None


def _plan(known: VerifiedHead, search: HeadSearch, tail: Tail, rows: int, output: Tensor) -> Plan:
    """Return how this pass computes the logits; if it is new, after a comparison of its head."""
    plan = known.plan_of(search.trace, tail)
    if plan is not None and plan.fixed:
        return plan
    try:
        if plan is not None:
            return Plan(positions_of(search, tail, rows, as_logits(output).shape[1]), plan.rounding)
        found, composed = compose(search, tail, rows, as_logits(output).shape[1])
    except NotAffineError as reason:
        raise HeadMismatchError(
            f"the head, {known.where}, is not linear in this pass: {reason}"
        ) from None
    if not known.is_head(composed.weight, composed.bias):
        raise known.another_head()
    known.add_plan(search.trace, tail, found)
    return found
