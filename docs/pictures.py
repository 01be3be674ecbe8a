"""The picture of the README, drawn by fsboundary.plot: ``python docs/pictures.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

import fsboundary as fsb
from fsboundary.demo import load_demo

DOCS = Path(__file__).parent
STYLES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ROWS = [10, 81, 112]
"""Test images whose features span the plane of the README."""


def draw_readme(folder: Path) -> None:
    """Write the README's picture, once for light and once for dark pages."""
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    batch = space.extract(demo.test_images)
    flips = fsb.flip_points(space.head, batch.features)
    right = batch.predicted == demo.test_labels
    curves = {"right": flips.take(right), "wrong": flips.take(~right)}
    for style in STYLES:
        paper = {"light": "#ffffff", "dark": "#0d1117"}[style]
        figure = Figure((9.6, 4.9), layout="constrained", facecolor=paper)
        left, beside = figure.subplots(1, 2, subplot_kw={"facecolor": paper})
        names = demo.class_names
        fsb.plot.plane(space, batch.features[ROWS], class_names=names, ax=left, style=style)
        fsb.plot.robustness_curve(curves, ax=beside, style=style)
        figure.savefig(folder / f"readme_{style}.png", dpi=100)


if __name__ == "__main__":
    draw_readme(DOCS / "pictures")
