"""Label flips: the closest points where a multi-label head's set of labels changes.

A label is a half-space and a set of labels a polyhedron, so both are tie problems. A label is one
of two classes, whose logits are 0 and its own. A set is the region of the first class of a head
whose logits are 0 and, per label, minus its logit if the set has the label, otherwise plus its
logit. The same programs solve them, and the same code certifies them, as for classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsboundary.boundaries.flip_points import MAX_STEPS
from fsboundary.core.checks import (
    check_features,
    check_integer_tensor,
    check_limits,
    check_multi_label_head,
    check_shape,
    rows_and_labels,
)
from fsboundary.core.heads import LinearHead, MultiLabelHead
from fsboundary.core.results import FeatureBatch, LabelFlips
from fsboundary.core.rows import TensorOrArray, from_array, write_rows
from fsboundary.core.status import Status
from fsboundary.core.tolerance import FLIP_RTOL
from fsboundary.geometry.batching import chunk_rows, chunks
from fsboundary.geometry.flips.certify import grade_own_region
from fsboundary.geometry.flips.nearest import tie_distance_bounds
from fsboundary.geometry.flips.solve import solve_ties
from fsboundary.geometry.flips.tie_problems import TieProblems
from fsboundary.modes import in_standard_modes
from fsboundary.threads import in_one_thread


@in_one_thread
@in_standard_modes
def label_flips(
    head: MultiLabelHead,
    features: Float[TensorOrArray, "B d"] | FeatureBatch,
    targets: Literal["nearest", "all"]
    | Int[TensorOrArray, "B ..."]
    | Bool[TensorOrArray, "*B L"] = "nearest",
    *,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> LabelFlips:
    """Return the closest points where labels change, with float64 certificates.

    The flip of a label is the closest point of the domain where its logit is 0, whatever the other
    labels are there. The flip to a set of labels is the closest point of the domain where no label
    of the set has a negative logit and no other label a positive one: the closest point of the
    closure of those with exactly this set. The nearest flip is the closest point where any label
    changes.

    Parameters
    ----------
    head : MultiLabelHead
    features : Tensor or array (B, d), or FeatureBatch
        Any float dtype; computed in float64.
    targets : "nearest", "all", integer Tensor (B,) or (B, T), or bool Tensor (L,) or (B, L)
        "nearest": T = 1, the label whose boundary is nearest in the domain; the certificate then
        also covers the choice of the label. "all": T = L, each label. Integers are labels to
        change; an entry of -1 has no target and is UNDECIDED. Booleans are the set of labels to
        reach, T = 1, one for all rows or one per row. Arrays are taken too.
    tolerance : float, optional
        Relative tolerance of gap and violation, default 1e-8; 1e-9 of the scale is always
        allowed.
    max_steps : int, optional
        Limit of steps per problem, default 200.

    Returns
    -------
    LabelFlips
        Distances in feature units. Per entry: INFEASIBLE with distance +inf where no such point
        exists; NaN with OUTSIDE_DOMAIN, NOT_FINITE, TARGET_IS_SOURCE (the row has that set
        already), MAX_STEPS or INACCURATE where there is no certified answer.

    Raises
    ------
    ArgumentError
        Wrong types or shapes, or labels that the head does not have, before any work.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import MultiLabelHead, label_flips
    >>> head = MultiLabelHead(torch.eye(2), None)
    >>> z = torch.tensor([[1.0, -3.0]])
    >>> flips = label_flips(head, z)
    >>> flips.label.tolist(), flips.distance.tolist()
    ([[0]], [[1.0]])
    >>> label_flips(head, z, torch.tensor([True, True])).distance.tolist()
    [[3.0]]
    """
    check_multi_label_head(head, "flip_points")
    z = check_features(head.num_features, features)
    rtol, limit = check_limits(tolerance, max_steps, (FLIP_RTOL, MAX_STEPS))
    chosen = _read_targets(targets, len(z), head.num_labels)
    head = head.to(z.device)
    status, predicted = rows_and_labels(head, z)
    usable = status == Status.CONVERGED
    if isinstance(chosen, str) and chosen == "nearest":
        label = torch.full((len(z), 1), -1, dtype=torch.int64, device=z.device)
        fields = _blank_fields(z, label, status)
        rows = usable.nonzero()[:, 0]
        for part in chunks(len(rows), chunk_rows(max(head.num_features, head.num_labels))):
            found = _nearest(head, z[rows[part]], predicted[rows[part]], rtol, limit)
            label[rows[part]] = found.pop("label")
            _write(fields, rows[part], torch.zeros_like(rows[part]), found)
        return LabelFlips(predicted=predicted, label=label, **fields)
    if isinstance(chosen, Tensor) and chosen.dtype == torch.bool:
        wanted = chosen.to(z.device).expand(len(z), -1)
        label = torch.full((len(z), 1), -1, dtype=torch.int64, device=z.device)
        fields = _blank_fields(z, label, status)
        reached = usable & (wanted == predicted).all(dim=1)
        fields["status"][reached] = int(Status.TARGET_IS_SOURCE)
        for rows in _equal_rows(wanted, usable & ~reached):
            found = _solve_set(head, z[rows], wanted[rows[0]], rtol, limit)
            _write(fields, rows, torch.zeros_like(rows), found)
        return LabelFlips(predicted=predicted, label=label, **fields)
    label = torch.arange(head.num_labels, device=z.device).expand(len(z), -1)
    if isinstance(chosen, Tensor):
        label = chosen.to(z.device)
    fields = _blank_fields(z, label, status)
    fields["status"][(label < 0) & usable[:, None]] = int(Status.UNDECIDED)
    for k in label[label >= 0].unique().tolist():
        rows, column = ((label == k) & usable[:, None]).nonzero().unbind(1)
        found = _solve_label(head, k, z[rows], predicted[rows, k], rtol, limit)
        _write(fields, rows, column, found)
    return LabelFlips(predicted=predicted, label=label.clone(), **fields)


def _read_targets(targets: object, rows: int, labels: int) -> str | Tensor:
    """Return a word, the labels to change as (B,T), or sets of labels as bool (L,) or (B,L)."""
    if isinstance(targets, str) and targets in ("nearest", "all"):
        return targets
    targets = from_array(targets)
    if isinstance(targets, Tensor) and targets.dtype == torch.bool:
        fix = "pass one truth value per label, for all rows or per row"
        return check_shape("targets", targets, (labels,), (rows, labels), fix=fix).clone()
    found = check_integer_tensor(
        "targets",
        targets,
        (rows,),
        (rows, "T"),
        fix="pass torch.full((B,), k) for one label, each once per row, or a bool tensor for a set",
        noun="labels",
        within=range(-1, labels),
        range_fix="count labels from 0; -1 leaves a row without a target",
        distinct=isinstance(targets, Tensor) and targets.ndim == 2,
        also='"nearest", "all", a bool tensor (L,) or (B, L)',
    )
    return found[:, None] if found.ndim == 1 else found


def _blank_fields(z: Tensor, label: Tensor, status: Tensor) -> dict[str, Tensor]:
    """Return the fields (B,T) of entries that are not solved."""
    nan = torch.full(label.shape, torch.nan, dtype=torch.float64, device=z.device)
    return {
        "points": nan[..., None].repeat(1, 1, z.shape[1]),
        "distance": nan.clone(),
        "lower_bound": torch.zeros_like(nan),
        "gap": nan.clone(),
        "violation": nan.clone(),
        "active": torch.full((*label.shape, 0), -1, dtype=torch.int64, device=z.device),
        "multipliers": nan.new_zeros(*label.shape, 0),
        "status": status[:, None].repeat(1, label.shape[1]),
        "steps": torch.zeros_like(label),
    }


def _write(
    fields: dict[str, Tensor], rows: Tensor, column: Tensor, found: dict[str, Tensor]
) -> None:
    """Write solved entries (F,) at `rows` and `column` of the fields (B,T)."""
    shape = fields["status"].shape
    flat = {name: value.flatten(0, 1) for name, value in fields.items()}
    write_rows(flat, rows * shape[1] + column, found, padding={"active": -1, "multipliers": 0})
    fields.update({name: value.unflatten(0, shape) for name, value in flat.items()})


def _equal_rows(table: Tensor, among: Tensor) -> Iterator[Tensor]:
    """Yield the rows, as indices, of each distinct row of a bool `table` (B,L)."""
    rows = among.nonzero()[:, 0]
    if len(rows):
        _, group = table[rows].unique(dim=0, return_inverse=True)
        order = group.argsort(stable=True)
        yield from rows[order].split(group.bincount().tolist())


_SOLVED = ("points", "distance", "lower_bound", "gap", "violation", "status", "steps")


def _solve_label(
    head: MultiLabelHead, k: int, z: Tensor, assigned: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the certified fields of the flips of label `k` of usable rows."""
    two, source = head.label_head(k), assigned.long()
    free = torch.tensor([[False, True]], device=z.device)

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        anchor = torch.zeros_like(source[part])
        problems = TieProblems(
            head=two, z=z[part], anchor=anchor, free=free.expand(len(anchor), -1)
        )
        return problems, source[part]

    solved = solve_ties(two, len(z), make, ties=1, rtol=rtol, max_steps=limit)
    fields = {name: solved[name] for name in _SOLVED}
    used = solved["active"] >= 0
    fields["active"] = torch.where(used, k, -1)
    # the constraint of the tie is minus the label's logit
    fields["multipliers"] = torch.where(used, -solved["multipliers"], 0.0)
    return fields


