"""Stages of a long computation, some within others, and the bar that shows their time."""

from __future__ import annotations

import random
import time
from itertools import count, pairwise

import pytest

from fsboundary.report.clock import Clock, Expected


def test_nested_time_is_separate(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    clock = Clock()
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


def test_the_task_within_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    stages = [Expected(name=name, seconds=1.0) for name in ("first", "second")]
    clock = Clock(stages, show_progress=True)
    for name in ("first", "second"):
        with clock.stage(name), clock.stage(f"within {name}"):
            pass
    clock.close()
    shown = capfd.readouterr().err
    assert "second > within second" in shown
    assert "100%" in shown
    assert "left" in shown


def _plan() -> list[Expected]:
    """Return 20 stages of three kinds, with seconds that differ much, as those of a report."""
    draw = random.Random(0)
    return [
        Expected(name=f"stage {k}", seconds=draw.choice([0.01, 0.3, 3, 10]), kind="abc"[k % 3])
        for k in range(20)
    ]


@pytest.mark.parametrize("slower", [(1, 1, 1), (5, 5, 5), (0.2, 0.2, 0.2), (5, 4, 6)])
def test_the_bar_is_in_time(slower: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    plan = _plan()
    actual = [stage.seconds * slower["abc".index(stage.kind)] for stage in plan]
    clock, total, seen = Clock(plan), sum(actual), []
    for stage, seconds in zip(plan, actual, strict=True):
        with clock.stage(stage.name):
            for _ in range(10):
                seen.append(((now - 100) / total, clock.fraction(now)))
                now += seconds / 10
    assert clock.fraction(now) == pytest.approx(1)
    settled = [(true, shown) for true, shown in seen if true > 0.25]
    assert len(settled) > 50
    # after a quarter of the time each kind was seen: what is left of the weight of the first guess
    assert max(abs(true - shown) for true, shown in settled) < 0.15
    assert all(later >= earlier - 0.15 for (_, earlier), (_, later) in pairwise(settled))


def test_a_kind_that_limits_itself_is_expected_to() -> None:
    stages = [
        Expected(name="measured", seconds=1.0, kind="model"),
        Expected(name="limited", seconds=10.0, kind="model", limit=2.0),
    ]
    clock = Clock(stages)
    with clock.stage("measured"):
        pass
    clock._seconds[:] = [("measured", 1000.0)]
    assert clock.remaining(time.perf_counter()) == pytest.approx(20.0)


def test_stages_that_were_not_expected_do_no_harm() -> None:
    clock = Clock()
    with clock.stage("unknown"):
        assert 0 <= clock.fraction(time.perf_counter()) <= 1


def test_alerts_are_passed_on() -> None:
    heard: list[str] = []
    Clock().alert("nobody listens")
    Clock(on_alert=heard.append).alert("look")
    assert heard == ["look"]
