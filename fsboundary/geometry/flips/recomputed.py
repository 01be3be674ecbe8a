"""Points that are recomputed from their multipliers, so that only these need memory.

``z' = clip(z + Σ c_s (w_s - w_r))`` is summed term by term, each a product and a sum of its own:
every number is rounded as IEEE says, so the bits do not depend on the batch, on its chunks or on
the padding, and a certificate of the point holds whenever it is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final, get_args

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from fsboundary.core.domain import Domain, Kind
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FlipPoints
from fsboundary.core.results.deferred import Deferred
from fsboundary.core.rows import cat_ragged, scatter_rows
from fsboundary.geometry.batching import chunk_rows

_DEFER_BYTES, _DEFER_WIDTH = 16 << 20, 256
"""Points above this size, of at least this width, are computed when they are read. The multipliers
and distances of narrower ones take about as much memory."""

_DOMAINS: tuple[Kind, ...] = get_args(Kind)


def defers(count: int, width: int) -> bool:
    """Return whether `count` points of `width` features are computed when they are read."""
    return width >= _DEFER_WIDTH and 8 * count * width > _DEFER_BYTES


def combined_points(
    head: LinearHead,
    z: Float64[Tensor, "P d"],
    anchor: Int[Tensor, " P"],
    other: Int[Tensor, "P S"],
    coefficients: Float64[Tensor, "P S"],
) -> Float64[Tensor, "P d"]:
    """Return ``clip(z + Σ c_s (w_other - w_anchor))`` (P,d), summed in the order of the slots."""
    total = torch.zeros_like(z)
    base = head._weight[anchor]
    for classes, factor in zip(other.T, coefficients.T, strict=True):
        rows = (factor != 0).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        if len(rows) == len(z):
            total += (head._weight[classes] - base).mul_(factor[:, None])
        else:
            row = (head._weight[classes[rows]] - base[rows]).mul_(factor[rows, None])
            total[rows] += row
    return head.domain.clip(z + total)


def kept_points(points: Float64[Tensor, "P d"], moved: Bool[Tensor, " P"]) -> dict[str, Tensor]:
    """Return ``kept`` (M,d), the points that were `moved`, and ``kept_at`` (P,), where; else -1."""
    kept_at = torch.where(moved, moved.cumsum(dim=0) - 1, -1)
    return {"kept": points[moved], "kept_at": kept_at}


def number_kept(parts: list[dict[str, Tensor]]) -> None:
    """Change ``kept_at`` of each part so that it counts the kept points of all parts in order."""
    count = 0
    for part in parts:
        part["kept_at"] = torch.where(part["kept_at"] >= 0, part["kept_at"] + count, -1)
        count += len(part["kept"])


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DeferredPoints(Deferred):
    """Points (B,T,d) of rows for T targets each.

    Attributes
    ----------
    head : LinearHead
    z : Tensor (B, d), float64
    anchor : Tensor (B, T)
    other : Tensor (B, T, S), int32
    coefficients : Tensor (B, T, S), float64
        Terms of :func:`combined_points`, 0 as padding.
    known : Tensor (B, T), bool
        Entries that have a point; the others are NaN.
    kept_at : Tensor (B, T)
        Where in `kept` an entry's point is, which its multipliers do not give; -1 for the others.
    kept : Tensor (M, d), float64
    """

    head: LinearHead
    z: Float64[Tensor, "B d"]
    anchor: Int[Tensor, "B T"]
    other: Int[Tensor, "B T S"]
    coefficients: Float64[Tensor, "B T S"]
    known: Bool[Tensor, "B T"]
    kept_at: Int[Tensor, "B T"]
    kept: Float64[Tensor, "M d"]

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, T, d)."""
        return (*self.anchor.shape, self.z.shape[1])

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.z.device

    def state(self) -> dict[str, Tensor]:
        """Return the tensors, those of the head and its domain too."""
        names = ("z", "anchor", "other", "coefficients", "known", "kept_at", "kept")
        domain = self.head.domain
        tensors = {name: getattr(self, name) for name in names}
        tensors |= {"weight": self.head._weight, "bias": self.head._bias}
        if domain.kind == "box":
            tensors["lower"], tensors["upper"] = domain.limits(self.z)
        return tensors | {"domain": torch.tensor(_DOMAINS.index(domain.kind))}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> DeferredPoints:
        """Return the points of a :meth:`state`."""
        fields = dict(state)
        kind = dict(enumerate(_DOMAINS))[int(fields.pop("domain"))]
        box = kind == "box"
        domain = Domain.box(fields.pop("lower"), fields.pop("upper")) if box else Domain(kind)
        head = LinearHead(fields.pop("weight"), fields.pop("bias"), domain)
        points = cls(head=head, **fields)
        rows, columns, width = points.shape
        terms = (rows, columns, points.other.shape[-1])
        shapes = {
            "z": (rows, head.num_features),
            "other": terms,
            "coefficients": terms,
            "known": (rows, columns),
            "kept_at": (rows, columns),
            "kept": (len(points.kept), width),
        }
        if {name: tuple(getattr(points, name).shape) for name in shapes} != shapes:
            raise ValueError("points of other shapes")
        below = {"anchor": head.num_classes, "other": head.num_classes, "kept_at": len(points.kept)}
        for name, limit in below.items():
            value = fields[name]
            if value.numel() and not -1 <= int(value.min()) <= int(value.max()) < limit:
                raise ValueError(f"{name} of points outside -1 to {limit - 1}")
        return points

    def at(self, rows: Int[Tensor, " P"], columns: Int[Tensor, " P"]) -> Float64[Tensor, "P d"]:
        """Return the points (P,d) of some entries."""
        kept = self.kept_at[rows, columns]
        points = torch.empty_like(self.z[rows])
        points[kept >= 0] = self.kept[kept[kept >= 0]]
        left = (kept < 0).nonzero()[:, 0]
        if len(left):
            at = rows[left], columns[left]
            points[left] = combined_points(
                self.head,
                self.z[rows[left]],
                self.anchor[at],
                self.other[at],
                self.coefficients[at],
            )
        points[~self.known[rows, columns]] = torch.nan
        return points

    def compute(self) -> Tensor:
        """Return all points, in chunks."""
        points = torch.full(self.shape, torch.nan, dtype=torch.float64, device=self.device)
        for part in self.known.nonzero().split(chunk_rows(self.z.shape[1])):
            rows, columns = part.unbind(1)
            points[rows, columns] = self.at(rows, columns)
        return points

    def __getitem__(self, index: Any) -> DeferredPoints:
        """Return the points of the rows at `index`."""
        names = ("z", "anchor", "other", "coefficients", "known", "kept_at")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def to(self, device: torch.device | str) -> DeferredPoints:
        """Return the points, to be computed on `device`."""
        names = ("z", "anchor", "other", "coefficients", "known", "kept_at", "kept")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, head=self.head.to(torch.device(device)), **moved)

    def choose(
        self, rows: Int[Tensor, "B _"], columns: Int[Tensor, "B T"], z: Float64[Tensor, "B d"]
    ) -> DeferredPoints:
        """Return the points at `rows` and `columns` as a table (B,T) for the rows `z` (B,d).

        A chosen point must belong to the same numbers as its new row.
        """
        names = ("anchor", "other", "coefficients", "known", "kept_at")
        return replace(self, z=z, **{name: getattr(self, name)[rows, columns] for name in names})

    def followed_by(self, more: DeferredPoints) -> DeferredPoints:
        """Return the points of both, which must be of one head and have as many columns."""
        kept_at = torch.where(more.kept_at >= 0, more.kept_at + len(self.kept), -1)
        return DeferredPoints(
            head=self.head,
            z=torch.cat([self.z, more.z]),
            anchor=torch.cat([self.anchor, more.anchor]),
            other=cat_ragged([self.other, more.other], 0),
            coefficients=cat_ragged([self.coefficients, more.coefficients], 0.0),
            known=torch.cat([self.known, more.known]),
            kept_at=torch.cat([self.kept_at, kept_at]),
            kept=torch.cat([self.kept, more.kept]),
        )

    def among(self, z: Tensor, rows: Tensor, known: Tensor) -> DeferredPoints:
        """Return the points as those of `rows` among all rows `z`, where `known` (B,T).

        The rows are copied: the caller may write to theirs before the points are read.
        """
        z, total = z.clone(), len(z)
        if len(rows) == total:
            return replace(self, z=z, known=self.known & known)
        return replace(
            self,
            z=z,
            anchor=scatter_rows(self.anchor, rows, total, 0),
            other=scatter_rows(self.other, rows, total, 0),
            coefficients=scatter_rows(self.coefficients, rows, total, 0.0),
            known=scatter_rows(self.known, rows, total, False) & known,
            kept_at=scatter_rows(self.kept_at, rows, total, -1),
        )


