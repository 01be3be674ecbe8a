"""Journals of partitions, forged: a line's sum is no secret, so only its proof can protect."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fsboundary as fsb
from fsboundary import Domain, Partition, Status
from fsboundary.core.errors import DataError
from support.regions.enumeration import draw, exact_faults, limits
from support.regions.rational_programs import contradictions

Entry = dict[str, Any]


def encode(values: np.ndarray) -> str:
    """Return numbers as the text of a line."""
    return base64.b64encode(zlib.compress(values.astype("<f8").tobytes())).decode()


def read(file: Path) -> tuple[bytes, list[Entry]]:
    """Return the first line, and the entries of the others."""
    first, *rest = file.read_bytes().splitlines(keepends=True)
    return first, [json.loads(line) for line in rest]


def write(file: Path, header: bytes, entries: list[Entry]) -> None:
    """Write entries with correct sums: nothing in the file is secret."""
    lines = [header]
    for entry in entries:
        plain = {name: value for name, value in entry.items() if name != "digest"}
        digest = hashlib.sha256(json.dumps(plain).encode() + b"\n").hexdigest()[:32]
        lines.append(json.dumps(plain | {"digest": digest}).encode() + b"\n")
    file.write_bytes(b"".join(lines))


def differences(got: Partition, want: Partition) -> list[str]:
    """Return the fields of two results that are not equal bit for bit."""
    found = []
    for field in dataclasses.fields(Partition):
        one, other = getattr(got, field.name), getattr(want, field.name)
        if isinstance(one, torch.Tensor):
            # views of the bits, so that NaN equals NaN
            same = one.dtype == other.dtype and one.shape == other.shape
            same = same and one.numpy().tobytes() == other.numpy().tobytes()
        else:
            same = one == other
        if not same:
            found.append(field.name)
    return found


def false_statements(
    head: fsb.LinearHead, within: Domain | None, got: Partition, honest: Partition
) -> list[str]:
    """Return what `got` states that is wrong, by fractions and by an honest run."""
    found = exact_faults(head, within, got)
    found += contradictions(head, *limits(head, within), got)
    for size, low, high in (
        ("chebyshev", "chebyshev_radius", "chebyshev_upper"),
        ("facet", "facet_radius", "facet_upper"),
    ):
        lower, upper = getattr(got, low).nan_to_num(-torch.inf, torch.inf), getattr(got, high)
        if (lower > getattr(honest, high)).any():
            found.append(f"{size}: a radius above every ball's")
        known = getattr(honest, low).nan_to_num(-torch.inf, torch.inf)
        if (upper < known).any():
            found.append(f"{size}: a ball is larger than the bound")
    both = (got.bounded_status != Status.UNDECIDED) & (honest.bounded_status != Status.UNDECIDED)
    if (got.bounded_status != honest.bounded_status)[both].any():
        found.append("bounded")
    return found


def _noise(text: str, g: np.random.Generator, size: float) -> str:
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8")
    return encode(values + size * g.standard_normal(len(values)))


def _forged(entry: Entry, others: list[Entry], g: np.random.Generator) -> Entry:
    """Return `entry` with one or two fields replaced by lies, noise or another line's values."""
    entry = dict(entry)
    for _ in range(int(g.integers(1, 3))):
        name = str(g.choice([n for n in entry if n not in ("key", "digest", "task")]))
        value = entry[name]
        kind = int(g.integers(4))
        if kind == 0:
            entry[name] = others[int(g.integers(len(others)))][name]
        elif kind == 1:
            lies: list[Any] = [
                None,
                -1,
                0,
                1,
                2,
                5,
                1e6,
                -1.0,
                np.inf,
                -np.inf,
                np.nan,
                "",
                [],
                True,
            ]
            entry[name] = lies[int(g.integers(len(lies)))]
        elif name == "bound" and isinstance(value, list):
            part = int(g.integers(5))
            entry[name] = [
                _noise(text, g, 10.0 ** -float(g.integers(1, 9))) if n == part else text
                for n, text in enumerate(value)
            ]
        elif isinstance(value, str) and value:
            entry[name] = _noise(value, g, 10.0 ** -float(g.integers(1, 9)))
        elif isinstance(value, float):
            entry[name] = value * float(g.choice([0.5, 1.001, 2.0, 1e6, -1.0]))
    return entry


def attack(file: Path, seed: int, edits: int) -> Counter[str]:
    """Forge lines of one run's file; return how often they were refused, and used."""
    head, within = draw(seed)
    honest = fsb.partition(head, within, resume=file)
    header, entries = read(file)
    g, seen = np.random.default_rng(seed), Counter[str]()
    for _ in range(edits):
        at = int(g.integers(len(entries)))
        lines = [*entries[:at], _forged(entries[at], entries, g), *entries[at + 1 :]]
        write(file, header, lines)
        message, found = "", honest
        try:
            found = fsb.partition(head, within, resume=file)
        except DataError as error:
            message = str(error)
        seen["refused" if message else "used"] += 1
        assert not message or f"{file}: line {at + 2} " in message
        assert false_statements(head, within, found, honest) == [], (seed, lines[at])
    return seen
