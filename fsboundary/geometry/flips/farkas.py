"""Multipliers that prove that given classes cannot tie at the top, from one linear program."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.heads import LinearHead
from fsboundary.geometry.linear_programs import minimise
from fsboundary.geometry.pairs import pair_norms


def farkas_multipliers(head: LinearHead, anchor: int, ties: tuple[int, ...]) -> Tensor | None:
    """Return multipliers (K,) with ``λᵀ(M x + c) < 0`` on the domain, or None.

    Slot k belongs to ``(w_r - w_k).x + b_r - b_k`` with r the `anchor`: free for `ties`, at least
    0 elsewhere (see :mod:`fsboundary.geometry.flips.tie_problems`). The multipliers are the marginals of:
    minimise s >= 0 such that every constraint, divided by its norm, fails by at most s at some x
    of the domain. s = 0 means that there are such points, and None is returned.
    Whether the multipliers do prove what they should is for
    :mod:`fsboundary.geometry.flips.certify` to decide.

    Parameters
    ----------
    head : LinearHead
    anchor : int
    ties : tuple of int
        Other classes; none asks for the region of the anchor.
    """
    norms = pair_norms(head)[anchor].cpu().numpy()
    weight, bias = head.weight.cpu().numpy(), head.bias.cpu().numpy()
    lam = np.zeros(head.num_classes)
    tied = np.zeros(head.num_classes, dtype=np.bool_)
    tied[list(ties)] = True
    # equal weight rows: the biases alone decide
    with np.errstate(over="ignore"):  # an infinite lead has the right sign
        lead = np.where(norms == 0, bias[anchor] - bias, 0.0)
    ruled = (lead < 0) | (tied & (lead > 0))
    if ruled.any():
        k = int(ruled.nonzero()[0][0])
        lam[k] = -np.sign(lead[k])
        return torch.from_numpy(lam).to(head.weight)
    others, fixed = np.flatnonzero((norms > 0) & ~tied), np.flatnonzero((norms > 0) & tied)
    with np.errstate(over="ignore", invalid="ignore"):  # looked for just below
        slack = (weight[anchor] - weight[others]) / norms[others, None]
        slack_offset = (bias[anchor] - bias[others]) / norms[others]
        tie = (weight[fixed] - weight[anchor]) / norms[fixed, None]
        offset = (bias[fixed] - bias[anchor]) / norms[fixed]
    rows, right = [-slack, tie, -tie], [slack_offset, -offset, offset]
    matrix = np.vstack(rows)
    bounds = np.concatenate(right)
    matrix = np.hstack([matrix, np.full((len(matrix), 1), -1.0)])
    cost = np.zeros(matrix.shape[1])
    cost[-1] = 1.0
    low, high = (t.cpu().numpy() for t in head.domain.limits(head.weight))
    low, high = np.append(low, 0.0), np.append(high, np.inf)
    found = minimise(cost, low, high, rows=matrix, right=bounds, method="highs")
    if found is None or found.value <= 0:
        return None
    with np.errstate(over="ignore"):  # what is not finite counts as 0 when it is graded
        lam[others] = found.on_rows[: len(others)] / norms[others]
        up, down = found.on_rows[len(others) :].reshape(2, -1)
        lam[fixed] = (up - down) / norms[fixed]
    return torch.from_numpy(lam).to(head.weight)
