"""Bodies of every supported operation, sampled and attacked minima, and exact ones by programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional

from fsboundary.core.protocols import ModelView
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions


class Body(nn.Module):
    """A body as a function of the images, between a first and a last layer that are random."""

    def __init__(
        self, function: Callable[[Tensor, Body], Tensor], features: int, seed: int
    ) -> None:
        super().__init__()
        self.function = function
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            # of size 1 for sums of the trailing dimensions
            scale = max(1, int(np.prod(shape[1:]))) ** -0.5
            numbers = torch.randn(shape, generator=g, dtype=torch.float64)
            return nn.Parameter(1.5 * scale * numbers, requires_grad=False)

        self.kernel, self.second = draw(4, 2, 3, 3), draw(4, 4, 3, 3)
        self.matrix, self.offset = draw(6, 36), draw(6)
        self.norm = nn.BatchNorm2d(4).double()
        self.norm.running_mean, self.norm.running_var = draw(4).data, draw(4).data.abs() + 0.1
        self.norm.weight.data, self.norm.bias.data = draw(4).data, draw(4).data
        self.head = nn.Linear(features, 3).double()
        self.head.weight.data, self.head.bias.data = draw(3, features).data, draw(3).data
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> Tensor:
        return self.function(x, self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def _conv(x: Tensor, b: Body, **options: object) -> Tensor:
    return functional.conv2d(x, b.kernel, b.offset[:4], **options)


def _block(x: Tensor, b: Body) -> Tensor:
    """Return a residual block with batch normalisation, (B,4,8,8)."""
    y = torch.relu(b.norm(_conv(x, b, padding=1)))
    z = functional.conv2d(y, b.second, padding=1)
    return torch.relu(b.norm(z) + y)


def _dense(x: Tensor, b: Body) -> Tensor:
    return functional.linear(x.flatten(1)[:, :36], b.matrix, b.offset)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "relu6": lambda x: functional.relu6(4 * x + 3),
    "softplus": lambda x: functional.softplus(x, beta=3.0),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "sigmoid": lambda x: torch.sigmoid(3 * x),
    "tanh": lambda x: torch.tanh(2 * x),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.3, 0.4),
}

OPERATIONS: dict[str, tuple[Callable[[Tensor, Body], Tensor], int]] = {
    **{
        name: (lambda x, b, f=f: f(_dense(f(_conv(x, b, stride=2)), b)), 6)
        for name, f in ACTIVATIONS.items()
    },
    "residual": (lambda x, b: _block(x, b).mean((2, 3)), 4),
    "in place": (lambda x, b: _conv(x, b).mul_(2.0).add_(1.0).relu_().mean((2, 3)), 4),
    "max_pool": (lambda x, b: functional.max_pool2d(_conv(x, b), 3, 2, 1).relu().sum((2, 3)), 4),
    "ceil_mode": (
        lambda x, b: functional.max_pool2d(_conv(x, b), 4, 3, ceil_mode=True).flatten(1), 16
    ),
    "dilated pool": (lambda x, b: functional.max_pool2d(x, 2, 1, dilation=3).flatten(1)[:, 5:9], 4),
    "avg_pool": (
        lambda x, b: functional.avg_pool2d(torch.relu(_conv(x, b)), 3, 2, 1).flatten(1)[:, :8], 8
    ),
    "adaptive": (
        lambda x, b: functional.adaptive_avg_pool2d(torch.relu(_conv(x, b)), (2, 4)).flatten(1), 32
    ),
    "concatenation": (
        lambda x, b: torch.cat([torch.relu(_conv(x, b)), x[:, :, 1:-1, 1:-1]], 1).mean((2, 3)), 6
    ),
    "dilated": (lambda x, b: torch.relu(_conv(x, b, dilation=2, padding=1)).mean((2, 3)), 4),
    "grouped": (
        lambda x, b: functional.conv2d(
            torch.relu(_conv(x, b, stride=2)), b.second[:, :1], groups=4
        ).relu().flatten(1),
        4,
    ),
    "transposed": (
        lambda x, b: functional.conv_transpose2d(
            torch.relu(_conv(x, b, stride=2)), b.second, stride=2, output_padding=1
        ).relu().mean((2, 3)),
        4,
    ),
    "moves": (
        lambda x, b: functional.pad(
            x.transpose(2, 3).permute(0, 1, 3, 2)[:, :, ::2, 1:], (1, 0, 0, 1), value=0.5
        ).flatten(1).chunk(2, 1)[1].relu(),
        40,
    ),
    "scaled": (
        lambda x, b: torch.relu(
            3 - 2 * (x - b.offset[:2, None, None]) / b.offset[2:4, None, None].exp()
        ).sum((1, 2)).neg(),
        8,
    ),
    "broadcast": (
        lambda x, b: torch.relu(x - x.mean((2, 3), keepdim=True).expand_as(x)).flatten(1)[:, ::9],
        15,
    ),
    "deep": (
        lambda x, b: torch.tanh(functional.conv2d(_block(x, b), b.second, stride=2)).mean((2, 3)), 4
    ),
}  # fmt: skip


def body(name: str, seed: int = 0) -> Body:
    """Return the float64 model of an operation, for images (B,2,8,8)."""
    function, features = OPERATIONS[name]
    return Body(function, features, seed)


def pictures(rows: int, seed: int) -> Tensor:
    """Return images (rows,2,8,8), float64, some pixels of which are on the limits."""
    g = torch.Generator().manual_seed(seed)
    return (1.4 * torch.rand(rows, 2, 8, 8, generator=g, dtype=torch.float64) - 0.2).clamp(0, 1)


def functions_of(weight: Tensor, rows: int, seed: int) -> LinearFunctions:
    """Return the rows of `weight` (F,d) as functions of the features of each image."""
    g = torch.Generator().manual_seed(seed)
    repeated = weight.double().expand(rows, *weight.shape).clone()
    offset = torch.randn(rows, len(weight), generator=g, dtype=torch.float64)
    return LinearFunctions(weight=repeated, offset=offset, weight_error=0 * repeated)


def points_inside(
    images: Tensor,
    radius: Tensor,
    norm: str,
    values: Callable[[Tensor], Tensor],
    seed: int,
    bounds: tuple[float, float] = (0, 1),
) -> Iterator[Tensor]:
    """Yield batches of images in the sets: random ones, corners, and those of descents.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
    radius : Tensor (B,)
    norm : {"l2", "linf"}
    values : callable
        Function (B,) of images that descents make small.
    seed : int
    bounds : (float, float)
        Limits of pixels.
    """
    g = torch.Generator().manual_seed(seed)
    r = radius[:, None, None, None]

    def inside(moved: Tensor) -> Tensor:
        step = moved - images
        if norm == "linf":
            step = torch.minimum(torch.maximum(step, -r), r)
        else:
            length = step.flatten(1).norm(dim=1)[:, None, None, None]
            step = step * (r / torch.maximum(length, r).clamp_min(1e-300))
        # towards the centre, so that rounding leaves the point inside
        return (images + (1 - 1e-13) * step).clamp(*bounds)

    for start in range(6):
        noise = torch.randn(images.shape, generator=g, dtype=torch.float64)
        x = inside(images + r * (noise if start % 2 else 20 * noise))
        yield x
        for k in range(12):
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(values(x).sum(), x)
            if norm == "linf":
                gradient = gradient.sign()
            else:
                gradient = (
                    gradient
                    / gradient.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None, None]
                )
            # in L2, long steps end at the point of the ball that is farthest down the gradient
            long = 2.0 if norm == "linf" else 100.0
            x = inside(x.detach() - r * gradient * (long if k < 4 else 0.5 / (k - 3)))
            yield x


def exact_minimum(
    layers: list[tuple[Tensor, Tensor]], c: Tensor, low: Tensor, high: Tensor
) -> float:
    """Return the minimum of ``c.f(x)`` on a box, f a ReLU net, by one program per pattern.

    Parameters
    ----------
    layers : list of (Tensor (m, n), Tensor (m,))
        Weights and biases, each followed by a ReLU.
    c : Tensor (m,)
    low, high : Tensor (n,)
    """
    width = sum(len(bias) for _, bias in layers)
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=width):
        a, b = np.eye(len(low)), np.zeros(len(low))
        rows, rest, used = [], [], 0
        for weight, bias in layers:
            a, b = weight.numpy() @ a, weight.numpy() @ b + bias.numpy()
            on = np.array(pattern[used : used + len(bias)])
            used += len(bias)
            sign = 1 - 2 * on  # on: a x + b >= 0
            rows.append(sign[:, None] * a)
            rest.append(-sign * b)
            a, b = on[:, None] * a, on * b
        found = linprog(
            c.numpy() @ a, np.vstack(rows), np.concatenate(rest),
            bounds=list(zip(low.numpy(), high.numpy(), strict=True)),
        )  # fmt: skip
        if found.status == 0:
            best = min(best, found.fun + float(c.numpy() @ b))
    return best


class Lowered(BodyBounds):
    """Bounds of another method, changed by a function: for tests of what the core notices."""

    def __init__(self, method: BodyBounds, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.method, self.change = method, change

    def bound(self, view: ModelView, images, radius, *, norm, bounds, functions) -> Tensor:
        lower = self.method.bound(
            view, images, radius, norm=norm, bounds=bounds, functions=functions
        )
        return self.change(lower, radius)
