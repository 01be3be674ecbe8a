"""The decoupled-direction-and-norm attack (DDN) as an image finder, a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import bracket
from fsboundary.builtin.image_finders.norm_descent import descend
from fsboundary.builtin.image_finders.search_state import SearchState
from fsboundary.core.checks import check_number
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.plugins.interfaces import ImageBoundaryFinder


@final
@dataclass(frozen=True, slots=True)
class DecoupledDescent(ImageBoundaryFinder):
    """DDN (Rony et al., CVPR 2019); the nearest image across is then bracketed onto the boundary.

    Parameters
    ----------
    initial_norm : float
        First norm of the change, relative to the range of the pixels.
    step_size : float
        First gradient step, relative to the range of the pixels; falls to a hundredth by a cosine.
    norm_change : float
        Fraction by which the norm shrinks or grows in a step.
    """

    initial_norm: float = 1.0
    step_size: float = 1.0
    norm_change: float = 0.05

    def __post_init__(self) -> None:
        """Raise ArgumentError for options out of range."""
        check_number("initial_norm", self.initial_norm, 0, fix="leave it out")
        check_number("step_size", self.step_size, 0, fix="leave it out")
        check_number("norm_change", self.norm_change, 0, 1, fix="leave it out")

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
        """Propose the nearest image across of `max_steps` steps, on the boundary."""
        search = SearchState(view, images, targets, bounds, norm)
        width = search.box[1] - search.box[0]
        descend(
            search,
            max_steps,
            initial_norm=self.initial_norm * width,
            step_size=self.step_size * width,
            norm_change=self.norm_change,
        )
        return search.to_result(*bracket(search))
