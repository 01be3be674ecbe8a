"""Novelty, trust and label issues against slow formulas, one row at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary import ArgumentError, FeatureSpace, HeadMismatchError, Status
from fsboundary.core.results import Scores
from fsboundary.models.new_heads import logistic_head
from fsboundary.scores import Reference, label_issues, novelty, trust
from support.scores import (
    CLASSES,
    WIDTH,
    reference_of,
    rows_and_labels,
    slow_distance,
    slow_hulls,
    slow_novelty,
    slow_p_value,
    slow_rank,
    space_of_features,
)

TRAIN, LABELS = rows_and_labels(120, 1)
REFERENCE = reference_of(TRAIN, LABELS)
GROUP = REFERENCE.group
QUERIES, GIVEN = rows_and_labels(25, 2)
SPACE = space_of_features()
NEAR = {"rel": 1e-5, "abs": 1e-6}
"""The interior-point oracle stops at 1e-8 of its objective, a squared distance; both stop there."""
CALLS = {
    "novelty": lambda r, z, y, **o: novelty(r, z, **o),
    "trust": lambda r, z, y, **o: trust(r, z, **o),
    "label_issues margin": lambda r, z, y, **o: label_issues(r, z, y, **o),
    "label_issues ratio": lambda r, z, y, **o: label_issues(r, z, y, kind="ratio", **o),
}


def test_both_keeps_the_rows_on_which_label_and_prediction_agree() -> None:
    predicted = SPACE.extract(TRAIN).predicted
    assert torch.equal(GROUP, torch.where(predicted == LABELS, LABELS, -1))
    assert 0 < (GROUP < 0).sum() < 60


def test_novelty_is_the_distance_of_the_direction_to_the_class() -> None:
    found = novelty(REFERENCE, SPACE.extract(QUERIES))
    usual = {
        k: [slow_novelty(TRAIN, GROUP, row, k, out=True) for row in TRAIN[k == GROUP]]
        for k in range(CLASSES)
    }
    for row, (z, label) in enumerate(zip(QUERIES, found.label.tolist(), strict=True)):
        want = slow_novelty(TRAIN, GROUP, z, label, out=False)
        assert float(found.score[row]) == pytest.approx(want, **NEAR)
        # inside, ties with reference rows inside decide: both are 0 exactly
        rounded = [round(one, 5) for one in usual[label]]
        assert float(found.p_value[row]) == slow_p_value(rounded, round(want, 5))
    assert (found.lower <= found.score).all()
    assert (found.score <= found.upper).all()
    # the solver's own tolerance is 1e-6
    torch.testing.assert_close(found.upper, found.lower, rtol=2e-6, atol=1e-6)
    assert found.label.tolist() == SPACE.extract(QUERIES).predicted.tolist()


def test_trust_compares_the_own_hull_with_the_nearest_other() -> None:
    found = trust(REFERENCE, QUERIES)
    for row, (z, label) in enumerate(zip(QUERIES, found.label.tolist(), strict=True)):
        a, b, other = slow_hulls(TRAIN, GROUP, z, label, out=False)
        assert float(found.value[row]) == pytest.approx(b / (a + b), **NEAR)
        assert float(found.score[row]) == pytest.approx(a / (a + b), **NEAR)
        assert found.other[row] == other
        chosen = found.support[row][found.support[row] >= 0]
        assert (GROUP[chosen] == other).all()
        assert len(chosen) > 0
    assert (found.lower <= found.score).all()
    assert (found.score <= found.upper).all()


def slow_folds() -> list[float]:
    """Return the probability of each training row's label, by a head fitted to other folds."""
    found = []
    for row in range(len(TRAIN)):
        others = REFERENCE.fold != REFERENCE.fold[row]
        head = logistic_head(TRAIN[others], LABELS[others], CLASSES)
        found.append(float(head.logits(TRAIN[row][None])[0].softmax(0)[LABELS[row]]))
    return found


