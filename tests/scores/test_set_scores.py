"""Estimated accuracy and drift, against slow formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsboundary import ArgumentError, Status, flip_points, region_distances
from fsboundary.scores import drift, estimate_accuracy
from support.scores import CLASSES, reference_of, rows_and_labels, slow_distance, space_of_features

TRAIN, LABELS = rows_and_labels(150, 5)
SPACE = space_of_features()
HEAD = SPACE.head
REFERENCE = reference_of(TRAIN, LABELS)
GROUP = REFERENCE.group
VALID, ANSWERS = rows_and_labels(60, 6)
NEW, TRUTH = rows_and_labels(70, 7)


def slow_ratio(row: Tensor, out: bool, mean: bool) -> float:
    label = int(HEAD.predict(row[None]))
    a = slow_distance(TRAIN[label == GROUP], row, row if out else None)
    if mean:
        found = region_distances(HEAD, row[None]).distance[0].abs().tolist()
        d = sum(found[k] for k in range(CLASSES) if k != label) / (CLASSES - 1)
    else:
        d = float(flip_points(HEAD, row[None]).distance)
    return d / a if a else float("inf")


def slow_estimate(source: list[float], errors: int, new: list[float]) -> float:
    threshold = sorted(source)[errors]
    return sum(one >= threshold for one in new) / len(new)


def test_accuracy_is_the_fraction_above_the_threshold_of_the_labelled_rows() -> None:
    wrong = int((HEAD.predict(VALID) != ANSWERS).sum())
    assert wrong > 5
    source = [slow_ratio(row, False, False) for row in VALID]
    want = slow_estimate(source, wrong, [slow_ratio(row, False, False) for row in NEW])
    found = estimate_accuracy(REFERENCE, NEW, validation=(SPACE.extract(VALID), ANSWERS))
    # a row may change sides of the threshold within the solvers' tolerances
    assert float(found.accuracy) == pytest.approx(want, abs=1 / 70)
    assert found.lower <= found.accuracy <= found.upper
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert float(found.source_accuracy) == pytest.approx(1 - wrong / 60)
    same = estimate_accuracy(REFERENCE, VALID, validation=(VALID, ANSWERS))
    ties = sum(one == float("inf") for one in source)
    assert float(same.accuracy) == pytest.approx(1 - wrong / 60, abs=ties / 60 + 1e-9)
    default = estimate_accuracy(REFERENCE, NEW)
    source = [slow_ratio(row, True, False) for row in TRAIN]
    wrong = int((HEAD.predict(TRAIN) != LABELS).sum())
    want = slow_estimate(source, wrong, [slow_ratio(row, False, False) for row in NEW])
    assert float(default.accuracy) == pytest.approx(want, abs=1 / 70)


def test_wilson_covers_as_in_the_textbook() -> None:
    found = estimate_accuracy(REFERENCE, NEW, validation=(VALID, ANSWERS))
    n, p, z = 70, float(found.accuracy), 1.959964
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    assert found.interval.tolist() == pytest.approx([centre - half, centre + half], rel=1e-6)


def test_drift_is_a_kolmogorov_smirnov_test_of_the_region_ratios() -> None:
    usual = sorted(slow_ratio(row, True, True) for row in TRAIN)
    moved = NEW + 1.5
    new = sorted(slow_ratio(row, False, True) for row in moved)
    points = [*usual, *new]
    want = max(
        abs(sum(u <= x for u in usual) / len(usual) - sum(n <= x for n in new) / len(new))
        for x in points
    )
    found = drift(REFERENCE, moved)
    assert float(found.score) == pytest.approx(want, abs=1 / 70)
    assert found.words == "drifted"
    assert (found.num_rows, found.num_failed, found.num_reference) == (70, 0, 150)
    calm = drift(REFERENCE, NEW, baseline=VALID)
    assert calm.words == "no drift found"
    assert calm.p_value > 0.05
    assert drift(REFERENCE, VALID, baseline=VALID).score == 0


def test_rows_that_fail_are_left_out_alone() -> None:
    rows = NEW.clone()
    rows[3] = torch.nan
    one = estimate_accuracy(REFERENCE, rows, validation=(VALID, ANSWERS))
    other = estimate_accuracy(REFERENCE, NEW[torch.arange(70) != 3], validation=(VALID, ANSWERS))
    assert one.accuracy == other.accuracy
    assert one.num_failed == 1
    assert drift(REFERENCE, rows).num_failed == 1
    nothing = estimate_accuracy(REFERENCE, rows[3:4], validation=(VALID, ANSWERS))
    assert nothing.accuracy.isnan()
    assert nothing.status == Status.UNDECIDED
    assert drift(REFERENCE, rows[3:4]).words == "not scored"


def test_what_is_refused() -> None:
    right = (TRAIN, HEAD.predict(TRAIN))
    for call, message in (
        (lambda: estimate_accuracy(REFERENCE, NEW, validation=right), "without an error"),
        (lambda: estimate_accuracy(REFERENCE, NEW, validation=NEW), "wanted a pair of rows"),
        (lambda: estimate_accuracy(REFERENCE, NEW, validation=(NEW,)), "a tuple of 1"),
        (lambda: estimate_accuracy(REFERENCE, NEW, validation=(NEW, TRUTH + 3)), "validation"),
        (lambda: drift(REFERENCE, NEW, level=2), "level: got 2"),
        (lambda: drift(REFERENCE, NEW, baseline=NEW * torch.nan), "no row with a ratio"),
        (lambda: drift(SPACE, NEW), "reference: got a FeatureSpace"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ArgumentError, match=message):
            call()  # type: ignore[no-untyped-call]
