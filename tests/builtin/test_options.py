"""Options of built-in solvers and finders are checked when they are made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from fsboundary import ArgumentError, plugins

PLUGINS = sorted(
    (info.kind, info.name, "pixels" in info.capabilities)
    for info in plugins.describe()
    if info.distribution == "fsboundary" and info.kind in ("hull_solver", "boundary_finder")
)
WRONG: dict[type, list[Any]] = {
    int: [-3, 1.5, True, "2", None],
    float: [-1.0, 0.0, float("nan"), float("inf"), "2", None],
    str: [3, "no such solver", None],
    tuple: [3, (2.0,), (-0.1, 0.5), (0.9, 0.9), ("a",)],
}
CASES = [
    (kind, name, pixels, field.name, value)
    for kind, name, pixels in PLUGINS
    for made in [plugins.create(kind, name, capability="pixels" if pixels else None)]
    for field in fields(made)
    for value in WRONG.get(type(getattr(made, field.name)), [torch.zeros(3), "x", 3])
    # fractions of 0 are allowed where nothing is spent
    if not (field.name == "final_fraction" and value == 0.0)
]


def test_every_plugin_with_options_is_here() -> None:
    assert {"active_set", "away_steps", "nnls", "interior_point"} <= {case[1] for case in CASES}
    assert {"linearised", "dual_newton", "ddn", "feature_guided"} <= {case[1] for case in CASES}


@pytest.mark.parametrize(("kind", "name", "pixels", "option", "value"), CASES)
def test_an_option_out_of_range_is_refused(
    kind: Any, name: str, pixels: bool, option: str, value: Any
) -> None:
    with pytest.raises(ArgumentError, match=option):
        plugins.create(kind, name, options={option: value}, capability="pixels" if pixels else None)
