"""Random sequences of calls on shared objects, with everything between them that may leave traces.

Between calls, tensors that a user can reach are written to, objects are copied and pickled, banks
are saved and opened, hostile plugins run, the model is changed and changed back, and modes and
threads change. Every answer is compared with that of objects without a past: bit for bit, except
that numbers computed by two threads may differ by rounding.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.hull_solvers.nnls import Nnls
from support.modes import default_dtype, num_threads
from support.states import (
    CALLS,
    HANDLES,
    WRITES,
    Call,
    World,
    differences,
    snapshot,
    wreck,
)

NUM_WORLDS = 6
"""Two dtypes of the model times three kinds of domain."""

SHARES = {
    ("images", "Image", "morph", "amplification", "nonlinear", "away_steps", "interior"): 0.005,
    ("ull", "cover", "extrapolation", "leave_one_out", "partition", "faces", "ties"): 0.15,
    ("",): 0.845,
}
"""Fraction of the draws that select a call of a group, by parts of the names; slow ones rarely."""


_GROUPS: dict[tuple[str, ...], list[str]] = {group: [] for group in SHARES}
for _name in CALLS:
    _GROUPS[next(g for g in SHARES if any(part in _name for part in g))].append(_name)


def _overwrite_attributes(value: Any) -> None:
    """Overwrite the tensors among the public attributes of `value`, and of these."""
    for name in dir(value):
        # names with an underscore are not promised to be safe
        if name.startswith("_"):
            continue
        with contextlib.suppress(Exception):  # whatever refuses is safe
            part = getattr(value, name)
            if isinstance(part, Tensor):
                part.mul_(3)
                part.numpy().fill(77)
            elif isinstance(part, fsb.FeatureBank | fsb.Domain):
                _overwrite_attributes(part)


class VandalSolver(fsb.HullSolver):
    """A solver that answers honestly, then overwrites what it was given and can reach."""

    def prepare(self, points: Any) -> Any:
        return points, Nnls().prepare(points)

    def project(self, state: Any, queries: Tensor, **options: Any) -> fsb.HullProjection:
        points, array = state
        answer = Nnls().project(array.copy(), queries, **options)
        _overwrite_attributes(points)
        for tensor in (points.take(torch.arange(len(points))), queries, options["exclude"]):
            if tensor is not None:
                tensor.numpy().fill(77)
        return answer


class VandalFinder(fsb.BoundaryFinder):
    """A finder that answers honestly, then overwrites what it was given and can reach."""

    def find(self, head: Any, features: Tensor, **options: Any) -> fsb.FlipPoints:
        answer = DualNewton().find(head, features, **options)
        answer = fsb.FlipPoints(**{k: v.clone() for k, v in answer.to_dict().items()})
        _overwrite_attributes(head)
        for tensor in (*head.domain.limits(features), features, options["targets"]):
            tensor.numpy().fill(77)
        return answer


SOLVER, FINDER = VandalSolver(), VandalFinder()

VANDALS: dict[str, tuple[str, Call]] = {
    "vandal among hull solvers": (
        "hull_projection nnls",
        lambda w, i: fsb.hull_projection(w.bank, i.features, solver=SOLVER),
    ),
    "vandal among hull solvers, leave_out": (
        "hull_projection leave_out nnls",
        lambda w, i: fsb.hull_projection(
            w.bank, w.bank.take(i.rows), leave_out=i.rows, solver=SOLVER
        ),
    ),
    "vandal among finders": (
        "flip_points all",
        lambda w, i: fsb.flip_points(w.head, i.features, "all", finder=FINDER),
    ),
}
"""Calls of hostile plugins, with the names of the honest calls that they must equal."""


MODES: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[Any]], float]] = {
    "no_grad": (torch.no_grad, 0.0),
    "inference_mode": (torch.inference_mode, 0.0),
    "default dtype float64": (lambda: default_dtype(torch.float64), 0.0),
    "two torch threads": (lambda: num_threads(2), 1e-12),  # sums in another order
}
"""Modes in which calls must answer as always, and by how much numbers may differ."""

WITHOUT_GRADIENTS = ("no_grad", "inference_mode")
NEEDS_GRADIENTS = (
    "Distance", "Direction", "Push", "Influence", "images", "morph", "amplification", "Attribution",
    "nonlinear", "features", "logits",
)  # fmt: skip

COPIED = ("head", "domain", "bank", "hulls", "space", "batch")
PICKLED = (*COPIED, "boundary", "hull", "class_hull")


class Sequence:
    """One random sequence on one world.

    Parameters
    ----------
    seed : int
    right : dict
        Answers of worlds without a past, by the seed of the world and the name of the call; filled
        in as needed.
    """

    def __init__(self, seed: int, right: dict[tuple[int, str], dict[str, Tensor]]) -> None:
        self.random, self.right = random.Random(seed), right
        self.world = World(self.random.randrange(NUM_WORLDS))
        self.done: list[str] = []
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.last: Any = None

    def run(self, steps: int) -> None:
        """Take `steps` random steps, then call once more."""
        kinds = {
            self._call: 9, self._write: 4, self._wreck: 2, self._copy: 1, self._pickle: 1,
            self._reopen: 1, self._in_mode: 1, self._in_threads: 1, self._vandal: 2,
            self._change_model: 1, self._forget: 1,
        }  # fmt: skip
        # sums in another order differ in their last bits
        with num_threads(1):
            for step in self.random.choices(list(kinds), list(kinds.values()), k=steps):
                step()
            self._call()

    def _draw(self) -> str:
        (group,) = self.random.choices(list(SHARES), list(SHARES.values()))
        return self.random.choice(_GROUPS[group])

    def _answer_of_a_fresh_world(self, name: str) -> dict[str, Tensor]:
        key = self.world.seed, name
        if key not in self.right:
            fresh = World(self.world.seed)
            self.right[key] = snapshot(CALLS[name](fresh, fresh.inputs()))
        return self.right[key]

    def _compare(
        self, name: str, answer: Any, honest: str | None = None, rtol: float = 0.0
    ) -> None:
        self.counts["answers"] += 1
        right = self._answer_of_a_fresh_world(honest or name)
        faults = differences(snapshot(answer), right, rtol)
        if faults:
            past = ", ".join(self.done)
            self.faults.append(f"world {self.world.seed}: {name} after [{past}]: {faults[:3]}")

    def _call(self) -> None:
        name = self._draw()
        given = self.world.inputs()
        answer = CALLS[name](self.world, given)
        self._compare(name, answer)
        self.last = given, answer
        self._did("call", name)

    def _did(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.done.append(what if kind == "call" else f"{kind} {what}")

    def _write(self) -> None:
        handle, write = self.random.choice(list(HANDLES)), self.random.choice(list(WRITES))
        WRITES[write](HANDLES[handle](self.world))
        self._did("write", f"to {handle} ({write})")

    def _wreck(self) -> None:
        wreck(self.last)
        self._did("wreck", "the last arguments and answer")

    def _copy(self) -> None:
        name = self.random.choice(COPIED)
        way = self.random.choice([copy.copy, copy.deepcopy])
        setattr(self.world, name, way(getattr(self.world, name)))
        # the copy of a space verifies its model anew, with the first batch
        self.world.space.extract(self.world.images)
        self._did(way.__name__, name)

    def _pickle(self) -> None:
        name = self.random.choice(PICKLED)
        setattr(self.world, name, pickle.loads(pickle.dumps(getattr(self.world, name))))
        self.world.space.extract(self.world.images)
        self._did("pickle", name)

    def _reopen(self) -> None:
        kept = self.world.bank
        with tempfile.TemporaryDirectory() as folder:
            kept.save(Path(folder) / "bank")
            self.world.bank = fsb.FeatureBank.open(Path(folder) / "bank")
            self._call()
            self.last = None
        self.world.bank = kept
        self._did("reopen", "the bank")

    def _in_mode(self) -> None:
        mode = self.random.choice(list(MODES))
        name = self._draw()
        while mode in WITHOUT_GRADIENTS and any(part in name for part in NEEDS_GRADIENTS):
            name = self._draw()
        context, rtol = MODES[mode]
        with context():
            answer = CALLS[name](self.world, self.world.inputs())
        self._compare(name, answer, rtol=rtol)
        self._did("mode", f"{mode} in {name}")

    def _in_threads(self) -> None:
        names = [self._draw() for _ in range(3)]
        for name in names:
            self._answer_of_a_fresh_world(name)
        with ThreadPoolExecutor(3) as pool:
            found = pool.map(lambda name: CALLS[name](self.world, self.world.inputs()), names)
            for name, answer in zip(names, list(found), strict=True):
                self._compare(name, answer)
        self._did("threads", " and ".join(names))

    def _vandal(self) -> None:
        name = self.random.choice(list(VANDALS))
        honest, call = VANDALS[name]
        self._compare(name, call(self.world, self.world.inputs()), honest)
        self._did("vandal", name)

    def _change_model(self) -> None:
        layer = self.world.model[-1]
        kept = copy.deepcopy(layer.state_dict())
        with torch.no_grad():
            layer.weight.mul_(2)
        if self.world.space.model is self.world.model:  # not after a deep copy
            with pytest.raises(fsb.HeadMismatchError):
                self.world.space.extract(self.world.images)
        layer.load_state_dict(kept)
        self._did("change", "the model and change it back")

    def _forget(self) -> None:
        self.last = None
        gc.collect()
        self._did("forget", "the last answer")
