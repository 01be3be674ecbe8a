"""Section on attributions: heat maps, agreement of the methods, and curves of the margin.

The words that describe a comparison follow thresholds that the page states.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from matplotlib import colormaps
from torch import Tensor

from fsboundary.attr.comparison.metrics import bootstrap
from fsboundary.core.results import Comparison
from fsboundary.plot.style import REPORT
from fsboundary.plot.values import median, quantile
from fsboundary.report.figures import new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import SEED, Measurements
from fsboundary.report.sections.attribution.measure import Attributions, measure_attributions
from fsboundary.report.sections.attribution.methods import NUM_SAMPLES, REFERENCE, window_and_stride
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts

SIDE = 64
"""Longer side of a heat map, pixels."""

FULL = 0.98
"""Quantile of the absolute values from which entries have the full colour."""

CURVES = (4.6, 2.7)
"""Width and height, inches."""

DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
"""Line styles, so that the lines can be distinguished without colours."""


def heat_map(attribution: Tensor) -> Tensor:
    """Return an attribution (C, H, W), summed over channels, as an image (3, h, w) in [0, 1].

    Positive values are blue, negative values red, and 0 is white.
    """
    values = attribution.detach().cpu().to(torch.float64).sum(dim=0).nan_to_num()
    small = thumbnail(values[None], SIDE)[0].to(torch.float64)
    size = small.abs().flatten()
    full = quantile(size[size > 0], FULL)
    scaled = (small / full).clamp(-1.0, 1.0) if full > 0 else torch.zeros_like(small)
    colours = torch.from_numpy(colormaps["RdBu"](0.5 + 0.5 * scaled.numpy())[..., :3])
    return colours.movedim(2, 0)


def _draw_curves(x: list[float], lines: list[list[float] | None], label: str, unit: str) -> str:
    """Draw a mean margin for each method; return a data URI.

    Parameters
    ----------
    x : list of float
        Positions along the axis.
    lines : list of list of float or None
        Fractions of the margin, one line per method; None draws nothing but keeps the colours.
    label : str
        Label of the axis.
    unit : str
        Text after the numbers of the axis.
    """
    figure, axes = new_figure(*CURVES)
    for index, line in enumerate(lines):
        if line is not None:
            axes.plot(
                x,
                [100 * fraction for fraction in line],
                color=REPORT.classes[index],
                linestyle=DASHES[index],
                linewidth=2.4 if index == 0 else 1.6,
            )
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.xaxis.set_major_formatter("{x:g}" + unit)
    axes.grid(axis="y", color=REPORT.line, linewidth=0.6)
    axes.set_xlabel(label, color=REPORT.muted, fontsize=9)
    return svg_uri(figure)


def _line_style(index: int) -> dict[str, Any]:
    """Return colour and dashes of a method's line, for the legend of the page."""
    style = DASHES[index]
    dashes = "" if isinstance(style, str) else " ".join(str(2 * d) for d in style[1])
    return {"colour": REPORT.classes[index], "dashes": dashes}


BANDS = {"close": 0.7, "partial": 0.4, "weak": 0.1, "none": -0.1}
"""Smallest mean rank correlation of each degree of agreement; any below is "opposite"."""

RESAMPLES = 1000
CONFIDENCE = 0.95


def agreement_band(mean: float) -> str | None:
    """Return the degree of agreement of a mean rank correlation; None for NaN."""
    if math.isnan(mean):
        return None
    return next((name for name, minimum in BANDS.items() if mean >= minimum), "opposite")


def compare_interval(low: float, high: float, middle: float) -> str:
    """Return "less" or "more" if the interval lies on one side of `middle`, else "unclear"."""
    if high < middle:
        return "less"
    return "more" if low > middle else "unclear"


def _clip_margin(curves: Tensor) -> Tensor:
    """Return curves (..., T) of margins clipped to [0, 1]; they are 0 beyond the boundary."""
    return curves.clamp(0.0, 1.0)


def _margin_differences(c: Comparison) -> Tensor:
    """Return the mean deletion margin of method j minus that of method i, (B, M, M)."""
    margin = _clip_margin(c.deletion).mean(dim=2).T
    return margin[:, None, :] - margin[:, :, None]


