"""Stages of a long computation, some within others."""

from __future__ import annotations

import time
from itertools import count

import pytest

from fsboundary.report.clock import Clock


def test_nested_time_is_separate(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    clock = Clock(2)
    with clock.stage("outer"):
        with clock.stage("one"):
            pass
        with clock.stage("two"), clock.stage("deep"):
            pass
    with clock.stage("last"):
        pass
    found = {stage["name"]: stage["seconds"] for stage in clock.stages()}
    # every reading is one tick: a stage takes 1, and each nested stage adds one reading
    assert found == {"one": 1.0, "deep": 1.0, "two": 2.0, "outer": 3.0, "last": 1.0}
    assert sum(found.values()) == 7.0 + 1.0


def test_only_outer_stages_count(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock(2, show_progress=True)
    for name in ("first", "second"):
        with clock.stage(name), clock.stage(f"within {name}"):
            pass
    clock.close()
    shown = capfd.readouterr().err
    assert "within second" in shown
    assert "done" in shown
    assert " 50%" in shown
    assert "100%" in shown
    assert "150%" not in shown
