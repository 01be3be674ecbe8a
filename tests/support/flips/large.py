"""Flip problems of heads with many classes and features, every class a target of every row."""

from __future__ import annotations

from typing import get_args

import numpy as np

from support.flips.case import Array, Case, DomainKind

LARGE_HEADS = ("normal", "few directions", "near copies", "single precision", "sparse")
"""Kinds of weights."""

ROWS = 5
"""Rows of a case: as many as make the points of a thousand classes recomputed ones."""


def large(kind: str, classes: int, width: int, seed: int) -> Case:
    """Return the case of a kind of weights for `seed`, in one of the three domains."""
    g = np.random.default_rng([seed, *kind.encode()])
    weight, bias = _weights(kind, classes, width, g), g.standard_normal(classes) / 10
    z = 2 * g.standard_normal((ROWS, width))
    z[g.random(z.shape) < 0.2] = 0.0
    domain: DomainKind = get_args(DomainKind)[seed % 3]
    low, high = np.zeros(width), np.full(width, 6.0)
    if domain != "unbounded":
        z = np.clip(abs(z), low, high)
    return Case(weight=weight, bias=bias, features=z, kind=domain, lower=low, upper=high)


def _weights(kind: str, classes: int, width: int, g: np.random.Generator) -> Array:
    weight = g.standard_normal((classes, width)) / width**0.5
    if kind == "few directions":
        basis = g.standard_normal((20, width))
        return g.standard_normal((classes, 20)) @ basis / width**0.5 + weight / 10
    if kind == "near copies":
        weight[::10] = weight[1::10] + 1e-7 * g.standard_normal(weight[::10].shape)
        weight[2] = weight[3]
    if kind == "single precision":
        return weight.astype(np.float32)
    if kind == "sparse":
        weight[g.random(weight.shape) < 0.8] = 0.0
    return weight
