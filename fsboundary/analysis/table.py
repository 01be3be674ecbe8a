"""The table of two geometries."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the table.

    Attributes
    ----------
    name : str
        A key, for programs.
    question : str
        What was measured, in words.
    pixels, features : float
        The answers; NaN where the question has none.
    agreement : float
        How far both agree, in the terms of ``agreement_is``; NaN where that has no meaning.
    agreement_is : str
        What ``agreement`` measures.
    """

    name: str
    question: str
    pixels: float
    features: float
    agreement: float = math.nan
    agreement_is: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSpaces:
    """The same images in pixels and in features.

    Attributes
    ----------
    measures : tuple of Measure
    sizes : dict
        How many images, pairs and so on each measure is of.
    """

    measures: tuple[Measure, ...]
    sizes: dict[str, int]

    def __getitem__(self, name: str) -> Measure:
        """Return the line `name`, or raise KeyError."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and words; None for NaN, so that JSON can hold it."""

        def plain(value: Any) -> Any:
            return None if isinstance(value, float) and math.isnan(value) else value

        lines = [{k: plain(v) for k, v in asdict(m).items()} for m in self.measures]
        return {"sizes": dict(self.sizes), "measures": lines}

    def to_markdown(self) -> str:
        """Return the table for a page of documentation."""
        lines = ["| | pixels | features | agreement |", "|---|---|---|---|"]
        for m in self.measures:
            agreement = f"{_number(m.agreement)} ({m.agreement_is})" if m.agreement_is else ""
            lines.append(
                f"| {m.question} | {_number(m.pixels)} | {_number(m.features)} | {agreement} |"
            )
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