def _nearer_crossing(c: Comparison) -> Tensor:
    """Return 1 where method j crosses the boundary before i, else 0, a half for ties, (B, M, M)."""
    crossing = c.crossing.T
    first, second = crossing[:, None, :], crossing[:, :, None]
    nearer = (first < second).double() + 0.5 * (first == second).double()
    return torch.where(first.isnan() | second.isnan(), torch.nan, nearer)


def _bootstrap_pairs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of (B, M, M) over the images and its bootstrap interval, each (M, M)."""
    results = bootstrap(values[None], resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)
    mean, low, high = (part[0] for part in results)
    return mean, low, high


MATRIX = "spearman"
"""Metric of the matrix of all pairs."""

CHANCE = {"top_k": 0.1, "sign": 0.5}
"""Expected values for two unrelated attributions."""


def _comparison_numbers(c: Comparison) -> dict[str, Any]:
    """Return the matrix, the curves, and the comparison of each method with the boundary's."""
    shown = c.metrics.index(MATRIX)
    numbers: dict[str, Any] = {
        "names": c.methods,
        "matrix": [
            [_interval(c, shown, i, j) for j in range(len(c.methods))]
            for i in range(len(c.methods))
        ],
        "metrics": c.metrics,
        "confidence": CONFIDENCE,
        "agreement_thresholds": BANDS,
        "chance": CHANCE,
        "pairs": _extreme_pairs(c, c.mean[shown]),
        "curves": _curves(c) if bool(c.deletion.isfinite().any()) else None,
        "versus_boundary": None,
    }
    if c.reference == REFERENCE:
        numbers["versus_boundary"] = _versus_boundary(c, c.mean[shown], bool(numbers["curves"]))
    return numbers


def _interval(c: Comparison, q: int, i: int, j: int) -> dict[str, Tensor]:
    return {"mean": c.mean[q, i, j], "ci_low": c.ci_low[q, i, j], "ci_high": c.ci_high[q, i, j]}


def _extreme_pairs(c: Comparison, mean: Tensor) -> dict[str, Any] | None:
    """Return the two pairs of methods that agree most and least; None for fewer than 3 pairs."""
    pairs = [
        (float(mean[i, j]), c.methods[i], c.methods[j])
        for i in range(len(c.methods))
        for j in range(i)
        if bool(mean[i, j].isfinite())
    ]
    if len(pairs) < 3:
        return None
    keys = ("mean", "first", "second")
    return {
        "closest": dict(zip(keys, max(pairs), strict=True)),
        "farthest": dict(zip(keys, min(pairs), strict=True)),
    }


def _curves(c: Comparison) -> dict[str, Any]:
    """Return mean curves within [0, 1], their mean margins and their crossings."""
    deletion, reach = _clip_margin(c.deletion), _clip_margin(c.reach)
    rows = range(len(c.methods))
    return {
        "steps": len(c.fraction_perturbed),
        "images": int(c.deletion.isfinite().all(dim=2).any(dim=0).sum()),
        "num_flip_images": int(c.flip_distance.isfinite().sum()),
        "fraction_perturbed": c.fraction_perturbed,
        "path_position": c.path_position,
        "max_position": c.path_position[-1],
        "distance": median(c.flip_distance[c.flip_distance.isfinite()]),
        "lines": {
            c.methods[k]: {
                "deletion": _mean_curve(deletion[k]),
                "mean_margin": deletion[k].mean(dim=1).nanmean(),
                "reach": _mean_curve(reach[k]),
                **_crossing_numbers(c.crossing[k]),
            }
            for k in rows
        },
    }


def _mean_curve(curves: Tensor) -> Tensor | None:
    """Return the mean of curves (B, T) over the images that have one."""
    mean = curves.nanmean(dim=0)
    return mean if bool(mean.isfinite().all()) else None


def _crossing_numbers(crossing: Tensor) -> dict[str, Any]:
    known = crossing[~crossing.isnan()]
    middle = torch.tensor(median(known))
    crossed = int(known.isfinite().sum())
    return {
        "median_crossing": middle,
        "beyond_range": bool(middle.isinf()),
        "num_known": len(known),
        "num_crossed": crossed,
        "crossed_fraction": crossed / len(known) if len(known) else None,
    }