@pytest.mark.parametrize("kind", ["margin", "ratio"])
def test_label_issues_in_two_stages(kind: str) -> None:
    assert torch.equal(REFERENCE.fold.bincount(), torch.full((5,), 24))
    confidence = slow_folds()
    # with more than ½, the label is the predicted class
    clean = torch.tensor(
        [int(y) if p > 0.5 else -1 for y, p in zip(LABELS, confidence, strict=True)]
    )
    assert torch.equal(REFERENCE.clean.labels, clean)

    def doubt(z: Tensor, label: int, out: bool) -> float:
        a, b, _ = slow_hulls(TRAIN, clean, z, label, out)
        return a - b if kind == "margin" else a / (a + b)

    known = [doubt(z, int(y), True) for z, y in zip(TRAIN, LABELS, strict=True)]
    found = label_issues(REFERENCE, TRAIN, LABELS, kind=kind, leave_out=torch.arange(120))
    for row in range(0, 120, 5):
        ranks = slow_rank(known, known[row]), slow_rank([-p for p in confidence], -confidence[row])
        # two ranks of 120 rows may swap where distances agree to the solvers' tolerance
        assert float(found.score[row]) == pytest.approx(sum(ranks) / 2, abs=1 / 120)
        value = -known[row] if kind == "margin" else 1 - known[row]
        assert float(found.value[row]) == pytest.approx(value, **NEAR)
    assert (found.lower <= found.score).all()
    assert (found.score <= found.upper).all()
    new = label_issues(REFERENCE, QUERIES, GIVEN, kind=kind)
    for row, (z, label) in enumerate(zip(QUERIES, GIVEN.tolist(), strict=True)):
        value = doubt(z, label, out=False)
        assert float(new.value[row]) == pytest.approx(
            -value if kind == "margin" else 1 - value, **NEAR
        )
    # the labels that were changed come first
    wrong = GROUP != LABELS
    # (classes overlap, and rows that the model gets wrong count as wrong here: 0.27 on these)
    assert found.score[wrong].mean() > found.score[~wrong].mean() + 0.2


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_is_its_rows_one_at_a_time(name: str) -> None:
    call = CALLS[name]
    whole = call(REFERENCE, QUERIES, GIVEN)
    for row in range(0, len(QUERIES), 5):
        alone = call(REFERENCE, QUERIES[row : row + 1], GIVEN[row : row + 1])
        for field in dataclasses.fields(Scores):
            one, other = getattr(alone, field.name), getattr(whole, field.name)
            if isinstance(one, Tensor) and one.is_floating_point():
                # a solver stops anywhere within its tolerance of 1e-6
                torch.testing.assert_close(one[0], other[row], rtol=1e-5, atol=1e-6)
            elif isinstance(one, Tensor) and field.name != "support":
                assert torch.equal(one[0], other[row]), field.name


def test_leaving_a_row_out_is_fitting_without_it() -> None:
    for row in (0, 3, 17):
        kept = torch.arange(120) != row
        again = reference_of(TRAIN[kept], LABELS[kept])
        label = GROUP[row : row + 1]
        for call in (novelty, trust):
            one = call(REFERENCE, TRAIN[row : row + 1], leave_out=torch.tensor([row]))
            other = call(again, TRAIN[row : row + 1])
            torch.testing.assert_close(one.score, other.score, rtol=1e-5, atol=1e-6)
            inside = call(REFERENCE, TRAIN[row : row + 1])
            assert int(label) < 0 or float(inside.score) == 0


