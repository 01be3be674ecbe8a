"""Slow, obvious answers that ties, signed distances and paths are tested against."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

import fsboundary as fsb

Array = NDArray[np.float64]


def exact_class(head: fsb.LinearHead, start: Array, end: Array, t: Fraction) -> int:
    """Return the class at ``start + t (end - start)`` without rounding, lowest index on ties."""
    a, b = ([Fraction(v) for v in x.tolist()] for x in (start, end))
    z = [p + t * (q - p) for p, q in zip(a, b, strict=True)]
    weight, bias = head.weight.tolist(), head.bias.tolist()
    logits = [
        Fraction(c) + sum(Fraction(w) * v for w, v in zip(row, z, strict=True))
        for row, c in zip(weight, bias, strict=True)
    ]
    return logits.index(max(logits))
