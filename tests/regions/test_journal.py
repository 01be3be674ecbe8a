"""Journals of partitions: lines only propose, and one run at a time may use a file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary import Domain, Status
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock
from fsboundary.geometry import linear_programs
from fsboundary.regions import journal
from support.regions.enumeration import draw
from support.regions.journal_attacks import (
    Entry,
    attack,
    differences,
    encode,
    false_statements,
    read,
    write,
)


def random_head(seed: int, k: int = 4, d: int = 3) -> fsb.LinearHead:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64)
    return fsb.LinearHead(weight, torch.randn(k, generator=g, dtype=torch.float64))


def cube(d: int = 3, half: float = 1.0) -> Domain:
    return Domain.box(-half * torch.ones(d), half * torch.ones(d))


def test_a_file_proves_every_bit_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wants = []
    for seed in range(24):
        head, within = draw(seed)
        wants.append(fsb.partition(head, within, resume=tmp_path / f"{seed}.jsonl"))
        assert differences(fsb.partition(head, within), wants[-1]) == []

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was solved")

    monkeypatch.setattr(linear_programs, "linprog", never)
    statuses: Counter[Status] = Counter()
    for seed, want in enumerate(wants):
        found = fsb.partition(*draw(seed), resume=tmp_path / f"{seed}.jsonl")
        assert differences(found, want) == [], seed
        for table in (found.status, found.region_status, found.bounded_status):
            statuses.update(Status(code) for code in table.flatten().tolist())
    assert min(statuses[s] for s in Status if s in statuses) > 2
    assert {Status.CONVERGED, Status.UNBOUNDED, Status.INFEASIBLE, Status.DUPLICATE} <= set(
        statuses
    )


@pytest.mark.parametrize("change", ["head", "weight in place", "domain", "width", "classes"])
def test_the_body_of_another_run_is_refused(tmp_path: Path, change: str) -> None:
    head, within = random_head(0), cube()
    others: dict[str, tuple[fsb.LinearHead, Domain]] = {
        "head": (random_head(1), within),
        "weight in place": (fsb.LinearHead(head.weight * (1 + 2**-52), head.bias), within),
        "domain": (head, cube(half=2.0)),
        "width": (random_head(0, d=2), cube(2)),
        "classes": (random_head(0, k=5), within),
    }
    mine, other = tmp_path / "mine.jsonl", tmp_path / "other.jsonl"
    want = fsb.partition(head, within, resume=mine)
    fsb.partition(*others[change], resume=other)
    header, entries = read(mine)
    foreign, body = read(other)
    assert foreign != header
    write(mine, header, body)
    with pytest.raises(DataError, match=r"mine\.jsonl: line 2 belongs to another head or domain"):
        fsb.partition(head, within, resume=mine)
    write(mine, header, [*entries[:-1], body[-1]])
    with pytest.raises(DataError, match=f"line {len(entries) + 1} belongs"):
        fsb.partition(head, within, resume=mine)
    # and with the line's key replaced, it is the proof that fails
    key = entries[0]["key"]
    write(mine, header, [entry | {"key": key} for entry in body])
    message, found = "", want
    try:
        found = fsb.partition(head, within, resume=mine)
    except DataError as error:
        message = str(error)
    assert message == "" or "is not a result of this head" in message
    assert false_statements(head, within, found, want) == []


def test_no_forged_line_makes_a_false_statement(tmp_path: Path) -> None:
    total: Counter[str] = Counter()
    for seed in range(6):
        total += attack(tmp_path / f"{seed}.jsonl", seed, 12)
    assert total["refused"] > 20
    assert total["used"] > 5


def change_radius(entry: Entry) -> Entry:
    return entry | {"lower": 1e6, "upper": 1e6}


EDITS: dict[str, tuple[Callable[[Entry], Entry], str]] = {
    "radius": (change_radius, "states a ball of radius 1e\\+06 and proves 0"),
    "bound": (lambda e: e | {"upper": e["lower"] / 2, "lower": 0.0}, "no radius is above"),
    "NaN": (lambda e: e | {"lower": float("nan"), "upper": float("nan")}, "a radius of NaN"),
    "NaN upper": (lambda e: e | {"upper": float("nan")}, "a radius of NaN"),
    "no centre": (lambda e: e | {"centre": None}, "states a ball of radius .* and proves -inf"),
    "no bound": (lambda e: e | {"bound": None}, "and proves inf"),
    "status": (lambda e: e | {"status": 1}, "states INFEASIBLE and proves CONVERGED"),
    "no status": (lambda e: e | {"status": 99}, "99 is not a valid Status"),
    "bounded": (lambda e: e | {"bounded": 2}, "states UNBOUNDED and proves CONVERGED"),
    "region 9": (lambda e: e | {"task": ["region", 9, 9]}, "task .* does not exist"),
    "facet (7, 9)": (lambda e: e | {"task": ["facet", 7, 9]}, "task .* does not exist"),
    "facet (1, 0)": (lambda e: e | {"task": ["facet", 1, 0]}, "task .* does not exist"),
    "kind": (lambda e: e | {"task": ["corner", 0, 0]}, "task .* does not exist"),
    "true": (lambda e: e | {"task": ["region", False, False]}, "False is not a count"),
    "programs": (lambda e: e | {"programs": -1}, "-1 is not a count"),
    "another region": (lambda e: e | {"task": ["region", 1, 1]}, "is not a result of this head"),
    "missing": (lambda e: {k: v for k, v in e.items() if k != "upper"}, "upper"),
    "text": (lambda e: e | {"lower": "1"}, "is not a result of this head"),
    "huge": (lambda e: e | {"lower": 10**400}, "is not a result of this head"),
    "no key": (lambda e: {k: v for k, v in e.items() if k != "key"}, "belongs to another"),
    "half": (lambda e: e | {"centre": e["centre"][: len(e["centre"]) // 8 * 4]}, "is not a result"),
    "bomb": (lambda e: e | {"centre": encode(np.zeros(10**6))}, "other than 3 numbers"),
    "infinite": (
        lambda e: e | {"centre": encode(np.full(3, np.inf))},
        "not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_line_with_its_sum_computed_again_is_refused(tmp_path: Path, name: str) -> None:
    head, within, file = random_head(0), cube(), tmp_path / "partition.jsonl"
    fsb.partition(head, within, resume=file)
    header, entries = read(file)
    at = next(n for n, e in enumerate(entries) if e["status"] == 0 and e["task"][0] == "region")
    assert entries[at]["task"] == ["region", 0, 0]
    edit, words = EDITS[name]
    entries[at] = edit(entries[at])
    write(file, header, entries)
    before = file.read_bytes()
    with pytest.raises(DataError, match=f"line {at + 2} .*{words}.*Delete this line, and its"):
        fsb.partition(head, within, resume=file)
    assert file.read_bytes() == before
    # the advice works
    write(file, header, entries[:at] + entries[at + 1 :])
    assert differences(fsb.partition(head, within, resume=file), fsb.partition(head, within)) == []


@pytest.mark.parametrize("line", [b"5\n", b"[]\n", b"null\n", b'{"digest": 1}\n', b"\xff\n",
                                  b"[" * 100_000 + b"\n"])  # fmt: skip
def test_a_line_that_is_no_result(tmp_path: Path, line: bytes) -> None:
    head, file = random_head(0), tmp_path / "partition.jsonl"
    want = fsb.partition(head, resume=file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        fsb.partition(head, resume=file)
    file.write_bytes(b"".join([*lines, line]))  # like an incomplete last line
    assert differences(fsb.partition(head, resume=file), want) == []


def test_flipped_bits_change_no_answer(tmp_path: Path) -> None:
    head, within, file = random_head(0), cube(), tmp_path / "partition.jsonl"
    want = fsb.partition(head, within, resume=file)
    whole, g, refused = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        data = bytearray(whole)
        data[int(g.integers(len(data)))] ^= 1 << int(g.integers(8))
        file.write_bytes(data)
        try:
            assert differences(fsb.partition(head, within, resume=file), want) == []
        except fsb.FsboundaryError:
            refused += 1
    assert refused > 80


def test_files_of_other_formats_and_devices(tmp_path: Path) -> None:
    head, file = random_head(0), tmp_path / "partition.jsonl"
    file.write_text('{"format": "fsboundary partition 2", "key": "0"}\n{}\n')
    with pytest.raises(ArgumentError, match="or of another version of fsboundary"):
        fsb.partition(head, resume=file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="which is something else"):
        fsb.partition(head, resume=tmp_path / "pipe")
    with pytest.raises(DataError, match="Make room, or choose a folder"):
        fsb.partition(head, resume=file / "inside")


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, file = random_head(0), tmp_path / "partition.jsonl"
    left, append = [6], journal.Journal._append

    def full(self: journal.Journal, line: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            with journal.data_errors(file):
                file.write_bytes(file.read_bytes() + line[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
        append(self, line)

    monkeypatch.setattr(journal.Journal, "_append", full)
    with pytest.raises(DataError, match=r"No space left on device\. Make room"):
        fsb.partition(head, resume=file)
    assert len(file.read_bytes().splitlines()) == 6
    assert differences(fsb.partition(head, resume=file), fsb.partition(head)) == []
    assert not (tmp_path / "partition.jsonl.fsboundary-lock").exists()


RUN = """
import sys, torch, fsboundary as fsb
from fsboundary.regions import journal
if sys.argv[2] == "slow":
    add = journal.Journal.add
    def slow(self, task, result):
        add(self, task, result)
        print(len(self.done), flush=True)
        sys.stdin.readline()
    journal.Journal.add = slow
