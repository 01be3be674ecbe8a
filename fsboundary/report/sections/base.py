"""Base class of the sections of a report; each has one module and one template."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from fsboundary.report.measurements import Measurements


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """Numbers and pictures of a section.

    Attributes
    ----------
    numbers : dict
        Numbers, texts, lists and dicts that are valid strict JSON; ``--json`` writes them, and the
        page shows no other number.
    pictures : dict of str to Tensor (C, H, W) or (R, N, C, H, W)
        Images in [0, 1] by the name used in the template; with five dimensions, R films of N
        frames, shown together as a GIF.
    """

    numbers: dict[str, Any]
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Section(ABC):
    """A section of a report.

    The template ``templates/sections/<name>.html.j2`` renders it from ``numbers``, ``pictures``
    and ``figures``. :data:`fsboundary.report.sections.SECTIONS` lists all sections, in the order
    of the page.

    Attributes
    ----------
    name : str
        Key of its numbers in the JSON, name of its template and anchor in the page.
    title : str
        Heading.
    menu : str
        Entry in the page's menu; if empty, the title.
    """

    name: str
    title: str
    menu: str = ""

    @abstractmethod
    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and pictures of the section.

        It runs as one stage of the clock; parts of a long computation may run as nested stages,
        with ``with measured.clock.stage(name)``.
        """

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Return the section's figures by name, as data URIs; none by default.

        Parameters
        ----------
        numbers : dict
            Numbers that :meth:`compute` returned, after conversion to JSON and back.
        names : list of str
            The class names.
        """
        return {}
