"""The upper envelope of K lines on [0, 1]: which line is highest where."""

from __future__ import annotations

import torch
from torch import Tensor


def upper_envelope(start: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lines (B,S) that are highest, in order, and where each gives way (B,S-1).

    Lines that are highest in a single point are left out. Of lines that agree the lowest index
    counts. Padded with -1 and NaN.

    Parameters
    ----------
    start, slope : Tensor (B, K), float64
        ``start + t slope``; -inf in `start` takes a line out.
    """
    # at t = 0 the steepest of the highest lines is the one that stays
    highest = start == start.amax(dim=1, keepdim=True)
    line = torch.where(highest, slope, -torch.inf).argmax(dim=1, keepdim=True)
    lines = torch.full(start.shape, -1, dtype=torch.int64, device=start.device)
    crossings = torch.full_like(start, torch.nan)
    lines[:, :1] = line
    row = torch.arange(len(start), device=start.device)
    since, place = torch.zeros_like(start[:, 0]), torch.zeros_like(row)
    while True:
        lead = start.gather(1, line) - start
        rise = slope - slope.gather(1, line)
        at = torch.where((rise > 0) & torch.isfinite(lead), lead / rise, torch.inf)
        soonest = at.amin(dim=1)
        steepest = torch.where(at == soonest[:, None], rise, -torch.inf).argmax(dim=1)
        go = soonest < 1
        if not bool(go.any()):
            break
        row, start, slope, since, place = row[go], start[go], slope[go], since[go], place[go]
        soonest, line = soonest[go], steepest[go, None]
        # rounding may put a crossing before the last one: that visit had no length
        met = soonest > since
        since = torch.where(met, soonest, since)
        crossings[row[met], place[met]] = since[met]
        place = place + met
        lines[row, place] = line[:, 0]
    width = int((lines >= 0).sum(dim=1).amax()) if len(lines) else 1
    return lines[:, :width], crossings[:, : width - 1]
