"""Pictures of the README and of the page on plots, drawn by fsboundary.plot.

``python docs/pictures.py`` draws those of the README again; a build of the pages draws the others,
by running the code of ``plots.md``.
"""

from __future__ import annotations

import contextlib
import re
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


def run_page(page: Path, folder: Path) -> None:
    """Run the Python blocks of a page in `folder`, where they write their pictures."""
    folder.mkdir(exist_ok=True)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with contextlib.chdir(folder), contextlib.redirect_stdout(None):
        for code in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            exec(compile(code, str(page), "exec"), namespace)


if __name__ == "__main__":
    draw_readme(DOCS / "pictures")
