"""Programs over (z, r) for the largest ball in a region or a facet.

``a_m.z + c_m >= r p_m`` for every other class, ``z_q - lo_q >= r p_q`` and ``hi_q - z_q >= r p_q``
for every domain face, and for a facet z on the tie of its two classes. The p are the norms of the
rows: full norms for a region, projected on the tie's plane for a facet (design.md, "Facet").

Rows that are constant on the set (equal weights, a normal parallel to the tie's) are decided here
in fractions: float64 cannot distinguish parallel from nearly parallel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from fsboundary.core.status import Status
from fsboundary.core.tolerance import dot_error
from fsboundary.geometry.exact_arithmetic import MAX_EXACT_WORK, Array, dependent_columns
from fsboundary.geometry.norms import lengths
from fsboundary.geometry.regions.arrangement import Arrangement, Index, Mask

Exponents = NDArray[np.intc]

_PARALLEL_RTOL = 1e-9
"""Rows whose projected norm is below this fraction of their norm are compared in fractions."""

_MIN_EXPONENT = -400
"""Rows shorter than two to this power, where the largest weight is near 1, are left undecided."""

UNDERFLOW = 1e-170
"""``γ UNDERFLOW`` bounds what a sum loses to underflow: half of 5e-324 per number, times 2**450 at
most where a row is made longer, is below 1e-187, and γ is at least 7e-15."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BallProgram:
    """One program, each row multiplied by a power of two so that its norm is near 1.

    Attributes
    ----------
    rows, offset : array (M, f), (M,)
        Coefficients a and c, each entry rounded once.
    offset_error : array (M,)
        Bounds of the further error of c.
    size : array (M,)
        Upper bounds of |a_m|.
    norm, norm_error : array (M,)
        Norms p_m and bounds of their errors.
    tie, tie_offset, tie_error : array (f,), float, float
        Row, offset and error of the tie; ``tie`` is zero for a region.
    tie_norm : float
        Norm of the tie, 0 for a region.
    lower, upper : array (f,)
        Faces, infinite where there is none or where it is constant on the tie and holds.
    face_norm, face_error : array (f,)
        Norms p_q and bounds of their errors.
    space : Arrangement
    classes : array (M, 2)
        Pairs of classes whose rows in `space` are the rows without rounding; the pair of the tie is
        last if there is one.
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
        """Bound of the relative rounding of every sum over this program.

        See :mod:`fsboundary.geometry.regions.certify`.
        """
        return dot_error(8 * self.rows.shape[1] + 2 * len(self.rows) + 64)

    @property
    def is_box(self) -> bool:
        """Whether some feature has two finite limits, so that no ball is arbitrarily large."""
        return bool((np.isfinite(self.lower) & np.isfinite(self.upper)).any())

    def dependent_features(self, used: Mask, columns: Mask) -> Mask:
        """Return those of `columns` (f,) that depend on other ones, exactly.

        Over the rows `used` (M,) and the tie; False where there are too many to decide.
        """
        pairs = self.classes[np.append(used, np.full(len(self.classes) - len(used), True))]
        indices = np.flatnonzero(columns)
        if len(pairs) * len(indices) > MAX_EXACT_WORK:
            return np.zeros_like(columns)
        rows = [self.space.exact_row(i, k) for i, k in pairs.tolist()]
        out = np.zeros_like(columns)
        out[indices] = dependent_columns([[row[q] for q in indices.tolist()] for row in rows])
        return out

    def project(self, z: Array) -> Array:
        """Return `z` projected on the tie's plane, as far as rounding allows."""
        if self.tie_norm == 0:
            return z
        step = (self.tie @ z + self.tie_offset) / self.tie_norm**2
        return z - step * self.tie


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BallProposal:
    """A proposed centre and multipliers, in the units of the program.

    Attributes
    ----------
    centre : array (f,)
    multipliers : array (M,)
        Multipliers of the program's rows; >= 0.
    tie : float
        Multiplier of the tie.
    low, high : array (f,)
        Multipliers of the faces; >= 0, and 0 where there is no face.
    capped : bool
        Whether the radius stopped at the cap of the program.
    """

    centre: Array
    multipliers: Array
    tie: float
    low: Array
    high: Array
    capped: bool


