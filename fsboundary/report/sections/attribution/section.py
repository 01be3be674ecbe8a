"""Heat maps and curves of attributions.

Words for what a comparison of attributions shows, chosen by thresholds that the page states.

A comparison of attributions as the numbers and words of the page.

Which pixels keep an image in its class, and whether Captum's methods say the same.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.attr.comparison.metrics import bootstrap
from fsboundary.core.results import Comparison
from fsboundary.report.figures import LINE, MUTED, PALETTE, new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import median, plain, quantile
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.attribution.measure import Attributions, measure_attributions
from fsboundary.report.sections.attribution.methods import DRAWS, REFERENCE, window_and_stride
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts

SIDE = 64
"""Longer side of a heat map, pixels."""

FULL = 0.98
"""Entries at least as large as this quantile of the sizes have the full colour."""

CURVES = (4.6, 2.7)
"""Width and height, inches."""

DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
"""So that the lines can be told apart without colours."""


def heat_map(attribution: Tensor) -> Tensor:
    """Return an attribution (C, H, W), summed over channels, as an image (3, h, w) in [0, 1].

    Blue where it is positive, red where it is negative, white where it is 0.
    """
    values = attribution.detach().cpu().to(torch.float64).sum(dim=0).nan_to_num()
    small = thumbnail(values[None], SIDE)[0].to(torch.float64)
    size = small.abs().flatten()
    full = quantile(size[size > 0], FULL)
    scaled = (small / full).clamp(-1.0, 1.0) if full > 0 else torch.zeros_like(small)
    colours = torch.from_numpy(colormaps["RdBu"](0.5 + 0.5 * scaled.numpy())[..., :3])
    return colours.movedim(2, 0)


def curves(at: list[float], lines: list[list[float] | None], label: str, end: str) -> str:
    """Draw a mean margin for each method; return a data URI.

    Parameters
    ----------
    at : list of float
        Places along the axis.
    lines : list of list of float or None
        Shares of the margin, one line a method; None draws nothing but keeps the colours.
    label : str
        Of the axis.
    end : str
        What follows its numbers.
    """
    figure, axes = new_figure(*CURVES)
    for place, line in enumerate(lines):
        if line is not None:
            shares = [100 * share for share in line]
            axes.plot(
                at,
                shares,
                color=PALETTE[place],
                linestyle=DASHES[place],
                linewidth=2.4 if place == 0 else 1.6,
            )
    axes.set_xlim(at[0], at[-1])
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.xaxis.set_major_formatter("{x:g}" + end)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_xlabel(label, color=MUTED, fontsize=9)
    return svg_uri(figure)


def key_of(place: int) -> dict[str, Any]:
    """Return colour and dashes of a method's line, for the legend of the page."""
    style = DASHES[place]
    dashes = "" if isinstance(style, str) else " ".join(str(2 * d) for d in style[1])
    return {"colour": PALETTE[place], "dashes": dashes}


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
    return {"mean": c.mean[q, i, j], "ci_low": c.ci_low[q, i, j], "ci_high": c.ci_high[q, i, j]}


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
        "steps": len(c.fraction_perturbed),
        "images": int(c.deletion.isfinite().all(dim=2).any(dim=0).sum()),
        "found": int(c.flip_distance.isfinite().sum()),
        "fraction_perturbed": c.fraction_perturbed,
        "path_position": c.path_position,
        "farthest": c.path_position[-1],
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
                entry[key] = {"mean": of, "ci_low": low, "ci_high": high, "word": word}
        entries.append(entry)
    return entries


@final
class Attribution(Section):
    """Heat maps, agreement of the methods, and what the model does along each."""

    name = "attribution"
    title = "What the pixels say"
    menu = "Attributions"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and the heat maps; little without an image of use."""
        found = measure_attributions(measured)
        if found is None:
            return Content(numbers={"images": 0})
        window, stride = window_and_stride(measured.subject.images)
        numbers = {
            "images": len(found.sample),
            "of": int(measured.batch.ok.sum()),
            "settings": {
                "draws": DRAWS,
                "window": window,
                "stride": stride,
                "background": found.background,
                "trained": measured.subject.train_images is not None,
            },
            "methods": [_method(found, place) for place in range(len(found.methods))],
            "chosen": [
                {"title": title, **image_facts(measured, row), "near": _near(found, place)}
                for place, (title, row) in enumerate(found.chosen.items())
            ],
            "curves_error": found.curves_error,
            "compared": None if found.compared is None else compared_numbers(found.compared),
        }
        images = measured.subject.images
        pictures = {f"image-{r}": thumbnail(images[r], 2 * SIDE) for r in found.chosen.values()}
        for name, maps in found.maps.items():
            for row, values in zip(found.chosen.values(), maps, strict=True):
                pictures[f"{name}-{row}"] = heat_map(values)
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the curves, a line for each method."""
        compared = numbers.get("compared")
        if compared is None or not compared["curves"]:
            return {}
        drawn, made = compared["curves"], numbers["methods"]
        lines = {
            kind: [drawn["lines"].get(m["name"], {}).get(kind) for m in made]
            for kind in ("deletion", "reach")
        }
        moved = [100 * share for share in drawn["fraction_perturbed"]]
        return {
            "deletion": curves(moved, lines["deletion"], "pixels moved to black", " %"),
            "reach": curves(
                drawn["path_position"], lines["reach"], "distances of the flip image", ""
            ),
        }


def _method(found: Attributions, place: int) -> dict[str, Any]:
    method, compared = found.methods[place], found.compared
    lost = None
    if compared is not None and method.name in compared.methods:
        known = compared.per_image[0, :, compared.methods.index(method.name)].isfinite()
        lost = int((~known.any(dim=1)).sum())
    return {
        "name": method.name,
        "title": method.title,
        "error": found.errors.get(method.name),
        "without": lost,
        "key": key_of(place),
    }


def _near(found: Attributions, place: int) -> dict[str, Any]:
    """Return the rank correlation of each method's map with the boundary direction's."""
    near = found.near
    if near is None or not near.reference:
        return {}
    values = near.per_image[0, place, near.methods.index(near.reference)]
    return dict(zip(near.methods, values.tolist(), strict=True))
