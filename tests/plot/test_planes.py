"""Planes: polygons, disc, domain and points against the head itself, in the drawn coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle, PathPatch, Polygon
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, Domain, FeatureBank, LinearHead, StatusError
from support.pictures import legend, saved

NAMES = [f"class {k}" for k in range(9)]


def make_head(seed: int, classes: int, width: int, domain: str) -> LinearHead:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, width, generator=g, dtype=torch.float64)
    bias = 0.2 * torch.randn(classes, generator=g, dtype=torch.float64)
    limits = {
        "unbounded": Domain.unbounded(),
        "nonnegative": Domain.nonnegative(),
        "box": Domain.box(torch.zeros(width), torch.linspace(0.7, 2.0, width)),
    }
    return LinearHead(weight, bias, limits[domain])


def make_rows(seed: int, rows: int, width: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 0.7 * torch.rand(rows, width, generator=g, dtype=torch.float64)


def frame(points: Tensor) -> Tensor:
    """Return the axes (2,d) of the plane through points (3,d), by NumPy's QR."""
    q, r = np.linalg.qr((points[1:] - points[0]).numpy().T)
    axes = torch.from_numpy(q * np.sign(np.diag(r))).T
    return axes


def polygons(ax: Axes) -> list[Polygon]:
    """Return the filled polygons of the regions."""
    return [p for p in ax.patches if isinstance(p, Polygon) and p.get_fill()]


