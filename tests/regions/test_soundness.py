"""A sample of tests/benchmarks/hunt_regions.py, and proof that it would see a false set."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fsboundary as fsb
from support.flips.oracles import make_problem
from support.regions.attacks import ball_points, box_points, changed, hull_points


def test_a_small_hunt_finds_no_point_of_another_class(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hunt_regions.py", "--tiny"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "tests/benchmarks/hunt_regions.py"), run_name="__main__")
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == []
    assert found["changed"] == end.value.code == 0
    kinds = {"l2 balls", "linf balls", "boxes", "hulls", "inflated hulls", "certified by hulls"}
    for where, counts in found["points"].items():
        assert kinds <= set(counts)
        # for the few features of the demo's network, inflated hulls certify almost none
        required = kinds if where == "demo" else counts
        assert min(counts[kind] for kind in required) > 30


@pytest.mark.parametrize("kind", ["unbounded", "nonnegative", "box"])
def test_sets_that_are_slightly_too_large_are_found(kind: str) -> None:
    head, z = make_problem(5, 4, kind, rows=40, seed=0)
    g = np.random.default_rng(0)
    for norm in ("l2", "linf"):
        balls = fsb.guaranteed_balls(head, z, norm)
        balls = balls.take(torch.isfinite(balls.radius))
        larger = replace(balls, radius=balls.radius * (1 + 1e-6))
        points, rows = ball_points(head, larger, 2, g)
        lost = rows[changed(head, points, balls.source.numpy()[rows], strict=False)]
        assert set(lost.tolist()) == set(range(len(balls.radius)))
    boxes = fsb.guaranteed_boxes(head, z)
    boxes = boxes.take(boxes.status == fsb.Status.CONVERGED)
    grown = replace(
        boxes,
        lower=boxes.lower - 1e-6 * (1 + boxes.lower.abs()),
        upper=boxes.upper + 1e-6 * (1 + boxes.upper.abs()),
    )
    points, rows = box_points(head, grown, 2, g)
    lost = rows[changed(head, points, boxes.source.numpy()[rows], strict=True)]
    assert set(lost.tolist()) == set(range(len(boxes.lower)))
    hulls = fsb.guaranteed_hulls(head, fsb.FeatureBank(z))
    wider = fsb.GuaranteedHulls(
        head=head,
        bank=hulls.bank,
        clearance=hulls.clearance * (1 + 1e-6),
        counts=hulls.counts,
        status=hulls.status,
        generators=hulls._generators,
    )
    points, classes = hull_points(wider, 2, g)
    lost = classes[changed(head, points, classes, strict=True)]
    assert set(lost.tolist()) == {k for k in range(5) if hulls.counts[k]}
