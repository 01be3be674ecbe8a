"""Random programs of operations, views and in-place writes never get a false interval."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fsboundary.models.intervals import IntervalProver
from support.models.interval_programs import Outside, attack, check

UNARY: list[Callable[[Tensor], Tensor]] = [
    F.relu,
    torch.abs,
    torch.sigmoid,
    torch.neg,
    torch.tanh,
    lambda x: x - 0.5,
    lambda x: x + 0.5,
    lambda x: x * 2,
    lambda x: x * -1.0,
    lambda x: x / -3,
    lambda x: x.pow(2),
    lambda x: x.pow(3),
    lambda x: x.clamp(-1, 1),
    lambda x: x.clamp(min=0),
    lambda x: x.softmax(-1),
    lambda x: x.clone(),
    lambda x: x.double().float(),
    lambda x: F.pad(x[..., 1:], (0, 1)),
    lambda x: F.max_pool2d(x[None], 3, 1, 1)[0],
    lambda x: F.avg_pool2d(x[None], 3, 1, 1)[0],
    lambda x: x.mean(0, keepdim=True).expand_as(x),
    lambda x: x.cumsum(0),
    lambda x: x.flip(0),
    lambda x: torch.zeros_like(x),
    lambda x: torch.empty_like(x).fill_(-0.0),
    # views of the same storage
    lambda x: x.mT,
    lambda x: x.detach(),
    lambda x: x.data,
    lambda x: x.reshape(-1).view(3, 4, 4),
    lambda x: x.view(torch.int32).view(torch.float32),
    lambda x: x.chunk(3)[1].expand(3, 4, 4),
]

BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    torch.minimum,
    lambda x, y: torch.add(x, y, alpha=-0.5),
    lambda x, y: torch.where(y > 0, x, y),
    lambda x, y: torch.cat([x, y])[1:4],
    lambda x, y: torch.stack([x, y]).mean(0),
    lambda x, y: torch.rsub(x, y),
]

IN_PLACE: list[Callable[[Tensor, Tensor], object]] = [
    lambda x, _: x.relu_(),
    lambda x, _: x.abs_(),
    lambda x, _: x.neg_(),
    lambda x, _: x.sub_(0.5),
    lambda x, _: x.mul_(-1),
    lambda x, _: x.clamp_(min=0),
    lambda x, _: x[1:].clamp_(min=0),
    lambda x, _: x[0].sub_(1),
    lambda x, _: x[:, 1].fill_(-1),
    lambda x, _: x[:, :2].zero_(),
    lambda x, _: x.fill_(0.25),
    lambda x, y: x.add_(y),
    lambda x, y: x.add_(y, alpha=-1),
    lambda x, y: x.mul_(y),
    lambda x, y: x.copy_(y),
    lambda x, y: x[2].copy_(y[0]),
    lambda x, y: torch.neg(y, out=x),
    lambda x, y: x.masked_fill_(y > 0, -1.0),
    lambda x, y: x.masked_fill_(y > 0, 1.0),
    lambda x, y: x.__setitem__(y > 0, 0.5),
]

STEPS = st.tuples(
    st.sampled_from(
        [*((1, f) for f in UNARY), *((2, f) for f in BINARY), *((3, f) for f in IN_PLACE)]
    ),
    st.integers(0, 50),
    st.integers(0, 50),
)


@settings(max_examples=150)
@given(program=st.lists(STEPS, min_size=2, max_size=25), inference=st.booleans())
def test_no_random_program_gets_a_false_interval(
    program: list[tuple[tuple[int, Callable[..., Tensor]], int, int]], inference: bool
) -> None:
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    prover = IntervalProver()
    with torch.inference_mode() if inference else torch.no_grad():
        values = [start[0].clone(), start[1].clone()]
        for (arity, operation), first, second in program:
            x, y = values[first % len(values)], values[second % len(values)]
            # torch rejects or warns of writes to a tensor that overlaps itself or the other operand
            with prover, contextlib.suppress(RuntimeError, UserWarning):
                result = operation(x) if arity == 1 else operation(x, y)
                if arity < 3:
                    values.append(result)
            for value in values:
                check(value, prover.interval(value), "a program")


def test_the_programs_reach_proofs_and_lose_them() -> None:
    """The property above would also hold for a prover that proves nothing."""
    prover = IntervalProver()
    with torch.no_grad(), prover:
        x = torch.randn(3, 4, 4)
        assert sum(bool(prover.interval(f(x))) for f in UNARY) == 10
        assert sum(bool(prover.proof(f(x))) for f in UNARY) == 8
        assert sum(bool(prover.interval(f(x.abs()))) for f in UNARY) == 30
        assert sum(bool(prover.proof(f(x.abs()))) for f in UNARY) == 26
        num_proved = num_nonnegative = 0
        for change in IN_PLACE:
            positive = x.abs()
            change(positive, x)
            num_proved += bool(prover.interval(positive))
            num_nonnegative += bool(prover.proof(positive))
        assert num_nonnegative == 7
        assert num_proved == 13


def test_no_long_program_gets_a_false_interval_for_any_input() -> None:
    """tests/benchmarks/hunt_intervals.py runs more of these."""
    assert sum(map(attack, range(40))) > 70


def test_a_false_interval_is_found() -> None:
    """The search reports numbers beyond either limit, and no NaN."""
    prover = IntervalProver()
    with prover:
        x = torch.randn(3).clamp(-1, 2)
    found = prover.interval(x)
    check(torch.tensor([-1.0, float("nan"), 2.0]), found, "")
    for number in (-1.001, 2.001, float("inf"), -float("inf")):
        with pytest.raises(Outside, match="outside"):
            check(torch.tensor([0.0, number]), found, "")