def grid(ax: Axes, side: int = 61) -> Tensor:
    """Return points of a fine grid of the window, between its edges."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    step = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(left + step * (right - left), bottom + step * (top - bottom))


@pytest.mark.parametrize("domain", ["unbounded", "nonnegative", "box"])
@pytest.mark.parametrize(("classes", "width"), [(2, 2), (3, 2), (5, 3), (9, 40)])
def test_polygons_are_the_predictions_on_a_fine_grid(classes: int, width: int, domain: str) -> None:
    head = make_head(classes + width, classes, width, domain)
    points = make_rows(classes, 3, width)
    ax = fsb.plot.plane(head, points)
    spots = grid(ax)
    features = points[0] + spots @ frame(points)
    top = head.logits(features).sort(dim=1).values
    clear = top[:, -1] - top[:, -2] > 1e-9  # closer ties are decided by rounding
    predicted = head.predict(features)
    inside = torch.stack(
        [torch.from_numpy(p.get_path().contains_points(spots)) for p in polygons(ax)]
    )
    assert bool((inside.sum(dim=0)[clear] == 1).all()), "the regions do not tile the window"
    colours = [p.get_facecolor() for p in polygons(ax)]
    assert len(set(colours)) == len(colours)
    for each in inside:
        assert len(predicted[each & clear].unique()) <= 1
    assert len(predicted[clear].unique()) <= len(colours)


@pytest.mark.parametrize("domain", ["nonnegative", "box"])
def test_hatched_is_what_lies_outside_the_domain(domain: str) -> None:
    head = make_head(1, 4, 5, domain)
    points = make_rows(2, 3, 5)
    ax = fsb.plot.plane(head, points)
    spots = grid(ax)
    belongs = head.domain.contains(points[0] + spots @ frame(points))
    edge = next(
        p for p in ax.patches if isinstance(p, Polygon) and not p.get_fill() and p.zorder == 3.5
    )
    drawn = torch.from_numpy(edge.get_path().contains_points(spots))
    assert 0 < int(belongs.sum()) < len(spots)
    # a grid point within rounding of the edge may lie on either side
    assert int((drawn != belongs).sum()) == 0
    hatched = [p for p in ax.patches if isinstance(p, PathPatch) and p.get_hatch()]
    assert len(hatched) == 1
    assert "outside the domain" in legend(ax)


def test_no_domain_is_drawn_where_there_is_none() -> None:
    ax = fsb.plot.plane(make_head(3, 4, 5, "unbounded"), make_rows(3, 3, 5))
    assert "outside the domain" not in legend(ax)


def test_the_class_does_not_change_within_the_disc() -> None:
    head = make_head(4, 5, 6, "nonnegative")
    z = make_rows(4, 1, 6)
    ax = fsb.plot.plane(head, z, window="ball")
    discs = [p for p in ax.patches if isinstance(p, Circle)]
    radius = float(fsb.guaranteed_balls(head, z).radius[0])
    assert [disc.radius for disc in discs] == [radius, radius]
    assert all(disc.center == (0, 0) for disc in discs)
    own = [p for p in polygons(ax) if p.get_path().contains_point((0, 0))]
    angle = torch.linspace(0, 2 * torch.pi, 361, dtype=torch.float64)[:-1]
    circle = 0.999 * radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    domain = [p for p in ax.patches if isinstance(p, Polygon) and p.zorder == 3.5]
    reachable = (
        torch.from_numpy(domain[0].get_path().contains_points(circle))
        if domain
        else torch.ones(360, dtype=torch.bool)
    )
    assert int(reachable.sum()) > 30
    assert own[0].get_path().contains_points(circle[reachable]).all()
    width = ax.get_xlim()[1] - ax.get_xlim()[0]
    assert width == pytest.approx(2.7 * radius)
    assert any(f"radius {radius:.3g}" in text for text in legend(ax))


def marks(ax: Axes) -> dict[str, list[float]]:
    """Return the coordinates of each marker."""
    return {
        str(line.get_marker()): [float(line.get_xdata()[0]), float(line.get_ydata()[0])]  # type: ignore[index]
        for line in ax.lines
        if line.get_marker() not in ("None", "")
    }


def test_points_of_a_feature_are_its_flip_points() -> None:
    head = make_head(5, 4, 6, "unbounded")
    z = make_rows(5, 1, 6)
    every = fsb.flip_points(head, z, "all")
    order = every.distance[0].argsort()
    ax = fsb.plot.plane(head, z, class_names=NAMES[:4])
    at = marks(ax)
    assert at["o"] == [0.0, 0.0]
    assert at["D"] == pytest.approx([float(every.distance[0, order[0]]), 0.0], abs=1e-12)
    assert np.linalg.norm(at["d"]) == pytest.approx(float(every.distance[0, order[1]]))
    texts = legend(ax)
    assert texts[0] == f"feature (class {int(every.source[0])})"
    assert texts[1] == f"flip point (class {int(every.target[0, order[0]])})"
    assert texts[2] == f"flip point (class {int(every.target[0, order[1]])})"
    last = int(every.target[0, order[-1]])
    ax = fsb.plot.plane(head, z, target=last)
    assert marks(ax)["D"][0] == pytest.approx(float(every.distance[0, order[-1]]))


def test_the_third_point_is_the_mean_of_the_class_across() -> None:
    head = make_head(6, 3, 4, "unbounded")
    z, train = make_rows(6, 1, 4), make_rows(7, 30, 4)
    labels = torch.arange(30) % 3
    k = int(fsb.flip_points(head, z).target)
    ax = fsb.plot.plane(head, z, FeatureBank(train, labels))
    mean = train[labels == k].mean(dim=0)
    assert np.linalg.norm(marks(ax)["*"]) == pytest.approx(float((mean - z[0]).norm()))
    assert f"mean of {k}" in legend(ax)


def test_names_stand_in_their_regions() -> None:
    head = LinearHead(torch.eye(3, dtype=torch.float64), None)
    names = ["a $x$ & b_c", "dollar $", "line\nbreak"]
    points = torch.tensor([[3.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 3.0]])
    ax = fsb.plot.plane(head, points, class_names=names)
    assert {t.get_text() for t in ax.texts} == {"a $x$ & b_c", "dollar $", "line\\nbreak"}
    for text in ax.texts:
        k = [t if "break" not in t else "line\\nbreak" for t in names].index(text.get_text())
        spot = torch.tensor([text.get_position()], dtype=torch.float64)
        feature = points[0].double() + spot @ frame(points.double())
        assert int(head.predict(feature)) == k
    assert saved(ax, "pdf").startswith(b"%PDF")


def test_a_window_is_what_was_given() -> None:
    ax = fsb.plot.plane(make_head(1, 3, 4, "unbounded"), make_rows(1, 1, 4), window=[-1, 2, -3, 1])
    assert ax.get_xlim() == (-1, 2)
    assert ax.get_ylim() == (-3, 1)


def test_many_classes_in_many_dimensions() -> None:
    head = make_head(8, 1000, 1280, "nonnegative")
    ax = fsb.plot.plane(head, make_rows(8, 3, 1280))
    colours = [p.get_facecolor() for p in polygons(ax)]
    assert len(set(colours)) == len(colours) > 3


@pytest.mark.parametrize("width", [1, 2])
def test_few_dimensions(width: int) -> None:
    head = make_head(9, 3, width, "unbounded")
    assert polygons(fsb.plot.plane(head, make_rows(9, 1, width)))


HEAD, Z = make_head(0, 3, 4, "unbounded"), make_rows(0, 1, 4)
BANK = FeatureBank(make_rows(1, 9, 4), torch.arange(9) % 2)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no head": ({"head": torch.nn.Linear(4, 3)}, "head: got a Linear; wanted a LinearHead"),
    "a row": ({"features": Z[0]}, r"wanted a float tensor \(1, 4\) or \(3, 4\)"),
    "two rows": ({"features": Z.expand(2, 4)}, r"got shape \(2, 4\)"),
    "width": ({"features": Z[:, :3]}, r"got shape \(1, 3\)"),
    "NaN": ({"features": Z * torch.nan}, "finite"),
    "names": ({"class_names": ["a"]}, "got 1 names; wanted 3 names"),
    "one text": ({"class_names": "abc"}, "class_names: got 'abc'"),
    "numbers": ({"class_names": [1, 2, 3]}, "names as text"),
    "axes": ({"ax": "left"}, "ax: got 'left'; wanted axes of matplotlib"),
    "style": ({"style": "sepia"}, "wanted one of 'light', 'dark'"),
    "window": ({"window": (1, 0, 0, 1)}, "ascending"),
    "word": ({"window": "disc"}, 'or "ball"'),
    "three numbers": ({"window": (1, 2, 3)}, "window"),
    "texts": ({"window": ("a", 1, 2, 3)}, "window"),
    "target": ({"target": 3}, "from 0 to 2"),
    "bank": ({"bank": Z}, "wanted a FeatureBank"),
    "no labels": ({"bank": FeatureBank(Z)}, "got no labels"),
    "narrow": ({"bank": FeatureBank(Z[:, :3], [0])}, "got width 3"),
    "no such class": ({"bank": BANK, "target": 2}, "no point of class 2"),
    "bank of three": ({"features": Z.expand(3, 4), "bank": BANK}, "three features"),
    "target of three": ({"features": Z.expand(3, 4), "target": 1}, "three features"),
}


@pytest.mark.parametrize("case", WRONG)
def test_malformed_arguments_raise(case: str) -> None:
    change, message = WRONG[case]
    arguments = {"head": HEAD, "features": Z} | change
    with pytest.raises(ArgumentError, match=message):
        fsb.plot.plane(**arguments)


def test_a_class_that_cannot_be_reached() -> None:
    head = LinearHead(torch.zeros(2, 3), torch.tensor([1.0, 0.0]))
    with pytest.raises(ArgumentError, match="cannot be reached"):
        fsb.plot.plane(head, torch.zeros(1, 3))
    ax = fsb.plot.plane(head, torch.eye(3))  # there is no boundary, and no ball has an end
    assert len(polygons(ax)) == 1
    with pytest.raises(ArgumentError, match="without a guaranteed ball"):
        fsb.plot.plane(head, torch.eye(3), window="ball")


def test_the_own_class_is_no_target() -> None:
    own = int(HEAD.predict(Z))
    with pytest.raises(StatusError, match="TARGET_IS_SOURCE"):
        fsb.plot.plane(HEAD, Z, target=own)
