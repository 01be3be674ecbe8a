"""The page of a triage: one HTML file that sorts and filters in the browser, without a server.

Only the rows in view are in the document, so that tens of thousands stay usable.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import GENERATOR, printable

_SIZE = 56
"""Largest side of a thumbnail in pixels."""

_DATA = "\0data\0"
"""Place of the rows in the page."""

_CLASS_COLUMNS = ("given", "predicted", "runner_up", "suggested")
_DIGITS = 5


def thumbnail(image: Tensor) -> str | None:
    """Return an image (C,H,W) as the data URI of a small PNG, or None if it is no image.

    Pixels in [0, 1] are shown as they are; others are stretched to this range.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        return None
    pixels = image.detach().cpu().double().numpy()
    if not np.isfinite(pixels).all():
        return None
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 1:
        pixels = (pixels - low) / (high - low)
    table = np.moveaxis((255 * pixels).round().astype(np.uint8), 0, 2)
    picture = Image.fromarray(table[:, :, 0] if table.shape[2] == 1 else table)
    picture.thumbnail((_SIZE, _SIZE))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def page_of(
    rows: Iterable[Mapping[str, Any]],
    count: int,
    columns: Mapping[str, str],
    class_names: Sequence[str] | None,
    title: str,
) -> Iterator[str]:
    """Yield the page in parts, of which each row is one.

    Parameters
    ----------
    rows : iterable of dict
    count : int
        Their number.
    columns : dict of str
        What each column contains, by its name.
    class_names : sequence of str, optional
        Names of the classes, in place of their numbers.
    title : str

    Raises
    ------
    ArgumentError
        Fewer names than classes.
    """
    environment = Environment(
        loader=PackageLoader("fsboundary.review"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("triage.html.j2").render(
        generator=GENERATOR,
        title=printable(title),
        columns=columns,
        data=_DATA,
        count=count,
    )
    before, after = page.split(_DATA)  # control characters, which no title contains
    yield before
    for number, row in enumerate(rows):
        cells = _cells(row, columns, class_names)
        text = json.dumps(cells, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
        # nothing in a name can end the script, and nothing in it is a tag
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        yield f"{',' if number else '['}{text}"
    yield f"{'' if count else '['}]{after}"


def _cells(
    row: Mapping[str, Any], columns: Mapping[str, str], class_names: Sequence[str] | None
) -> list[Any]:
    """Return the thumbnail and the cells of a row: numbers, texts and None, as strict JSON."""
    cells: list[Any] = [row.get("thumbnail")]
    for name in columns:
        value = row[name]
        if name in _CLASS_COLUMNS and class_names is not None and value is not None:
            if value >= len(class_names):
                got, fix = f"{len(class_names)} names", "pass one name per class"
                raise ArgumentError("class_names", got, f"a name of class {value}", fix)
            value = printable(str(class_names[value]))
        elif isinstance(value, float):
            finite = math.isfinite(value)
            value = float(f"{value:.{_DIGITS}g}") if finite else str(value)
        cells.append(value)
    return cells
