"""p-values, thresholds and verdicts: against loops, and uniform for exchangeable rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fsboundary.scores import novelty
from fsboundary.scores.conformal import Distribution, judge
from fsboundary.scores.formulas import mean_rank
from support.scores import reference_of, rows_and_labels, slow_p_value, slow_rank, space_of_features

numbers = st.lists(st.integers(0, 9).map(float), max_size=12)


@given(known=numbers, new=numbers, level=st.sampled_from([0.01, 0.05, 1 / 3, 0.5, 0.99]))
def test_p_values_and_thresholds_are_those_of_the_formula(
    known: list[float], new: list[float], level: float
) -> None:
    labels = torch.tensor([1] * len(known) + [0], dtype=torch.int64)
    found = Distribution(torch.tensor([*known, 4.0], dtype=torch.float64), labels)
    rows = torch.tensor(new, dtype=torch.float64)
    classes = torch.ones(len(new), dtype=torch.int64)
    p = found.p_values(rows, classes, pooled=False)
    assert p.tolist() == [slow_p_value(known, one) for one in new]
    threshold = found.thresholds(torch.full((2,), level), classes, pooled=False)
    assert ((p <= level) == (rows > threshold)).all()
    together = found.p_values(rows, classes, pooled=True)
    assert together.tolist() == [slow_p_value([*known, 4.0], one) for one in new]
    if known:
        rank = mean_rank(torch.tensor(known, dtype=torch.float64), rows)
        assert rank.tolist() == [slow_rank(known, one) for one in new]


def test_verdicts_follow_the_bracket() -> None:
    nan, inf = torch.nan, torch.inf
    score = torch.tensor([1.0, 3.0, 2.0, 2.5, nan, inf, 1.0])
    lower = torch.tensor([0.9, 2.9, 1.5, nan, nan, inf, 0.9])
    upper = torch.tensor([1.1, 3.1, 2.5, nan, nan, inf, 1.1])
    threshold = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0, inf, nan])
    assert judge(score, lower, upper, threshold).tolist() == [-1, 1, 0, 1, 0, 0, 0]


def test_p_values_of_exchangeable_rows_are_at_most_as_often_small_as_they_say() -> None:
    """Reference rows and new ones are drawn alike: P(p <= u) <= u, by the proof in docs/scores.md.

    References are independent of each other, the rows of one are not: the fraction may exceed u by
    three standard errors of the mean over 10 references, and no further.
    """
    space = space_of_features()
    p = []
    for seed in range(10):
        rows, _ = rows_and_labels(140, 100 + seed)
        predicted = space.extract(rows).predicted
        reference = reference_of(rows[:90], predicted[:90], seed=seed)
        p.append(novelty(reference, rows[90:]).p_value)
    found = torch.stack(p)
    for u in (0.1, 0.2, 0.4, 0.6, 0.8):
        fraction = (found <= u).double().mean(dim=1)
        assert fraction.mean() <= u + 3 * fraction.std() / 10**0.5
    # conservative, but not useless: new rows outside do get small p-values
    assert (found <= 0.2).double().mean() > 0.05


def test_p_values_on_a_line_are_conservative() -> None:
    """On a line the hull is an interval: 40,000 references of nine rows, by closed forms."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(40_000, 9, generator=g).double().sort(dim=1).values
    new = torch.randn(40_000, generator=g).double()
    distance = torch.maximum(rows[:, 0] - new, new - rows[:, 8]).clamp_min(0)
    # only the two ends lie outside the hull of the others
    left_out = torch.zeros_like(rows)
    left_out[:, 0], left_out[:, 8] = rows[:, 1] - rows[:, 0], rows[:, 8] - rows[:, 7]
    p = (1 + (left_out >= distance[:, None]).sum(dim=1)) / 10
    for u in range(1, 10):
        # three standard errors of a fraction of 40,000 are at most 0.0075
        assert (p <= u / 10 + 1e-9).double().mean() <= u / 10 + 0.0075
    assert (p <= 0.11).double().mean() > 0.05