def test_the_reference_distances_are_leave_one_out_scores() -> None:
    members = (GROUP >= 0).nonzero()[:, 0]
    found = novelty(REFERENCE, SPACE.extract(TRAIN[members]), leave_out=members)
    known = REFERENCE.distribution("novelty")
    torch.testing.assert_close(known.scores, found.upper, rtol=1e-5, atol=1e-6)
    assert torch.equal(known.labels, GROUP[members])
    found = trust(REFERENCE, SPACE.extract(TRAIN[members]), leave_out=members)
    known = REFERENCE.distribution("trust")
    torch.testing.assert_close(known.scores, found.upper, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_rows_that_fail_fail_alone(name: str) -> None:
    rows = QUERIES.clone()
    rows[2, 1], rows[5], rows[7, 0] = torch.nan, 0, torch.inf
    labels = GIVEN.clone()
    labels[9] = -1
    found, right = CALLS[name](REFERENCE, rows, labels), CALLS[name](REFERENCE, QUERIES, GIVEN)
    failed = {2: Status.NOT_FINITE, 7: Status.NOT_FINITE}
    if name == "novelty":
        failed[5] = Status.DEGENERATE
    if name.startswith("label"):
        failed[9] = Status.UNDECIDED
    for row, status in failed.items():
        assert found.status[row] == status
        for value in (found.score, found.lower, found.upper, found.value, found.p_value):
            assert value[row].isnan()
        assert found.verdicts[row] == f"not scored ({status.name})"
        assert (found.support[row] == -1).all()
    fine = [row for row in range(25) if row not in {*failed, 5}]
    torch.testing.assert_close(found.score[fine], right.score[fine], rtol=1e-5, atol=1e-6)
    assert found.take(fine).ok.all()


@pytest.mark.parametrize("name", CALLS)
def test_thresholds_levels_and_verdicts(name: str) -> None:
    call = CALLS[name]
    default = call(REFERENCE, QUERIES, GIVEN, level=0.2)
    assert ((default.p_value <= 0.2) == (default.verdict == 1)).all()
    assert default.direction == "larger is more suspicious"
    one = call(REFERENCE, QUERIES, GIVEN, threshold=float(default.score.median()))
    assert 10 <= (one.verdict == 1).sum() <= 13
    assert set(one.verdicts) <= {"usual", "suspicious", "open: within the bracket"}
    strict = call(REFERENCE, QUERIES, GIVEN, threshold=[10.0, -10.0, 10.0])
    assert torch.equal(strict.verdict == 1, strict.label == 1)
    few = call(REFERENCE, QUERIES, GIVEN, level=[0.2, 1e-3, 0.2])
    assert {few.verdicts[r] for r in range(25) if few.label[r] == 1} <= {
        "open: too few reference rows of this class"
    }
    pooled = call(REFERENCE, QUERIES, GIVEN, pooled=True)
    assert len(set(pooled.threshold.tolist())) == 1


def test_a_class_with_one_row_or_none() -> None:
    predicted = SPACE.extract(TRAIN).predicted
    lonely = torch.cat([TRAIN[predicted == 0], TRAIN[predicted == 1][:1]])
    found = reference_of(lonely, SPACE.extract(lonely).predicted)
    assert found.notes()["classes without rows"] == "2"
    assert found.notes()["classes with one row"] == "1"
    queries = torch.stack([TRAIN[predicted == k][-1] for k in range(3)])
    new = novelty(found, queries)
    assert new.status.tolist() == [0, 0, Status.INFEASIBLE]
    assert new.score[2] == torch.inf
    want = slow_novelty(lonely, SPACE.extract(lonely).predicted, queries[1], 1, out=False)
    assert float(new.score[1]) == pytest.approx(want, **NEAR)
    assert new.verdicts[1:] == ["open: too few reference rows of this class"] * 2
    assert new.p_value[2] == 1
    distrust = trust(found, queries)
    assert distrust.score[2] == 1
    assert distrust.other[2] in (0, 1)
    # the only row of a class, left out of it, has no hull to be compared with
    alone = novelty(found, lonely[-1:], leave_out=torch.tensor([len(lonely) - 1]))
    assert alone.score.tolist() == [torch.inf]
    sole = reference_of(TRAIN[predicted == 0], predicted[predicted == 0])
    assert trust(sole, queries[:2]).score.tolist() == [0, 1]
    one = reference_of(lonely[:1], predicted[predicted == 0][:1])
    neither = trust(one, lonely[:1], leave_out=torch.tensor([0]))
    assert neither.status.tolist() == [Status.UNDECIDED]
    assert neither.score.isnan().all()


def test_inside_both_hulls_is_half_trust() -> None:
    square = torch.tensor([[1.0, 1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0], [-1, -1, 0, 0]]).double()
    rows = torch.cat([square, square * 2])
    reference = Reference.fit(SPACE, [(rows, torch.tensor([0] * 4 + [1] * 4))], "given")
    found = trust(reference, torch.zeros(1, WIDTH))
    other = trust(reference, torch.tensor([[3.0, 3, 0, 0]]))
    if found.label[0] in (0, 1):
        assert found.score.tolist() == [0.5]
    assert (found.lower.tolist(), found.upper.tolist()) in (([0.0], [1.0]), ([1.0], [1.0]))
    assert other.score.shape == (1,)


@settings(deadline=None, max_examples=4)
@given(power=st.integers(-30, 30), seed=st.integers(0, 1000))
def test_scores_do_not_depend_on_the_unit_of_the_features(power: int, seed: int) -> None:
    scale = 2.0**power  # a power of two, so that scaling rounds nothing
    predicted = SPACE.extract(TRAIN).predicted
    rows, labels = rows_and_labels(6, seed)
    head = SPACE.head
    space = FeatureSpace(_scaled(head.weight / scale, head.bias))
    scaled = Reference.fit(space, [(TRAIN * scale, LABELS)], "given")
    plain = _GIVEN
    assert torch.equal(space.extract(TRAIN * scale).predicted, predicted)
    for name, call in CALLS.items():
        one, other = call(plain, rows, labels), call(scaled, rows * scale, labels)
        assert torch.equal(one.label, other.label), name
        torch.testing.assert_close(one.score, other.score, rtol=1e-5, atol=1 / 100, msg=name)


def _scaled(weight: Tensor, bias: Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.eval()


_GIVEN = reference_of(TRAIN, LABELS, labels="given")


@settings(deadline=None, max_examples=2)
@given(order=st.permutations(range(CLASSES)))
def test_scores_do_not_depend_on_the_numbers_of_the_classes(order: list[int]) -> None:
    new = torch.tensor(order)
    layer = _scaled(SPACE.head.weight[new.argsort()], SPACE.head.bias[new.argsort()])
    other = Reference.fit(FeatureSpace(layer), [(TRAIN, new[LABELS])], "given")
    for name, call in CALLS.items():
        one = call(_GIVEN, QUERIES, GIVEN)
        renamed = call(other, QUERIES, new[GIVEN])
        assert torch.equal(new[one.label], renamed.label)
        torch.testing.assert_close(one.score, renamed.score, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(one.p_value, renamed.p_value, rtol=0, atol=1e-12, msg=name)


@settings(deadline=None, max_examples=3)
@given(shift=st.lists(st.integers(-8, 8), min_size=WIDTH, max_size=WIDTH))
def test_trust_does_not_depend_on_the_origin_of_the_features(shift: list[int]) -> None:
    step = torch.tensor(shift, dtype=torch.float64)
    layer = _scaled(SPACE.head.weight, SPACE.head.bias - SPACE.head.weight @ step)
    moved = Reference.fit(FeatureSpace(layer), [(TRAIN + step, LABELS)], "given")
    for one, other in (
        (trust(_GIVEN, QUERIES), trust(moved, QUERIES + step)),
        (label_issues(_GIVEN, QUERIES, GIVEN), label_issues(moved, QUERIES + step, GIVEN)),
    ):
        torch.testing.assert_close(one.value, other.value, rtol=1e-5, atol=1e-5)


def test_the_normalised_distance_survives_enormous_and_tiny_rows() -> None:
    for scale in (1e-300, 1e300):
        found = novelty(REFERENCE, QUERIES * scale)
        head = SPACE.head.predict(QUERIES * scale)
        want = [
            slow_novelty(TRAIN, GROUP, z, int(k), out=False)
            for z, k in zip(QUERIES, head, strict=True)
        ]
        assert found.score.tolist() == pytest.approx(want, **NEAR)


BAD = [
    (lambda: novelty(REFERENCE, QUERIES[:, :3]), r"features: got shape \(25, 3\)"),
    (lambda: novelty(SPACE, QUERIES), "reference: got a FeatureSpace; wanted a Reference"),
    (lambda: novelty(REFERENCE, QUERIES, level=0), "level: got 0; wanted a number in"),
    (lambda: novelty(REFERENCE, QUERIES, level=[0.1, 0.1]), r"level: got shape \(2,\)"),
    (lambda: novelty(REFERENCE, QUERIES, level=[0.1, 0.1, 1.5]), "level: got numbers from 0.1"),
    (lambda: novelty(REFERENCE, QUERIES, threshold="high"), "threshold: got 'high'"),
    (lambda: novelty(REFERENCE, QUERIES, pooled=1), "pooled: got 1; wanted True or False"),
    (lambda: trust(REFERENCE, QUERIES, leave_out=[1]), "leave_out: got a list"),
    (lambda: label_issues(REFERENCE, QUERIES, GIVEN + 1), "labels: got labels from 1 to 3.*or -1"),
    (lambda: label_issues(REFERENCE, QUERIES, GIVEN[:4]), r"labels: got shape \(4,\)"),
    (lambda: label_issues(REFERENCE, QUERIES, GIVEN, kind="gap"), "kind: got 'gap'"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_say_what_to_do(call: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()  # type: ignore[operator]


def test_rows_of_another_model_are_refused() -> None:
    other = space_of_features(5)
    with pytest.raises(HeadMismatchError, match="another head, extractor or layer"):
        novelty(REFERENCE, other.extract(QUERIES))


def test_label_issues_need_labels() -> None:
    reference = Reference.fit(SPACE, [TRAIN], "predicted")
    assert novelty(reference, QUERIES).ok.all()
    with pytest.raises(ArgumentError, match="reference: got one without labels"):
        label_issues(reference, QUERIES, GIVEN)


def test_support_are_positions_in_the_training_data() -> None:
    found = novelty(REFERENCE, QUERIES)
    for row in range(25):
        ids = found.support[row][found.support[row] >= 0]
        assert (GROUP[ids] == found.label[row]).all()
    half = reference_of(TRAIN, LABELS, sample=60)
    support = novelty(half, QUERIES).support
    assert set(support[support >= 0].tolist()) <= set(half.ids.tolist())
    assert slow_distance(TRAIN[:0], TRAIN[0]) == float("inf")
