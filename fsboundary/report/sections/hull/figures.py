"""Figures of the section on the hull of the training set."""

from __future__ import annotations

from typing import Any

from fsboundary.report.figures import INK, LINE, MUTED, RIGHT, new_figure, svg_uri

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
