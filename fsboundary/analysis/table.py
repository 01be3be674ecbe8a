"""Table of measures in pixel space and in feature space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch

from fsboundary.core.results.base.display import html_table, lines, title
from fsboundary.core.results.base.frames import data_frame
from fsboundary.core.results.base.tensor_files import check_new, read_tensors, write_tensors

_FORMAT = "fsboundary two spaces 1"
"""Name and version of the format of the file."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the table.

    Attributes
    ----------
    name : str
        Key of the measure, for programs.
    question : str
        Description of the measure.
    pixels, features : float
        Values in the two spaces; NaN where there is none.
    agreement : float
        Agreement of the two spaces, as described by ``agreement_is``; NaN where that has no
        meaning.
    agreement_is : str
        Description of ``agreement``.

    Examples
    --------
    >>> from fsboundary.analysis import Measure
    >>> one = Measure(name="neighbours", question="Same class?", pixels=0.4, features=0.7)
    >>> one.features > one.pixels
    True
    """

    name: str
    question: str
    pixels: float
    features: float
    agreement: float = math.nan
    agreement_is: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TwoSpaces:
    """Measures of the same images in pixels and in features.

    Attributes
    ----------
    measures : tuple of Measure
    sizes : dict
        Numbers of images, pairs and so on from which the measures were computed.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> space = fsb.FeatureSpace(model)
    >>> labels = space.extract(images).predicted
    >>> found = fsb.analysis.two_spaces(
    ...     space, images[:10], labels[:10], images[10:], labels[10:], flips=2, pairs=5
    ... )
    >>> found.sizes["images"], len(found.measures)
    (10, 10)
    """

    measures: tuple[Measure, ...]
    sizes: dict[str, int]

    def __getitem__(self, name: str) -> Measure:
        """Return the line `name`, or raise KeyError."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)

    def __len__(self) -> int:
        return len(self.measures)

    def __iter__(self) -> Iterator[Measure]:
        return iter(self.measures)

    def __repr__(self) -> str:
        facts = {
            m.name: f"{_format(m.pixels) or 'none'} in pixels, "
            f"{_format(m.features) or 'none'} in features"
            for m in self.measures
        }
        return lines(title("TwoSpaces", self.sizes), facts, [])

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        cells = [
            (m.name, _format(m.pixels), _format(m.features), _format(m.agreement))
            for m in self.measures
        ]
        return html_table(
            title("TwoSpaces", self.sizes), [("", "pixels", "features", "agreement"), *cells]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings; None for NaN, so that the result is valid JSON."""

        def plain(value: Any) -> Any:
            return None if isinstance(value, float) and math.isnan(value) else value

        lines = [{k: plain(v) for k, v in asdict(m).items()} for m in self.measures]
        return {"sizes": dict(self.sizes), "measures": lines}

    def save(self, path: str | PathLike[str], *, force: bool = False) -> None:
        """Write numbers and text to a file, without pickle, with a digest.

        Parameters
        ----------
        path : path
        force : bool
            Whether to replace a file that exists.

        Raises
        ------
        ArgumentError
            The path exists, or its folder does not.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from fsboundary.analysis import Measure, TwoSpaces
        >>> one = Measure(name="inside", question="Inside the hull?", pixels=0.1, features=0.2)
        >>> found = TwoSpaces(measures=(one,), sizes={"images": 10})
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.safetensors"
        >>> found.save(path)
        >>> TwoSpaces.open(path)["inside"].features
        0.2
        """
        if not force or not Path(path).is_file():
            check_new(path, "name another file, or pass force=True to replace this one")
        texts = [[m.name, m.question, m.agreement_is] for m in self.measures]
        numbers = [[m.pixels, m.features, m.agreement] for m in self.measures]
        table = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 3)
        write_tensors(Path(path), _FORMAT, {"values": table}, {"texts": texts, "sizes": self.sizes})

    @classmethod
    def open(cls, path: str | PathLike[str]) -> TwoSpaces:
        """Open a file that :meth:`save` wrote.

        Raises
        ------
        DataError
            No such file, a damaged one, or one of another kind.
        """
        fix = "Save the result again, or restore a copy"
        tensors, facts = read_tensors(Path(path), _FORMAT, "comparison of two spaces", fix)
        measures = tuple(
            Measure(
                name=name,
                question=question,
                pixels=pixels,
                features=features,
                agreement=agreement,
                agreement_is=agreement_is,
            )
            for (name, question, agreement_is), (pixels, features, agreement) in zip(
                facts["texts"], tensors["values"].tolist(), strict=True
            )
        )
        return cls(measures=measures, sizes=facts["sizes"])

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with one line per measure.

        Raises
        ------
        ImportError
            pandas is not installed: ``pip install 'fsboundary[pandas]'``.
        """
        lines_of = [asdict(measure) for measure in self.measures]
        names = [field.name for field in fields(Measure)]
        return data_frame({name: [line[name] for line in lines_of] for name in names})

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        lines = ["| | pixels | features | agreement |", "|---|---|---|---|"]
        for m in self.measures:
            agreement = f"{_format(m.agreement)} ({m.agreement_is})" if m.agreement_is else ""
            lines.append(
                f"| {m.question} | {_format(m.pixels)} | {_format(m.features)} | {agreement} |"
            )
        return "\n".join(lines) + "\n"


def _format(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
