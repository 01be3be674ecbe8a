"""The general argument checks: what they return, and their exact messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature

import numpy as np
import pytest
import torch

from fsboundary import ArgumentError
from fsboundary.core import checks

FIX = "do this"
VALUES = torch.zeros(2, 3)
CLASSES = torch.tensor([0, 2])


def _integers(value: object, *shapes: checks.Shape, **options: object) -> torch.Tensor:
    return checks.check_integer_tensor("x", value, *shapes, fix=FIX, **options)  # type: ignore[arg-type]  # any option


def test_good_values_are_returned() -> None:
    assert checks.check_instance("x", "a", (str, type(None)), "text", FIX) == "a"
    assert checks.check_instance("x", True, bool, "a bool", FIX) is True
    assert checks.check_choice("x", "b", ("a", "b")) == "b"
    assert checks.check_choice("x", None, (None, "tv")) is None
    assert [checks.check_integer("x", n, 1, 3) for n in (1, 2, 3)] == [1, 2, 3]
    assert checks.check_integer("x", -5, None) == -5
    assert checks.check_integer("x", -5, None, 0) == -5
    assert checks.check_number("x", torch.tensor(0.5), 0, 1, fix=FIX) == 0.5
    assert checks.check_number("x", 0, 0, 1, closed="low", fix=FIX) == 0.0
    assert checks.check_number("x", 1, 0, 1, closed="high", fix=FIX) == 1.0
    assert torch.equal(checks.check_shape("x", CLASSES, (2,), fix=FIX), CLASSES)
    for shape in ((2, 3), ("B", 3), ("B", ...), ("B", "d")):
        leaf = VALUES.clone().requires_grad_()
        out = checks.check_float_tensor("x", leaf, ("B",), shape, fix=FIX)
        assert torch.equal(out, VALUES)
        assert not out.requires_grad
    out = _integers(CLASSES.to(torch.uint8), (2,), within=range(3))
    assert torch.equal(out, CLASSES)
    assert out.dtype == torch.int64
    assert _integers(torch.zeros(0, 4, dtype=torch.int32), within=range(0)).shape == (0, 4)
    for value in ([0, 2], (0, 2), range(0, 3, 2), CLASSES.numpy()):
        assert torch.equal(_integers(value, ("M",), convert=True), CLASSES)
    assert _integers(2, (), ("M",), convert=True).shape == ()
    assert _integers([], ("M",), convert=True).shape == (0,)
    assert torch.equal(_integers(CLASSES, distinct=True), CLASSES)
    padded = torch.tensor([[0, -1, -1], [-1, 2, 0]])
    assert torch.equal(_integers(padded, distinct=True), padded)
    assert torch.equal(checks.check_float_tensor("x", VALUES, finite_fix=FIX, fix=FIX), VALUES)
    labels = checks.check_labels(CLASSES, 2)
    assert torch.equal(labels, CLASSES)
    assert labels.data_ptr() != CLASSES.data_ptr()
    assert checks.check_targets("all", 2, 3, ("nearest", "all")) == "all"
    assert checks.check_targets(CLASSES[:, None], 2, 3, ("all",), ("B", "T")).shape == (2, 1)
    assert checks.check_limits(None, None, (1e-5, 9)) == (1e-5, 9)
    assert checks.check_limits(0.5, np.int64(3), (1e-5, 9)) == (0.5, 3)  # type: ignore[arg-type]  # NumPy's too
    for width in (None, 3):
        checks.check_width("x", width, 3)
    checks.check_options("x", {"a": 1}, signature(lambda a, b=0: None), "f")
    checks.check_options("x", {"a": 1, "c": 2}, signature(lambda a, **rest: None), "f")


REJECTED: list[tuple[Callable[[], object], str]] = [
    (
        lambda: checks.check_instance("x", [1], (int, str), "a name", FIX),
        "x: got a list; wanted a name. Fix: do this.",
    ),
    (
        lambda: checks.check_instance("x", True, int, "an int", FIX),
        "x: got True; wanted an int. Fix: do this.",
    ),
    (
        lambda: checks.check_choice("x", "c", ("a", None)),
        "x: got 'c'; wanted one of 'a', None. Fix: choose one of these.",
    ),
    (
        lambda: checks.check_choice("x", OSError(), ("a", "b")),
        "x: got an OSError; wanted one of 'a', 'b'. Fix: choose one of these.",
    ),
    (
        lambda: checks.check_integer("x", 0),
        "x: got 0; wanted an integer, at least 1. Fix: pass 1 or more.",
    ),
    (
        lambda: checks.check_integer("x", True, 1, 3, fix=FIX),
        "x: got True; wanted an integer from 1 to 3. Fix: do this.",
    ),
    (
        lambda: checks.check_integer("x", 4, 1, 3),
        "x: got 4; wanted an integer from 1 to 3. Fix: pass 1 to 3.",
    ),
    (
        lambda: checks.check_integer("x", 4, None, 3),
        "x: got 4; wanted an integer, at most 3. Fix: pass 3 or less.",
    ),
    (
        lambda: checks.check_integer("x", "0", None),
        "x: got '0'; wanted an integer. Fix: pass 0, for example.",
    ),
    (
        lambda: checks.check_number("x", 1, 0, 1, fix=FIX),
        "x: got 1; wanted a number in (0, 1). Fix: do this.",
    ),
    (
        lambda: checks.check_number("x", 0, 0, 1, closed="high", fix=FIX),
        "x: got 0; wanted a number in (0, 1]. Fix: do this.",
    ),
    (
        lambda: checks.check_number("x", math.nan, 0, 1, closed="low", fix=FIX),
        "x: got nan; wanted a number in [0, 1). Fix: do this.",
    ),
    (
        lambda: checks.check_number("x", math.inf, 0, closed="low", fix=FIX),
        "x: got inf; wanted a finite number, at least 0. Fix: do this.",
    ),
    (
        lambda: checks.check_number("x", "0.5", 0, fix=FIX),
        "x: got '0.5'; wanted a finite number, above 0. Fix: do this.",
    ),
    (
        lambda: checks.check_number("x", VALUES, 0, fix=FIX),
        "x: got a Tensor; wanted a finite number, above 0. Fix: do this.",
    ),
    (
        lambda: checks.check_shape("x", None, (2,), fix=FIX),
        "x: got None; wanted a tensor (2,). Fix: do this.",
    ),
    (
        lambda: checks.check_shape("x", VALUES, (2,), ("B", 4), fix=FIX),
        "x: got shape (2, 3); wanted a tensor (2,) or (B, 4). Fix: do this.",
    ),
    (
        lambda: checks.check_float_tensor("x", [0.0], ("B", 3), fix=FIX),
        "x: got a list; wanted a float tensor (B, 3). Fix: do this.",
    ),
    (
        lambda: checks.check_float_tensor("x", CLASSES, ("B",), fix=FIX),
        "x: got dtype torch.int64; wanted a float tensor (B,). Fix: call .float() or .double().",
    ),
    (
        lambda: checks.check_float_tensor("x", VALUES[0], ("B", ...), fix=FIX),
        "x: got shape (3,); wanted a float tensor (B, ...). Fix: do this.",
    ),
    (
        lambda: _integers("near", (2,), noun="classes", within=range(3), also='"nearest"'),
        "x: got 'near'; wanted \"nearest\" or an integer tensor (2,) of classes 0 to 2. "
        "Fix: do this.",
    ),
    (
        lambda: _integers(CLASSES > 0, (2,)),
        "x: got dtype torch.bool; wanted an integer tensor (2,). Fix: call .long().",
    ),
    (
        lambda: _integers(CLASSES, (3,), (3, "T")),
        "x: got shape (2,); wanted an integer tensor (3,) or (3, T). Fix: do this.",
    ),
    (
        lambda: _integers(CLASSES, noun="rows", within=range(2)),
        "x: got rows from 0 to 2; wanted an integer tensor of rows 0 to 1. Fix: count rows from 0.",
    ),
    (
        lambda: _integers(CLASSES - 2, within=range(-1, 2), range_fix="pad with -1"),
        "x: got numbers from -2 to 0; wanted an integer tensor of numbers -1 to 1. "
        "Fix: pad with -1.",
    ),
    (
        lambda: checks.check_shape("x", VALUES[:0], ("B", 3), fix=FIX, nonempty=True),
        "x: got shape (0, 3); wanted a tensor (B, 3), not empty. Fix: do this.",
    ),
    (
        lambda: checks.check_float_tensor("x", VALUES / 0, ("B", 3), fix="that", finite_fix=FIX),
        "x: got NaN or infinite numbers in rows 0, 1; wanted finite numbers. Fix: do this.",
    ),
    (
        lambda: _integers("a", (), ("M",), convert=True),
        "x: got 'a'; wanted one integer, or an integer tensor or list (M,). Fix: do this.",
    ),
    (
        lambda: _integers([True, False], ("M",), convert=True),
        "x: got dtype torch.bool; wanted an integer tensor or list (M,). Fix: call .long().",
    ),
    (
        lambda: _integers(torch.tensor([[0, 1], [1, 1]]), noun="classes", distinct=True),
        "x: got [1, 1] in row 1; wanted no repeats. Fix: do this.",
    ),
    (
        lambda: checks.check_labels([0.5, 1.0], 2, "y"),
        "y: got dtype torch.float32; wanted an integer tensor or list (2,). Fix: call .long().",
    ),
    (
        lambda: checks.check_targets("al", 2, 3, ("nearest", "all")),
        'targets: got \'al\'; wanted "nearest", "all" or an integer tensor (2,) of classes 0 to 2. '
        "Fix: pass torch.full((B,), k) for one class.",
    ),
    (
        lambda: checks.check_width("x", 2, 3),
        "x: got width 2; wanted width 3. Fix: make it from features of the same layer as the head.",
    ),
    (
        lambda: checks.check_limits("1e-6", None, (1e-5, 9)),  # type: ignore[arg-type]  # rejected
        "tolerance: got '1e-6'; wanted a number in (0, 1). Fix: pass 1e-05, for example.",
    ),
    (
        lambda: checks.check_limits(None, 2.5, (1e-5, 9)),  # type: ignore[arg-type]  # rejected
        "max_steps: got 2.5; wanted an integer, at least 1. Fix: leave it out.",
    ),
    (
        lambda: checks.check_options("x", ["bb", "a"], signature(lambda a, bbb: None), "f"),
        "x: got 'bb' for f; wanted options among a, bbb. Fix: use 'bbb', the closest name.",
    ),
    (
        lambda: checks.check_options("x", ["a"], signature(lambda: None), "f"),
        "x: got 'a' for f; wanted no options. Fix: leave it out.",
    ),
    (
        lambda: checks.check_options("x", [], signature(lambda a, b=0: None), "f"),
        "x: got no 'a' for f; wanted options among a, b. Fix: add 'a'.",
    ),
]


@pytest.mark.parametrize(("call", "message"), REJECTED)
def test_bad_values_raise_one_wording(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert str(caught.value) == message