def _solve_set(
    head: MultiLabelHead, z: Tensor, wanted: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the certified fields of the flips of usable rows to the set `wanted` (L,)."""
    sign = torch.where(wanted, 1.0, -1.0).to(head._weight)
    weight, bias = -sign[:, None] * head._weight, -sign * head._bias
    region = LinearHead(
        torch.cat([torch.zeros_like(weight[:1]), weight]),
        torch.cat([torch.zeros_like(bias[:1]), bias]),
        head.domain,
    )
    source = region.predict(z)

    def make(part: slice) -> tuple[TieProblems, Tensor]:
        anchor = torch.zeros_like(source[part])
        free = torch.zeros((len(anchor), region.num_classes), dtype=torch.bool, device=z.device)
        return TieProblems(head=region, z=z[part], anchor=anchor, free=free), source[part]

    solved = solve_ties(region, len(z), make, ties=1, rtol=rtol, max_steps=limit)
    fields = {name: solved[name] for name in _SOLVED}
    used = solved["active"] >= 0
    label = torch.where(used, solved["active"] - 1, -1)
    fields["active"] = label
    # the constraint of a label is its logit, with the sign that the set wants
    signed = solved["multipliers"] * sign[label.clamp_min(0)]
    fields["multipliers"] = torch.where(used, signed, 0.0)
    return fields


def _nearest(
    head: MultiLabelHead, z: Tensor, predicted: Tensor, rtol: float, limit: int
) -> dict[str, Tensor]:
    """Return the certified fields of the nearest flips of usable rows, and their labels (B,1).

    Closed-form bounds decide which labels are solved: most rows need one or two.
    """
    plain, certified = _closed_form_bounds(head, z, predicted)
    order = plain.argsort(dim=1, stable=True)
    label = torch.full_like(order[:, 0], -1)
    fields = {name: v[:, 0] for name, v in _blank_fields(z, label[:, None], label).items()}
    best = torch.full_like(z[:, 0], torch.inf)
    # an entry that no solver saw is not limited by its status
    codes = torch.where(torch.isinf(plain), int(Status.INFEASIBLE), int(Status.CONVERGED))
    for rank in range(head.num_labels):
        bound = plain.gather(1, order[:, rank : rank + 1])[:, 0]
        open_rows = (bound < best) & torch.isfinite(bound)
        if not bool(open_rows.any()):
            break
        for k in order[open_rows, rank].unique().tolist():
            rows = (open_rows & (order[:, rank] == k)).nonzero()[:, 0]
            found = _solve_label(head, k, z[rows], predicted[rows, k], rtol, limit)
            certified[rows, k] = torch.maximum(certified[rows, k], found["lower_bound"])
            codes[rows, k] = found["status"]
            nearer = found["distance"] < best[rows]
            rows = rows[nearer]
            best[rows], label[rows] = found["distance"][nearer], k
            found = {name: value[nearer] for name, value in found.items()}
            write_rows(fields, rows, found, padding={"active": -1, "multipliers": 0})
    return _grade_nearest(z, fields, label, certified, codes, rtol)


def _closed_form_bounds(
    head: MultiLabelHead, z: Tensor, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the distances (B,L) to the planes of the labels: plain, and lowered by rounding."""
    columns = []
    for k in range(head.num_labels):
        source = predicted[:, k].long()
        pair = tie_distance_bounds(head.label_head(k), z, source, 2.0, allow_ties=False)
        columns.append([one.gather(1, 1 - source[:, None])[:, 0] for one in pair])
    plain, lowered = (torch.stack(list(column), dim=1) for column in zip(*columns, strict=True))
    return plain, lowered


def _grade_nearest(
    z: Tensor,
    fields: dict[str, Tensor],
    label: Tensor,
    certified: Tensor,
    codes: Tensor,
    rtol: float,
) -> dict[str, Tensor]:
    """Return the fields of the nearest flips: the choice of the label is certified too.

    The nearest label is one entry, all others together are another: they are nowhere nearer than
    the smallest of their bounds.
    """
    row = torch.arange(len(z), device=z.device)
    known, chosen = label >= 0, label.clamp_min(0)
    own = certified[row, chosen]
    rest = certified.clone()
    rest[row[known], label[known]] = torch.inf
    bound, limiting = rest.min(dim=1)
    nothing = torch.isinf(bound)
    code = torch.where(nothing, int(Status.INFEASIBLE), codes[row, limiting])
    first = torch.where(known, codes[row, chosen], code)
    distance = torch.where(known, fields["distance"], torch.inf)
    others = {
        "distance": torch.stack([distance, torch.full_like(distance, torch.inf)], dim=1),
        "lower_bound": torch.stack([torch.where(known, own, bound), bound], dim=1),
        "violation": torch.stack([fields["violation"]] * 2, dim=1),
        "status": torch.stack([first, code], dim=1),
    }
    graded, _ = grade_own_region(others, lambda _: fields["points"], z, rtol)
    found = fields | {name: value[:, 0] for name, value in graded.items()}
    # no label can change: for one label, and for a set, this is INFEASIBLE
    none = found["status"] == Status.UNBOUNDED
    found["status"] = torch.where(none, int(Status.INFEASIBLE), found["status"])
    failed = found["status"] != Status.CONVERGED
    for name in ("points", "violation"):
        mask = failed[:, None] if name == "points" else failed
        found[name] = torch.where(mask, torch.nan, found[name])
    found["label"] = label[:, None]
    return found
