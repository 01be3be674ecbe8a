"""Damage to banks on disk: changed bytes and edited metadata, and what reading then returns."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import fsboundary as fsb
from fsboundary.core.errors import DataError
from support.banks.oracle import normal

Edit = Callable[[Path], object]


def answer(path: Path) -> list[Any]:
    """Return everything that a bank contains, and a projection onto its hull."""
    bank = fsb.FeatureBank.open(path)
    result = fsb.hull_projection(bank, 2 * normal(2, bank.num_features, seed=3))
    info = bank.info
    return [
        *(len(bank), bank.num_features, bank.features, bank.labels, bank.ids),
        *(info.fingerprint, info.extractor, info.layer, info.domain),
        *(result.distance, result.lower_bound, result.support, result.status),
    ]


def equal(one: list[Any], other: list[Any]) -> bool:
    """Return whether two answers are the same, with their types."""
    pairs = zip(one, other, strict=True)
    return all(
        type(a) is type(b)
        and (torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b)
        for a, b in pairs
    )


def verdict(path: Path, right: list[Any]) -> str:
    """Return "refused", "same", or what was returned or raised instead."""
    try:
        given = answer(path)
    except DataError:
        return "refused"
    except Exception as error:
        return f"raised {error!r}"
    return "same" if equal(given, right) else "CHANGED"


def flips(bank: Path, work: Path, count: int, seed: int) -> Counter[str]:
    """Change `count` single bytes, one at a time, over all files of a copy; count the verdicts."""
    rng, right = random.Random(seed), answer(bank)
    shutil.copytree(bank, work)
    files = sorted(file for file in work.rglob("*") if file.is_file())
    found: Counter[str] = Counter()
    for _ in range(count):
        file = rng.choice(files)
        raw = file.read_bytes()
        place, bit = rng.randrange(len(raw)), 1 << rng.randrange(8)
        new = raw[place] ^ bit
        if rng.random() < 0.4:  # what a text could contain there
            new = rng.choice(b'0123456789abcdef",:{}[] tfn-.\n')
        if new == raw[place]:
            new ^= bit
        file.write_bytes(raw[:place] + bytes([new]) + raw[place + 1 :])
        what = verdict(work, right)
        if what not in ("refused", "same"):
            what += f": byte {place} of {file.relative_to(work)} set to {new}"
        found[what] += 1
        file.write_bytes(raw)
    assert verdict(work, right) == "same"
    shutil.rmtree(work)
    return found


def edits(bank: Path, work: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Apply `count` edits of metadata, one at a time; count the verdicts, and list what passed."""
    right, found, passed = answer(bank), Counter[str](), []
    chosen = [*NAMED.items(), *_random_edits(bank, count, seed)][:count]
    for name, edit in chosen:
        shutil.copytree(bank, work)
        edit(work)
        what = verdict(work, right)
        if what not in ("refused", "same"):
            what += f": {name}"
        elif what == "same":
            passed.append(name)
        found[what] += 1
        shutil.rmtree(work)
    return found, passed


def change(file: str, edit: Callable[[Any], object]) -> Edit:
    """Return the edit that changes the content of a JSON file in place."""

    def apply(path: Path) -> None:
        content = json.loads((path / file).read_text())
        edit(content)
        (path / file).write_text(json.dumps(content))

    return apply


def _attributes(**values: object) -> Edit:
    return change("zarr.json", lambda j: j["attributes"]["fsboundary"].update(values))


def _array(name: str, **values: object) -> Edit:
    return change(f"{name}/zarr.json", lambda j: j.update(values))


def _all(*several: Edit) -> Edit:
    return lambda path: [edit(path) for edit in several]


def resize(rows: int) -> Edit:
    """Return the edit that sets the rows of all arrays."""
    names = ("features", "labels", "ids")

    def set_rows(content: Any) -> None:
        content["shape"][0] = rows

    return _all(*(change(f"{name}/zarr.json", set_rows) for name in names))


def _big_endian(name: str) -> Edit:
    def edit(content: Any) -> None:
        content["codecs"][0]["configuration"]["endian"] = "big"

    return change(f"{name}/zarr.json", edit)


