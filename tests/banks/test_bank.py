"""Banks in memory: contents, selections and copies."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
import torch

from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.core.errors import ArgumentError
from fsboundary.core.protocols import PointSet
from support.banks.oracle import normal


def test_a_bank_is_a_point_set() -> None:
    bank = FeatureBank(normal(5, 3))
    assert isinstance(bank, PointSet)
    assert (len(bank), bank.num_features) == (5, 3)
    assert repr(bank) == "FeatureBank(n=5, d=3, memory)"


def test_contents_of_a_raw_bank() -> None:
    bank = FeatureBank(normal(5, 3))
    assert torch.equal(bank.features, normal(5, 3))
    assert bank.labels is None
    assert torch.equal(bank.ids, torch.arange(5))
    assert bank.info == BankInfo()
    assert bank.fingerprint == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_dtypes_are_kept_or_widened(given: torch.dtype, expected: torch.dtype) -> None:
    points = normal(5, 3).to(given)
    bank = FeatureBank(points)
    assert bank.features.dtype == expected
    assert torch.equal(bank.features, points.to(expected))


def test_a_bank_does_not_change_with_the_tensor_it_was_created_from() -> None:
    points, labels = normal(5, 3), torch.zeros(5, dtype=torch.int64)
    bank = FeatureBank(points, labels)
    points.zero_()
    labels.fill_(7)
    assert torch.equal(bank.features, normal(5, 3))
    assert bank.labels is not None
    assert not bank.labels.any()


def test_a_bank_keeps_no_graph() -> None:
    bank = FeatureBank(normal(5, 3).requires_grad_())
    values, _ = bank.price(normal(2, 3).requires_grad_(), 1)
    assert not bank.features.requires_grad
    assert not values.requires_grad


def test_pixel_banks_are_flattened_images() -> None:
    images = normal(4, 3, 2, 2)
    bank = FeatureBank(images.flatten(1))
    assert torch.equal(bank.take(torch.tensor([2]))[0], images[2].flatten().double())


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3), (2, 0), (1, 2, 2)])
def test_take_has_the_shape_of_the_indices(shape: tuple[int, ...]) -> None:
    points = normal(7, 3)
    indices = torch.randint(0, 7, shape, generator=torch.Generator().manual_seed(0))
    rows = FeatureBank(points).take(indices)
    assert rows.dtype == torch.float64
    assert torch.equal(rows, points.double()[indices])


def test_the_range_is_that_of_each_coordinate_and_a_copy() -> None:
    points = normal(300, 4)
    bank = FeatureBank(points)
    lower, upper = bank.range()
    assert torch.equal(lower, points.double().amin(0))
    assert torch.equal(upper, points.double().amax(0))
    lower.zero_()
    assert torch.equal(bank.range()[0], points.double().amin(0))


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (1, [1, 4]),
        ([0, 1], [0, 1, 3, 4]),
        (torch.tensor(2), [2]),
        (torch.tensor([2, 0, 2], dtype=torch.int32), [0, 2, 3]),
    ],
)
def test_a_subset_is_renumbered_and_knows_its_ids(labels: object, rows: list[int]) -> None:
    points = normal(5, 3)
    part = FeatureBank(points, [0, 1, 2, 0, 1]).subset(labels=labels)  # type: ignore[arg-type] # several types in turn
    assert len(part) == len(rows)
    assert torch.equal(part.ids, torch.tensor(rows))
    assert torch.equal(part.features, points[rows])
    assert torch.equal(part.take(torch.arange(len(rows))), points[rows].double())
    again = part.subset(labels=labels)  # type: ignore[arg-type] # as above
    assert torch.equal(again.ids, part.ids)


def test_a_subset_of_a_subset_keeps_the_first_ids() -> None:
    bank = FeatureBank(normal(5, 3), [0, 1, 2, 0, 1])
    part = bank.subset(labels=[1, 2]).subset(labels=1)
    assert torch.equal(part.ids, torch.tensor([1, 4]))
    assert part.labels is not None
    assert torch.equal(part.labels, torch.tensor([1, 1]))


def test_selected_rows_ascend_once_each_and_know_their_ids() -> None:
    points = normal(5, 3)
    part = FeatureBank(points, [0, 1, 2, 0, 1]).select(torch.tensor([4, 0, 4]))
    assert torch.equal(part.features, points[[0, 4]])
    assert torch.equal(part.ids, torch.tensor([0, 4]))
    assert part.labels is not None
    assert part.labels.tolist() == [0, 1]
    assert torch.equal(part.select(torch.tensor([1])).ids, torch.tensor([4]))
    with pytest.raises(ArgumentError, match=r"indices: got .*not empty"):
        part.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ArgumentError, match="0 to 1"):
        part.select(torch.tensor([2]))


def test_a_bank_can_be_a_weak_key_and_travel_to_another_process() -> None:
    bank = FeatureBank(normal(5, 3), [0, 1, 2, 0, 1])
    states = weakref.WeakKeyDictionary({bank: 1})
    copy = pickle.loads(pickle.dumps(bank))
    assert torch.equal(copy.features, bank.features)
    assert states[bank] == 1
    del bank
    gc.collect()
    assert not states
