"""Graphs, matrices and paths of classes against loops over the entries of the results."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations, pairwise
from statistics import median
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import fsboundary as fsb
from fsboundary import ArgumentError, Status, attr
from support.pictures import figure_of, legend
from support.public_calls import world

NAMES = ["ant", "bee", "cat"]


def lines(ax: Axes) -> dict[tuple[str, str], float]:
    """Return the width of each edge by the names at its ends."""
    nodes = [line for line in ax.lines if line.get_marker() == "o"]
    names = {tuple(line.get_xydata()[0].round(9)): k for k, line in enumerate(nodes)}  # type: ignore[index, union-attr]
    found = {}
    for line in ax.lines:
        ends = [tuple(end.round(9)) for end in line.get_xydata()]  # type: ignore[union-attr]
        if len(ends) == 2:
            i, j = (names[end] for end in ends)
            found[f"{i}", f"{j}"] = line.get_linewidth()
    return found


def test_edges_are_the_proved_facets() -> None:
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 2, generator=g, dtype=torch.float64)
    part = fsb.partition(fsb.LinearHead(weight, torch.randn(6, generator=g).double()))
    ax = fsb.plot.neighbours(part)
    wanted = {(str(i), str(j)) for i, j in combinations(range(6), 2) if bool(part.adjacency[i, j])}
    assert 0 < len(wanted) < 15
    assert lines(ax).keys() == wanted
    assert ax.get_title().startswith(f"{len(wanted)} of 15 pairs")
    few = fsb.plot.neighbours(part, classes=[4, 2, 0])
    assert few.get_title().startswith(
        f"{sum(int(part.adjacency[i, j]) for i, j in ((4, 2), (4, 0), (2, 0)))} of 3 pairs"
    )


def test_the_widest_facet_has_the_widest_line() -> None:
    w = world()
    part = fsb.partition(w.head, w.box)
    widths = lines(fsb.plot.neighbours(part))
    radii = {(str(i), str(j)): float(part.facet_radius[i, j]) for i, j in part.facet_pairs.tolist()}
    assert sorted(widths, key=widths.__getitem__) == sorted(radii, key=radii.__getitem__)


def test_numbers_on_the_edges_count_rows() -> None:
    w = world()
    part = fsb.partition(w.head, w.box)
    z = torch.cat([w.z, w.bank.features, torch.full((1, 6), torch.nan)])
    flips = fsb.flip_points(w.head, z)
    ax = fsb.plot.neighbours(part, flips, class_names=NAMES)
    counts = dict.fromkeys(map(tuple, part.facet_pairs.tolist()), 0)
    for source, target in zip(flips.source.tolist(), flips.target[:, 0].tolist(), strict=True):
        if source >= 0:
            counts[min(source, target), max(source, target)] += 1
    texts = sorted(t.get_text() for t in ax.texts if t.get_text().isdigit())
    assert texts == sorted(str(n) for n in counts.values() if n)
    assert {t.get_text() for t in ax.texts} >= set(NAMES)
    assert f"{len(z) - 1} in all, 1 row left out" in ax.get_title()


def cells(ax: Axes) -> dict[tuple[int, int], str]:
    """Return the text of each cell by row and column."""
    return {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts
    }


def test_cells_are_medians_of_a_loop() -> None:
    w = world()
    flips = fsb.flip_points(w.head, w.bank.features, "all")
    fields = flips.to_dict()
    fields["distance"] = fields["distance"].clone()
    fields["status"] = fields["status"].clone()
    fields["distance"][3, 0], fields["status"][3, 0] = torch.nan, int(Status.MAX_STEPS)
    fields["distance"][4] = torch.inf
    flips = fsb.FlipPoints(**fields)
    ax = fsb.plot.class_matrix(flips, class_names=NAMES)
    found = cells(ax)
    compared = 0
    for i in range(3):
        for j in range(3):
            values = [
                float(flips.distance[row, column])
                for row in range(len(flips.source))
                for column in range(2)
                if int(flips.source[row]) == i
                and int(flips.target[row, column]) == j
                and bool(flips.ok[row, column])
            ]
            if not values:
                assert found[i, j] == ""
            elif math.isinf(median(values)):
                assert found[i, j] == "∞"
            else:
                # three digits are written
                assert float(found[i, j]) == pytest.approx(median(values), rel=6e-3)
                compared += 1
    assert compared > 1
    assert "1 without a distance left out" in ax.get_title()


def test_separations_are_a_symmetric_matrix() -> None:
    g = torch.Generator().manual_seed(0)
    points = torch.rand(30, 4, generator=g) + 2.0 * (torch.arange(30) % 3)[:, None]
    pairs = torch.combinations(torch.arange(3))
    found = fsb.hull_separation(fsb.FeatureBank(points, torch.arange(30) % 3), *pairs.T)
    texts = cells(fsb.plot.class_matrix(found))
    for (i, j), distance in zip(pairs.tolist(), found.distance.tolist(), strict=True):
        assert texts[i, j] == texts[j, i]
        assert float(texts[i, j]) == pytest.approx(distance, rel=6e-3)


def test_segments_are_the_classes_on_the_path() -> None:
    head = fsb.LinearHead(torch.randn(3, 5, generator=torch.Generator().manual_seed(2)), None)
    g = torch.Generator().manual_seed(3)
    start, end = torch.randn(6, 5, generator=g), torch.randn(6, 5, generator=g)
    start[4] = torch.nan
    path = fsb.class_path(head, start, end)
    ax = fsb.plot.class_path(path, class_names=NAMES)
    assert ax.get_title() == "5 paths, 1 row left out (1 NOT_FINITE)"
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"row {r}" for r in (0, 1, 2, 3, 5)]
    colour_of: dict[str, int] = {}
    for bar in ax.patches:
        left, wide = bar.get_x(), bar.get_width()  # type: ignore[attr-defined]
        row = [0, 1, 2, 3, 5][round(bar.get_y() + bar.get_height() / 2)]  # type: ignore[attr-defined]
        t = torch.tensor([left + 0.01 * wide, left + 0.5 * wide, left + 0.99 * wide]).double()
        spots = start[row].double() + t[:, None] * (end[row] - start[row]).double()
        [k] = head.predict(spots).unique().tolist()
        assert colour_of.setdefault(to_hex(bar.get_facecolor()), k) == k
    for row in range(5):
        mine = [b for b in ax.patches if round(b.get_y() + b.get_height() / 2) == row]  # type: ignore[attr-defined]
        ends = [(b.get_x(), b.get_x() + b.get_width()) for b in mine]  # type: ignore[attr-defined]
        assert ends[0][0] == 0
        assert ends[-1][1] == pytest.approx(1)
        assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(ends))
    assert legend(ax) == [NAMES[k] for k in sorted(set(colour_of.values()))]


def test_curves_of_a_comparison_are_means_of_usable_images() -> None:
    w = world()
    given = {"one": torch.rand(4, 1, 4, 4), "flat": torch.ones(4, 1, 4, 4)}
    given["one"][2] = torch.nan
    found = attr.compare(w.images, given, space=w.space, flips=w.flips, steps=3, resamples=9)
    figure = fsb.plot.comparison(found)
    assert [ax.get_title() for ax in figure.axes[: len(found.metrics)]] == list(found.metrics)
    for ax, values in zip(figure.axes[-2:], (found.deletion, found.reach), strict=True):
        for index, name in enumerate(found.methods):
            rows = [v for v in values[index].tolist() if not any(map(math.isnan, v))]
            assert f"{name} ({len(rows)} of 4)" in legend(ax)
            curve = ax.lines[1 + index].get_ydata()
            wanted = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            if rows:
                assert list(curve) == pytest.approx(wanted)  # type: ignore[arg-type]
    texts = cells(figure.axes[0])
    for i in range(len(found.methods)):
        for j in range(len(found.methods)):
            mean = float(found.mean[0, i, j])
            assert texts[i, j] == ("" if math.isnan(mean) else f"{mean:.2f}")


def test_long_names_leave_room_for_the_curves() -> None:
    w = world()
    given = {f"a very long name of an attribution, number {k}": w.images for k in range(5)}
    found = attr.compare(w.images, given, space=w.space, flips=w.flips, steps=3, resamples=9)
    figure_of(fsb.plot.comparison(found)).draw_without_rendering()  # warns where there is none


PART = fsb.partition(fsb.LinearHead(torch.eye(3), None))
FLIPS = fsb.flip_points(fsb.LinearHead(torch.eye(3), None), torch.rand(4, 3), "all")
PATH = fsb.class_path(fsb.LinearHead(torch.eye(3), None), torch.eye(3), torch.eye(3).flip(0))
MANY = dataclasses.replace(
    PATH, classes=torch.where(PATH.classes >= 0, PATH.classes + 30, PATH.classes)
)
WRONG: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "no partition": (fsb.plot.neighbours, (FLIPS,), {}, "wanted a Partition"),
    "no flips": (fsb.plot.neighbours, (PART, PART), {}, "wanted FlipPoints"),
    "two targets": (fsb.plot.neighbours, (PART, FLIPS), {}, "got 2 targets per row; wanted 1"),
    "twice": (fsb.plot.neighbours, (PART,), {"classes": [0, 0]}, "different classes"),
    "none": (fsb.plot.neighbours, (PART,), {"classes": []}, "1 to 20 different"),
    "beyond": (fsb.plot.neighbours, (PART,), {"classes": [3]}, "from 0 to 2"),
    "text": (fsb.plot.neighbours, (PART,), {"classes": "all"}, "classes: got 'all'"),
    "no matrix": (fsb.plot.class_matrix, (PART,), {}, "FlipPoints or a HullSeparation"),
    "few names": (fsb.plot.class_matrix, (FLIPS,), {"class_names": ["a"]}, "at least 3 names"),
    "no rows": (fsb.plot.class_matrix, (FLIPS.take([]),), {}, "got no classes"),
    "no path": (fsb.plot.class_path, (PART,), {}, "wanted a ClassPath"),
    "rows": (fsb.plot.class_path, (PATH,), {"rows": [3]}, "from 0 to 2"),
    "no row": (fsb.plot.class_path, (PATH,), {"rows": []}, "1 to 24 rows"),
    "a word": (fsb.plot.class_path, (PATH,), {"rows": "all"}, "a list of rows"),
    "names": (fsb.plot.class_path, (PATH,), {"class_names": ["a", "b"]}, "at least 3 names"),
    "no comparison": (fsb.plot.comparison, (PATH,), {}, "wanted a Comparison"),
    "style": (fsb.plot.class_path, (PATH,), {"style": "x"}, "style"),
}


@pytest.mark.parametrize("case", WRONG)
def test_malformed_arguments_raise(case: str) -> None:
    function, arguments, options, message = WRONG[case]
    with pytest.raises(ArgumentError, match=message):
        function(*arguments, **options)


def test_more_than_twenty_classes_need_a_choice() -> None:
    head = fsb.LinearHead(torch.randn(25, 6, generator=torch.Generator().manual_seed(0)), None)
    flips = fsb.flip_points(head, torch.rand(3, 6), "all")
    with pytest.raises(ArgumentError, match="with 25 classes; wanted 1 to 20"):
        fsb.plot.class_matrix(flips)
    ax = fsb.plot.class_matrix(flips, classes=[24, 3])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["24", "3"]
    picture = fsb.plot.class_path(MANY, class_names=[f"c{k}" for k in range(40)])
    figure_of(picture).draw_without_rendering()


def test_a_result_without_rows_is_drawn_as_such() -> None:
    empty = fsb.class_path(fsb.LinearHead(torch.eye(3), None), torch.zeros(0, 3), torch.zeros(0, 3))
    assert fsb.plot.class_path(empty).get_title() == "0 paths"
