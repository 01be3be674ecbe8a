"""An independent checker of label flips: the checks of tie points, on constraints of labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

import fsboundary as fsb
from fsboundary import MultiLabelHead, Status
from support.flips.case import Array, Case, arrays
from support.flips.checker import Fault
from support.flips.tie_checker import ROW_CHECKS, Row
from support.numbers import lift


def examine_labels(case: Case, seed: int) -> tuple[Counter[str], list[Fault]]:
    """Return counts of statuses and every fault, with the classes of `case` taken as labels."""
    head = case.head()
    labels = MultiLabelHead(head.weight, head.bias, head.domain)
    z = torch.tensor(case.features)
    wanted = np.random.default_rng([seed, 11]).random((len(z), labels.num_labels)) < 0.5
    counts: Counter[str] = Counter()
    faults: list[Fault] = []
    answers = {}
    for kind, targets in (("all", "all"), ("set", torch.from_numpy(wanted)), ("nearest", None)):
        found = fsb.label_flips(labels, z, *([] if targets is None else [targets]))  # type: ignore[arg-type]  # each kind
        answer = answers[kind] = arrays(found)
        counts.update(Status(int(s)).name for s in answer["status"].ravel())
        for row, entry in zip(*np.nonzero(np.isin(answer["status"], (0, 1, 4, 5))), strict=True):
            chosen = wanted[row] if kind == "set" else None
            names = faults_of(case, answer, int(row), int(entry), chosen, kind == "nearest")
            faults += [Fault(f"{kind} {name}", int(row), int(entry), "labels") for name in names]
    nearest = np.nan_to_num(answers["all"]["distance"], nan=np.inf, posinf=np.inf).min(axis=1)
    limit = nearest * (1 + 1e-12) + np.nan_to_num(answers["all"]["violation"], nan=0.0).max(axis=1)
    balls = arrays(fsb.label_balls(labels, z))["radius"]
    for name, bound in (("bound", answers["nearest"]["lower_bound"][:, 0]), ("ball", balls)):
        above = np.nonzero(bound > limit)[0].tolist()
        faults += [Fault(name, row, 0, f"{bound[row]} above {nearest[row]}") for row in above]
    return counts, faults


def faults_of(
    case: Case, answer: dict[str, Array], row: int, entry: int, wanted: Array | None, nearest: bool
) -> list[str]:
    """Return the names of the checks that fail in extended precision and in fractions."""
    label = int(answer["label"][row, entry])
    if wanted is None and label < 0:
        return []  # no label can change: there is nothing to check but the bound of all labels
    used = answer["active"][row, entry] >= 0
    active = answer["active"][row, entry][used]
    if len(set(active)) < len(active) or (wanted is None and set(active) - {label}):
        return ["layout"]
    lam = np.zeros(len(case.bias))
    lam[active] = answer["multipliers"][row, entry][used]
    sign = np.ones(len(lam)) if wanted is None else np.where(wanted, 1.0, -1.0)
    if not np.isfinite(lam).all() or (wanted is not None and (lam * sign < 0).any()):
        return ["multipliers"]
    slots = np.arange(len(lam)) if wanted is not None else np.array([label])
    said: dict[str, Any] = {
        n: answer[n][row, entry]
        for n in ("points", "distance", "lower_bound", "gap", "violation", "status")
    }

    def read(exact: bool) -> Row:
        signs = lift(sign[slots], exact)
        low, high = (lift(x, exact) for x in case.limits())
        return Row(
            z=lift(case.features[row], exact),
            low=low,
            high=high,
            matrix=signs[:, None] * lift(case.weight, exact)[slots],
            offset=signs * lift(case.bias, exact)[slots],
            tied=np.full(len(slots), wanted is None),
            lam=signs * lift(lam[slots], exact),
            answer=said,
            tolerance=1e-8,
            exact=exact,
        )

    # the bound of the nearest label may be the closed form, which has no multipliers
    checks = ROW_CHECKS[2:] if nearest else ROW_CHECKS
    return [c.__name__ for c in checks if c(read(False)) and c(read(True))]
