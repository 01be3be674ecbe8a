"""The upper envelope of K lines on [0, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def upper_envelope(
    start: Float64[Tensor, "B K"], slope: Float64[Tensor, "B K"]
) -> tuple[Int[Tensor, "B S"], Float64[Tensor, "B S-1"]]:
    """Return the highest lines (B,S), in order, and where each gives way to the next (B,S-1).

    Lines that are highest at a single point only are left out. Of identical lines, the lowest
    index counts. Padded with -1 and NaN.

    Parameters
    ----------
    start, slope : Tensor (B, K), float64
        Lines ``start + t slope``; -inf in `start` excludes a line.
    """
    # at t = 0 the steepest of the highest lines is the one that stays highest
    highest = start == start.amax(dim=1, keepdim=True)
    line = torch.where(highest, slope, -torch.inf).argmax(dim=1, keepdim=True)
    lines = torch.full(start.shape, -1, dtype=torch.int64, device=start.device)
    crossings = torch.full_like(start, torch.nan)
    lines[:, :1] = line
    row = torch.arange(len(start), device=start.device)
    last, index = torch.zeros_like(start[:, 0]), torch.zeros_like(row)
    while True:
        lead = start.gather(1, line) - start
        rise = slope - slope.gather(1, line)
        at = torch.where((rise > 0) & torch.isfinite(lead), lead / rise, torch.inf)
        soonest = at.amin(dim=1)
        steepest = torch.where(at == soonest[:, None], rise, -torch.inf).argmax(dim=1)
        go = soonest < 1
        if not bool(go.any()):
            break
        row, start, slope, last, index = row[go], start[go], slope[go], last[go], index[go]
        soonest, line = soonest[go], steepest[go, None]
        # rounding may put a crossing before the last one: that stretch had no length
        advances = soonest > last
        last = torch.where(advances, soonest, last)
        crossings[row[advances], index[advances]] = last[advances]
        index = index + advances
        lines[row, index] = line[:, 0]
    width = int((lines >= 0).sum(dim=1).amax()) if len(lines) else 1
    return lines[:, :width], crossings[:, : width - 1]