def deferred_flips(
    head: LinearHead,
    z: Float64[Tensor, "B d"],
    flips: FlipPoints,
    kept_at: Int[Tensor, "B T"],
    kept: Float64[Tensor, "M d"],
) -> DeferredPoints:
    """Return the points that the multipliers of `flips` give, and the `kept` ones."""
    tie = flips.active == flips.target[..., None]
    other = torch.where(tie, flips.source[:, None, None], flips.active)
    return DeferredPoints(
        head=head,
        z=z,
        anchor=flips.target,
        other=other.clamp_min(0).to(torch.int32),
        # the tie's row is w_i - w_j, a slack's w_j - w_k
        coefficients=torch.where(tie, flips.multipliers, -flips.multipliers),
        known=torch.ones_like(kept_at, dtype=torch.bool),
        kept_at=kept_at,
        kept=kept,
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DeferredDirections(Deferred):
    """Unit directions ``(z - z') / distance`` (B,T,d) for signed distances (B,T).

    0 where the distance is 0 or infinite, NaN where it is NaN.
    """

    points: DeferredPoints
    distance: Float64[Tensor, "B T"]

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, T, d)."""
        return self.points.shape

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.points.device

    def state(self) -> dict[str, Tensor]:
        """Return the tensors, those of the points too."""
        points = {f"points.{name}": value for name, value in self.points.state().items()}
        return points | {"distance": self.distance}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> DeferredDirections:
        """Return the directions of a :meth:`state`."""
        fields = dict(state)
        distance = fields.pop("distance")
        points = {name.removeprefix("points."): value for name, value in fields.items()}
        found = cls(points=DeferredPoints.from_state(points), distance=distance)
        if distance.shape != found.points.anchor.shape:
            raise ValueError("distances of another shape than the points")
        return found

    def at(self, rows: Int[Tensor, " P"], columns: Int[Tensor, " P"]) -> Float64[Tensor, "P d"]:
        """Return the directions (P,d) of some entries."""
        away = self.points.z[rows] - self.points.at(rows, columns)
        return unit_directions(away, self.distance[rows, columns])

    def compute(self) -> Tensor:
        """Return all directions, in chunks."""
        out = torch.empty(self.shape, dtype=torch.float64, device=self.device)
        every = torch.ones_like(self.distance, dtype=torch.bool).nonzero()
        for part in every.split(chunk_rows(self.shape[2])):
            rows, columns = part.unbind(1)
            out[rows, columns] = self.at(rows, columns)
        return out

    def __getitem__(self, index: Any) -> DeferredDirections:
        """Return the directions of the rows at `index`."""
        return replace(self, points=self.points[index], distance=self.distance[index])

    def to(self, device: torch.device | str) -> DeferredDirections:
        """Return the directions, to be computed on `device`."""
        return replace(self, points=self.points.to(device), distance=self.distance.to(device))


def unit_directions(
    away: Float64[Tensor, "*batch d"], distance: Float64[Tensor, "*batch"]
) -> Float64[Tensor, "*batch d"]:
    """Return `away` over `distance`: 0 where that is 0 or infinite, NaN where it is NaN."""
    size = distance[..., None]
    unit = away / torch.where(size != 0, size, 1.0)
    # a row on the boundary is its own point
    unit = torch.where(torch.isinf(size), 0.0, unit)
    return torch.where(torch.isnan(size), torch.nan, unit)
