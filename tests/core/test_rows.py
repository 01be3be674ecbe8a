"""Tables of rows, each helper against a plain loop over rows and entries."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsboundary.core.rows import (
    cat_ragged,
    finite_rows,
    pad_columns,
    scatter_rows,
    stack_ragged,
    write_rows,
)

WIDTHS = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def _equal(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert torch.equal(a.nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))


def _loop_fill(rows, width, padding, dtype):
    """Return lists of different lengths as one table, entry by entry."""
    table = torch.zeros((len(rows), width), dtype=dtype)
    for i, row in enumerate(rows):
        for s in range(width):
            table[i, s] = row[s] if s < len(row) else padding
    return table


@pytest.mark.parametrize(("dtype", "fill"), [(torch.float64, torch.nan), (torch.int64, -1)])
@given(st.lists(st.booleans(), max_size=8))
def test_scatter_rows_is_a_loop_over_rows(dtype, fill, mask):
    mask = torch.tensor(mask, dtype=torch.bool)
    values = torch.arange(1, 1 + 3 * int(mask.sum())).reshape(-1, 3).to(dtype)
    expected = torch.zeros((len(mask), 3), dtype=dtype)
    left = iter(values)
    for i, solved in enumerate(mask.tolist()):
        expected[i] = next(left) if solved else fill
    _equal(scatter_rows(values, mask, len(mask), fill), expected)
    _equal(scatter_rows(values, mask.nonzero()[:, 0], len(mask), fill), expected)


def test_scatter_rows_takes_rows_in_any_order_and_of_any_rank():
    rows = torch.tensor([3, 0])
    single = scatter_rows(torch.tensor([1.0, 2.0]), rows, 4)
    _equal(single, torch.tensor([2.0, torch.nan, torch.nan, 1.0]))
    images = torch.rand(2, 1, 2, 2)
    table = scatter_rows(images, rows, 4)
    assert torch.equal(table[rows], images)
    assert bool(table[1:3].isnan().all())


@given(WIDTHS, st.integers(0, 5))
def test_pad_columns_pads_or_cuts_every_row(widths, width):
    for length in widths:
        row = list(range(1, length + 1))
        expected = _loop_fill([row], width, -1, torch.int64)
        _equal(pad_columns(torch.tensor([row], dtype=torch.int64), width, -1), expected)


@pytest.mark.parametrize(("dtype", "padding"), [(torch.float64, torch.nan), (torch.int64, -1)])
@given(WIDTHS)
def test_stack_ragged_is_a_loop_over_entries(dtype, padding, widths):
    rows = [list(range(1, 1 + length)) for length in widths]
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    expected = _loop_fill(rows, max(widths), padding, dtype)
    _equal(stack_ragged(tensors, padding), expected)
    wide = _loop_fill(rows, max(4, *widths), padding, dtype)
    _equal(stack_ragged(tensors, padding, min_width=4), wide)


@given(WIDTHS, st.integers(0, 3))
def test_cat_ragged_is_a_loop_over_entries(widths, height):
    rows = [[list(range(1, 1 + length))] * height for length in widths]
    tables = [
        torch.tensor(part, dtype=torch.int64).reshape(height, length)
        for part, length in zip(rows, widths, strict=True)
    ]
    flat = [row for part in rows for row in part]
    _equal(cat_ragged(tables, -1), _loop_fill(flat, max(widths), -1, torch.int64))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_write_rows_widens_the_narrower_table_only(width):
    fields = {
        "distance": torch.full((4,), torch.nan),
        "support": torch.full((4, 2), -1),
        "weights": torch.zeros(4, 2),
    }
    untouched = fields["distance"]
    rows = torch.tensor([2, 0])
    values = {
        "distance": torch.tensor([5.0, 6.0]),
        "support": torch.arange(2 * width).reshape(2, width),
        "weights": torch.rand(2, width),
    }
    write_rows(fields, rows, values, padding={"support": -1, "weights": 0})
    assert fields["distance"] is untouched
    wide = max(2, width)
    for i, row in enumerate(rows.tolist()):
        assert fields["distance"][row] == values["distance"][i]
        for s in range(wide):
            inside = s < width
            assert fields["support"][row, s] == (values["support"][i, s] if inside else -1)
            assert fields["weights"][row, s] == (values["weights"][i, s] if inside else 0)
    for row in (1, 3):
        assert bool(fields["distance"][row].isnan())
        assert fields["support"][row].tolist() == [-1] * wide
        assert fields["weights"][row].tolist() == [0] * wide


def test_write_rows_refuses_other_shapes_and_names():
    fields = {"support": torch.full((2, 1), -1)}
    rows = torch.tensor([0])
    with pytest.raises(RuntimeError, match="shape mismatch"):
        write_rows(fields, rows, {"support": torch.zeros(1, 3, dtype=torch.int64)})
    with pytest.raises(KeyError):
        write_rows(fields, rows, {"weights": torch.zeros(1, 1)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_rows_are_those_without_nan_and_infinities(dtype: torch.dtype) -> None:
    """Also where the sum of a row overflows, and where infinities cancel."""
    most = torch.finfo(dtype).max
    rows = torch.tensor(
        [
            [1.0, 2.0, 3.0],
            [most, most, most],
            [-most, most, -most],
            [torch.inf, -torch.inf, 0.0],
            [torch.inf, 1.0, 1.0],
            [torch.nan, 1.0, 1.0],
            [0.0, most, -torch.inf],
        ],
        dtype=dtype,
    )
    wanted = torch.tensor([True, True, True, False, False, False, False])
    assert torch.equal(finite_rows(rows), wanted)
    assert bool(finite_rows(rows[:3]).all())
    assert bool(finite_rows(rows[:1]).all())
    assert finite_rows(rows[:0]).shape == (0,)
    assert bool(finite_rows(rows[:, :0]).all())
