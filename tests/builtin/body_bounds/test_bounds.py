"""Bounds of bodies: samples and attacks of every operation, exact minima, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fsboundary as fsb
from fsboundary.builtin.body_bounds import linear_bounds
from fsboundary.builtin.body_bounds.body import trace_body
from fsboundary.builtin.body_bounds.interval import Interval
from fsboundary.builtin.body_bounds.linear_bounds import LinearBounds
from fsboundary.builtin.body_bounds.rules import rule_of
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.demo import load_demo
from fsboundary.space import FeatureSpace
from support.bounds.bodies import (
    OPERATIONS,
    Body,
    body,
    exact_minimum,
    functions_of,
    pictures,
    points_inside,
)

METHODS = {
    "interval": Interval(),
    "linear": LinearBounds(),
    "mixed": LinearBounds(intermediate="interval"),
    "few": LinearBounds(max_functions=40),
}
ROUNDING = 1e-12
"""Rounding of the values at samples, float64, relative to 1 plus their size."""


def bound(method: str, model: nn.Module, x: Tensor, radius: Tensor, norm: str, f) -> Tensor:
    return METHODS[method].bound(
        fsb.FeatureSpace(model, example=x), x, radius, norm=norm, bounds=(0.0, 1.0), functions=f
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_point_is_below(name: str, norm: str) -> None:
    model, x = body(name), pictures(3, 1)
    functions = functions_of(torch.cat([model.head.weight, -model.head.weight[:1]]), 3, 2)
    for scale in (0.01, 0.1):
        radius = scale * torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)
        lower = torch.stack([bound(m, model, x, radius, norm, functions) for m in METHODS])
        assert bool(torch.isfinite(lower).all())
        # the sum of all functions is one that descents make small
        for k in range(lower.shape[2]):
            values = points_inside(
                x, radius, norm, lambda p, k=k: functions.values(model.features(p))[:, k], k
            )
            for point in values:
                value = functions.values(model.features(point))
                assert bool((lower <= value + ROUNDING * (1 + value.abs())).all())
        # a radius of 0 gives the value
        value = functions.values(model.features(x))[2]
        torch.testing.assert_close(
            lower[:, 2], value.expand(len(METHODS), -1), rtol=1e-9, atol=1e-9
        )


def test_linear_bounds_are_tighter_than_intervals() -> None:
    model, x = body("deep"), pictures(4, 3)
    functions = functions_of(model.head.weight, 4, 4)
    radius = torch.full((4,), 0.02, dtype=torch.float64)
    gaps = {
        m: functions.values(model.features(x)) - bound(m, model, x, radius, "linf", functions)
        for m in METHODS
    }
    assert (
        float(gaps["linear"].mean()) < float(gaps["mixed"].mean()) < float(gaps["interval"].mean())
    )


@pytest.mark.parametrize("seed", range(6))
def test_tiny_relu_nets_against_all_patterns(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    sizes = (4, 4, 3)
    layers = [
        (torch.randn(m, n, generator=g, dtype=torch.float64),
         torch.randn(m, generator=g, dtype=torch.float64))
        for n, m in itertools.pairwise(sizes)
    ]  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(),
                          nn.Linear(3, 2)).double().eval()  # fmt: skip
    with torch.no_grad():
        for layer, (weight, bias) in zip((model[1], model[3]), layers, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    x = torch.rand(1, 1, 2, 2, generator=g, dtype=torch.float64)
    c = torch.randn(5, 3, generator=g, dtype=torch.float64)
    functions = functions_of(c, 1, 0)
    for radius in (0.01, 0.1, 0.5):
        low, high = (x.flatten() - radius).clamp_min(0), (x.flatten() + radius).clamp_max(1)
        exact = torch.tensor([exact_minimum(layers, row, low, high) for row in c])
        exact = exact + functions.offset[0]
        found = [
            bound(m, model, x, torch.tensor([radius], dtype=torch.float64), "linf", functions)[0]
            for m in METHODS
        ]
        # the tolerance of the linear programs
        assert all(bool((f <= exact + 1e-7).all()) for f in found)
        if radius == 0.01:  # where few units are undecided, the linear bounds are nearly exact
            assert float((exact - found[1]).max()) <= 0.05


def test_windows_give_what_whole_images_give(monkeypatch: pytest.MonkeyPatch) -> None:
    x, radius = pictures(2, 5), torch.tensor([0.03, 0.01], dtype=torch.float64)
    for name in ("deep", "dilated", "grouped", "residual", "max_pool", "transposed"):
        model = body(name)
        functions = functions_of(model.head.weight, 2, 6)
        for norm in ("linf", "l2"):
            small = bound("linear", model, x, radius, norm, functions)
            with monkeypatch.context() as patch:
                patch.setattr(linear_bounds, "_BLOCKS", 1)
                whole = bound("linear", model, x, radius, norm, functions)
            torch.testing.assert_close(small, whole, rtol=1e-10, atol=1e-10)


def test_linear_chains_are_exact() -> None:
    # two convolutions and a pool without an activation: intervals are loose, linear bounds exact
    def chain(x: Tensor, b) -> Tensor:
        y = functional.conv2d(functional.conv2d(x, b.kernel, padding=1), b.second, stride=2)
        return torch.relu(functional.avg_pool2d(y, 2, 1)).flatten(1)

    model, x = Body(chain, 16, 0), 0.5 + 0 * pictures(1, 0)
    radius = torch.tensor([0.2], dtype=torch.float64)
    for norm, dual in (("linf", 1), ("l2", 2)):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: functional.avg_pool2d(
                functional.conv2d(
                    functional.conv2d(p, model.kernel, padding=1), model.second, stride=2
                ), 2, 1
            ).flatten(), x
        ).flatten(1)  # fmt: skip
        at = jacobian @ x.flatten()
        reach = 0.2 * torch.linalg.vector_norm(jacobian, ord=dual, dim=1)
        # minus each feature is smallest where the feature is largest
        functions = functions_of(-torch.eye(16), 1, 1)
        wanted = -(at + reach).clamp_min(0)
        found = bound("linear", model, x, radius, norm, functions)[0] - functions.offset[0]
        certain = at + reach <= 0
        lines = (at - reach < 0) & ~certain  # the line above a ReLU meets it at the upper end
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        assert bool(lines.any())


class Refused(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.head = nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x.flatten(1)[:, :4]))


REFUSED = {
    "'softmax": lambda x: torch.softmax(x, 1),
    "'mul' multiplies": lambda x: x * x,
    "'exp'": torch.exp,
    "mixes rows": lambda x: torch.relu(x - x.mean(0)),
    "mixes rows of": lambda x: torch.cat([x[1:], x[:1]]),
    "moves the dimension": lambda x: x.t().contiguous().t().relu(),
    "reads numbers": lambda x: x.relu() if float(x.detach().sum()) > -1e9 else x,
    "statistics": lambda x: functional.batch_norm(x, None, None, training=True),
    "'maximum'": lambda x: torch.maximum(x, x.flip(1)),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("method", ["interval", "linear"])
def test_what_has_no_rule_is_refused_by_name(reason: str, method: str) -> None:
    model, x = Refused(REFUSED[reason]).eval().requires_grad_(False), pictures(2, 0)
    functions = functions_of(torch.eye(4)[:2], 2, 0)
    radius = torch.zeros(2, dtype=torch.float64)
    if reason == "moves the dimension":
        with pytest.raises(HeadError, match="bounds of the body"):
            bound(method, model, x, radius, "linf", functions)
        return
    # a space verifies that rows are independent itself, where it can
    with pytest.raises(HeadError):
        bound(method, model, x, radius, "linf", functions)


def test_constants_of_the_input_are_refused() -> None:
    # numbers that leave torch and come back would be constants of one pass
    def forward(x: Tensor) -> Tensor:
        return x.relu() + torch.tensor(x.detach().sum(0).tolist(), dtype=torch.float64)

    model = Refused(forward).eval().requires_grad_(False)
    functions, radius = functions_of(torch.eye(4)[:2], 2, 0), torch.zeros(2, dtype=torch.float64)
    with pytest.raises(HeadError):
        bound("linear", model, pictures(2, 0), radius, "linf", functions)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_look_at_the_threads_of_torch_is_not_traced(threads: int) -> None:
    demo, before = load_demo(), torch.get_num_threads()
    space = FeatureSpace(demo.model, preprocess=demo.preprocess)
    torch.set_num_threads(threads)
    try:
        assert len(trace_body(space, demo.test_images[:1], rule_of).nodes) > 20
    finally:
        torch.set_num_threads(before)


def test_options_are_checked() -> None:
    with pytest.raises(ArgumentError, match="intermediate"):
        LinearBounds(intermediate="none")
    with pytest.raises(ArgumentError, match="max_functions"):
        LinearBounds(max_functions=0)
