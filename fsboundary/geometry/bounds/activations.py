"""Activations by the names of their operations in torch, with the facts that proofs use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fsboundary.geometry.bounds.relaxations import Activation


def _relu() -> Activation:
    return Activation(torch.relu, (0.0,), (0.0, 1.0))


def _leaky_relu(negative_slope: float = 0.01) -> Activation:
    slope = float(negative_slope)
    if slope < 0:  # falls, then rises
        return Activation(_leaky(slope), (0.0,), (slope, 1.0), least=(0.0, 0.0))
    return Activation(_leaky(slope), (0.0,), (slope, 1.0))


def _leaky(slope: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(x > 0, x, slope * x)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    return _clamp(min_val, max_val)


def _clamp(min: float | None = None, max: float | None = None) -> Activation:  # torch's names
    knots = tuple(float(k) for k in (min, max) if k is not None)
    return Activation(lambda x: x.clamp(min, max), knots, (0.0, 1.0))


def _clamp_min(min: float) -> Activation:  # torch's name
    return _clamp(min, None)


def _clamp_max(max: float) -> Activation:  # torch's name
    return _clamp(None, max)


def _abs() -> Activation:
    return Activation(torch.abs, (0.0,), (-1.0, 1.0), least=(0.0, 0.0))


def _sigmoid() -> Activation:
    # |f''| = s (1 - s) |1 - 2 s| is largest at s = 1/2 +- sqrt(3)/6: sqrt(3)/18
    return Activation(torch.sigmoid, curvature=0.0963, lipschitz=0.25)


def _tanh() -> Activation:
    # |f''| = 2 |t| (1 - t^2) is largest at t = 1/sqrt(3): 4 / (3 sqrt(3))
    return Activation(torch.tanh, curvature=0.7699)


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    beta, threshold = float(beta), float(threshold)

    def evaluate(x: Tensor) -> Tensor:
        return torch.logaddexp(beta * x, torch.zeros_like(x)) / beta

    # f'' = beta s (1 - s) with the sigmoid s; beyond the threshold torch returns x, which is
    # lower by log(1 + exp(-beta x)) / beta
    return Activation(
        evaluate,
        curvature=0.25 * beta * (1 + 1e-9),
        slack=math.exp(-threshold) / beta * (1 + 1e-9),
        slack_from=threshold / beta * (1 - 1e-9),
        largest_exponent=threshold,
    )


def _silu() -> Activation:
    # f'' = s (1 - s) (2 + x (1 - 2 s)) is largest at 0: 1/2
    # the slope is largest where f'' is 0, at 2.3994: 1.0998
    return Activation(
        torch.nn.functional.silu,
        curvature=0.5000001,
        least=(-1.2784645427610738, -0.2784645428),
        lipschitz=1.1,
    )


def _gelu(approximate: str = "none") -> Activation:
    if approximate == "tanh":
        # largest on a grid of 1e-4 between -20 and 20, where third derivatives are below 3, in
        # tests/geometry/bounds: 0.798; beyond, the tanh differs from 1 by less than 1e-200
        # the largest slope on the same grid is 1.1289
        return Activation(
            _gelu_tanh, curvature=0.81, least=(-0.75246142207, -0.170040751), lipschitz=1.13
        )
    # f'' = phi(x) (2 - x^2) with the normal density phi is largest at 0: 2 phi(0)
    # the slope is largest where f'' is 0, at sqrt(2): 1.1289
    return Activation(
        torch.nn.functional.gelu,
        curvature=0.797885,
        least=(-0.7517915246935645, -0.1699712075),
        lipschitz=1.13,
    )


def _gelu_tanh(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "abs": _abs,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
}
"""Makers of activations from the options of an operation, by its name in ``torch.ops.aten``."""


def activation_of(name: str, options: dict[str, Any]) -> Activation | None:
    """Return the activation of an operation; None if `name` has no rule, or with such options."""
    maker = ACTIVATIONS.get(name)
    if maker is None or not all(isinstance(v, int | float | str | None) for v in options.values()):
        return None
    return maker(**options)
