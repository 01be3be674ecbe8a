"""A comparison of attributions as the numbers and words of the page."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.core.results import Comparison
from fsboundary.report.sections.attribution.attribution_words import (
    BANDS,
    CONFIDENCE,
    band,
    kept_differences,
    kept_margin,
    nearer,
    paired,
    side,
)
from fsboundary.report.sections.attribution.methods import REFERENCE
from fsboundary.report.values import median

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
