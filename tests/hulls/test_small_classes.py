"""Classes of few points: projections on many hulls at once, compared with one hull at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fsboundary import FeatureBank, Status
from fsboundary.hulls import (
    class_hull_distances,
    class_hulls,
    hull_projection,
    leave_one_out_distances,
    nearest_hulls,
)
from fsboundary.hulls.class_hulls import count_generators
from support.hulls.checker import check_hulls
from support.hulls.exact import nearest_weights
from support.hulls.run_family import HULL_FAMILIES, draw_hulls

SIZES = torch.tensor([1, 2, 3, 5, 5, 5, 8, 40, 64, 65, 90])
"""Points per class: those above 64 are projected on one class at a time."""


def bank_of_sizes(d: int, seed: int = 0) -> tuple[FeatureBank, torch.Tensor]:
    """Return a bank with classes of :data:`SIZES` in mixed order, some rows without a label."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(len(SIZES)).repeat_interleave(SIZES) * 3, torch.tensor([-1])])
    labels = labels[torch.randperm(len(labels), generator=g)]
    points = torch.randn(len(labels), d, generator=g) + 0.3 * labels[:, None].cos()
    queries = torch.cat([torch.randn(5, d, generator=g), points[:3], points[3:5].mean(0)[None]])
    return FeatureBank(points, labels), queries


@pytest.mark.parametrize("name", HULL_FAMILIES)
def test_small_sets_are_projected_on_as_large_ones(name: str) -> None:
    """On every family of problems no claim is false, and what was certified stays certified."""
    for seed in range(3):
        case = draw_hulls(name, seed)
        if case.labels is not None or len(case.points) > class_hulls.SMALL_CLASS:
            continue
        zeros = {
            "labels": np.zeros(len(case.points), dtype=np.int64),
            "wanted": np.zeros(len(case.queries), dtype=np.int64),
        }
        wanted, labelled = case.project(), dataclasses.replace(case, **zeros)
        found = labelled.project()
        assert check_hulls(labelled, found) == []
        done = wanted["status"] == Status.CONVERGED
        assert (found["status"][done] == Status.CONVERGED).all()
        allowed = wanted["gap"][done] + found["gap"][done] + 1e-12 * wanted["distance"][done]
        assert (abs(found["distance"] - wanted["distance"])[done] <= allowed).all()


@pytest.mark.parametrize("d", [2, 30])
def test_each_class_gives_what_a_bank_of_only_this_class_gives(d: int) -> None:
    """Classes of all sizes, in one call; rows that are points, and inside of hulls."""
    bank, queries = bank_of_sizes(d)
    table = class_hull_distances(bank, queries)
    labels = bank.labels
    assert labels is not None
    for column, k in enumerate(labels[labels >= 0].unique().tolist()):
        rows = (labels == k).nonzero()[:, 0]
        alone = hull_projection(FeatureBank(bank.take(rows)), queries)
        assert table[:, column] == pytest.approx(alone.distance, rel=1e-6, abs=1e-12)
        inside = hull_projection(bank, queries, labels=torch.full((len(queries),), k))
        assert torch.equal(inside.membership, alone.membership)
        assert set(inside.support[inside.support >= 0].tolist()) <= set(rows.tolist())


def test_distances_of_few_points_are_those_in_fractions() -> None:
    """The exact projection, by enumeration in rational arithmetic."""
    bank, queries = bank_of_sizes(3)
    table, labels = class_hull_distances(bank, queries), bank.labels
    assert labels is not None
    for column, k in enumerate(labels[labels >= 0].unique().tolist()[:7]):
        points = bank.take((labels == k).nonzero()[:, 0]).numpy()
        for row, query in enumerate(queries.double().numpy()):
            weights = nearest_weights(points - query)
            exact = np.linalg.norm(weights.astype(float) @ (points - query))
            assert float(table[row, column]) == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_rows_are_left_out_of_small_classes_with_their_copies() -> None:
    """A copy in the same class is left out too, one in another class does not matter."""
    bank, _ = bank_of_sizes(6)
    labels, points = bank.labels, bank.features
    assert labels is not None
    five = (labels == 9).nonzero()[:, 0]
    points = torch.cat([points, points[five[:1]], points[five[1:2]]])
    labels = torch.cat([labels, torch.tensor([9, 12])])
    doubled = FeatureBank(points, labels)
    found = hull_projection(doubled, points[five], labels=labels[five], leave_out=five)
    assert (found.status == Status.CONVERGED).all()
    for row in range(5):
        others = points[five[torch.arange(5) != row]]
        alone = hull_projection(FeatureBank(others), points[five[row]][None])
        assert float(found.distance[row]) == pytest.approx(float(alone.distance), rel=1e-6)
        assert not bool((found.support[row] == five[row]).any())
    assert not bool((found.support[0] == len(labels) - 2).any())
    own = leave_one_out_distances(doubled, five, own_class=True)
    assert torch.equal(own.distance, found.distance)


def test_rows_that_are_not_finite_have_no_distance_to_any_class() -> None:
    """NaN in every column, and no other row is affected."""
    bank, queries = bank_of_sizes(4)
    clean = class_hull_distances(bank, queries)
    queries = torch.cat([queries, torch.full((1, 4), torch.nan)])
    table = class_hull_distances(bank, queries)
    assert table[-1].isnan().all()
    assert torch.equal(table[:-1], clean)
    assert nearest_hulls(bank, queries).status[-1] == Status.NOT_FINITE


def test_memory_of_many_small_classes_is_that_of_their_points() -> None:
    """Nothing d by d is prepared for a class, and no copy of a class is kept."""
    g = torch.Generator().manual_seed(0)
    bank = FeatureBank(torch.randn(200, 3000, generator=g), torch.arange(40).repeat(5))
    class_hull_distances(bank, torch.randn(3, 3000, generator=g))
    assert bank not in class_hulls._class_generators


def test_generators_are_counted_as_in_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    for classes in ([0, 0, 1, 3, 3, 3, -1], [-1, -1], [2]):
        bank = FeatureBank(torch.rand(len(classes), 2, generator=g), torch.tensor(classes))
        wanted = torch.arange(-1, 5)
        exclude = torch.randint(-1, len(classes), (len(wanted), 4), generator=g)
        count, excluded = count_generators(bank, wanted, exclude)
        for row, k in enumerate(wanted.tolist()):
            own = [n for n, label in enumerate(classes) if label == k >= 0]
            assert int(count[row]) == len(own)
            if k >= 0:
                assert int(excluded[row]) == sum(n in own for n in exclude[row].tolist())
        assert torch.equal(count_generators(bank, wanted, None)[0], count)
