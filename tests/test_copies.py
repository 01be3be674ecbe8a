"""Pickling and copying of every public class, and what spaces, heads and banks show."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fsboundary as fsb
from fsboundary import attr, plugins
from fsboundary.analysis import Measure, TwoSpaces
from fsboundary.banks import BankInfo
from fsboundary.core import results
from fsboundary.core.errors import ReportWarning
from fsboundary.demo import load_demo
from fsboundary.sklearn import HullDomain, NearestHullClassifier
from fsboundary.space import ZeroShotClassifier
from fsboundary.testing import Outcome, Suite
from support.public_calls import CALLS, require_same, world
from support.public_objects import public_objects

IMAGE = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
ROWS = [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 3.0]]


def holds(total: int) -> None:
    """Hold, for a suite."""


def _finder() -> Any:
    return plugins.create("boundary_finder", "dual_newton")


MAKERS: dict[str, Callable[[SimpleNamespace], Any]] = {
    "FeatureSpace": lambda w: fsb.FeatureSpace(w.model),
    "FeatureSpace used": lambda w: w.space,
    "LinearHead": lambda w: w.head,
    "MultiLabelHead": lambda w: w.labels_head,
    "Domain": lambda w: w.box,
    "FeatureBank": lambda w: w.bank,
    "BankInfo": lambda w: BankInfo(),
    "GuaranteedHulls": lambda w: w.balls,
    "Reference": lambda w: w.reference,
    "Triage": lambda w: fsb.triage(w.space, [w.images], w.reference),
    "BoundaryDistance": lambda w: attr.BoundaryDistance(w.space),
    "HullDistance": lambda w: attr.HullDistance(w.space, w.bank),
    "ClassHullDistance": lambda w: attr.ClassHullDistance(w.space, w.bank),
    "BoundaryDirection": lambda w: attr.BoundaryDirection(w.space),
    "LayerBoundaryDirection": lambda w: attr.LayerBoundaryDirection(w.space, w.model[1]),
    "FlipImageAttribution": lambda w: attr.FlipImageAttribution(w.space),
    "HullInfluence": lambda w: attr.HullInfluence(w.space, w.bank),
    "Supports": lambda w: attr.HullInfluence(w.space, w.bank).influence(w.images),
    "HullClassifier": lambda w: attr.HullClassifier(),
    "BoundaryPush": lambda w: attr.BoundaryPush(w.space),
    "ZeroShotClassifier": lambda w: ZeroShotClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.eye(3), 1.0
    ),
    "HullDomain": lambda w: HullDomain().fit(ROWS),
    "NearestHullClassifier": lambda w: NearestHullClassifier().fit(ROWS, ["a", "a", "b", "b"]),
    "Measure": lambda w: Measure(name="n", question="q", pixels=1.0, features=2.0),
    "TwoSpaces": lambda w: TwoSpaces(
        measures=(Measure(name="n", question="q", pixels=1.0, features=2.0),), sizes={"images": 1}
    ),
    "DemoData": lambda w: load_demo(),
    "Status": lambda w: fsb.Status.MAX_STEPS,
    "ArgumentError": lambda w: fsb.ArgumentError("z", "one", "two", "pass two"),
    **{
        name: lambda w, name=name: getattr(fsb, name)("a message")
        for name in (
            "DataError",
            "FsboundaryError",
            "HeadError",
            "HeadMismatchError",
            "PluginError",
            "PluginWarning",
            "StatusError",
        )
    },
    "ReportWarning": lambda w: ReportWarning("a message"),
    "CheckFailure": lambda w: fsb.testing.CheckFailure("a message"),
    "Outcome": lambda w: Outcome(check="holds", about="it holds", passed=True, message=""),
    "Suite": lambda w: Suite([holds], int, {}),
    "BoundaryFinder": lambda w: _finder(),
    "FeatureExtractor": lambda w: plugins.create("feature_extractor", "head_input"),
    "HullSolver": lambda w: plugins.create("hull_solver", "active_set"),
    "ImageBoundaryFinder": lambda w: plugins.create("boundary_finder", "ddn", capability="pixels"),
    "BodyBounds": lambda w: plugins.create("body_bound", "linear_bounds"),
    "Identity": lambda w: plugins.identify(_finder()),
    "PluginInfo": lambda w: plugins.describe()[0],
    "Registration": lambda w: fsb.Registration("mine", dict, "a plugin of mine"),
    "LinearFunctions": lambda w: fsb.LinearFunctions(
        weight=torch.eye(2)[None], offset=torch.zeros(1, 2), weight_error=torch.zeros(1, 2, 2)
    ),
}
"""One instance of each public class that is no result."""

RESULTS = {
    "FeatureBatch": lambda w: w.batch,
    "FlipImages": lambda w: w.flips,
    "CertifiedClasses": lambda w: w.balls.check(w.z),
    "CoverageFractions": CALLS["coverage_fractions"],
    "CrossedImages": CALLS["crossed_images"],
    "Comparison": CALLS["compare"],
}
"""Results that the calls return within something else, or under another name."""


@pytest.mark.parametrize("name", MAKERS)
def test_pickle_and_deepcopy(name: str) -> None:
    one = MAKERS[name](world())
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
        assert type(again) is type(one)
        # a copy of a space finds its head again, on its own model
        plain = not isinstance(one, nn.Module | BaseException | fsb.FeatureSpace)
        if plain and " at 0x" not in repr(one):
            assert repr(again) == repr(one)


def test_copies_give_the_same_answers() -> None:
    w = world()
    for make in (lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy):
        space, bank = make(w.space), make(w.bank)
        require_same(space.extract(w.images), w.batch, rtol=0)
        wanted = fsb.hull_projection(w.bank, w.far)
        require_same(fsb.hull_projection(bank, w.far), wanted, rtol=0)
        require_same(
            attr.BoundaryDistance(space)(w.images).detach(),
            attr.BoundaryDistance(w.space)(w.images).detach(),
            rtol=0,
        )
        module = make(attr.HullDistance(w.space, w.bank))
        assert torch.equal(module(w.images), attr.HullDistance(w.space, w.bank)(w.images))


def _answers() -> dict[str, Any]:
    """Return one result of each class, as the public calls and :data:`RESULTS` give them."""
    found: dict[str, Any] = {}
    for call in (*RESULTS.values(), *CALLS.values()):
        try:
            answer = call(world())
        except TypeError:
            continue
        for one in answer if isinstance(answer, list | tuple) else [answer]:
            if isinstance(one, results.Table):
                found.setdefault(type(one).__name__, one)
    return found


def test_every_result_is_copied_with_its_numbers() -> None:
    answers = _answers()
    for one in answers.values():
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            require_same(again, one, rtol=0)
    classes = {
        name.rpartition(".")[2] for name, one in public_objects().items() if inspect.isclass(one)
    }
    # the two bases of all results have no instance of their own
    assert classes - answers.keys() - MAKERS.keys() == {"Result", "Table"}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
def test_heads_take_a_batch_and_arrays(kind: torch.dtype) -> None:
    w = world()
    rows = w.z.to(kind)
    for head in (w.head, w.labels_head):
        wanted = head.predict(rows)
        assert torch.equal(head.predict(rows.numpy()), wanted)
        assert torch.equal(head.logits(rows.numpy()), head.logits(rows))
        assert head.predict(rows[:0]).shape[0] == 0
    assert torch.equal(w.head.predict(w.batch), w.batch.predicted)
    assert torch.equal(w.head.margins(w.batch), w.head.margins(w.z))


def test_heads_refuse_rows_of_another_width() -> None:
    w = world()
    for wrong in (w.z[:, :3], np.zeros((2, 7), dtype=np.float32), torch.tensor(1.0)):
        with pytest.raises(fsb.ArgumentError, match=r"z: got shape .* 6 features"):
            w.head.predict(wrong)


def test_short_texts_and_tables_for_notebooks(tmp_path: Path) -> None:
    w = world()
    disk = w.bank.save(tmp_path / "bank") or fsb.FeatureBank.open(tmp_path / "bank")
    unused = fsb.FeatureSpace(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
    for one in (w.space, unused, w.head, w.labels_head, w.bank, disk):
        assert len(repr(one).splitlines()) < 3
        assert len(repr(one)) < 200
        html = one._repr_html_()
        assert html.startswith(("<table>", "<code>"))
        assert type(one).__name__ in html
        assert "<script" not in html
    assert "DemoData(classes=10, train=" in repr(load_demo())
    assert len(repr(load_demo())) < 80


def test_names_of_classes_are_escaped() -> None:
    odd = type("<script>", (nn.Linear,), {})
    space = fsb.FeatureSpace(odd(3, 2).eval())
    assert "<script>" not in space._repr_html_()


def test_two_spaces_in_a_file(tmp_path: Path) -> None:
    lines = (
        Measure(name="inside", question="Inside?", pixels=0.1, features=float("nan")),
        Measure(
            name="met",
            question="Met?",
            pixels=1.0,
            features=2.0,
            agreement=0.5,
            agreement_is="of 3",
        ),
    )
    found = TwoSpaces(measures=lines, sizes={"images": 3})
    path = tmp_path / "two.safetensors"
    found.save(path)
    again = TwoSpaces.open(path)
    assert again.to_dict() == found.to_dict()
    assert np.isnan(again["inside"].features)
    with pytest.raises(fsb.ArgumentError, match="which exists"):
        found.save(path)
    found.save(path, force=True)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(fsb.DataError):
        TwoSpaces.open(path)
    world().batch.save(path, force=True)
    with pytest.raises(fsb.DataError):
        TwoSpaces.open(path)
    empty = TwoSpaces(measures=(), sizes={})
    empty.save(path, force=True)
    assert TwoSpaces.open(path) == empty
