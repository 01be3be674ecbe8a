"""Search for the largest radius that a method certifies, for several rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor

from fsboundary.core.status import Status

Bounder = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rows (R,) and radii (R,) -> lower bounds (R,F) of functions, and which rows refute them (R,)."""

_STALLED = 2
"""Divisions that may each leave more than half of the bracket, before one in the middle."""

_STEEP = 30.0
"""How many times larger than the certified value a failed one may be to be interpolated with."""

_DECADES = 1e-4
"""Fraction of the failed radius at which a bracket from 0 counts as beginning."""


_USELESS = 1e-8
"""Fraction of the first radius below which a search that certified nothing ends."""


@final
class LargestRadii(NamedTuple):
    """Result of the search, one entry per row.

    Attributes
    ----------
    radius : Tensor (R,), float64
    place : Tensor (R,)
        Function whose bound failed at the smallest failed radius; -1 where none did.
    steps : Tensor (R,)
    status : Tensor (R,)
        As of :class:`fsboundary.core.results.CertifiedPixels`.
    """

    radius: Tensor
    place: Tensor
    steps: Tensor
    status: Tensor

    def shorten(self, other: LargestRadii) -> LargestRadii:
        """Return the result after a search of stricter bounds, up to the radii of this one.

        A row stays as it is where the other search certified its whole radius.
        """
        kept = (other.status == Status.UNBOUNDED) | (self.status == Status.INACCURATE)
        fields = (torch.where(kept, a, b) for a, b in zip(self, other, strict=True))
        return LargestRadii(*fields)._replace(steps=self.steps + other.steps)


def largest_radii(
    bound: Bounder, start: Tensor, reach: Tensor, tolerance: float, max_steps: int
) -> LargestRadii:
    """Return the largest radii at which every bound of `bound` is positive.

    Each row has a bracket: the largest radius that is certified, and the smallest one that was
    tried and is not. Certified radii are valid whether or not the bounds fall with the radius.

    Parameters
    ----------
    bound : callable
    start : Tensor (R,), float64
        Radii that are tried first, after 0.
    reach : Tensor (R,), float64
        Radii that contain everything: larger ones are not tried.
    tolerance : float
        Relative length of the bracket at which the search ends.
    max_steps : int
        Limit of radii that are tried per row.
    """
    bracket = _Bracket(start, reach, tolerance)
    for _ in range(max_steps):
        rows = bracket.open.nonzero()[:, 0]
        if not len(rows):
            break
        lower, refuted = bound(rows, bracket.following[rows])
        bracket.update(rows, lower, refuted)
    return bracket.result()


@final
class _Bracket:
    """Brackets of R rows, and the radius that is tried next."""

    def __init__(self, start: Tensor, reach: Tensor, tolerance: float) -> None:
        self._start, self._reach, self._tolerance = start, reach, tolerance
        self._low, self._high = torch.full_like(start, -1.0), torch.full_like(start, torch.inf)
        self._low_value, self._high_value = torch.zeros_like(start), torch.zeros_like(start)
        self._place = torch.full(start.shape, -1, dtype=torch.int64, device=start.device)
        self._steps, self._stalls = torch.zeros_like(self._place), torch.zeros_like(self._place)
        self._passed_before = torch.full_like(self._place, -1)
        self._wrong = torch.zeros_like(start, dtype=torch.bool)
        self.following = torch.zeros_like(start)
        self.open = torch.ones_like(self._wrong)

    def update(self, rows: Tensor, lower: Tensor, refuted: Tensor) -> None:
        """Take the bounds (R,F) of `rows` at the radius that was tried, and choose the next."""
        radius, width = self.following[rows], (self._high - self._low)[rows]
        value, place = lower.min(dim=1)
        passed = (value > 0) & ~refuted
        self._wrong[rows] |= refuted
        self._steps[rows] += 1
        ok, failed = rows[passed], rows[~passed]
        self._low[ok], self._low_value[ok] = radius[passed], value[passed]
        self._high[failed], self._high_value[failed] = radius[~passed], value[~passed]
        self._place[failed] = place[~passed]
        # the Illinois rule: the value of an end that stays twice is halved, so that it moves
        before = self._passed_before[rows]
        twice, again = rows[passed & (before == 1)], rows[~passed & (before == 0)]
        self._high_value[twice] /= 2
        self._low_value[again] /= 2
        self._passed_before[rows] = passed.long()
        new_width = (self._high - self._low)[rows]
        short = new_width <= width / 2
        self._stalls[rows] = torch.where(short, 0, self._stalls[rows] + 1)
        self._close()
        self.following = self._next()

    def _close(self) -> None:
        low, high = self._low, self._high
        narrow = (high - low <= self._tolerance * high) & torch.isfinite(high)
        nothing = (low < 0) & (self._steps > 0)
        nothing |= (low <= 0) & (high <= _USELESS * self._start)
        self.open = ~(self._wrong | nothing | narrow | (low >= self._reach))

    def _next(self) -> Tensor:
        low, high = self._low.clamp_min(0.0), self._high
        width = high - low
        ratio = self._low_value / (self._low_value - self._high_value)
        secant = low + width * ratio
        begin = torch.maximum(low, _DECADES * high)
        middle = torch.where(high > 4 * begin, (begin * high).sqrt(), low + width / 2)
        steep = ~torch.isfinite(secant) | (-self._high_value > _STEEP * self._low_value)
        bisect = steep | (self._stalls >= _STALLED)
        self._stalls = torch.where(bisect, 0, self._stalls)
        least = torch.minimum(0.4 * self._tolerance * high, width / 2)
        inside = torch.minimum(
            torch.maximum(torch.where(bisect, middle, secant), low + least), high - least
        )
        # nothing failed yet: the first radius, then the largest
        grown = torch.where(low < self._start, self._start, self._reach)
        return torch.where(torch.isfinite(high), inside, grown)

    def result(self) -> LargestRadii:
        """Return what is certified."""
        low, high = self._low, self._high
        status = torch.where(self.open, int(Status.MAX_STEPS), int(Status.CONVERGED))
        status[low <= 0] = int(Status.UNDECIDED)
        whole = low >= self._reach
        status[whole] = int(Status.UNBOUNDED)
        status[self._wrong] = int(Status.INACCURATE)
        radius = torch.where(whole, torch.inf, low.clamp_min(0.0))
        radius = torch.where(self._wrong, torch.nan, radius)
        place = torch.where(torch.isfinite(high), self._place, -1)
        return LargestRadii(radius, place, self._steps, status)