def region_program(space: Arrangement, i: int) -> BallProgram | Status:
    """Return the program of region `i`, or the status from exact comparison.

    INFEASIBLE: a class with equal weights is above it. UNDECIDED: rows that underflow.
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
    """Return the program of the facet of `i` and `j`, or the status from exact comparison.

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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tie:
    """The tie's row with a norm near 1, its offset, the offset's error and the norm; 0 if none."""

    row: Array
    offset: float
    error: float
    norm: float


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The rows of a program before the last scaling; fields as in :class:`BallProgram`."""

    rows: Array
    offset: Array
    offset_error: Array
    size: Array
    norm: Array
    norm_error: Array
    classes: Index

    def take(self, mask: Mask) -> _Rows:
        """Return the rows where `mask` is true."""
        return _Rows(**{name: getattr(self, name)[mask] for name in self.__slots__})


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Faces:
    """The faces of a program; fields as in :class:`BallProgram`."""

    lower: Array
    upper: Array
    norm: Array
    error: Array


def _program(
    space: Arrangement, base: Index, others: Index, pair: tuple[int, int] | None
) -> BallProgram | Status:
    """Return the program with rows `base` minus `others`, on the tie of `pair` if there is one.

    UNDECIDED also where a number overflows, as a bias may beside a short row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        program = _unchecked_program(space, base, others, pair)
    if isinstance(program, Status) or _is_finite(program):
        return program
    return Status.UNDECIDED


def _is_finite(program: BallProgram) -> bool:
    """Return whether all numbers are finite, except the faces."""
    numbers = (program.rows, program.offset, program.offset_error, program.norm, program.norm_error)
    tie = np.append(program.tie, [program.tie_offset, program.tie_error])
    return all(bool(np.isfinite(part).all()) for part in (*numbers, tie))


def _unchecked_program(
    space: Arrangement, base: Index, others: Index, pair: tuple[int, int] | None
) -> BallProgram | Status:
    """Return the program, with numbers that may have overflowed."""
    f = space.width
    gamma = dot_error(8 * f + 64)
    tie = _tie(space, pair)
    if tie is None:
        return Status.UNDECIDED
    rows = _class_rows(space, base, others, gamma)
    if rows is None:
        return Status.UNDECIDED
    faces = _Faces(lower=space.lower, upper=space.upper, norm=np.ones(f), error=np.zeros(f))
    if pair is not None:
        on_tie = _restrict_rows(space, rows, tie, pair, gamma)
        limits = None if on_tie is None else _faces_on_tie(space, pair)
        if on_tie is None or limits is None:
            return Status.INFEASIBLE
        rows, (lower, upper) = on_tie, limits
        norm = _face_norms(tie.row / tie.norm)
        faces = _Faces(lower=lower, upper=upper, norm=norm, error=np.full(f, 2 * gamma))
    return _scale_rows(space, rows, tie, faces, pair)


def _tie(space: Arrangement, pair: tuple[int, int] | None) -> _Tie | None:
    """Return the tie of `pair`, or None where it underflows."""
    if pair is None:
        return _Tie(row=np.zeros(space.width), offset=0.0, error=0.0, norm=0.0)
    i, j = pair
    row, exponent = _normalise_rows((space.weight[i] - space.weight[j])[None])
    down = int(exponent[0])
    if down < _MIN_EXPONENT:
        return None
    return _Tie(
        row=row[0],
        offset=float(np.ldexp(space.bias[i] - space.bias[j], -down)),
        error=float(np.ldexp(space.bias_error[i] + space.bias_error[j], -down)),
        norm=float(np.linalg.norm(row[0])),
    )


