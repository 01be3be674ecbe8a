"""What the place of an image, inside or outside, near or far, says of errors.

Figures of the section on the hull of the training set.

Inside or outside the hull of the training set, and how far.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from fsboundary.geometry.hulls.certify import INSIDE, OUTSIDE, UNDECIDED
from fsboundary.report.figures import INK, LINE, MUTED, RIGHT, new_figure, svg_uri, thumbnail
from fsboundary.report.formatting import median, plain, quantile
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts
from fsboundary.report.sections.hull.measure import Hulls, Placed, measure_hulls

QUARTERS = ("nearest", "second", "third", "farthest")
"""Of the images outside, by their distance."""


def errors_by_distance(m: Measurements, hulls: Hulls, scale: float) -> dict[str, Any] | None:
    """Return the error rate inside the hull, and outside by quarters of the distance."""
    if m.subject.labels is None:
        return None
    rows, distance = hulls.images.rows, hulls.images.distance / scale
    wrong = m.batch.predicted[rows] != m.subject.labels[rows]
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
                **_mistakes(wrong[part]),
            }
            for name, part in ({"inside": inside} | parts).items()
            if len(part)
        ],
    }


def _mistakes(wrong: Tensor) -> dict[str, Any]:
    rate = float(wrong.sum()) / len(wrong) if len(wrong) else None
    return {"wrong": int(wrong.sum()), "error_rate": rate}


def nearest_class(m: Measurements, hulls: Hulls) -> dict[str, Any] | None:
    """Return how often the class with the nearest hull is the one that the model names."""
    if hulls.class_distance is None:
        return None
    rows, labels = hulls.images.rows, m.subject.labels
    judged = ~hulls.class_distance.isnan().any(dim=1)
    rows, apart = rows[judged], hulls.class_distance[judged]
    predicted = m.batch.predicted[rows]
    own = predicted[:, None] == torch.tensor(hulls.classes)  # no column: no such training image
    agrees = (own & (apart == apart.amin(dim=1, keepdim=True))).any(dim=1)
    found = {
        "judged": len(rows),
        "agrees": int(agrees.sum()),
        "share": float(agrees.sum()) / len(rows) if len(rows) else None,
    }
    if labels is None:
        return found
    wrong = predicted != labels[rows]
    return found | {"if_agrees": _mistakes(wrong[agrees]), "if_not": _mistakes(wrong[~agrees])}


COLOURS = {"images": RIGHT, "left_out": "#59a14f", "noise": "#8d6cab"}
"""Of each group of rows."""

PANEL = (3.3, 1.6)
CURVES = (4.0, 3.0)
"""Width and height, inches."""


def distance_panel(name: str, group: dict[str, Any], edges: list[float], tallest: float) -> str:
    """Draw the shares of a group by distance, and its median; return a data URI."""
    figure, axes = new_figure(*PANEL)
    width = edges[1] - edges[0]
    axes.bar(
        edges[:-1],
        [100 * share for share in group["bins"]],
        width,
        align="edge",
        color=COLOURS[name],
        edgecolor="white",
        linewidth=0.4,
    )
    if group["median"] is not None:
        axes.axvline(group["median"], color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, max(100 * tallest, 1) * 1.05)
    axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g} %")
    return svg_uri(figure)


def sweep_curves(steps: list[dict[str, Any]]) -> str:
    """Draw the share inside by the number of dimensions; return a data URI.

    What is undecided is drawn as a band above the share inside.
    """
    figure, axes = new_figure(*CURVES)
    dimensions = [step["dimensions"] for step in steps]
    for name, line in (("left_out", (0, (4, 2))), ("images", "solid")):
        entries = [step[name]["shares"] for step in steps]
        if None in (entry["inside"] for entry in entries):
            continue  # no rows to ask of
        low = [100 * entry["inside"] for entry in entries]
        high = [100 * (entry["inside"] + entry["undecided"]) for entry in entries]
        axes.fill_between(dimensions, low, high, color=COLOURS[name], alpha=0.25, linewidth=0)
        axes.plot(dimensions, low, color=COLOURS[name], linestyle=line, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(dimensions, [str(p) for p in dimensions])
    axes.minorticks_off()
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_xlabel("dimensions", color=MUTED, fontsize=9)
    return svg_uri(figure)


BINS = 30

AXIS_END = 6
"""The axis ends at so many upper quartiles at most; values beyond it are counted."""

FARTHEST = 6
SUPPORTERS = 3
SUPPORTER_SIDE = 96
"""Longer side of the supporting images' thumbnails, pixels."""

GROUPS = ("images", "left_out", "noise")
STATES = {"inside": INSIDE, "outside": OUTSIDE, "undecided": UNDECIDED}