def _versus_boundary(c: Comparison, mean: Tensor, curves: bool) -> list[dict[str, Any]]:
    """Return a comparison of each other method with the boundary direction, with verdicts."""
    reference = c.methods.index(REFERENCE)
    entries = []
    margin, nearer = (
        (_bootstrap_pairs(_margin_differences(c)), _bootstrap_pairs(_nearer_crossing(c)))
        if curves
        else (None, None)
    )
    for k, name in enumerate(c.methods):
        if k == reference:
            continue
        entry: dict[str, Any] = {
            "name": name,
            "agreement": agreement_band(float(mean[reference, k])),
            "metrics": {
                metric: _interval(c, q, reference, k) for q, metric in enumerate(c.metrics)
            },
            "mean_margin": None,
            "nearer": None,
        }
        for key, interval, middle in (("mean_margin", margin, 0.0), ("nearer", nearer, 0.5)):
            if interval is not None:
                average, low, high = (float(part[reference, k]) for part in interval)
                verdict = compare_interval(low, high, middle)
                entry[key] = {"mean": average, "ci_low": low, "ci_high": high, "verdict": verdict}
        entries.append(entry)
    return entries


@final
class Attribution(Section):
    """Heat maps, agreement of the methods, and the model's behaviour along each."""

    name = "attribution"
    title = "Pixel attributions"
    menu = "Attributions"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and the heat maps; only a count if no image is usable."""
        a = measure_attributions(measured)
        if a is None:
            return Content(numbers={"images": 0})
        window, stride = window_and_stride(measured.subject.images)
        numbers = {
            "images": len(a.sample),
            "available": int(measured.batch.ok.sum()),
            "settings": {
                "num_samples": NUM_SAMPLES,
                "window": window,
                "stride": stride,
                "background": a.background,
                "from_training_images": measured.subject.train_images is not None,
            },
            "methods": [_method_entry(a, index) for index in range(len(a.methods))],
            "examples": [
                {
                    "title": title,
                    **image_facts(measured, row),
                    "correlation": _example_correlations(a, index),
                }
                for index, (title, row) in enumerate(a.examples.items())
            ],
            "curves_error": a.curves_error,
            "comparison": None if a.comparison is None else _comparison_numbers(a.comparison),
        }
        images = measured.subject.images
        pictures = {f"image-{r}": thumbnail(images[r], 2 * SIDE) for r in a.examples.values()}
        for name, maps in a.maps.items():
            for row, values in zip(a.examples.values(), maps, strict=True):
                pictures[f"{name}-{row}"] = heat_map(values)
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the curves, one line per method."""
        comparison = numbers.get("comparison")
        if comparison is None or not comparison["curves"]:
            return {}
        curves, methods = comparison["curves"], numbers["methods"]
        lines = {
            kind: [curves["lines"].get(m["name"], {}).get(kind) for m in methods]
            for kind in ("deletion", "reach")
        }
        percent = [100 * fraction for fraction in curves["fraction_perturbed"]]
        positions = curves["path_position"]
        return {
            "deletion": _draw_curves(percent, lines["deletion"], "pixels set to black", " %"),
            "reach": _draw_curves(
                positions, lines["reach"], "distance / distance of the flip image", ""
            ),
        }


def _method_entry(a: Attributions, index: int) -> dict[str, Any]:
    method, comparison = a.methods[index], a.comparison
    missing = None
    if comparison is not None and method.name in comparison.methods:
        known = comparison.per_image[0, :, comparison.methods.index(method.name)].isfinite()
        missing = int((~known.any(dim=1)).sum())
    return {
        "name": method.name,
        "title": method.title,
        "error": a.errors.get(method.name),
        "num_missing": missing,
        "line_style": _line_style(index),
    }


def _example_correlations(a: Attributions, index: int) -> dict[str, Any]:
    """Return the rank correlation of each method's map with that of the boundary direction."""
    comparison = a.example_comparison
    if comparison is None or not comparison.reference:
        return {}
    reference = comparison.methods.index(comparison.reference)
    values = comparison.per_image[0, index, reference]
    return dict(zip(comparison.methods, values.tolist(), strict=True))
