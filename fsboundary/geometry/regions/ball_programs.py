"""The largest ball in a region, and in a facet, as a program over (z, r).

``a_m.z + c_m >= r p_m`` for every other class, ``z_q - lo_q >= r p_q`` and ``hi_q - z_q >= r p_q``
for every domain face, and for a facet z on the tie of its two classes. The p are the norms of the
rows: whole for a region, projected on the tie's plane for a facet (design.md, "Facet").

Rows that are constant on the set (equal weights, a normal parallel to the tie's) are decided here
in fractions: float64 cannot tell parallel from nearly parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
import torch

from fsboundary.core.status import Status
from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.exact_arithmetic import FEW, dependent_columns
from fsboundary.geometry.linear_programs import Array
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.arrangement import Arrangement, Index, Mask

PARALLEL = 1e-9
"""Rows whose projected norm is below this share of their norm are compared in fractions."""

SMALLEST_POWER = -400
"""Rows shorter than two to this power, where the largest weight is near 1, are left undecided."""

LOST = 1e-170
"""``γ LOST`` bounds what underflow takes from a sum: half of 5e-324 a number, times 2**450 at most
where a row is made longer, is below 1e-187, and γ is at least 7e-15."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BallProgram:
    """One program, its rows multiplied by powers of two so that their norms are near 1.

    Attributes
    ----------
    rows, offset : array (M, f), (M,)
        a and c. Entries are rounded once.
    offset_error : array (M,)
        Bounds the error of c beyond that.
    size : array (M,)
        At least |a_m|.
    norm, norm_error : array (M,)
        p_m and a bound of its error.
    tie, tie_offset, tie_error : array (f,), float, float
        ``tie`` is zero for a region.
    tie_norm : float
        |tie|, 0 for a region.
    lower, upper : array (f,)
        Faces, infinite where there is none or where it is constant on the tie and holds.
    face_norm, face_error : array (f,)
        p_q and a bound of its error.
    space, classes
        The rows without rounding are those of these pairs of classes (M, 2) in this arrangement,
        with the pair of the tie last if there is one.
    """

    rows: Array
    offset: Array
    offset_error: Array
    size: Array
    norm: Array
    norm_error: Array
    tie: Array
    tie_offset: float
    tie_error: float
    tie_norm: float
    lower: Array
    upper: Array
    face_norm: Array
    face_error: Array
    space: Arrangement
    classes: Index

    @property
    def gamma(self) -> float:
        """Bounds the relative rounding of every sum over this program (see `certify_regions`)."""
        return dot_error(8 * self.rows.shape[1] + 2 * len(self.rows) + 64)

    @property
    def is_box(self) -> bool:
        """Whether some feature has two finite limits, so that no ball is arbitrarily large."""
        return bool((np.isfinite(self.lower) & np.isfinite(self.upper)).any())

    def dependent(self, used: Mask, columns: Mask) -> Mask:
        """Return those of `columns` (f,) that depend on others of them, in fractions.

        Over the rows `used` (M,) and the tie; False where there are too many to tell.
        """
        pairs = self.classes[np.append(used, np.full(len(self.classes) - len(used), True))]
        places = np.flatnonzero(columns)
        if len(pairs) * len(places) > FEW:
            return np.zeros_like(columns)
        rows = [self.space.exact_row(i, k) for i, k in pairs.tolist()]
        out = np.zeros_like(columns)
        out[places] = dependent_columns([[row[q] for q in places.tolist()] for row in rows])
        return out

    def project(self, z: Array) -> Array:
        """Return `z` moved onto the tie's plane, as far as rounding allows."""
        if self.tie_norm == 0:
            return z
        step = (self.tie @ z + self.tie_offset) / self.tie_norm**2
        return z - step * self.tie


def region_program(space: Arrangement, i: int) -> BallProgram | Status:
    """Return the program of region `i`, or the status that exact comparison gives.

    INFEASIBLE: a class with equal weights lies above. UNDECIDED: rows that underflow.
    """
    equal = space.equal_rows(i)
    equal[i] = False
    if any(space.exact_offset(i, k) < 0 for k in np.flatnonzero(equal).tolist()):
        return Status.INFEASIBLE
    equal[i] = True
    others = np.flatnonzero(~equal)
    base = np.full(len(others), i)
    return _program(space, base, others, None)


def facet_program(space: Arrangement, i: int, j: int) -> BallProgram | Status:
    """Return the program of the facet of `i` and `j`, or the status of exact comparison.

    DUPLICATE: equal rows and biases. INFEASIBLE: the two never tie, or a constant row excludes
    the tie. UNDECIDED: rows that underflow.
    """
    like_i, like_j = space.equal_rows(i), space.equal_rows(j)
    if like_i[j]:
        same = space.exact_offset(i, j) == 0
        return Status.DUPLICATE if same else Status.INFEASIBLE
    constant = like_i | like_j
    for k in np.flatnonzero(constant).tolist():
        if k not in (i, j) and space.exact_offset(i if like_i[k] else j, k) < 0:
            return Status.INFEASIBLE
    others = np.flatnonzero(~constant)
    # the shorter of the two rows, which agree on the tie
    base = np.where(space.norms[i, others] <= space.norms[j, others], i, j)
    return _program(space, base, others, (i, j))


