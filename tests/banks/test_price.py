"""Prices compared with a sort of all products, for several chunk sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsboundary.banks import FeatureBank, memory, store
from fsboundary.banks.store import k_smallest
from support.banks import oracle


@pytest.fixture(params=[1, 3, 7, 64, 10_000])
def _chunk_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_ROWS", request.param)
    monkeypatch.setattr(store, "_PRODUCTS", 5 * request.param)


@pytest.mark.usefixtures("_chunk_size")
@pytest.mark.parametrize("k", [1, 2, 8, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prices_and_ties_do_not_depend_on_the_chunks(k: int, dtype: torch.dtype) -> None:
    points = oracle.whole_numbers(70, 3)
    directions = oracle.whole_numbers(11, 3, seed=1).to(dtype)
    values, indices = FeatureBank(points).price(directions, k)
    wanted = oracle.price(points, directions, k)
    assert values.dtype == dtype
    assert torch.equal(values, wanted[0])
    assert torch.equal(indices, wanted[1])


@pytest.mark.usefixtures("_chunk_size")
@pytest.mark.parametrize("width", [None, 1, 4])
def test_excluded_rows_are_left_out(width: int | None) -> None:
    points = oracle.whole_numbers(70, 3)
    directions = oracle.whole_numbers(11, 3, seed=1)
    shape = (11,) if width is None else (11, width)
    exclude = torch.randint(-1, 70, shape, generator=torch.Generator().manual_seed(0))
    exclude[0] = -1
    values, indices = FeatureBank(points).price(directions, 70, exclude)
    wanted = oracle.price(points, directions, 70, exclude)
    assert torch.equal(values, wanted[0])
    assert torch.equal(indices, wanted[1])


def test_a_search_in_a_thousand_groups_equals_one_in_all_columns() -> None:
    points, directions = oracle.normal(40_001, 5), oracle.normal(6, 5, seed=1).double()
    values, indices = FeatureBank(points).price(directions, 9)
    wanted = oracle.price(points, directions, 9)
    torch.testing.assert_close(values, wanted[0], rtol=0, atol=1e-13)  # sums in another order
    assert torch.equal(indices, wanted[1])


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 3000),
    k=st.integers(1, 40),
    largest=st.integers(0, 60),
    holes=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150)
def test_the_smallest_of_each_row_with_ties_and_holes(
    rows: int, columns: int, k: int, largest: int, holes: float, seed: int
) -> None:
    values = oracle.whole_numbers(rows, columns, seed=seed, largest=largest)
    generator = torch.Generator().manual_seed(seed)
    values[torch.rand(rows, columns, generator=generator) < holes] = torch.inf
    k = min(k, columns)
    best, columns_found = k_smallest(values, k)
    wanted, order = values.sort(dim=1, stable=True)
    assert torch.equal(best, wanted[:, :k])
    valid = best < torch.inf
    assert torch.equal(columns_found[valid], order[:, :k][valid])


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 5),
    count=st.integers(0, 4),
    k=st.integers(1, 50),
    seed=st.integers(0, 2**31),
    double=st.booleans(),
)
@settings(max_examples=100)
def test_prices_of_any_size(n: int, d: int, count: int, k: int, seed: int, double: bool) -> None:
    points = oracle.whole_numbers(n, d, seed=seed)
    directions = oracle.whole_numbers(count, d, seed=seed + 1)
    directions = directions.double() if double else directions
    exclude = torch.randint(-1, n, (count, 2), generator=torch.Generator().manual_seed(seed))
    values, indices = FeatureBank(points).price(directions, k, exclude)
    wanted = oracle.price(points, directions, k, exclude)
    assert values.shape == indices.shape == (count, k)
    assert torch.equal(values, wanted[0])
    assert torch.equal(indices, wanted[1])


def test_missing_rows_are_padded() -> None:
    values, indices = FeatureBank(torch.ones(2, 3)).price(torch.ones(1, 3), 4)
    assert values.tolist() == [[3, 3, torch.inf, torch.inf]]
    assert indices.tolist() == [[0, 1, -1, -1]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_only_the_direction_that_is_not_finite_fails(bad: float) -> None:
    points, directions = oracle.normal(50, 3), oracle.normal(4, 3, seed=1)
    clean = FeatureBank(points).price(directions, 2)
    directions[2, 1] = bad
    values, indices = FeatureBank(points).price(directions, 2)
    assert torch.isnan(values[2]).all()
    assert indices[2].tolist() == [-1, -1]
    others = torch.tensor([0, 1, 3])
    assert torch.equal(values[others], clean[0][others])
    assert torch.equal(indices[others], clean[1][others])


def test_float64_prices_of_float32_points_are_exact_to_float64() -> None:
    points, directions = oracle.normal(200, 64), oracle.normal(5, 64, seed=1).double()
    values, _ = FeatureBank(points).price(directions, 1)
    wanted = oracle.price(points, directions, 1)[0]
    torch.testing.assert_close(values, wanted, rtol=0, atol=1e-13)  # sums in another order


def test_arguments_are_not_modified() -> None:
    directions, exclude = oracle.normal(4, 3), torch.tensor([0, -1, 2, 3])
    bank = FeatureBank(oracle.normal(5, 3))
    bank.price(directions, 2, exclude)
    assert torch.equal(directions, oracle.normal(4, 3))
    assert exclude.tolist() == [0, -1, 2, 3]
