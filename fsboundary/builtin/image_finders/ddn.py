"""The decoupled-direction-and-norm attack as an image finder, a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from fsboundary.builtin.boundary_finders.bracketing import bracket
from fsboundary.builtin.image_finders.norm_descent import descend
from fsboundary.builtin.image_finders.search_state import ImageSearch
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages
from fsboundary.plugins.interfaces import ImageBoundaryFinder


@final
@dataclass(frozen=True, slots=True)
class DecoupledDescent(ImageBoundaryFinder):
    """DDN (Rony et al., CVPR 2019), the nearest image across then bracketed onto the boundary.

    Parameters
    ----------
    first_radius : float
        First length of the change, pixel units.
    stride : float
        First gradient step, pixel units; falls to a hundredth by a cosine.
    rate : float
        Share by which the length shrinks or grows in a step.
    """

    first_radius: float = 1.0
    stride: float = 1.0
    rate: float = 0.05

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
        search = ImageSearch(view, images, targets, bounds, norm)
        descend(
            search,
            max_steps,
            radius=self.first_radius,
            stride=self.stride,
            rate=self.rate,
        )
        return search.answer(*bracket(search))