def _program(
    space: Arrangement, base: Index, others: Index, pair: tuple[int, int] | None
) -> BallProgram | Status:
    f = space.width
    gamma = dot_error(8 * f + 64)
    tie, tie_offset, tie_error, tie_norm = np.zeros(f), 0.0, 0.0, 0.0
    if pair is not None:
        i, j = pair
        row, shift = _normalised((space.weight[i] - space.weight[j])[None])
        tie, down = row[0], int(shift[0])
        tie_norm = float(np.linalg.norm(tie))
        if down < SMALLEST_POWER:
            return Status.UNDECIDED
        tie_offset = float(np.ldexp(space.bias[i] - space.bias[j], -down))
        tie_error = float(np.ldexp(space.bias_error[i] + space.bias_error[j], -down))
    rows, shift = _normalised(space.weight[base] - space.weight[others])
    offset = np.ldexp(space.bias[base] - space.bias[others], -shift)
    offset_error = np.ldexp(space.bias_error[base] + space.bias_error[others], -shift)
    if (shift < SMALLEST_POWER).any():
        return Status.UNDECIDED
    plain = np.linalg.norm(rows, axis=1)
    size = plain * (1 + gamma)
    norm, norm_error = plain, gamma * plain
    face_norm, face_error = np.ones(f), np.zeros(f)
    lower, upper, classes = space.lower, space.upper, np.column_stack([base, others])
    if pair is not None:
        unit = tie / tie_norm
        norm = np.linalg.norm(rows - (rows @ unit)[:, None] * unit, axis=1)
        norm_error = gamma * size
        keep = np.ones(len(others), dtype=np.bool_)
        for m in np.flatnonzero(norm <= PARALLEL * plain).tolist():
            constant = _constant_on_tie(space, int(base[m]), int(others[m]), pair)
            if constant is not None and constant < 0:
                return Status.INFEASIBLE
            keep[m] = constant is None
        rows, offset, offset_error, size = rows[keep], offset[keep], offset_error[keep], size[keep]
        norm, norm_error, classes = norm[keep], norm_error[keep], classes[keep]
        faces = _faces_on_tie(space, pair)
        if faces is None:
            return Status.INFEASIBLE
        lower, upper = faces
        face_norm = _face_norms(unit)
        face_error = np.full(f, 2 * gamma)
    # projected norms may be far below the rows': another power of two
    down = np.minimum(np.frexp(np.maximum(norm, norm_error))[1], 0)
    return BallProgram(
        rows=np.ldexp(rows, -down[:, None]),
        offset=np.ldexp(offset, -down),
        offset_error=np.ldexp(offset_error, -down),
        size=np.ldexp(size, -down),
        norm=np.ldexp(norm, -down),
        norm_error=np.ldexp(norm_error, -down),
        tie=tie,
        tie_offset=tie_offset,
        tie_error=tie_error,
        tie_norm=tie_norm,
        lower=lower,
        upper=upper,
        face_norm=face_norm,
        face_error=face_error,
        space=space,
        classes=np.array([*classes.tolist(), *([] if pair is None else [pair])]).reshape(-1, 2),
    )


def _normalised(rows: Array) -> tuple[Array, Array]:
    """Return `rows` times powers of two, with norms in [1/2, 1), and the exponents.

    Where a number would underflow the exponent is below :data:`SMALLEST_POWER`.
    """
    size = lengths(torch.from_numpy(rows)).numpy()
    down = np.frexp(size)[1]
    scaled = np.ldexp(rows, -down[:, None])
    exact = (np.ldexp(scaled, down[:, None]) == rows).all(axis=1) & (size > 0)
    return scaled, np.where(exact, down, SMALLEST_POWER - 1)


def _constant_on_tie(
    space: Arrangement, base: int, other: int, pair: tuple[int, int]
) -> Fraction | None:
    """Return the value of a slack on the tie where it is constant there, else None."""
    tie, row = space.exact_row(*pair), space.exact_row(base, other)
    lead = next(q for q, value in enumerate(tie) if value)
    share = row[lead] / tie[lead]
    if any(a != share * t for a, t in zip(row, tie, strict=True)):
        return None
    return space.exact_offset(base, other) - share * space.exact_offset(*pair)


def _faces_on_tie(space: Arrangement, pair: tuple[int, int]) -> tuple[Array, Array] | None:
    """Return the faces, without those that hold all over the tie; None where one never holds."""
    w = space.full_weight[:, space.free]
    moving = np.flatnonzero(w[pair[0]] != w[pair[1]])
    if len(moving) > 1:
        return space.lower, space.upper
    lower, upper, q = space.lower.copy(), space.upper.copy(), int(moving[0])
    at = -space.exact_offset(*pair) / space.exact_row(*pair)[q]
    for limit, outside in ((lower, -1), (upper, 1)):
        if np.isfinite(limit[q]) and outside * (at - Fraction(limit[q])) > 0:
            return None
    lower[q], upper[q] = -np.inf, np.inf
    return lower, upper


def _face_norms(unit: Array) -> Array:
    """Return |e_q - (e_q.n) n| for the unit vector n, to γ relative to 1."""
    norms: Array = np.sqrt(np.maximum((1 - np.abs(unit)) * (1 + np.abs(unit)), 0.0))
    q = int(np.abs(unit).argmax())
    # 1 - n_q² loses its digits where n is almost e_q
    norms[q] = np.linalg.norm(np.delete(unit, q))
    return norms
