"""Straight ways from image to image, and the classes met on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.boundaries import class_path
from fsboundary.core.status import Status
from fsboundary.report.measurements import Measurements

PAIRS = 500
"""Random pairs of images."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """Paths between random pairs of images of different classes.

    Attributes
    ----------
    met : Tensor (N,)
        How many classes each path meets, both ends included.
    start, end : int
        The images of the path that meets most classes, the first such.
    classes : list of int
        Those that it meets, in order.
    crossings : list of float
        Where they change, in (0, 1) from the start to the end.
    """

    met: Tensor
    start: int
    end: int
    classes: list[int]
    crossings: list[float]


def find_paths(m: Measurements, generator: torch.Generator) -> Paths | None:
    """Walk between random images predicted as different classes; None without a certain path."""
    rows = m.batch.ok.nonzero()[:, 0]
    if not len(rows):
        return None
    drawn = rows[torch.randint(len(rows), (PAIRS, 2), generator=generator)]
    predicted = m.batch.predicted[drawn]
    drawn = drawn[predicted[:, 0] != predicted[:, 1]]
    found = class_path(m.head, m.batch.features[drawn[:, 0]], m.batch.features[drawn[:, 1]])
    sure = found.status == Status.CONVERGED
    met = (found.classes >= 0).sum(dim=1) * sure
    if not bool(sure.any()):
        return None
    longest = int((met == met.max()).nonzero()[0, 0])
    length = int(met[longest])
    return Paths(
        met=met[sure],
        start=int(drawn[longest, 0]),
        end=int(drawn[longest, 1]),
        classes=found.classes[longest, :length].tolist(),
        crossings=found.crossings[longest, : length - 1].tolist(),
    )
