"""Section on the hull of the training set: memberships, distances and their relation to errors."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from fsboundary.geometry.hulls.certify import INSIDE, OUTSIDE, UNDECIDED
from fsboundary.plot.distances import draw_bars
from fsboundary.plot.style import REPORT
from fsboundary.plot.values import median, quantile
from fsboundary.report.figures import new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.hull.measure import Hulls, ProjectedRows, measure_hulls

QUARTERS = ("nearest", "second", "third", "farthest")
"""Names of the quarters of the images outside, by distance."""


def _error_rates_by_distance(m: Measurements, hulls: Hulls, scale: float) -> dict[str, Any] | None:
    """Return the error rates inside the hull and, by quarters of the distance, outside."""
    if not bool(m.labelled.any()):
        return None
    labelled = m.labelled[hulls.images.rows]
    rows, distance = hulls.images.rows[labelled], hulls.images.distance[labelled] / scale
    wrong = m.misclassified[rows]
    order = distance.argsort(stable=True)
    inside = order[distance[order] == 0]
    outside = order[distance[order] > 0]
    parts = dict(zip(QUARTERS, outside.tensor_split(len(QUARTERS)), strict=True))
    return {
        "median_if_right": median(distance[~wrong & ~distance.isnan()]),
        "median_if_wrong": median(distance[wrong & ~distance.isnan()]),
        "quarters": [
            {
                "name": name,
                "images": len(part),
                "from": distance[part].min(),
                "to": distance[part].max(),
                **_error_rate(wrong[part]),
            }
            for name, part in ({"inside": inside} | parts).items()
            if len(part)
        ],
    }


def _error_rate(wrong: Tensor) -> dict[str, Any]:
    rate = float(wrong.sum()) / len(wrong) if len(wrong) else None
    return {"wrong": int(wrong.sum()), "error_rate": rate}


def nearest_class(m: Measurements, hulls: Hulls) -> dict[str, Any] | None:
    """Return how often the class with the nearest hull is the predicted class."""
    if hulls.class_distance is None:
        return None
    rows = hulls.images.rows
    known = ~hulls.class_distance.isnan().any(dim=1)
    rows, distance = rows[known], hulls.class_distance[known]
    predicted = m.batch.predicted[rows]
    # a class without training images has no column
    is_predicted = predicted[:, None] == torch.tensor(hulls.classes)
    agrees = (is_predicted & (distance == distance.amin(dim=1, keepdim=True))).any(dim=1)
    numbers = {
        "evaluated": len(rows),
        "agrees": int(agrees.sum()),
        "fraction": float(agrees.sum()) / len(rows) if len(rows) else None,
    }
    if not bool(m.labelled.any()):
        return numbers
    wrong, labelled = m.misclassified[rows], m.labelled[rows]
    return numbers | {
        "if_agrees": _error_rate(wrong[agrees & labelled]),
        "if_differs": _error_rate(wrong[~agrees & labelled]),
    }


COLOURS = {"images": REPORT.right, "leave_one_out": "#59a14f", "noise": "#8d6cab"}
"""Colours of the groups of rows."""

PANEL = (3.3, 1.6)
CURVES = (4.0, 3.0)
"""Width and height, inches."""


def _draw_distances(name: str, group: dict[str, Any], edges: list[float], tallest: float) -> str:
    """Draw a histogram of the distances of a group, and their median; return a data URI."""
    figure, axes = new_figure(*PANEL)
    heights = [100 * fraction for fraction in group["bin_fractions"]]
    draw_bars(axes, edges, [(heights, COLOURS[name], None)], group["median"], REPORT)
    axes.set_ylim(0, max(100 * tallest, 1) * 1.05)
    axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=6)
    axes.yaxis.set_major_formatter("{x:g} %")
    return svg_uri(figure)


def _draw_sweep(steps: list[dict[str, Any]]) -> str:
    """Draw the fraction inside by the number of dimensions; return a data URI.

    The undecided fraction is drawn as a band above the fraction inside.
    """
    figure, axes = new_figure(*CURVES)
    dimensions = [step["dimensions"] for step in steps]
    for name, line in (("leave_one_out", (0, (4, 2))), ("images", "solid")):
        entries = [step[name]["fractions"] for step in steps]
        if None in (entry["inside"] for entry in entries):
            continue  # there are no rows
        low = [100 * entry["inside"] for entry in entries]
        high = [100 * (entry["inside"] + entry["undecided"]) for entry in entries]
        axes.fill_between(dimensions, low, high, color=COLOURS[name], alpha=0.25, linewidth=0)
        axes.plot(dimensions, low, color=COLOURS[name], linestyle=line, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(dimensions, [str(p) for p in dimensions])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.grid(axis="y", color=REPORT.line, linewidth=0.6)
    axes.set_xlabel("dimensions", color=REPORT.muted, fontsize=9)
    return svg_uri(figure)


BINS = 30

AXIS_END = 6
"""Largest end of the axis, in upper quartiles; values beyond it are counted."""

NUM_FARTHEST = 6
NUM_SUPPORTERS = 3
SUPPORTER_SIDE = 96
"""Longer side of the thumbnails of supporting images, pixels."""

GROUPS = ("images", "leave_one_out", "noise")
STATES = {"inside": INSIDE, "outside": OUTSIDE, "undecided": UNDECIDED}


@final
class Hull(Section):
    """Memberships, relative distances, farthest images, errors, and fewer dimensions."""

    name = "hull"
    title = "Convex hull of the training set"
    menu = "Training hull"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers; without training features, only their counts."""
        train_images = measured.subject.train_images
        total = 0 if train_images is None else len(train_images)
        numbers: dict[str, Any] = {"training": {"total": total}}
        hulls = measure_hulls(measured)
        if hulls is None or train_images is None:
            numbers["training"]["usable"] = 0
            return Content(numbers=numbers)
        numbers["training"]["usable"] = len(hulls.bank)
        parts = {name: getattr(hulls, name) for name in GROUPS}
        reference = median(_known_distances(hulls.leave_one_out))
        relative = reference > 0  # also False for NaN, when no row can be left out
        scale = reference if relative else 1.0
        edges = _shared_edges([_known_distances(part) / scale for part in parts.values()])
        farthest = _farthest(measured, hulls, scale)
        numbers |= {
            "reference": reference,
            "relative": relative,
            "sampled_from": int(measured.batch.ok.sum()),
            "edges": edges,
            "groups": {k: _group(part, scale, edges) for k, part in parts.items()},
            "largest_relative_gap": _largest_gap(list(parts.values())),
            "noise_farther_fraction": _fraction_farther(
                _known_distances(hulls.noise), _known_distances(hulls.images)
            ),
            "farthest": farthest,
            "labels": _error_rates_by_distance(measured, hulls, scale),
            "nearest_class": nearest_class(measured, hulls),
            "sweep": _sweep(hulls),
        }
        pictures = {f"image-{e['row']}": measured.subject.images[e["row"]] for e in farthest}
        for entry in (s for e in farthest for s in e["supporters"]):
            picture = thumbnail(train_images[entry["row"]], SUPPORTER_SIDE)
            pictures[f"training-{entry['row']}"] = picture
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the distances of each group on the same axes, and the sweep."""
        if not numbers["training"]["usable"]:
            return {}
        tallest = max(max(group["bin_fractions"]) for group in numbers["groups"].values())
        drawn = {
            name: _draw_distances(name, group, numbers["edges"], tallest)
            for name, group in numbers["groups"].items()
        }
        return drawn | {"sweep": _draw_sweep(numbers["sweep"]["steps"])}


def _known_distances(part: ProjectedRows) -> Tensor:
    """Return the certified distances of a group."""
    return part.distance[~part.distance.isnan()]


def _shared_edges(groups: list[Tensor]) -> Tensor:
    """Return bin edges for all groups, determined by images and training images, not noise."""
    top = max((float(values.max()) for values in groups if len(values)), default=0.0)
    quartiles = [quantile(values, 0.75) for values in groups[:2] if len(values)]
    near = AXIS_END * max(quartiles, default=0.0)
    end = min(top, near) if near > 0 else top
    return torch.linspace(0.0, end if end > 0 else 1.0, BINS + 1, dtype=torch.float64)


def _membership_counts(membership: Tensor) -> dict[str, Any]:
    """Return the numbers and fractions of rows inside, outside and undecided."""
    rows = len(membership)
    counts = {name: int((membership == code).sum()) for name, code in STATES.items()}
    return {
        "rows": rows,
        **counts,
        "fractions": {name: count / rows if rows else None for name, count in counts.items()},
    }


def _group(part: ProjectedRows, scale: float, edges: Tensor) -> dict[str, Any]:
    values = _known_distances(part) / scale
    counts = torch.histogram(values, edges).hist
    return {
        **_membership_counts(part.hull.membership),
        "uncertified": len(part.rows) - len(values),
        "bin_fractions": counts / max(1, len(values)),
        "beyond_axis": len(values) - int(counts.sum()),
        "lower_quartile": quantile(values, 0.25),
        "median": median(values),
        "upper_quartile": quantile(values, 0.75),
        "largest": quantile(values, 1.0),
    }


def _largest_gap(parts: list[ProjectedRows]) -> float | None:
    """Return the largest relative gap of the rows outside with a certified distance."""
    ratios = torch.cat([(p.hull.gap / p.distance)[p.hull.membership == OUTSIDE] for p in parts])
    ratios = ratios[~ratios.isnan()]
    return float(ratios.max()) if len(ratios) else None


def _fraction_farther(one: Tensor, other: Tensor) -> float | None:
    """Return the fraction of all pairs in which the first is farther than the second."""
    if not len(one) or not len(other):
        return None
    below = torch.searchsorted(other.sort().values, one)
    return float(below.sum()) / (len(one) * len(other))


def _farthest(m: Measurements, hulls: Hulls, scale: float) -> list[dict[str, Any]]:
    """Return the farthest images outside, with the largest weights of their nearest points."""
    images, labels = hulls.images, hulls.bank.labels
    assert labels is not None  # every bank of a report has labels
    order = images.distance.nan_to_num(0.0).argsort(descending=True, stable=True)
    entries = []
    for index in order[:NUM_FARTHEST].tolist():
        if not images.distance[index] > 0:
            continue
        support, weights = images.hull.support[index], images.hull.weights[index]
        heaviest = weights.argsort(descending=True, stable=True)[:NUM_SUPPORTERS]
        heaviest = heaviest[weights[heaviest] > 0]
        supporters = support[heaviest]
        entries.append(
            {
                **image_facts(m, int(images.rows[index])),
                "hull_distance": images.distance[index],
                "relative_distance": images.distance[index] / scale,
                "num_supporters": int((weights > 0).sum()),
                "supporters": [
                    {"row": row, "class": label, "weight": weight}
                    for row, label, weight in zip(
                        hulls.train_rows[supporters].tolist(),
                        labels[supporters].tolist(),
                        weights[heaviest].tolist(),
                        strict=True,
                    )
                ],
            }
        )
    return entries


def _sweep(hulls: Hulls) -> dict[str, Any]:
    return {
        "steps": [
            {
                "dimensions": step.dimensions,
                "images": _membership_counts(step.images),
                "leave_one_out": _membership_counts(step.leave_one_out),
            }
            for step in hulls.sweep
        ]
    }
