"""Colours of pictures on light and on dark paper, and the axes they are drawn on."""

from __future__ import annotations

import colorsys
import dataclasses
import io
import struct
from dataclasses import dataclass
from typing import Any, Literal, final

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text

from fsboundary.core.checks import check_choice, check_instance

StyleName = Literal["light", "dark"]

TABLEAU = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#edc948",
    "#76b7b2",
    "#ff9da7",
    "#9c755f",
    "#8cd17d",
)
"""Colours of the classes in a report."""

TOL_MUTED = (
    "#332288",
    "#ddcc77",
    "#117733",
    "#cc6677",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#777777",
)
"""Colours that readers with any colour vision can distinguish (Paul Tol, "muted"), and a grey."""

TOL_LIGHT = (
    "#77aadd",
    "#ee8866",
    "#eedd88",
    "#44bb99",
    "#ffaabb",
    "#aaaa00",
    "#99ddff",
    "#bbcc33",
    "#dddddd",
    "#b79ce0",
)
"""The same on dark paper (Paul Tol, "light"), and a violet."""


LINES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Lines of the curves, so that they differ without colours too."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Colours of one kind of paper.

    Attributes
    ----------
    paper, ink, muted, line : str
        Background, text and marks, numbers at the axes, and the axes themselves.
    outside, hatch : str
        Surface and lines of what no example can reach.
    flip : str
        Flip points.
    right, wrong : str
        Bars, and bars of what is marked.
    classes, lines : tuple of str
        Colours of the first classes, and of curves.
    heat : str
        Colour map whose large values differ most from the paper.
    """

    paper: str
    ink: str
    muted: str
    line: str
    outside: str
    hatch: str
    flip: str
    right: str
    wrong: str
    classes: tuple[str, ...]
    lines: tuple[str, ...]
    heat: str

    def class_colour(self, k: int) -> str:
        """Return the colour of the class with index `k`; all colours differ."""
        if k < len(self.classes):
            return self.classes[k]
        hue = (k * 0.618034) % 1.0  # golden-ratio steps give consecutive classes distinct hues
        red, green, blue = colorsys.hls_to_rgb(hue, 0.6, 0.5)
        return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"

    def class_colours(self, shown: list[int], num_classes: int) -> dict[int, str]:
        """Return the colour of each class; of many classes, those `shown` get the first ones."""
        if num_classes <= len(self.classes):
            return {k: self.class_colour(k) for k in range(num_classes)}
        return {k: self.class_colour(index) for index, k in enumerate(dict.fromkeys(shown))}


LIGHT = Style(
    paper="#ffffff",
    ink="#1d2733",
    muted="#6b7785",
    line="#d5dbe3",
    outside="#eef0f3",
    hatch="#c9d0d8",
    flip="#c62828",
    right="#3a6ea5",
    wrong="#e07b39",
    classes=TOL_MUTED,
    lines=("#0077bb", "#cc3311", "#009988", "#ee3377", "#555555", "#ee7733"),  # Tol, "vibrant"
    heat="Blues",
)

DARK = Style(
    paper="#14191f",
    ink="#eef2f6",
    muted="#a3afbc",
    line="#46515e",
    outside="#1d242c",
    hatch="#4b5663",
    flip="#ff8a80",
    right="#6fa8dc",
    wrong="#f0a35e",
    classes=TOL_LIGHT,
    lines=("#77aadd", "#ee8866", "#44bb99", "#ffaabb", "#dddddd", "#eedd88"),
    heat="Blues_r",
)

REPORT = dataclasses.replace(LIGHT, classes=TABLEAU)
"""Style of the report."""

_STYLES: dict[StyleName, Style] = {"light": LIGHT, "dark": DARK}

_MIDDLE = 0.5
"""Brightness of the paper below which it is dark."""


def _style_on(paper: Any) -> Style:
    """Return the style that is legible on `paper`, any colour of matplotlib."""
    red, green, blue, opacity = to_rgba(paper)
    if opacity < _MIDDLE:  # what is behind it is not known; most pages are light
        return LIGHT
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue < _MIDDLE else LIGHT


@final
class NotebookFigure(Figure):
    """A figure that a notebook shows as the last line of a cell, without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture at twice its resolution, for sharp screens, and its size."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=2 * self.dpi)
        content = stream.getvalue()
        width, height = struct.unpack(">II", content[16:24])  # as the header of a PNG says
        return content, {"width": width // 2, "height": height // 2}


@final
class NotebookAxes(Axes):
    """Axes that a notebook shows, with the whole figure, as the last line of a cell."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        figure = self.figure
        return figure._repr_png_() if isinstance(figure, NotebookFigure) else None


def check_place(ax: object, style: object) -> None:
    """Raise ArgumentError unless `ax` and `style` are what every function of plots takes."""
    if style is not None:
        check_choice("style", style, tuple(_STYLES))
    if ax is not None:
        fix = "pass one of figure.subplots(), or leave it out for a new figure"
        check_instance("ax", ax, Axes, "axes of matplotlib", fix)


def new_figure(
    width: float, height: float, style: StyleName | None
) -> tuple[NotebookFigure, Style]:
    """Return an empty figure of the given size in inches, and its colours.

    Without a `style`, the colours are those of the paper that matplotlib is set to.
    """
    if style is None:
        chosen, paper = _style_on(rcParams["figure.facecolor"]), rcParams["figure.facecolor"]
    else:
        chosen = _STYLES[style]
        paper = chosen.paper
    return NotebookFigure((width, height), layout="constrained", facecolor=paper), chosen


def add_axes(figure: NotebookFigure, style: Style, *position: Any) -> Axes:
    """Return new axes of a figure at a `position` of its grid, by default all of it."""
    axes = figure.add_subplot(*position, axes_class=NotebookAxes)
    axes.set_facecolor(figure.get_facecolor())
    plain_axes(axes, style)
    return axes


def place(
    ax: Axes | None, style: StyleName | None, width: float, height: float
) -> tuple[Axes, Style]:
    """Return `ax`, or axes of a new figure of the given size in inches, and their colours."""
    if ax is None:
        figure, chosen = new_figure(width, height, style)
        return add_axes(figure, chosen), chosen
    if style is not None:
        chosen = _STYLES[style]
    else:
        paper = ax.get_facecolor()
        owner: Figure | SubFigure = ax.figure
        chosen = _style_on(paper if to_rgba(paper)[3] >= _MIDDLE else owner.get_facecolor())
    plain_axes(ax, chosen)
    return ax, chosen


def plain_axes(axes: Axes, style: Style) -> None:
    """Leave out the lines above and to the right, and draw the others in a light colour."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(style.line)
    axes.tick_params(colors=style.muted, labelsize=9, length=3, color=style.line)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=style.muted, fontsize=9)
    axes.title.set(color=style.ink, fontsize=10)


def literal(text: Text) -> Text:
    """Return `text`, drawn letter by letter: names of classes may contain signs of TeX."""
    text.set_parse_math(False)
    text.set_usetex(False)
    return text


def legend_below(axes: Axes, style: Style, **options: Any) -> None:
    """Add a legend of the labelled artists below the axes, where it covers nothing."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 3.6}
    look = {"frameon": False, "fontsize": 9, "labelcolor": style.ink}
    legend = axes.legend(**place, **look, **options)
    for text in legend.get_texts():
        literal(text)
