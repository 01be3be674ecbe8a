"""Results and other objects as text: a few lines, and a small table for notebooks."""

from __future__ import annotations

import reprlib
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import torch
from torch import Tensor

from fsboundary.core.files import printable
from fsboundary.core.status import Status

WIDTH = 100
"""Characters per line."""

_short = reprlib.Repr()
_short.maxstring, _short.maxother = 40, 70


def title(name: str, sizes: Mapping[str, object]) -> str:
    """Return the first line of an object, such as ``FeatureBank(n=10, d=8)``."""
    texts = (f"{key}={short(value)}" for key, value in sizes.items())
    return f"{name}({', '.join(texts)})"


def short(value: object) -> str:
    """Return a value as a short text of printable characters."""
    return printable(value.name if isinstance(value, Status) else _short.repr(value))


def status_words(status: Tensor) -> str:
    """Return how often each status occurs, by name, the most frequent first.

    Examples
    --------
    >>> status_words(torch.tensor([0, 0, 8]))
    '2 CONVERGED, 1 NOT_FINITE'
    """
    codes, counts = status.unique(return_counts=True)
    found = Counter(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    known = {int(s): s.name for s in Status}
    return ", ".join(f"{n} {known.get(c, f'code {c}')}" for c, n in found.most_common()) or "none"


def number_words(values: Tensor) -> str:
    """Return the range of the numbers, and how many are NaN, infinite, -1 or true.

    Examples
    --------
    >>> number_words(torch.tensor([1.0, 2.0, 4.0, torch.nan, torch.inf]))
    '1 to 4, median 2, 1 inf, 1 NaN'
    >>> number_words(torch.tensor([3, -1, 5]))
    '3 to 5, 1 x -1'
    """
    if values.dtype == torch.bool:
        return f"{int(values.sum())} of {values.numel()} true"
    if values.ndim == 0:
        return f"{values.item():.4g}" if values.is_floating_point() else f"{values.item()}"
    flat = values.detach().flatten()
    rest: dict[str, int]
    if flat.is_floating_point():
        flat = flat.to(torch.float64)
        rest = {f"{x:g}".replace("nan", "NaN"): 0 for x in (torch.inf, -torch.inf)}
        rest["inf"], rest["-inf"] = int((flat == torch.inf).sum()), int((flat == -torch.inf).sum())
        rest["NaN"] = int(flat.isnan().sum())
        flat = flat[flat.isfinite()]
        numbers = [f"{x:.4g}" for x in (flat.min(), flat.max(), flat.median())] if len(flat) else []
    else:
        rest = {"x -1": int((flat == -1).sum())}
        flat = flat[flat != -1]
        numbers = [str(int(x)) for x in (flat.min(), flat.max())] if len(flat) else []
    words = []
    if numbers:
        same = numbers[0] == numbers[1]
        words.append(numbers[0] if same else f"{numbers[0]} to {numbers[1]}")
        words += [f"median {numbers[2]}"] if len(numbers) > 2 and not same else []
    return ", ".join(words + [f"{n} {what}" for what, n in rest.items() if n]) or "none"


def lines(head: str, facts: Mapping[str, str], rest: Sequence[str]) -> str:
    """Return an object as text: a line per fact, and the names of what is left out.

    The first and the last line are wrapped once, then cut; the lines of facts are cut.
    """
    text = [_fill(head, "", 2), *(_fill(f"{n}: {words}", "  ", 1) for n, words in facts.items())]
    text += [_fill(f"also: {', '.join(rest)}", "  ", 2)] if rest else []
    return "\n".join(text)


def _fill(line: str, indent: str, count: int) -> str:
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent=indent,
        subsequent_indent="    ",
        max_lines=count,
        placeholder=" ..",
        break_on_hyphens=False,
    )


def html_table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table of fields, their sizes and their values; all text is escaped."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(row[0])}</th>"
        + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(head)}</caption><tbody>{body}</tbody></table>"
