"""Sets of images: balls around given images, inside the limits of pixels."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from fsboundary.geometry.bounds.rounding import SMALLEST, above, below, sum_error

Norm = Literal["l2", "linf"]


def minimum_on_boxes(coefficients: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return lower bounds (B,F) of linear functions on boxes.

    Parameters
    ----------
    coefficients : Tensor (B, F, n), float64
    low, high : Tensor (B, n), float64
    """
    a = coefficients
    value = (a.clamp_min(0) @ low[..., None] + a.clamp_max(0) @ high[..., None])[..., 0]
    size = (a.abs() @ torch.maximum(low.abs(), high.abs())[..., None])[..., 0]
    return value - sum_error(2 * a.shape[-1], size)


_HALVINGS = 40
"""Halvings of the range of the ball's multiplier; each value of it gives a valid bound."""


@final
class PixelSets:
    """For each of B images, all images within a radius whose pixels are within limits.

    Parameters
    ----------
    images : Tensor (B, ...), float64
        Centres.
    radius : Tensor (B,), float64
        Radii in pixel units, at least 0.
    norm : {"l2", "linf"}
    limits : (float, float)
        Least and largest pixel. A centre that is beyond them stays in its set.
    """

    def __init__(
        self, images: Tensor, radius: Tensor, norm: Norm, limits: tuple[float, float]
    ) -> None:
        self.norm = norm
        self._radius = radius
        self._center = images.flatten(1)
        self._shape = images.shape
        reach = radius[:, None]
        low, high = below(self._center - reach), above(self._center + reach)
        self._low = torch.minimum(low.clamp_min(limits[0]), self._center)
        self._high = torch.maximum(high.clamp_max(limits[1]), self._center)
        self._size = torch.maximum(self._low.abs(), self._high.abs())

    def __len__(self) -> int:
        return len(self._radius)

    def box(self) -> tuple[Tensor, Tensor]:
        """Return limits (B, ...) of every pixel of the sets."""
        return self._low.reshape(self._shape), self._high.reshape(self._shape)

    def minimum(self, coefficients: Tensor, *, tight: bool = False) -> Tensor:
        """Return lower bounds (B,F) of linear functions on the sets.

        Parameters
        ----------
        coefficients : Tensor (B, F, n), float64
            Coefficients of F functions of the n pixels of each image. The bounds are those of
            the functions with exactly these numbers.
        tight : bool
            Whether a ball that reaches beyond the limits of pixels is cut by them, which takes
            longer. Boxes always are.
        """
        a = coefficients
        lowest = minimum_on_boxes(a, self._low, self._high)
        if self.norm == "linf":
            return lowest
        size = (a.abs() @ self._size[..., None])[..., 0]
        # squares of numbers below 1e-154 are 0: up to 1e12 pixels lose less than 1e-147 of length
        length = torch.linalg.vector_norm(a, dim=-1) + 1e-147
        radius = self._radius[:, None]
        at_center = (a @ self._center[..., None])[..., 0]
        terms = a.shape[-1] + 8
        ball = at_center - radius * length - sum_error(terms, size + radius * length)
        lowest = torch.maximum(lowest, ball)
        return torch.maximum(lowest, self._dual(a, length, at_center, size)) if tight else lowest

    def _dual(self, a: Tensor, length: Tensor, at_center: Tensor, size: Tensor) -> Tensor:
        """Return lower bounds (B,F) on the intersection of ball and box; -inf where there is none.

        For every m >= 0 the minimum of ``a.x`` over the set is at least that of ``a.x + m/2 (|x -
        c|^2 - r^2)`` over the box, which separates into pixels. The steps x - c of its minimiser
        are rounded in their last place; the function of a pixel changes by no more than that
        relative to ``|a s| + m s^2``, twice what the error below is relative to.
        """
        c, r = self._center[:, None], self._radius[:, None]
        down, up = self._low[:, None] - c, self._high[:, None] - c
        most = length / r.clamp_min(SMALLEST)  # beyond this multiplier the ball is not active
        least = torch.zeros_like(most)

        def steps(m: Tensor) -> Tensor:
            whole = -a / m.clamp_min(SMALLEST)[..., None]
            return torch.minimum(torch.maximum(whole, down), up)

        for _ in range(_HALVINGS):
            m = (least + most) / 2
            outside = steps(m).square().sum(dim=-1) > r.square()
            least, most = torch.where(outside, m, least), torch.where(outside, most, m)
        s, m = steps(most), most.clamp_min(SMALLEST)
        product, square = a * s, s.square().sum(dim=-1)
        value = at_center + product.sum(dim=-1) + m / 2 * (square - r.square())
        spread = size + 2 * product.abs().sum(dim=-1) + m * (square + r.square())
        dual = value - sum_error(a.shape[-1] + 8, spread)
        return torch.where(torch.isfinite(dual), dual, -torch.inf)
