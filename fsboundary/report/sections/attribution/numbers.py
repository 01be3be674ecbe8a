"""Words for what a comparison of attributions shows, chosen by thresholds that the page states.

A comparison of attributions as the numbers and words of the page.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fsboundary.attr.comparison.metrics import bootstrap
from fsboundary.core.results import Comparison
from fsboundary.report.formatting import median
from fsboundary.report.measurements import SEED
from fsboundary.report.sections.attribution.methods import REFERENCE

BANDS = {"same": 0.7, "part": 0.4, "weak": 0.1, "none": -0.1}
"""A mean rank correlation of at least so much has this name; any below is "opposite"."""

RESAMPLES = 1000
CONFIDENCE = 0.95


def band(mean: float) -> str | None:
    """Return the name of a mean rank correlation; None for NaN."""
    if math.isnan(mean):
        return None
    return next((name for name, least in BANDS.items() if mean >= least), "opposite")


def side(low: float, high: float, middle: float) -> str:
    """Return "less" or "more" where the interval lies on one side of `middle`, else "unclear"."""
    if high < middle:
        return "less"
    return "more" if low > middle else "unclear"


def kept_margin(curves: Tensor) -> Tensor:
    """Return curves (..., T) of margins within [0, 1]: beyond the boundary nothing is left."""
    return curves.clamp(0.0, 1.0)


def kept_differences(compared: Comparison) -> Tensor:
    """Return how much more margin method j keeps than i over its deletion curve, (B, M, M)."""
    kept = kept_margin(compared.deletion).mean(dim=2).T
    return kept[:, None, :] - kept[:, :, None]


def nearer(compared: Comparison) -> Tensor:
    """Return whether method j meets the boundary nearer than i, 1, 0 or a half, (B, M, M)."""
    crossing = compared.crossing.T
    one, other = crossing[:, None, :], crossing[:, :, None]
    found = (one < other).double() + 0.5 * (one == other).double()
    return torch.where(one.isnan() | other.isnan(), torch.nan, found)


def paired(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of (B, M, M) over the images and its bootstrap interval, each (M, M)."""
    found = bootstrap(values[None], resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)
    mean, low, high = (part[0] for part in found)
    return mean, low, high


MATRIX = "spearman"
"""The metric that is shown for all pairs."""

CHANCE = {"top_k": 0.1, "sign": 0.5}
"""What two unrelated attributions would have."""


def compared_numbers(c: Comparison) -> dict[str, Any]:
    """Return the matrix, the curves, and how each method stands to the boundary direction."""
    shown = c.metrics.index(MATRIX)
    numbers: dict[str, Any] = {
        "names": c.methods,
        "matrix": [
            [_interval(c, shown, i, j) for j in range(len(c.methods))]
            for i in range(len(c.methods))
        ],
        "metrics": c.metrics,
        "confidence": CONFIDENCE,
        "bands": BANDS,
        "chance": CHANCE,
        "pairs": _extreme_pairs(c, c.mean[shown]),
        "curves": _curves(c) if bool(c.deletion.isfinite().any()) else None,
        "against": None,
    }
    if c.reference == REFERENCE:
        numbers["against"] = _against(c, c.mean[shown], bool(numbers["curves"]))
    return numbers


def _interval(c: Comparison, q: int, i: int, j: int) -> dict[str, Tensor]:
    return {"mean": c.mean[q, i, j], "low": c.low[q, i, j], "high": c.high[q, i, j]}


def _extreme_pairs(c: Comparison, mean: Tensor) -> dict[str, Any] | None:
    """Return the two methods that agree most and those that agree least, of three or more."""
    pairs = [
        (float(mean[i, j]), c.methods[i], c.methods[j])
        for i in range(len(c.methods))
        for j in range(i)
        if bool(mean[i, j].isfinite())
    ]
    if len(pairs) < 3:
        return None
    keys = ("mean", "one", "other")
    return {
        "closest": dict(zip(keys, max(pairs), strict=True)),
        "farthest": dict(zip(keys, min(pairs), strict=True)),
    }


def _curves(c: Comparison) -> dict[str, Any]:
    """Return mean curves within [0, 1], what they keep on average, and where they cross."""
    deletion, reach = kept_margin(c.deletion), kept_margin(c.reach)
    rows = range(len(c.methods))
    return {
        "steps": len(c.moved),
        "images": int(c.deletion.isfinite().all(dim=2).any(dim=0).sum()),
        "found": int(c.flip_distance.isfinite().sum()),
        "moved": c.moved,
        "travelled": c.travelled,
        "farthest": c.travelled[-1],
        "distance": median(c.flip_distance[c.flip_distance.isfinite()]),
        "lines": {
            c.methods[k]: {
                "deletion": _line(deletion[k]),
                "kept": deletion[k].mean(dim=1).nanmean(),
                "reach": _line(reach[k]),
                **_crossing(c.crossing[k]),
            }
            for k in rows
        },
    }


def _line(curves: Tensor) -> Tensor | None:
    """Return the mean of curves (B, T) over the images that have one."""
    mean = curves.nanmean(dim=0)
    return mean if bool(mean.isfinite().all()) else None


def _crossing(crossing: Tensor) -> dict[str, Any]:
    known = crossing[~crossing.isnan()]
    middle = torch.tensor(median(known))
    met = int(known.isfinite().sum())
    return {
        "crossing": middle,
        "beyond": bool(middle.isinf()),
        "answered": len(known),
        "met": met,
        "met_share": met / len(known) if len(known) else None,
    }


def _against(c: Comparison, mean: Tensor, curves: bool) -> list[dict[str, Any]]:
    """Return how each other method stands to the boundary direction, in numbers and words."""
    ours = c.methods.index(REFERENCE)
    entries = []
    kept, near = (paired(kept_differences(c)), paired(nearer(c))) if curves else (None, None)
    for k, name in enumerate(c.methods):
        if k == ours:
            continue
        entry: dict[str, Any] = {
            "name": name,
            "band": band(float(mean[ours, k])),
            "metrics": {metric: _interval(c, q, ours, k) for q, metric in enumerate(c.metrics)},
            "kept": None,
            "nearer": None,
        }
        for key, found, middle in (("kept", kept, 0.0), ("nearer", near, 0.5)):
            if found is not None:
                of, low, high = (float(part[ours, k]) for part in found)
                word = side(low, high, middle)
                entry[key] = {"mean": of, "low": low, "high": high, "word": word}
        entries.append(entry)
    return entries
