"""Names in the figures of planes."""

from __future__ import annotations

import pytest

from fsboundary.plot.planes import HEIGHT, MARK, place_label, shorten

VIEW = {
    "window": (-2.0, 2.0, -2.0, 2.0),
    "points": {"image": [0.0, 0.0], "flip": [1.0, 0.0], "mean": [-1.0, 1.0]},
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("a" * 16, "a" * 16),
        ("a" * 17, "a" * 15 + "…"),
        ("a long name of it", "a long name of…"),
    ],
)
def test_shorten(name: str, expected: str) -> None:
    assert shorten(name, 16) == expected


def test_free_place_is_kept() -> None:
    assert place_label((1.0, -1.0), 5, VIEW) == pytest.approx((1.0, -1.0))


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.5, 0.02), (1.0, -0.05), (-1.0, 1.0)])
def test_marks_and_the_line_between_them_are_kept_free(centre: tuple[float, float]) -> None:
    x, y = place_label(centre, 3, VIEW)
    assert x == pytest.approx(centre[0])
    for u, v in VIEW["points"].values():  # type: ignore[attr-defined]  # a dict of mixed values
        assert abs(y - v) >= 4 * (HEIGHT + MARK) / 2 or abs(x - u) > 0.1
    assert abs(y) >= 4 * (HEIGHT + MARK) / 2 or not 0 <= x <= 1


def test_names_stay_in_the_window() -> None:
    x, _ = place_label((1.9, -1.0), 10, VIEW)
    assert 1.0 < x < 1.9
    assert place_label((0.0, -1.0), 1000, VIEW)[0] == pytest.approx(0.0)


def test_no_room_leaves_the_centre() -> None:
    crowded = VIEW | {"points": {k: [0.0, -2.0 + 0.25 * k] for k in range(17)}}
    assert place_label((0.0, 0.0), 4, crowded) == pytest.approx((0.0, 0.0))