g = torch.Generator().manual_seed(0)
weight = torch.randn(4, 3, generator=g, dtype=torch.float64)
head = fsb.LinearHead(weight, torch.randn(4, generator=g, dtype=torch.float64))
fsb.partition(head, resume=sys.argv[1])
"""


def test_two_processes_on_one_file(tmp_path: Path) -> None:
    head, file = random_head(0), tmp_path / "partition.jsonl"
    pipe = subprocess.PIPE
    first = subprocess.Popen(
        [sys.executable, "-c", RUN, file, "slow"], stdin=pipe, stdout=pipe, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "1\n"
    with pytest.raises(DataError, match=f"is being written by process {first.pid} on"):
        fsb.partition(head, resume=file)
    # the first goes on, and loses nothing when it is killed in the middle
    first.stdin.write("\n\n")
    first.stdin.flush()
    assert [first.stdout.readline(), first.stdout.readline()] == ["2\n", "3\n"]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(file.read_bytes().splitlines()) == 4
    assert differences(fsb.partition(head, resume=file), fsb.partition(head)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["partition.jsonl"]


def test_a_held_file_is_refused_before_any_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was solved")

    monkeypatch.setattr(linear_programs, "linprog", never)
    file = tmp_path / "partition.jsonl"
    with hold_lock(file), pytest.raises(DataError, match="only one may write to it at a time"):
        fsb.partition(random_head(0), resume=file)