def _class_rows(space: Arrangement, base: Index, others: Index, gamma: float) -> _Rows | None:
    """Return the rows of `base` minus `others`, or None where one underflows."""
    rows, down = _normalise_rows(space.weight[base] - space.weight[others])
    if (down < _MIN_EXPONENT).any():
        return None
    offset = np.ldexp(space.bias[base] - space.bias[others], -down)
    offset_error = np.ldexp(space.bias_error[base] + space.bias_error[others], -down)
    norm = np.linalg.norm(rows, axis=1)
    return _Rows(
        rows=rows,
        offset=offset,
        offset_error=offset_error,
        size=norm * (1 + gamma),
        norm=norm,
        norm_error=gamma * norm,
        classes=np.column_stack([base, others]),
    )


def _restrict_rows(
    space: Arrangement, rows: _Rows, tie: _Tie, pair: tuple[int, int], gamma: float
) -> _Rows | None:
    """Return the rows with their norms on the tie's plane, or None where one excludes the tie.

    Rows that are constant on the tie and hold are left out.
    """
    unit = tie.row / tie.norm
    norm = np.linalg.norm(rows.rows - (rows.rows @ unit)[:, None] * unit, axis=1)
    keep = np.ones(len(norm), dtype=np.bool_)
    for m in np.flatnonzero(norm <= _PARALLEL_RTOL * rows.norm).tolist():
        base, other = rows.classes[m].tolist()
        constant = _constant_on_tie(space, base, other, pair)
        if constant is not None and constant < 0:
            return None
        keep[m] = constant is None
    return replace(rows, norm=norm, norm_error=gamma * rows.size).take(keep)


def _scale_rows(
    space: Arrangement, rows: _Rows, tie: _Tie, faces: _Faces, pair: tuple[int, int] | None
) -> BallProgram:
    """Return the program, each row multiplied by a power of two so that its norm is near 1."""
    # projected norms may be far below the rows': another power of two
    down = np.minimum(np.frexp(np.maximum(rows.norm, rows.norm_error))[1], 0)
    tie_pair = np.array([] if pair is None else [pair], dtype=np.intp).reshape(-1, 2)
    return BallProgram(
        rows=np.ldexp(rows.rows, -down[:, None]),
        offset=np.ldexp(rows.offset, -down),
        offset_error=np.ldexp(rows.offset_error, -down),
        size=np.ldexp(rows.size, -down),
        norm=np.ldexp(rows.norm, -down),
        norm_error=np.ldexp(rows.norm_error, -down),
        tie=tie.row,
        tie_offset=tie.offset,
        tie_error=tie.error,
        tie_norm=tie.norm,
        lower=faces.lower,
        upper=faces.upper,
        face_norm=faces.norm,
        face_error=faces.error,
        space=space,
        classes=np.concatenate([rows.classes, tie_pair]),
    )


def _normalise_rows(rows: Array) -> tuple[Array, Exponents]:
    """Return `rows` times powers of two, with norms in [1/2, 1), and the exponents.

    Where a number would underflow the exponent is below :data:`_MIN_EXPONENT`.
    """
    size = lengths(torch.from_numpy(rows)).numpy()
    down = np.frexp(size)[1]
    scaled = np.ldexp(rows, -down[:, None])
    exact = (np.ldexp(scaled, down[:, None]) == rows).all(axis=1) & (size > 0)
    return scaled, np.where(exact, down, _MIN_EXPONENT - 1)


def _constant_on_tie(
    space: Arrangement, base: int, other: int, pair: tuple[int, int]
) -> Fraction | None:
    """Return the value of a slack on the tie where it is constant there, else None."""
    tie, row = space.exact_row(*pair), space.exact_row(base, other)
    lead = next(q for q, value in enumerate(tie) if value)
    factor = row[lead] / tie[lead]
    if any(a != factor * t for a, t in zip(row, tie, strict=True)):
        return None
    return space.exact_offset(base, other) - factor * space.exact_offset(*pair)


def _faces_on_tie(space: Arrangement, pair: tuple[int, int]) -> tuple[Array, Array] | None:
    """Return the faces without those that hold everywhere on the tie; None if one never holds."""
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