def _lying_consolidation(path: Path) -> None:
    arrays = {
        name: json.loads((path / name / "zarr.json").read_text())
        for name in ("features", "labels", "ids")
    }
    for content in arrays.values():
        content["shape"][0] = 8
    value = {"kind": "inline", "must_understand": False, "metadata": arrays}
    change("zarr.json", lambda j: j.update(consolidated_metadata=value))(path)


def _without_checksums(path: Path) -> None:
    change("features/zarr.json", lambda j: j["codecs"].pop())(path)
    for chunk in (path / "features" / "c").glob("*/0"):
        chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:-4])


def swap(one: str, other: str) -> Edit:
    """Return the edit that exchanges two files."""

    def apply(path: Path) -> None:
        first, second = (path / one).read_bytes(), (path / other).read_bytes()
        (path / one).write_bytes(second)
        (path / other).write_bytes(first)

    return apply


def replace(file: str, source: str, how: Callable[[Path, Path], object]) -> Edit:
    """Return the edit that puts `source` at the place of `file`, as a copy or a link."""

    def apply(path: Path) -> None:
        (path / file).unlink()
        how(path / source, path / file)

    return apply


def _linked_folder(path: Path) -> None:
    shutil.move(path / "features", path.with_name("moved"))
    (path / "features").symlink_to(path.with_name("moved"))


