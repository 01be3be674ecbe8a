"""Multipliers that prove a class pair to have no common boundary, from one linear program."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from fsboundary.geometry.pairs import pair_norms
from fsboundary.head import LinearHead


def farkas_multipliers(head: LinearHead, source: int, target: int) -> Tensor | None:
    """Return multipliers (K,) by slot with ``λᵀ(M x + c) < 0`` on the domain, or None.

    They are the marginals of: minimise s >= 0 such that every constraint of the pair, divided by
    its norm, fails by at most s at some x of the domain. s = 0 means that there are boundary
    points, and None is returned. Whether the multipliers do prove what they should is for
    :mod:`fsboundary.geometry.certify` to decide.

    Parameters
    ----------
    head : LinearHead
    source, target : int
        Different classes.
    """
    norms = pair_norms(head)[target].cpu().numpy()
    tie_norm = norms[source]
    weight, bias = head.weight.cpu().numpy(), head.bias.cpu().numpy()
    lam = np.zeros(head.num_classes)
    # equal weight rows: the biases alone decide
    if tie_norm == 0 and bias[source] != bias[target]:
        lam[target] = -np.sign(bias[source] - bias[target])
        return torch.from_numpy(lam).to(head.weight)
    beaten = (norms == 0) & (bias > bias[target])
    if beaten.any():
        lam[int(beaten.nonzero()[0][0])] = 1.0
        return torch.from_numpy(lam).to(head.weight)
    others = np.flatnonzero(norms > 0)
    others = others[others != source]
    with np.errstate(over="ignore", invalid="ignore"):  # looked for just below
        slack = (weight[target] - weight[others]) / norms[others, None]
        slack_offset = (bias[target] - bias[others]) / norms[others]
        rows, right = [-slack], [slack_offset]
        if tie_norm > 0:
            tie = (weight[source] - weight[target])[None] / tie_norm
            offset = np.array([(bias[source] - bias[target]) / tie_norm])
            rows += [tie, -tie]
            right += [-offset, offset]
    matrix = np.vstack(rows)
    bounds = np.concatenate(right)
    if not (np.isfinite(matrix).all() and np.isfinite(bounds).all()):
        return None
    matrix = np.hstack([matrix, np.full((len(matrix), 1), -1.0)])
    cost = np.zeros(matrix.shape[1])
    cost[-1] = 1.0
    low, high = (t.cpu().numpy() for t in head.domain.limits(head.weight))
    limits = np.stack([np.append(low, 0.0), np.append(high, np.inf)], axis=1)
    found = linprog(cost, A_ub=matrix, b_ub=bounds, bounds=limits, method="highs")
    if found.status != 0 or found.fun <= 0:
        return None
    marginals = found.ineqlin.marginals
    with np.errstate(over="ignore"):  # what is not finite counts as 0 when it is graded
        lam[others] = np.maximum(-marginals[: len(others)] / norms[others], 0.0)
        if tie_norm > 0:
            up, down = marginals[len(others) :]
            lam[target] = (up - down) / tie_norm
    return torch.from_numpy(lam).to(head.weight)
