"""Figures, axes and colours: no pyplot, no global state, legible on light and on dark paper."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys

import matplotlib as mpl
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import fsboundary as fsb
from fsboundary.plot.style import DARK, LIGHT, REPORT, NotebookFigure, Style
from support.pictures import figure_of, saved

VALUES = torch.rand(9, generator=torch.Generator().manual_seed(0))

ALONE = """
import sys, torch
import matplotlib
settings = matplotlib.rcParams
names = set(settings.keys()) - {"backend"}  # reading it imports pyplot
before = {name: settings[name] for name in names}
import fsboundary as fsb
head = fsb.LinearHead(torch.eye(3), None)
state = torch.get_rng_state()
ax = fsb.plot.plane(head, torch.rand(1, 3, generator=torch.Generator().manual_seed(1)))
fsb.plot.robustness_curve(torch.ones(3))
fsb.plot.distances_by_class(torch.ones(3), [0, 1, 1])
content, size = ax._repr_png_()
ax.figure.savefig(sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
assert {name: settings[name] for name in names} == before
assert torch.equal(state, torch.get_rng_state())
print(content[:4], size["width"] > 100)
"""


def test_nothing_global_is_touched_and_pyplot_is_not_imported(tmp_path: object) -> None:
    command = [sys.executable, "-c", ALONE, f"{tmp_path}/plane.pdf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == r"b'\x89PNG' True"


def test_a_notebook_shows_what_is_returned() -> None:
    ax = fsb.plot.distances(VALUES)
    figure = fsb.plot.distances_by_class(VALUES, [0, 1, 2] * 3)
    for shown in (ax, figure_of(ax), figure):
        content, size = shown._repr_png_()  # type: ignore[union-attr]
        assert content.startswith(b"\x89PNG")
        assert size["width"] / size["height"] == pytest.approx(
            figure_of(shown).get_figwidth() / figure_of(shown).get_figheight(), rel=0.01
        )
    assert figure_of(ax).dpi == mpl.rcParams["figure.dpi"]  # as before


def test_given_axes_are_drawn_on_and_returned() -> None:
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert fsb.plot.distances(VALUES, ax=second) is second
    assert fsb.plot.robustness_curve(VALUES, ax=first) is first
    assert first.lines
    assert second.patches
    part = Figure().subfigures(1, 2)[0]
    assert fsb.plot.distances(VALUES, ax=part.subplots()).patches
    assert not hasattr(second, "_repr_png_")


@pytest.mark.parametrize("kind", ["pdf", "svg", "png", "eps"])
def test_every_format_is_written(kind: str) -> None:
    content = saved(fsb.plot.robustness_curve(VALUES, interval=False), kind)
    assert len(content) > 1000
    if kind in ("pdf", "svg"):
        assert b"/Subtype /Image" not in content
        assert b"<image" not in content


def test_pictures_can_be_copied_and_pickled() -> None:
    figure = figure_of(fsb.plot.distances(VALUES))
    for other in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        assert isinstance(other, NotebookFigure)
        assert other._repr_png_()[0].startswith(b"\x89PNG")


def ink(ax: Axes) -> str:
    return str(ax.title.get_color())


def test_the_style_is_that_of_the_paper() -> None:
    assert ink(fsb.plot.distances(VALUES)) == LIGHT.ink  # type: ignore[arg-type]
    assert ink(fsb.plot.distances(VALUES, style="dark")) == DARK.ink  # type: ignore[arg-type]
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
        ax = fsb.plot.distances(VALUES)
        assert ink(ax) == DARK.ink  # type: ignore[arg-type]
        assert figure_of(ax).get_facecolor() == (0, 0, 0, 1)
        light = fsb.plot.distances(VALUES, style="light")
        assert figure_of(light).get_facecolor() == (1, 1, 1, 1)
    for paper, wanted in (("black", DARK), ("white", LIGHT), ("none", LIGHT)):
        figure = Figure(facecolor=paper)
        given = figure.subplots()
        given.set_facecolor("none")
        assert ink(fsb.plot.distances(VALUES, ax=given)) == wanted.ink  # type: ignore[arg-type]
    assert ink(fsb.plot.distances(VALUES, ax=Figure().subplots(), style="dark")) == DARK.ink  # type: ignore[arg-type]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_curves_contrast_with_the_paper(style: Style) -> None:
    # 4.5 is what WCAG 2 asks of text, 3 of graphics
    assert contrast(style.ink, style.paper) > 10
    assert contrast(style.muted, style.paper) > 4.5
    for colour in (style.flip, style.right, style.wrong, *style.lines):
        assert contrast(colour, style.paper) > 2.5, colour


DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
                (-0.011820, 0.042940, 0.968881))  # fmt: skip
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
              (-0.003882, -0.048116, 1.051998))  # fmt: skip
"""Matrices of Machado, Oliveira and Fernandes (2009), for full severity."""


def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    """Return a colour as others see it, in CIELAB."""
    rgb = torch.tensor(to_rgb(colour), dtype=torch.float64)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (torch.tensor(matrix, dtype=torch.float64) @ linear).clamp(0, 1)
    to_xyz = torch.tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ).double()
    x = to_xyz @ linear / torch.tensor([0.9505, 1.0, 1.089])
    f = torch.where(x > 0.008856, x ** (1 / 3), 7.787 * x + 16 / 116)
    return torch.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", [DEUTERANOPIA, PROTANOPIA], ids=["deutan", "protan"])
@pytest.mark.parametrize("style", [LIGHT, DARK], ids=["light", "dark"])
def test_right_and_wrong_and_the_curves_differ_for_all_readers(
    style: Style, matrix: tuple[tuple[float, ...], ...]
) -> None:
    # a difference of 2.3 is just noticeable; curves and bars also differ in dashes and hatches
    for group in ((style.right, style.wrong), style.lines[:4], style.classes[:6]):
        for one, other in itertools.combinations(group, 2):
            assert float((seen(one, matrix) - seen(other, matrix)).norm()) > 10, (one, other)


def test_class_colours_differ() -> None:
    for style in (LIGHT, DARK, REPORT):
        assert len({style.class_colour(k) for k in range(100)}) == 100
        assert style.class_colours([5, 900, 5, 7], 1000) == {
            5: style.classes[0],
            900: style.classes[1],
            7: style.classes[2],
        }
