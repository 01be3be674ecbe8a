"""Every result class prints in a few lines, has a length and gives its rows."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError
from fsboundary.core.results import Table
from fsboundary.core.results.base.rows import dimensions
from support.results import CLASSES, assert_equal, example, values

TABLES = [kind for kind in CLASSES if kind._row_dimension()]
SCALARS = [kind for kind in CLASSES if not kind._row_dimension()]

OTHERS = {"GuaranteedHulls", "LinearHead", "Triage", "TwoSpaces"}
"""Classes that public functions return and that are no tables of tensors."""


def rows_of(result: Any, index: Any) -> dict[str, Any]:
    """Return the fields at some rows, by the plain rule: each dimension of rows is indexed."""
    axis = type(result)._row_dimension()
    found = values(result)
    for name, names in dimensions(type(result)).items():
        for at, one in enumerate(names):
            if one == axis and name != "facet_pairs":
                found[name] = found[name].index_select(at, index)
    return found


def test_all_results_of_public_functions_are_among_the_classes() -> None:
    places = [fsb, fsb.pixels, fsb.scores, fsb.analysis, fsb.attr]
    public = [getattr(place, name) for place in places for name in place.__all__]
    # by name: a class with slots replaces one without, which may live on
    every = {kind.__name__ for kind in Table.__subclasses__()} - {"Result"}
    every |= {kind.__name__ for kind in fsb.core.results.Result.__subclasses__()}
    assert every == {kind.__name__ for kind in CLASSES}
    assert len(every) > 30
    functions = [thing for thing in public if inspect.isfunction(thing)]
    returned = {str(inspect.signature(one).return_annotation).split("[")[0] for one in functions}
    classes = {thing.__name__ for thing in public if inspect.isclass(thing)}
    assert returned & classes <= every | OTHERS
    assert len(returned & every) > 25


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_a_result_prints_in_a_few_lines(kind: type[Any], rows: int) -> None:
    result = example(kind, rows)
    text = repr(result)
    assert text.startswith(kind.__name__)
    assert len(text.splitlines()) < 12
    assert all(len(line) <= 100 and line.isprintable() for line in text.splitlines())
    page = result._repr_html_()
    assert page.startswith("<table>")
    assert "<i>" not in page
    assert "<b>" not in page
    assert all(name in page for name in dimensions(kind))


def test_the_text_of_a_result() -> None:
    flips = example(fsb.FlipPoints, 2)
    assert repr(flips).splitlines() == [
        "FlipPoints(B=2, T=2, d=3, S=2)",
        "  status: 1 CONVERGED, 1 INFEASIBLE, 1 UNBOUNDED, 1 DUPLICATE",
        "  distance: -0 to 0.1, median -0, 1 inf, 1 NaN",
        "  lower_bound: -0 to 0.1, median -0, 1 inf, 1 NaN",
        "  gap: -0 to 0.1, median -0, 1 inf, 1 NaN",
        "  violation: -0 to 0.1, median -0, 1 inf, 1 NaN",
        "  source: 0 to 3",
        "  target: 0 to 4611686018427387904, 1 x -1",
        "  also: points, active, multipliers, steps",
    ]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "index",
    [
        2,
        -1,
        np.int64(3),
        torch.tensor(1),
        slice(1, 4),
        slice(None, None, -2),
        [0, 3],
        [],
        range(1, 3),
        np.array([4, 2]),
        [True, False, True, True, False],
        torch.tensor([False] * 4 + [True]),
        torch.zeros(0, dtype=torch.int32),
    ],
    ids=str,
)
def test_an_index_gives_the_rows_of_each_field(kind: type[Any], index: Any) -> None:
    result = example(kind)
    wanted = torch.arange(5)[copy.copy(_as_torch(index))].reshape(-1)
    found = result[index]
    for other in (result.take(index), copy.deepcopy(result)[index]):
        assert_equal(other, found)
    assert len(found) == len(wanted)
    fields = rows_of(result, wanted)
    if kind is fsb.Partition:
        # pairs are numbered anew: tests/regions/test_partition.py
        fields |= {n: getattr(found, n) for n in ("facet_pairs", "facet_centre")}
    axis = kind._row_dimension()
    if axis in fields:
        fields[axis] = tuple(fields[axis][row] for row in wanted.tolist())
    assert_equal(found, kind(**fields))


def _as_torch(index: Any) -> Any:
    if isinstance(index, slice):
        return torch.tensor(list(range(5)[index]))
    if isinstance(index, range | list):
        return torch.tensor(list(index), dtype=None if len(index) else torch.int64)
    return index.long() if isinstance(index, torch.Tensor) and index.dtype != torch.bool else index


@pytest.mark.parametrize("kind", TABLES)
def test_rows_one_by_one_are_the_result(kind: type[Any]) -> None:
    result = example(kind)
    assert len(result) == 5
    rows = list(result)
    assert [len(row) for row in rows] == [1] * 5
    for number, row in enumerate(rows):
        assert_equal(row, result[number])
    assert bool(result)
    assert bool(result[:0])
    assert len(result[:0]) == 0


@pytest.mark.parametrize("kind", SCALARS)
def test_a_result_of_one_entry_has_no_rows(kind: type[Any]) -> None:
    result = example(kind)
    assert bool(result)
    for use in (len, list, lambda r: r[0]):
        with pytest.raises(TypeError, match="has one entry and no rows"):
            use(result)


@pytest.mark.parametrize("index", [5, -6, [0, 5], torch.tensor([-6])])
def test_a_row_that_does_not_exist(index: Any) -> None:
    with pytest.raises(IndexError, match="of a result with 5 rows"):
        example(fsb.FlipPoints)[index]


@pytest.mark.parametrize(
    ("index", "got"),
    [
        ((0, 1), r"\(0, 1\)"),
        (True, "True"),
        (1.0, "1.0"),
        ("distance", "'distance'"),
        (None, "None"),
        (..., "Ellipsis"),
        ([0.5], r"\[0.5\]"),
        (torch.tensor([0.5]), "dtype torch.float32"),
        (torch.zeros(2, 2, dtype=torch.int64), r"shape \(2, 2\)"),
        ([True], "a mask of 1"),
    ],
)
def test_an_index_of_another_kind_is_refused(index: Any, got: str) -> None:
    with pytest.raises(ArgumentError, match=f"index: got {got}; wanted a row from 0 to 4, a slice"):
        example(fsb.FlipPoints)[index]


def test_objects_that_are_no_results_print_in_a_line_or_a_few() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    space = fsb.FeatureSpace(model)
    assert repr(space) == "FeatureSpace(model='Sequential', head=None, extractor=HeadInput())"
    images = torch.rand(6, 1, 2, 2)
    found = space.extract(images)
    assert "head=LinearHead(K=3, d=4, domain=Domain.unbounded())" in repr(space)
    bank = fsb.FeatureBank(found.features, torch.arange(6) % 3)
    assert repr(bank) == "FeatureBank(n=6, d=4, memory)"
    hulls = fsb.guaranteed_hulls(space.head, bank)
    assert repr(hulls).startswith("GuaranteedHulls(K=3, d=4)\n  status: ")
    reference = fsb.Reference.fit(space, [(images, torch.arange(6) % 3)], "given")
    assert repr(reference) == "Reference(n=6, K=3, d=4)"