@final
class Hull(Section):
    """Shares, distances against the yardstick, farthest images, errors, and fewer dimensions."""

    name = "hull"
    title = "Inside or outside"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers; without training features little more than their absence."""
        given = measured.subject.train_images
        numbers: dict[str, Any] = {"training": {"given": 0 if given is None else len(given)}}
        hulls = measure_hulls(measured)
        if hulls is None or given is None:
            numbers["training"]["used"] = 0
            return Content(numbers=numbers)
        numbers["training"]["used"] = len(hulls.bank)
        parts = {name: getattr(hulls, name) for name in GROUPS}
        unit = median(known(hulls.left_out))
        told = unit > 0  # false also of NaN, where nothing can be left out
        scale = unit if told else 1.0
        edges = shared_edges([known(part) / scale for part in parts.values()])
        farthest = _farthest(measured, hulls, scale)
        numbers |= {
            "reference": unit,
            "relative": told,
            "sampled_from": int(measured.batch.ok.sum()),
            "edges": edges,
            "groups": {k: _group(part, scale, edges) for k, part in parts.items()},
            "largest_relative_gap": _largest_gap(list(parts.values())),
            "noise_farther": _share_farther(known(hulls.noise), known(hulls.images)),
            "farthest": farthest,
            "labels": errors_by_distance(measured, hulls, scale),
            "nearest_class": nearest_class(measured, hulls),
            "sweep": _sweep(hulls),
        }
        pictures = {f"image-{e['row']}": measured.subject.images[e["row"]] for e in farthest}
        for entry in (s for e in farthest for s in e["supporters"]):
            picture = thumbnail(given[entry["row"]], SUPPORTER_SIDE)
            pictures[f"training-{entry['row']}"] = picture
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the distances of each group on the same axes, and the sweep."""
        if not numbers["training"]["used"]:
            return {}
        tallest = max(max(group["bins"]) for group in numbers["groups"].values())
        drawn = {
            name: distance_panel(name, group, numbers["edges"], tallest)
            for name, group in numbers["groups"].items()
        }
        return drawn | {"sweep": sweep_curves(numbers["sweep"]["steps"])}


def known(part: Placed) -> Tensor:
    """Return the certified distances of a group."""
    return part.distance[~part.distance.isnan()]


def shared_edges(groups: list[Tensor]) -> Tensor:
    """Return bin edges for all groups: the images and the left-out ones decide, not the noise."""
    top = max((float(values.max()) for values in groups if len(values)), default=0.0)
    quartiles = [quantile(values, 0.75) for values in groups[:2] if len(values)]
    near = AXIS_END * max(quartiles, default=0.0)
    end = min(top, near) if near > 0 else top
    return torch.linspace(0.0, end if end > 0 else 1.0, BINS + 1, dtype=torch.float64)


def memberships(membership: Tensor) -> dict[str, Any]:
    """Return how many rows are inside, outside and undecided, and their shares."""
    rows = len(membership)
    found = {name: int((membership == code).sum()) for name, code in STATES.items()}
    return {
        "rows": rows,
        **found,
        "shares": {name: count / rows if rows else None for name, count in found.items()},
    }


def _group(part: Placed, scale: float, edges: Tensor) -> dict[str, Any]:
    values = known(part) / scale
    counts = torch.histogram(values, edges).hist
    return {
        **memberships(part.hull.membership),
        "uncertified": len(part.rows) - len(values),
        "bins": counts / max(1, len(values)),
        "beyond": len(values) - int(counts.sum()),
        "lower_quartile": quantile(values, 0.25),
        "median": median(values),
        "upper_quartile": quantile(values, 0.75),
        "largest": quantile(values, 1.0),
    }


def _largest_gap(parts: list[Placed]) -> float | None:
    """Return the largest gap over distance among the rows outside with a certified distance."""
    ratios = torch.cat([(p.hull.gap / p.distance)[p.hull.membership == OUTSIDE] for p in parts])
    ratios = ratios[~ratios.isnan()]
    return float(ratios.max()) if len(ratios) else None


def _share_farther(one: Tensor, other: Tensor) -> float | None:
    """Return in what share of all pairs the first is farther out than the second."""
    if not len(one) or not len(other):
        return None
    below = torch.searchsorted(other.sort().values, one)
    return float(below.sum()) / (len(one) * len(other))


def _farthest(m: Measurements, hulls: Hulls, scale: float) -> list[dict[str, Any]]:
    """Return the farthest images outside, each with its heaviest supporting training images."""
    images, owners = hulls.images, hulls.bank.labels
    assert owners is not None  # every bank of a report has labels
    order = images.distance.nan_to_num(0.0).argsort(descending=True, stable=True)
    entries = []
    for place in order[:FARTHEST].tolist():
        if not images.distance[place] > 0:
            continue
        support, weights = images.hull.support[place], images.hull.weights[place]
        heaviest = weights.argsort(descending=True, stable=True)[:SUPPORTERS]
        heaviest = heaviest[weights[heaviest] > 0]
        found = support[heaviest]
        entries.append(
            {
                **image_facts(m, int(images.rows[place])),
                "to_hull": images.distance[place],
                "relative_distance": images.distance[place] / scale,
                "support": int((weights > 0).sum()),
                "supporters": [
                    {"row": row, "class": label, "weight": weight}
                    for row, label, weight in zip(
                        hulls.place[found].tolist(),
                        owners[found].tolist(),
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
                "images": memberships(step.images),
                "left_out": memberships(step.left_out),
            }
            for step in hulls.sweep
        ]
    }