NAMED: dict[str, Edit] = {
    "float32 to int32": _array("features", data_type="int32", fill_value=0),
    "float32 to uint32": _array("features", data_type="uint32", fill_value=0),
    "int64 labels to uint64": _array("labels", data_type="uint64", fill_value=0),
    "int64 labels to float64": _array("labels", data_type="float64", fill_value="NaN"),
    "fill value of labels": _array("labels", fill_value=3),
    "features big-endian": _big_endian("features"),
    "labels big-endian": _big_endian("labels"),
    "8 rows": resize(8),
    "one row less": resize(46),
    "one row more": resize(48),
    "0 rows": resize(0),
    "10**15 rows": resize(10**15),
    "2 features": change("features/zarr.json", lambda j: j["shape"].__setitem__(1, 2)),
    "version '2'": _attributes(version="2"),
    "version 2.0": _attributes(version=2.0),
    "version 1": _attributes(version=1),
    "version true": _attributes(version=True),
    "without labels": _attributes(labelled=False),
    "labelled 'no'": _attributes(labelled="no"),
    "dtype float64": _attributes(dtype="float64"),
    "chunks of 1 row": _attributes(chunk_rows=1),
    "chunks of 10**15 rows": _attributes(chunk_rows=10**15),
    "0 features": _attributes(num_features=0),
    "10**15 features": _attributes(num_features=10**15),
    "fingerprint []": _attributes(fingerprint=[]),
    "another domain": _attributes(domain="unbounded"),
    "chunks of 4 labels": change(
        "labels/zarr.json", lambda j: j["chunk_grid"]["configuration"].update(chunk_shape=[4])
    ),
    "chunk names with dots": change(
        "features/zarr.json",
        lambda j: j["chunk_key_encoding"].update(configuration={"separator": "."}),
    ),
    "transposed": change(
        "features/zarr.json",
        lambda j: j["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [1, 0]}}),
    ),
    "without checksums": _without_checksums,
    "lying consolidated metadata": _lying_consolidation,
    "chunks of features swapped": swap("features/c/0/0", "features/c/1/0"),
    "chunks of labels swapped": swap("labels/c/0", "labels/c/1"),
    "chunks of ids swapped": swap("ids/c/3", "ids/c/4"),
    "labels from ids": replace("labels/c/0", "ids/c/0", shutil.copy),
    "linked chunk": replace("features/c/1/0", "features/c/0/0", lambda a, b: b.symlink_to(a)),
    "hard-linked chunk": replace("features/c/1/0", "features/c/0/0", lambda a, b: b.hardlink_to(a)),
    "the same chunk by a link": lambda path: (
        (path / "labels/c/1").rename(path / "elsewhere"),
        (path / "labels/c/1").symlink_to(path / "elsewhere"),
    ),
    "linked array": _linked_folder,
    "missing chunk": lambda path: (path / "features/c/1/0").unlink(),
    "missing last chunk": lambda path: (path / "features/c/5/0").unlink(),
    "empty chunk": lambda path: (path / "labels/c/1").write_bytes(b""),
    "truncated chunk": lambda path: os.truncate(path / "features/c/1/0", 60),
    "longer chunk": lambda path: os.truncate(path / "features/c/1/0", 2**40),
    "chunk is a pipe": replace("labels/c/1", "labels/c/0", lambda _, b: os.mkfifo(b)),
    "chunk is a folder": replace("labels/c/1", "labels/c/0", lambda _, b: b.mkdir()),
    "metadata are a pipe": replace("zarr.json", "ids/zarr.json", lambda _, b: os.mkfifo(b)),
    "linked metadata": replace("zarr.json", "ids/zarr.json", lambda a, b: b.symlink_to(a)),
    "huge metadata": lambda path: os.truncate(path / "zarr.json", 2**40),
    "huge seal": lambda path: os.truncate(path / "features" / "seal.sha256", 2**40),
    "missing seal": lambda path: (path / "features" / "seal.sha256").unlink(),
    "empty seal": lambda path: os.truncate(path / "features" / "seal.sha256", 0),
    "deep nesting": lambda path: (path / "zarr.json").write_text("[" * 10**5),
    "other file": lambda path: (path / "notes.txt").write_text("words"),
    "file of Zarr v2": lambda path: (path / ".zgroup").write_text('{"zarr_format": 2}'),
    "further chunk": lambda path: shutil.copy(path / "labels/c/1", path / "labels/c/9"),
}
"""Edits of a bank of `support.banks.small` with chunks of 8 rows. The last three change nothing."""

HARMLESS = ("other file", "file of Zarr v2", "further chunk")


def _random_edits(bank: Path, count: int, seed: int) -> Iterator[tuple[str, Edit]]:
    """Yield edits of random values of the JSON files, and of random lines of the seal."""
    rng = random.Random(seed)
    files = ["zarr.json", "features/zarr.json", "labels/zarr.json", "ids/zarr.json"]
    for number in range(count):
        if number % 4 == 3:
            yield _edit_line(rng)
            continue
        file = rng.choice(files)
        yield _edit_value(rng, file, json.loads((bank / file).read_text()))


def _edit_value(rng: random.Random, file: str, content: Any) -> tuple[str, Edit]:
    """Return the edit that changes or removes one value of a JSON file."""
    places: list[list[Any]] = []

    def collect(value: Any, place: list[Any]) -> None:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            places.append([*place, key])
            if isinstance(child, dict | list):
                collect(child, [*place, key])

    collect(content, [])
    place = rng.choice(places)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    old = parent[place[-1]]
    values = [0, -1, 1, 7, 2**63, 1e300, None, True, "x", [], {}, "float64", "int32", "big"]
    new = rng.choice([value for value in values if value != old or type(value) is not type(old)])
    if rng.random() < 0.2:
        del parent[place[-1]]
    else:
        parent[place[-1]] = new
    text = json.dumps(content)
    return f"{file}: {place} = {new!r}", lambda path: (path / file).write_text(text)


def _edit_line(rng: random.Random) -> tuple[str, Edit]:
    """Return the edit that removes, repeats, exchanges or spoils a line of the seal."""
    kind, position = rng.randrange(4), rng.random()

    def apply(path: Path) -> None:
        file = path / "features" / "seal.sha256"
        lines = file.read_text().splitlines(keepends=True)
        one = int(position * (len(lines) - 1))
        if kind == 0:
            del lines[one]
        elif kind == 1:
            lines.insert(one, lines[one])
        elif kind == 2:
            lines[one], lines[one + 1] = lines[one + 1], lines[one]
        else:
            lines[one] = lines[one][1:-1] + lines[one][0] + "\n"
        file.write_text("".join(lines))

    return f"seal: line at {position:.2f}, kind {kind}", apply
