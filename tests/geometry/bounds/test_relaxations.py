"""Lines below and above activations: on samples, and the facts that their proofs use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fsboundary.geometry.bounds.activations import activation_of
from fsboundary.geometry.bounds.relaxations import lines_of, range_of

FUNCTIONS = {
    "relu": ("relu", {}, torch.relu),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.1}, lambda x: functional.leaky_relu(x, 0.1)),
    "falling": ("leaky_relu", {"negative_slope": -0.5}, lambda x: functional.leaky_relu(x, -0.5)),
    "relu6": ("hardtanh", {"min_val": 0.0, "max_val": 6.0}, functional.relu6),
    "clamp": ("clamp", {"min": -1.0, "max": None}, lambda x: x.clamp(min=-1.0)),
    "clamp_max": ("clamp_max", {"max": 2.0}, lambda x: x.clamp(max=2.0)),
    "abs": ("abs", {}, torch.abs),
    "sigmoid": ("sigmoid", {}, torch.sigmoid),
    "tanh": ("tanh", {}, torch.tanh),
    "softplus": ("softplus", {"beta": 1.0, "threshold": 20.0}, functional.softplus),
    "sharp": ("softplus", {"beta": 20.0, "threshold": 3.0},
              lambda x: functional.softplus(x, 20.0, 3.0)),
    "silu": ("silu", {}, functional.silu),
    "gelu": ("gelu", {"approximate": "none"}, functional.gelu),
    "gelu_tanh": ("gelu", {"approximate": "tanh"},
                  lambda x: functional.gelu(x, approximate="tanh")),
}  # fmt: skip
SMOOTH = ["sigmoid", "tanh", "silu", "gelu", "gelu_tanh"]


def intervals(count: int = 400) -> tuple[Tensor, Tensor]:
    """Return ends of intervals of widths from 0 to 100, around points from -30 to 30."""
    g = torch.Generator().manual_seed(0)
    low = 6 * torch.randn(count, generator=g, dtype=torch.float64)
    width = 10 ** (8 * torch.rand(count, generator=g, dtype=torch.float64) - 6)
    width[:20] = 0.0
    return low, low + width


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_sample_is_beyond_the_lines_or_the_range(name: str) -> None:
    operation, options, torch_function = FUNCTIONS[name]
    function = activation_of(operation, options)
    assert function is not None
    low, high = intervals()
    lines, limits = lines_of(function, low, high), range_of(function, low, high)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    x = torch.minimum(low + t * (high - low), high)
    y = torch_function(x)
    # evaluation of the samples: a few units in the last place
    slack = 4e-15 * (1 + x.abs())
    assert bool((lines.low_slope * x + lines.low_offset <= y + slack).all())
    assert bool((lines.high_slope * x + lines.high_offset >= y - slack).all())
    assert bool(((limits[0] <= y + slack) & (limits[1] >= y - slack)).all())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_meet_the_function_on_short_intervals(name: str) -> None:
    operation, options, torch_function = FUNCTIONS[name]
    function = activation_of(operation, options)
    assert function is not None
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    lines = lines_of(function, x - 1e-5, x + 1e-5)
    y = torch_function(x)
    # half the width times a slope of at most 1 where there is a knot, and the slack of softplus,
    # exp(-3) / 20 where its threshold is 3
    gap = 2e-5 + (0.0025 if name == "sharp" else 0.0)
    assert bool(((lines.low_slope * x + lines.low_offset) >= y - gap).all())
    assert bool(((lines.high_slope * x + lines.high_offset) <= y + gap).all())


@pytest.mark.parametrize("name", SMOOTH)
def test_curvatures_and_minima_are_bounds(name: str) -> None:
    operation, options, torch_function = FUNCTIONS[name]
    function = activation_of(operation, options)
    assert function is not None
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64, requires_grad=True)
    y = torch_function(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    largest = float(second.detach().abs().max())
    assert float(third.abs().max()) < 3
    assert largest <= function.curvature <= largest + 0.02
    if name == "gelu_tanh":  # the others have proofs in closed form; half a step is 5e-5
        assert largest + 3 * 5e-5 <= function.curvature
    if function.least is not None:
        place, value = function.least
        at = torch.tensor(place, dtype=torch.float64)
        near = torch.stack([torch_function(at - 1e-6), torch_function(at + 1e-6)])
        inner = torch_function(at + torch.linspace(-9e-7, 9e-7, 99, dtype=torch.float64)).min()
        assert value <= float(inner)
        assert value >= float(inner) - 1e-8
        # the slope changes its sign within the millionth around the listed place
        ends = [at - 1e-6, at + 1e-6]
        slopes = []
        for end in ends:
            end.requires_grad_()
            slopes.append(float(torch.autograd.grad(torch_function(end), end)[0]))
        assert slopes[0] < 0 < slopes[1], (slopes, near)
        falls = (first < 0) == (x < place)
        assert bool(
            falls[(x - place).abs() > 1e-3][first.detach()[(x - place).abs() > 1e-3] != 0].all()
        )


def test_options_that_are_tensors_have_no_rule() -> None:
    assert activation_of("clamp", {"min": torch.zeros(2)}) is None
    assert activation_of("erfinv", {}) is None
