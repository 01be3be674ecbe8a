"""What a section of a report is. One section, one file, one template of the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from fsboundary.report.measurements import Measurements


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """What a section computed.

    Attributes
    ----------
    numbers : dict
        Numbers, texts, lists and dicts that strict JSON can hold; ``--json`` writes them, and the
        page shows no other number.
    pictures : dict of str to Tensor (C, H, W) or (R, N, C, H, W)
        Images in [0, 1] that the template shows by name; with five dimensions, R films of N
        frames, shown together as a GIF.
    """

    numbers: dict[str, Any]
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Section(ABC):
    """A section of a report.

    ``templates/sections/<name>.html.j2`` shows it, with ``numbers``, ``pictures`` and ``figures``
    at hand. :data:`fsboundary.report.sections.SECTIONS` lists all, in the order of the page.

    Attributes
    ----------
    name : str
        Key of its numbers in the JSON, name of its template, anchor in the page.
    title : str
        Heading.
    menu : str
        Entry in the page's menu; the title where it is empty.
    """

    name: str
    title: str
    menu: str = ""

    @abstractmethod
    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and pictures of the section.

        It runs as one stage of the clock; the parts of a long computation may run as stages
        within, by ``with measured.clock.stage(name)``.
        """

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Return the section's figures by name, as data URIs; by default none.

        Parameters
        ----------
        numbers : dict
            What :meth:`compute` returned, after a passage through JSON.
        names : list of str
            The class names.
        """
        return {}
