"""Tasks of a partition, and the journal of finished ones, from which a stopped run resumes.

A line of a journal is a proposal: it contains a proof (a centre, multipliers, directions), and the
bounds that this run reports are computed from the proof again. A line whose proof gives less than
the line states is refused.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np

from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import hold_lock
from fsboundary.core.status import Status
from fsboundary.geometry.exact_arithmetic import Array
from fsboundary.geometry.regions.arrangement import Arrangement
from fsboundary.geometry.regions.ball_programs import (
    BallProgram,
    BallProposal,
    facet_program,
    region_program,
)
from fsboundary.geometry.regions.boundedness import (
    NO_PROOF,
    BoundednessProof,
    boundedness,
    certify_boundedness,
    has_common_ray,
)
from fsboundary.geometry.regions.certify import BallProof
from fsboundary.geometry.regions.largest_balls import LargestBall, certified_ball, largest_ball

Task = tuple[str, int, int]
""""region", i, i or "facet", i, j with i < j."""

FORMAT = "fsboundary partition 3"
"""Format of a journal; changes when the programs, their tolerances or the lines do."""

MALFORMED = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""Errors of reading numbers from text of another form."""

_STATED_RTOL = 1e-6
"""Bounds computed again may differ from those stated by rounding, which differs between machines.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskResult:
    """Result of one task.

    Attributes
    ----------
    ball : LargestBall
    bounded : Status
        Status of the region's recession cone, as in :class:`fsboundary.core.results.Partition`;
        UNDECIDED for a facet.
    proof : BoundednessProof
        Proof of `bounded`.
    """

    ball: LargestBall
    bounded: Status
    proof: BoundednessProof


@final
class TaskSolver:
    """Solves tasks with linear programs, and certifies results from their proofs only.

    Parameters
    ----------
    space : Arrangement
    """

    def __init__(self, space: Arrangement) -> None:
        self.space, self._common_ray = space, has_common_ray(space)

    def program(self, task: Task) -> BallProgram | Status:
        """Return the program of a task, or the status that an exact comparison decides."""
        kind, i, j = task
        return facet_program(self.space, i, j) if kind == "facet" else region_program(self.space, i)

    def solve(self, task: Task) -> TaskResult:
        """Return the result of one task."""
        ball = largest_ball(self.space, self.program(task))
        status = self._status_without_program(task, ball)
        if status is not None:
            return TaskResult(ball=ball, bounded=status, proof=NO_PROOF)
        status, proof, num_programs = boundedness(self.space, task[1])
        ball = replace(ball, num_programs=ball.num_programs + num_programs)
        return TaskResult(ball=ball, bounded=status, proof=proof)

    def certify(self, task: Task, ball: LargestBall, proof: BoundednessProof) -> TaskResult:
        """Return the result of `task` for a certified `ball`, bounded as far as `proof` proves."""
        status = self._status_without_program(task, ball)
        if status is None:
            status = certify_boundedness(self.space, task[1], proof)
        return TaskResult(ball=ball, bounded=status, proof=proof)

    def _status_without_program(self, task: Task, ball: LargestBall) -> Status | None:
        """Return the status of boundedness where it needs no program, else None."""
        if task[0] == "facet":
            return Status.UNDECIDED
        if ball.status == Status.INFEASIBLE:
            return Status.INFEASIBLE
        if not ball.lower > 0:
            return Status.UNDECIDED
        if self._common_ray or ball.status == Status.UNBOUNDED:
            return Status.UNBOUNDED
        return None


@contextlib.contextmanager
def open_journal(path: Path | None, solver: TaskSolver) -> Iterator[Journal]:
    """Yield the journal in the file `path`, or one that keeps nothing on disk, for None.

    Parameters
    ----------
    path : Path or None
    solver : TaskSolver
        Certifies the lines of the file.

    Raises
    ------
    ArgumentError
        The file belongs to another head or domain, or is not a journal.
    DataError
        Another process writes to the file, it cannot be read or written, or a line other than the
        last is damaged, or a line belongs to another head or does not prove what it states.
    """
    if path is None:
        yield Journal(None, solver)
        return
    with data_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        yield Journal(path, solver)


@final
class Journal:
    """Results of the tasks finished so far, kept in a file.

    The first line identifies the head and the domain, and so does every other line. The last line
    may be incomplete; its task does not count then.
    """

    def __init__(self, path: Path | None, solver: TaskSolver) -> None:
        self._file, self._size, self._solver = path, 0, solver
        self.done: dict[Task, TaskResult] = {}
        self._key = _journal_key(solver.space)
        if path is None:
            return
        header = line_of({"format": FORMAT, "key": self._key})
        if path.exists():
            self._read(path, header)
        if self._size == 0:
            with data_errors(path):
                path.touch()
            self._append(header)

    def add(self, task: Task, result: TaskResult) -> None:
        """Record the result of one task."""
        ball, proof = result.ball, result.ball.proof
        self._keep(task, result)
        if self._file is None:
            return
        bound = None if proof is None else proof.bound
        entry = {
            "key": self._key,
            "task": list(task),
            "status": int(ball.status),
            "lower": ball.lower,
            "upper": ball.upper,
            "bounded": int(result.bounded),
            "programs": ball.num_programs,
            "centre": _encode(ball.centre),
            "ray": _encode(None if proof is None else proof.ray),
            "bound": None
            if bound is None
            else [
                _encode(part)
                for part in (
                    bound.centre,
                    bound.multipliers,
                    np.array([bound.tie]),
                    bound.low,
                    bound.high,
                )
            ],
            "direction": _encode(result.proof.direction),
            "weights": _encode(result.proof.weights),
        }
        self._append(signed_line(entry))

    def _keep(self, task: Task, result: TaskResult) -> None:
        # the proofs are needed on disk only
        self.done[task] = replace(result, ball=replace(result.ball, proof=None), proof=NO_PROOF)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        with data_errors(self._file), self._file.open("r+b") as file:
            file.truncate(self._size)  # removes the part of a line that a killed process wrote
            file.seek(self._size)
            file.write(line)
        self._size += len(line)

    def _read(self, path: Path, header: bytes) -> None:
        if not path.is_file():  # a folder; or a device, which may never end
            _raise_foreign_file(path, [])
        with data_errors(path):
            lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) < 2 and header.startswith(b"".join(lines)):
            self._size = len(header) if lines == [header] else 0
            return
        if not lines or lines[0] != header:
            _raise_foreign_file(path, lines)
        self._size = len(header)
        for number, line in enumerate(lines[1:], start=2):
            try:
                entry = parse_line(line)
            except MALFORMED as error:
                if number == len(lines):
                    return
                raise _bad_line(path, number, f"is damaged ({error})") from error
            self._add_entry(path, number, entry)
            self._size += len(line)

    def _add_entry(self, path: Path, number: int, entry: dict[str, Any]) -> None:
        """Certify what a line proposes, and keep it."""
        if entry.get("key") != self._key:
            raise _bad_line(path, number, "belongs to another head or domain")
        try:
            task, result = _certify_entry(self._solver, entry)
        except (*MALFORMED, zlib.error) as error:
            raise _bad_line(path, number, f"is not a result of this head: {error}") from error
        self._keep(task, result)


def _journal_key(space: Arrangement) -> str:
    """Return a digest of what results depend on: format, head, and the limits of the domain."""
    digest = hashlib.sha256(FORMAT.encode())
    for values in (
        space.full_weight,
        space.full_bias,
        space.free,
        space.point,
        space.lower,
        space.upper,
    ):
        digest.update(repr(values.shape).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:32]


def _raise_foreign_file(path: Path, lines: list[bytes]) -> NoReturn:
    """Raise the ArgumentError for a file with another first line."""
    journal = bool(lines) and FORMAT.rstrip("0123456789").encode() in lines[0]
    of = "of another head or domain, or of another version of fsboundary"
    raise ArgumentError(
        "resume",
        f"{path}, which is {of if journal else 'something else'}",
        "a new path, or the file of a run with the same head and domain",
        "choose another path, or delete the file",
    )


def _bad_line(path: Path, number: int, reason: str) -> DataError:
    return DataError(
        f"{path}: line {number} {reason}. Delete this line, and its programs run again; or delete "
        "the file"
    )


@contextlib.contextmanager
def data_errors(path: Path) -> Iterator[None]:
    """Raise errors of the file system in the block as DataErrors about `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}. Make room, or choose a folder that this process "
            "may write to; results in the file so far are kept, and the same call resumes"
        ) from error


def line_of(entry: dict[str, Any]) -> bytes:
    """Return an entry as a line of a file."""
    return json.dumps(entry).encode() + b"\n"


def signed_line(entry: dict[str, Any]) -> bytes:
    """Return an entry as a line that contains its digest; :func:`parse_line` reads it."""
    return line_of(entry | {"digest": _digest(entry)})


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(line_of(entry)).hexdigest()[:32]


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the entry of one line, or raise ValueError, TypeError, KeyError or RecursionError."""
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise TypeError("no fields")
    if entry.pop("digest") != _digest(entry):
        raise ValueError("its sum does not match")
    return entry


def _certify_entry(solver: TaskSolver, entry: dict[str, Any]) -> tuple[Task, TaskResult]:
    """Return the task and the certified result of an entry.

    Raises
    ------
    ValueError, TypeError, KeyError, OverflowError
        The entry has another form, or states more than its proof proves.
    """
    kind, i, j = entry["task"]
    task, k, f = (kind, _count(i), _count(j)), solver.space.num_classes, solver.space.width
    if not (kind == "region" and i == j < k) and not (kind == "facet" and i < j < k):
        raise ValueError(f"it states the task {entry['task']}, which does not exist")
    program = solver.program(task)
    rows = 0 if isinstance(program, Status) else len(program.rows)
    centre = _decode(entry["centre"], f)
    if centre is not None and not _inside(solver.space, centre):
        raise ValueError("it states a centre outside the domain")
    proof = BallProof(
        centre=np.full(f, np.nan) if centre is None else centre,
        bound=_decode_bound(entry["bound"], rows, f),
        ray=_decode(entry["ray"], f),
    )
    ball = certified_ball(solver.space, program, proof, _count(entry["programs"]))
    directions = BoundednessProof(
        direction=_decode(entry["direction"], f), weights=_decode(entry["weights"], rows)
    )
    result = solver.certify(task, ball, directions)
    _require_proof(entry, result)
    return task, result


def _require_proof(entry: dict[str, Any], result: TaskResult) -> None:
    """Raise ValueError if the entry states more than `result`, which its proofs prove."""
    ball, lower, upper = result.ball, entry["lower"], entry["upper"]
    if math.isnan(lower) or math.isnan(upper):
        raise ValueError("it states a radius of NaN")
    if not (ball.lower >= lower or math.isclose(ball.lower, lower, rel_tol=_STATED_RTOL)):
        raise ValueError(f"it states a ball of radius {lower:g} and proves {ball.lower:g}")
    if not (ball.upper <= upper or math.isclose(ball.upper, upper, rel_tol=_STATED_RTOL)):
        raise ValueError(f"it states that no radius is above {upper:g} and proves {ball.upper:g}")
    # whether two bounds meet depends on their last digits
    meets = {Status.CONVERGED, Status.INACCURATE}
    stated = Status(entry["status"])
    if stated != ball.status and not {stated, ball.status} <= meets:
        raise ValueError(f"it states {stated.name} and proves {ball.status.name}")
    bounded = Status(entry["bounded"])
    if bounded != result.bounded:
        raise ValueError(f"it states {bounded.name} and proves {result.bounded.name}")


def _inside(space: Arrangement, z: Array) -> bool:
    return bool(((space.lower <= z) & (z <= space.upper)).all())


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _encode(values: Array | None) -> str | None:
    """Return numbers as text; None for None and for numbers that are not finite."""
    if values is None or not np.isfinite(values).all():
        return None
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return base64.b64encode(zlib.compress(data, 1)).decode()


def _decode(text: object, size: int) -> Array | None:
    """Return the `size` numbers of a text, None for None, or raise ValueError or TypeError."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError("numbers are not text")
    # never more than the numbers wanted, whatever the text claims to contain
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 8 * size + 1)
    if len(data) != 8 * size:
        raise ValueError(f"it states other than {size} numbers")
    values = np.frombuffer(data, dtype="<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it states numbers that are not finite")
    return values


def _decode_bound(texts: object, rows: int, f: int) -> BallProposal | None:
    """Return the multipliers of an upper bound, or raise ValueError or TypeError."""
    if texts is None:
        return None
    if not isinstance(texts, list):
        raise TypeError("multipliers are not a list")
    sizes = (f, rows, 1, f, f)
    parts = [_decode(text, size) for text, size in zip(texts, sizes, strict=True)]
    centre, multipliers, tie, low, high = (_present(part) for part in parts)
    return BallProposal(
        centre=centre, multipliers=multipliers, tie=float(tie[0]), low=low, high=high, capped=False
    )


def _present(values: Array | None) -> Array:
    if values is None:
        raise ValueError("multipliers are missing")
    return values
