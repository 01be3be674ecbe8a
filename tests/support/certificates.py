"""Results of every kind on small random problems, and their files of certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import fsboundary as fsb

Export = tuple[fsb.FlipPoints | Any, dict[str, Any]]
"""A result, and the arguments of its export."""

KINDS: dict[str, Callable[[fsb.LinearHead, torch.Tensor, fsb.FeatureBank], Export]] = {
    "flips": lambda h, z, _: (fsb.flip_points(h, z, "all"), {"head": h, "features": z}),
    "ties": lambda h, z, _: (
        fsb.tie_points(h, z, torch.tensor([[0, 1, 2]] * len(z))),
        {"head": h, "features": z},
    ),
    "l2 balls": lambda h, z, _: (fsb.guaranteed_balls(h, z), {"head": h}),
    "linf balls": lambda h, z, _: (fsb.guaranteed_balls(h, z, "linf"), {"head": h}),
    "boxes": lambda h, z, _: (fsb.guaranteed_boxes(h, z), {"head": h, "features": z}),
    "partition": lambda h, z, _: (fsb.partition(h), {"head": h}),
    "projections": lambda _, z, b: (fsb.hull_projection(b, z), {"features": z, "bank": b}),
    "separations": lambda _, z, b: (fsb.hull_separation(b, [0, 0], [1, 2]), {"bank": b}),
}


def problem(seed: int) -> tuple[fsb.LinearHead, torch.Tensor, fsb.FeatureBank]:
    """Return a head in one of three domains, rows, and a bank with three classes."""
    g = torch.Generator().manual_seed(seed)
    d = 3 + seed % 4
    domain = [
        fsb.Domain.unbounded(),
        fsb.Domain.nonnegative(),
        fsb.Domain.box(torch.zeros(d), torch.ones(d)),
    ][seed % 3]
    head = fsb.LinearHead(torch.randn(4, d, generator=g), torch.randn(4, generator=g) * 0.1, domain)
    labels = torch.arange(24) % 3
    apart = torch.randn(3, d, generator=g)[labels] * (seed % 2)
    bank = fsb.FeatureBank(torch.rand(24, d, generator=g) + apart, labels)
    return head, torch.rand(6, d, generator=g), bank


def write(kind: str, seed: int, path: Path) -> Path:
    """Write the certificates of one kind of result of :func:`problem`."""
    result, arguments = KINDS[kind](*problem(seed))
    return fsb.export_certificates(path, result, force=True, **arguments)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every number in a file."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from places(part, (*path, index))
    elif type(value) is int or (isinstance(value, str) and value.lstrip("-").startswith("0x")):
        yield path
