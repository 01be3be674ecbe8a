"""An image finder without gradients: crossings of segments to other images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import bracket
from fsboundary.builtin.image_finders.search_state import SearchState
from fsboundary.builtin.image_finders.segments import scan, segment_ends
from fsboundary.core.checks import check_float_tensor, check_integers
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.plugins.interfaces import ImageBoundaryFinder


@final
@dataclass(frozen=True, slots=True, eq=False)
class LineSearch(ImageBoundaryFinder):
    """Follow segments to `ends`, keep the nearest crossing, and bracket it; no gradients.

    Parameters
    ----------
    ends : Tensor (E, C, H, W), optional
        Ends of the segments, such as images of other classes; each row tries all. Default: the
        negative of the row, an all-dark and an all-bright image.
    points : int
        Number of steps along a segment; a crossing there and back between two steps is missed.
    """

    ends: Tensor | None = None
    points: int = 16

    def __post_init__(self) -> None:
        check_integers(self, points=self.points)
        if self.ends is not None:
            fix = "pass images like those to flip"
            check_float_tensor("ends", self.ends, ("E", "C", "H", "W"), fix=fix)

    def find(
        self,
        view: ModelView,
        images: Tensor,
        *,
        targets: Tensor | Literal["nearest"],
        bounds: tuple[float, float],
        norm: Literal["l2", "linf"],
        max_steps: int,
    ) -> FlipImages:
        """Propose the nearest crossing on any of the segments; `max_steps` has no effect."""
        search = SearchState(view, images, targets, bounds, norm)
        rows = search.all_rows
        if self.ends is None:
            for ends in segment_ends(search, rows):
                scan(search, rows, ends, self.points)
        else:
            if self.ends.shape[1:] != images.shape[1:]:
                raise ArgumentError(
                    "ends",
                    f"shape {tuple(self.ends.shape)}",
                    f"(E, {', '.join(map(str, images.shape[1:]))})",
                    "pass images like those to flip",
                )
            for end in self.ends.detach().flatten(1).to(search.clean).clamp(*search.box):
                scan(search, rows, end.expand_as(search.clean), self.points)
        return search.to_result(*bracket(search))
