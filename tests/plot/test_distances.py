"""Robustness curves and histograms against loops over the rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.plot.distances import shares_above
from fsboundary.plot.values import median, row_values
from support.pictures import figure_of, legend
from support.public_calls import world


def heights(ax: Axes, r: float, line: int = 0) -> float:
    """Return the height of a drawn step function at `r`."""
    x, y = ax.lines[line].get_data()
    return float(np.asarray(y)[int(np.searchsorted(np.asarray(x), r, side="right")) - 1])


def make_distances(seed: int, rows: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, generator=g, dtype=torch.float64)
    # equal distances, a distance of 0, and rows from which no other class can be reached
    values[: rows // 4] = values[rows // 4]
    values[-2], values[-1] = 0.0, torch.inf
    return values


@pytest.mark.parametrize("rows", [3, 4, 50, 501])
def test_the_curve_is_the_share_of_rows_beyond_r(rows: int) -> None:
    values = make_distances(rows, rows)
    ax = fsb.plot.robustness_curve(values)
    between = (torch.linspace(0.0, 1.0, 97, dtype=torch.float64)).tolist()
    for r in [*values[values.isfinite()].tolist(), *between]:
        wanted = sum(value > r for value in values.tolist()) / rows
        assert heights(ax, r) == pytest.approx(wanted, abs=1e-12)
    assert heights(ax, 0.0) == pytest.approx((rows - 1) / rows)
    assert ax.get_xlim()[1] > float(values[:-1].max())


@pytest.mark.parametrize("rows", [1, 7, 200])
def test_the_band_is_that_of_scipy(rows: int) -> None:
    values = torch.arange(1, rows + 1, dtype=torch.float64)
    ax = fsb.plot.robustness_curve(values)
    [band] = ax.collections
    corners = band.get_paths()[0].vertices
    for r in range(rows + 1):
        here = corners[np.isclose(corners[:, 0], r)][:, 1]
        interval = binomtest(rows - r, rows).proportion_ci(method="wilson")
        for limit in (interval.low, interval.high):
            # the band is a path of the drawn precision: its corners are float64
            assert np.abs(here - limit).min() < 1e-9
    assert not fsb.plot.robustness_curve(values, interval=False).collections


def test_rows_that_failed_are_left_out_and_counted() -> None:
    w = world()
    z = torch.cat([w.z, torch.full((2, 6), torch.nan)])
    flips = fsb.flip_points(w.head, z)
    ax = fsb.plot.robustness_curve({"net": flips, "balls": fsb.guaranteed_balls(w.head, w.z)})
    assert legend(ax) == ["net, 4 rows, 2 rows left out (2 NOT_FINITE)", "balls, 4 rows"]
    assert heights(ax, -0.0) == 1.0
    only = fsb.plot.robustness_curve({"net": fsb.flip_points(w.head, z[4:])})
    assert legend(only) == ["net, 0 rows, 2 rows left out (2 NOT_FINITE)"]
    assert not [line for line in only.lines if len(np.asarray(line.get_xdata()))]


def test_curves_differ_without_colours() -> None:
    ax = fsb.plot.robustness_curve({str(k): torch.rand(5) for k in range(12)})
    looks = {(str(line.get_color()), line.get_linestyle()) for line in ax.lines}
    dashes = {str(line._dash_pattern) for line in ax.lines}  # type: ignore[attr-defined]
    assert len(dashes) == 4
    assert len({(str(line.get_color()), str(line._dash_pattern)) for line in ax.lines}) == 12  # type: ignore[attr-defined]
    assert len(looks) >= 6


def test_shares_of_nothing_and_of_infinity() -> None:
    r, share = shares_above(torch.tensor([torch.inf, torch.inf], dtype=torch.float64))
    assert (r.tolist(), share.tolist()) == ([0.0], [1.0])
    r, share = shares_above(torch.zeros(0, dtype=torch.float64))
    assert (r.tolist(), share.tolist()) == ([0.0], [0.0])


def test_of_several_targets_the_nearest_counts() -> None:
    w = world()
    every, nearest = fsb.flip_points(w.head, w.z, "all"), fsb.flip_points(w.head, w.z)
    found = row_values("result", every)
    torch.testing.assert_close(found.value, nearest.distance[:, 0], rtol=1e-9, atol=0)
    # the own class does not count, a target that failed makes the row unknown
    own = torch.stack([every.source, every.target[:, 0]], dim=1)
    one = fsb.flip_points(w.head, w.z, own)
    torch.testing.assert_close(row_values("result", one).value, one.distance[:, 1])
    alone = row_values("result", fsb.flip_points(w.head, w.z, every.source))
    assert bool(alone.value.isnan().all())
    assert alone.status.tolist() == [int(Status.TARGET_IS_SOURCE)] * 4
    fields = every.to_dict()
    fields["distance"][2, 1], fields["status"][2, 1] = torch.nan, int(Status.MAX_STEPS)
    values = row_values("result", fsb.FlipPoints(**fields))
    assert values.known.tolist() == [True, True, False, True]
    assert values.status.tolist()[2] == int(Status.MAX_STEPS)


def test_every_kind_of_result_has_a_quantity() -> None:
    w = world()
    projection = fsb.hull_projection(w.bank, w.far)
    assert row_values("r", projection).label == "distance to the hull, feature units"
    balls = fsb.guaranteed_balls(w.head, w.z, "linf")
    assert row_values("r", balls).label == "guaranteed radius, feature units (largest difference)"
    assert row_values("r", w.flips).label == "distance to the flip image, pixel units"
    assert row_values("r", torch.rand(3)).label == "distance"
    labels = fsb.label_flips(w.labels_head, w.z, "all")
    assert row_values("r", labels).value.tolist() == labels.distance.amin(dim=1).tolist()
    for one in (
        fsb.nearest_hulls(w.bank, w.far),
        fsb.leave_one_out_distances(w.bank, 9),
        fsb.label_balls(w.labels_head, w.z),
        fsb.tie_points(w.head, w.z, torch.tensor([0, 1, 2])),
        fsb.largest_ties(w.head, w.z),
    ):
        assert row_values("r", one).value.ndim == 1


def bars(ax: Axes) -> list[list[float]]:
    return [[bar.get_height() for bar in group] for group in ax.containers]  # type: ignore[attr-defined]


def test_bars_are_counts_of_a_loop() -> None:
    values = make_distances(1, 60)
    values[5] = torch.nan
    wrong = torch.arange(60) % 7 == 0
    ax = fsb.plot.distances(values, wrong=wrong, bins=6)
    assert isinstance(ax, Axes)
    top = max(v for v in values.tolist() if math.isfinite(v))
    wanted = [[0.0] * 6, [0.0] * 6]
    for value, marked in zip(values.tolist(), wrong.tolist(), strict=True):
        if math.isfinite(value):
            wanted[marked][min(int(6 * value / top), 5)] += 1
    assert bars(ax) == wanted
    assert ax.get_title() == "58 rows, 1 at +inf, 1 row left out"
    known = sorted(v for v in values.tolist() if not math.isnan(v))
    assert ax.lines[0].get_xdata()[0] == pytest.approx(known[29])  # type: ignore[index]
    assert legend(ax) == ["other rows", "marked as wrong"]


def test_a_panel_per_class() -> None:
    values = make_distances(2, 90)
    by = torch.arange(90) % 4 - 1  # every fourth row has no class
    figure = fsb.plot.distances_by_class(values, by, class_names=["a", "b", "c"])
    assert isinstance(figure, Figure)
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["a", "b", "c"]
    for k, ax in enumerate(figure.axes):
        finite = values[(by == k) & values.isfinite()]
        assert sum(map(sum, bars(ax))) == len(finite)
        assert ax.get_ylim() == figure.axes[0].get_ylim()
        assert ax.get_xlim() == figure.axes[0].get_xlim()
    assert "23 rows without a class" in figure.get_suptitle()


def test_of_many_classes_the_largest_are_drawn() -> None:
    by = torch.cat([torch.arange(30), torch.arange(5, 25)])
    figure = fsb.plot.distances_by_class(torch.rand(50), by)
    assert [ax.get_title().split("\n")[0] for ax in figure_of(figure).axes] == [
        str(k) for k in range(5, 25)
    ]
    assert figure_of(figure).get_suptitle() == "40 rows, 10 smaller classes"


@pytest.mark.parametrize("values", [[], [math.nan] * 3, [math.inf] * 2, [0.0], [1e-300, 1e300]])
def test_few_and_extreme_values(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    for picture in (
        fsb.plot.distances(tensor),
        fsb.plot.distances_by_class(tensor, torch.zeros(len(values), dtype=torch.int64)),
        fsb.plot.robustness_curve(tensor),
    ):
        figure_of(picture).draw_without_rendering()


def test_medians_take_infinity_for_a_number() -> None:
    assert median(torch.tensor([1.0, math.inf, 3.0])) == 3.0
    assert median(torch.tensor([1.0, math.inf])) == math.inf
    assert math.isnan(median(torch.zeros(0)))


FLIPS = fsb.flip_points(fsb.LinearHead(torch.eye(3), None), torch.rand(4, 3))
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a result without distances": ("both", {"result": fsb.Status.CONVERGED}, "FlipPoints"),
    "two columns": ("both", {"result": torch.rand(3, 2)}, r"wanted a float tensor \(B,\)"),
    "integers": ("both", {"result": torch.arange(3)}, "call .float"),
    "no results": ("curve", {"result": {}}, "got 0 results; wanted 1 to 12"),
    "thirteen": ("curve", {"result": dict.fromkeys("abcdefghijklm", FLIPS)}, "13 results"),
    "numbers as names": ("curve", {"result": {1: FLIPS}}, "names as text"),
    "one of several": ("curve", {"result": {"a": None}}, r"results\['a'\]: got None"),
    "interval": ("curve", {"interval": 0.95}, "True or False"),
    "no targets": ("both", {"result": fsb.flip_points(
        fsb.LinearHead(torch.eye(3), None), torch.rand(2, 3), torch.zeros(2, 0).long())},
        "no targets"),
    "wrong as numbers": ("histogram", {"wrong": torch.zeros(4)}, "dtype torch.float32"),
    "wrong of other rows": ("histogram", {"wrong": torch.zeros(3).bool()}, r"shape \(3,\)"),
    "bins": ("histogram", {"bins": 0}, "from 1 to 1000"),
    "labels of other rows": ("classes", {"labels": [0, 1]}, r"labels: got shape \(2,\)"),
    "labels below": ("classes", {"labels": [0, 1, -2, 0]}, "-1 for no label"),
    "few names": ("classes", {"class_names": ["a"]}, "classes up to 2"),
    "wrong of other rows, by class": ("classes", {"wrong": torch.zeros(3).bool()}, "shape"),
    "style": ("both", {"style": "blue"}, "style"),
    "ax": ("both", {"ax": 3}, "ax: got 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_malformed_arguments_raise(case: str) -> None:
    kind, change, message = WRONG[case]
    arguments = {"result": FLIPS} | change
    result = arguments.pop("result")
    calls: dict[str, Any] = {"curve": fsb.plot.robustness_curve, "histogram": fsb.plot.distances}
    if kind == "classes":
        calls[kind] = fsb.plot.distances_by_class
        arguments = {"labels": [0, 1, 2, 0]} | arguments
    for call in calls.values() if kind == "both" else [calls[kind]]:
        with pytest.raises(ArgumentError, match=message):
            call(result, **arguments)


def test_units_are_not_mixed() -> None:
    w = world()
    with pytest.raises(ArgumentError, match="feature units and pixel units; wanted results of one"):
        fsb.plot.robustness_curve({"a": w.flips, "b": fsb.guaranteed_balls(w.head, w.z)})
