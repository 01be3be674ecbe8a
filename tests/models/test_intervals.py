"""Each operation's interval is as wide as the operation requires, and rounded outward."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsboundary.models.intervals import Interval, IntervalProver

A = torch.ops.aten
INF = math.inf
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
MODES = [torch.inference_mode, torch.no_grad, torch.enable_grad]


def prove(
    body: Callable[[Tensor], Tensor], x: Tensor, model: nn.Module | None = None
) -> Interval | None:
    prover = IntervalProver(model)
    with torch.no_grad(), prover:
        y = body(x)
    return prover.interval(y)


def limits(found: Interval | None) -> tuple[float, float]:
    return (-INF, INF) if found is None else found[:2]


def assert_close_outside(found: Interval | None, low: float, high: float, rtol: float) -> None:
    """`found` contains [low, high], and is at most `rtol` wider."""
    lower, upper = limits(found)
    assert lower <= low
    assert upper >= high
    for proved, wanted in ((lower, low), (upper, high)):
        assert proved == wanted or abs(proved - wanted) <= rtol * max(abs(low), abs(high), 1)


ACTIVATIONS: dict[str, tuple[nn.Module, float, float]] = {
    "ReLU": (nn.ReLU(), 0.0, INF),
    "ReLU6": (nn.ReLU6(), 0.0, 6.0),
    "Sigmoid": (nn.Sigmoid(), 0.0, 1.0),
    "Hardsigmoid": (nn.Hardsigmoid(), 0.0, 1.0),
    "Tanh": (nn.Tanh(), -1.0, 1.0),
    "Hardtanh": (nn.Hardtanh(-0.5, 2.0), -0.5, 2.0),
    "Softmax": (nn.Softmax(dim=1), 0.0, 1.0),
    "LogSoftmax": (nn.LogSoftmax(dim=1), -INF, 0.0),
    "Softplus": (nn.Softplus(), 0.0, INF),
    "SiLU": (nn.SiLU(), -0.2784645427610738, INF),
    "GELU": (nn.GELU(), -0.16997120747990369, INF),
    "GELU by tanh": (nn.GELU(approximate="tanh"), -0.17004075057125406, INF),
    "Hardswish": (nn.Hardswish(), -0.375, INF),
    "Mish": (nn.Mish(), -0.30884341301725043, INF),
    "ELU": (nn.ELU(), -1.0, INF),
    "ELU, other alpha": (nn.ELU(0.3), -0.3, INF),
    "SELU": (nn.SELU(), -1.7580993408473766, INF),
    "CELU": (nn.CELU(0.5), -0.5, INF),
    "Threshold": (nn.Threshold(1.0, -2.0), -2.0, INF),
    "negative slope": (nn.LeakyReLU(-0.5), 0.0, INF),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_both_limits_of_an_activation_are_proved(name: str, dtype: torch.dtype) -> None:
    activation, low, high = ACTIVATIONS[name]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.AdaptiveAvgPool2d(2)).to(dtype)
    images = torch.randn(2, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    eps = torch.finfo(dtype).eps
    for body, rtol in ((activation, 70 * eps), (net, 120 * eps)):
        found = prove(body, images)
        assert_close_outside(found, low, high, rtol)
        assert found is not None
        assert found.constants == ()
        assert activation(images).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_number_leaves_the_limits_of_an_activation(name: str, dtype: torch.dtype) -> None:
    activation = ACTIVATIONS[name][0]
    largest = torch.finfo(dtype).max
    wide = torch.linspace(-1, 1, 2001, dtype=torch.float64).mul(largest / 2).to(dtype)
    near = torch.linspace(-30, 30, 30001, dtype=torch.float64).to(dtype)
    special = torch.tensor([0.0, -0.0, INF, -INF, largest, -largest]).to(dtype)
    x = torch.cat([near, wide, special])[:, None].repeat(1, 2)
    x[:, 1] *= -1
    found = prove(activation, x)
    assert found is not None
    y = activation(x)
    y = y[~y.isnan()].double()
    assert len(y) > 30000
    assert (y >= found.lower).all()
    assert (y <= found.upper).all()


def base(x: Tensor) -> Tensor:
    """A tensor of which [-1.5, 2.5] is proved, and both limits occur."""
    return (x * 10).clamp(-1.5, 2.5)


# name: operation on x in [-1.5, 2.5] and y in [-0.25, 4], and its exact range
OPERATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = {
    "the operand itself": (lambda x, y: x, -1.5, 2.5),
    "neg": (lambda x, y: -x, -2.5, 1.5),
    "abs": (lambda x, y: x.abs(), 0.0, 2.5),
    "square": (lambda x, y: x.square(), 0.0, 6.25),
    "product with itself": (lambda x, y: x * x, 0.0, 6.25),
    "cube": (lambda x, y: x**3, -3.375, 15.625),
    "root": (lambda x, y: x.abs() ** 0.5, 0.0, 2.5**0.5),
    "sqrt": (lambda x, y: x.sqrt(), 0.0, 2.5**0.5),
    "exp": (lambda x, y: x.exp(), math.exp(-1.5), math.exp(2.5)),
    "log": (lambda x, y: (x + 2).log(), math.log(0.5), math.log(4.5)),
    "reciprocal": (lambda x, y: (x + 3).reciprocal(), 1 / 5.5, 1 / 1.5),
    "rsqrt": (lambda x, y: (x + 3).rsqrt(), 5.5**-0.5, 1.5**-0.5),
    "relu": (lambda x, y: x.relu(), 0.0, 2.5),
    "tanh": (lambda x, y: x.tanh(), math.tanh(-1.5), math.tanh(2.5)),
    "sigmoid": (lambda x, y: x.sigmoid(), 1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-2.5))),
    "hardsigmoid": (lambda x, y: F.hardsigmoid(x), 0.25, 5.5 / 6),
    "erf": (lambda x, y: x.erf(), math.erf(-1.5), math.erf(2.5)),
    "sin": (lambda x, y: x.sin(), -1.0, 1.0),
    "leaky relu": (lambda x, y: F.leaky_relu(x, 0.5), -0.75, 2.5),
    "leaky relu, negative": (lambda x, y: F.leaky_relu(x, -2.0), 0.0, 3.0),
    "elu": (lambda x, y: F.elu(x), -1.0, 2.5),
    "silu": (lambda x, y: F.silu(x), -0.2784645427610738, 2.5),
    "softplus": (lambda x, y: F.softplus(x), 0.0, math.log1p(math.exp(2.5))),
    "threshold": (lambda x, y: F.threshold(x, 0.5, -3.0), -3.0, 2.5),
    "clamp": (lambda x, y: x.clamp(0.5, 1.0), 0.5, 1.0),
    "clamp from below": (lambda x, y: x.clamp(min=0.5), 0.5, 2.5),
    "clamp from above": (lambda x, y: x.clamp(max=0.5), -1.5, 0.5),
    "clamp, wrong order": (lambda x, y: x.clamp(3.0, -4.0), -4.0, -4.0),
    "clamp by tensors": (lambda x, y: x.clamp(min=y, max=y + 9), -0.25, 4.0),
    "clamp_min": (lambda x, y: A.clamp_min(x, -0.5), -0.5, 2.5),
    "clamp_max by a tensor": (lambda x, y: A.clamp_max.Tensor(x, y), -1.5, 2.5),
    "maximum": (lambda x, y: torch.maximum(x, y), -0.25, 4.0),
    "minimum": (lambda x, y: torch.min(x, y), -1.5, 2.5),
    "sum of two": (lambda x, y: x + y, -1.75, 6.5),
    "difference of two": (lambda x, y: x - y, -5.5, 2.75),
    "product of two": (lambda x, y: x * y, -6.0, 10.0),
    "quotient of two": (lambda x, y: x / (y + 1.25), -1.5, 2.5),
    "quotient by a negative": (lambda x, y: x / (y - 9), -0.5, 0.3),
    "product with a number": (lambda x, y: x * -2.0, -5.0, 3.0),
    "quotient by a number": (lambda x, y: x / -0.5, -5.0, 3.0),
    "mask": (lambda x, y: x * (y > 1), -1.5, 2.5),
    "concatenation": (lambda x, y: torch.cat([x, y]), -1.5, 4.0),
    "stack": (lambda x, y: torch.stack([x, y]), -1.5, 4.0),
    "where": (lambda x, y: torch.where(x > 1, x, y), -1.5, 4.0),
    "where, a number": (lambda x, y: torch.where(x > 1, x, 9.0), -1.5, 9.0),
    "masked fill": (lambda x, y: x.masked_fill(y > 1, -7.0), -7.0, 2.5),
    "scatter": (lambda x, y: x.index_fill(1, torch.tensor([0]), 5.0), -1.5, 5.0),
    "written part": (lambda x, y: x.index_put((torch.tensor([0]),), y[0]), -1.5, 4.0),
    "mean": (lambda x, y: x.mean((2, 3)), -1.5, 2.5),
    "sum": (lambda x, y: x.sum((2, 3)), -96.0, 160.0),
    "amax": (lambda x, y: x.amax(1), -1.5, 2.5),
    "sort": (lambda x, y: x.sort(1)[0], -1.5, 2.5),
    "topk": (lambda x, y: x.topk(2, 1)[0], -1.5, 2.5),
    "average pooling": (lambda x, y: F.avg_pool2d(x, 2), -1.5, 2.5),
    "average pooling of positives": (lambda x, y: F.avg_pool2d(x.clamp(min=1), 3, 1), 1.0, 2.5),
    "average pooling, padded": (lambda x, y: F.avg_pool2d(x.clamp(min=1), 3, 1, 1), 0.0, 2.5),
    "average pooling, divisor": (
        lambda x, y: F.avg_pool2d(x, 2, divisor_override=-2),
        -5.0,
        3.0,
    ),
    "adaptive pooling": (lambda x, y: F.adaptive_avg_pool2d(x, 3), -1.5, 2.5),
    "max pooling": (lambda x, y: F.max_pool2d(x, 3, 2, 1), -1.5, 2.5),
    "max pooling, gaps": (lambda x, y: F.max_pool2d(x, 3, 2, 1, dilation=2), -INF, 2.5),
    "zero padding": (lambda x, y: F.pad(x.clamp(min=1), (1, 1)), 0.0, 2.5),
    "padding": (lambda x, y: F.pad(x, (1, 1), value=7.0), -1.5, 7.0),
    "reflection": (lambda x, y: F.pad(x, (1, 1, 1, 1), mode="reflect"), -1.5, 2.5),
    "nearest": (lambda x, y: F.interpolate(x, scale_factor=2), -1.5, 2.5),
    "bilinear": (lambda x, y: F.interpolate(x, scale_factor=2, mode="bilinear"), -1.5, 2.5),
    "bicubic": (lambda x, y: F.interpolate(x, scale_factor=2, mode="bicubic"), -INF, INF),
    "views": (lambda x, y: x.permute(0, 2, 3, 1).flatten(1).chunk(2, 1)[0], -1.5, 2.5),
    "rearranged": (lambda x, y: x.flip(1).roll(1, 1).repeat(1, 2, 1, 1)[:, [0, 2]], -1.5, 2.5),
    "pixel shuffle": (lambda x, y: F.pixel_shuffle(x, 2), -1.5, 2.5),
    "double": (lambda x, y: x.double(), -1.5, 2.5),
    "matrix product": (lambda x, y: x @ y, -INF, INF),
    "layer norm": (lambda x, y: F.layer_norm(x, x.shape[1:]), -INF, INF),
    "norm of the batch": (lambda x, y: F.batch_norm(x, None, None, training=True), -INF, INF),
    "integers": (lambda x, y: (x * 100).to(torch.int8).to(x.dtype), -128.0, 127.0),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_limits_of_an_operation(name: str, mode: Callable[[], torch.no_grad]) -> None:
    operation, low, high = OPERATIONS[name]
    for dtype in (torch.float32, torch.bfloat16):
        with mode():
            x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
            prover = IntervalProver()
            with prover:
                z = operation(base(x), (x.flip(0) * 10).clamp(-0.25, 4))
            found = prover.interval(z)
            rtol = 100 * torch.finfo(dtype).eps
            assert_close_outside(found, low, high, rtol)
            lower, upper = limits(found)
            z = z[~z.isnan()]
            assert z.min() >= lower
            assert z.max() <= upper


WITH_ALPHA: dict[str, Callable[[Tensor, float], Tensor]] = {
    "torch.add of a number": lambda x, a: torch.add(x, 1, alpha=a),
    "add.Scalar by position": lambda x, a: A.add.Scalar(x, 1, a),
    "add.Scalar by name": lambda x, a: A.add.Scalar(x, 1, alpha=a),
    "add.Tensor": lambda x, a: A.add.Tensor(x, torch.ones_like(x), alpha=a),
    "add in place": lambda x, a: x.add_(torch.ones_like(x), alpha=a),
    "add_.Scalar by position": lambda x, a: A.add_.Scalar(x, 1, a),
    "torch.sub": lambda x, a: torch.sub(x, torch.ones_like(x), alpha=-a),
    "sub.Scalar by position": lambda x, a: A.sub.Scalar(x, 1, -a),
    "sub in place": lambda x, a: x.sub_(1, alpha=-a),
    "rsub.Scalar by position": lambda x, a: A.rsub.Scalar(torch.ones_like(x), 0, -a) + x,
    "torch.rsub": lambda x, a: torch.rsub(torch.ones_like(x), x, alpha=-a),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", WITH_ALPHA)
def test_a_factor_of_the_second_operand_counts(
    name: str, mode: Callable[[], torch.no_grad]
) -> None:
    with mode():
        for alpha in (1, -5, 0.5):
            prover = IntervalProver()
            with prover:
                z = WITH_ALPHA[name](torch.randn(50).clamp(-1.5, 2.5), alpha)
            assert_close_outside(prover.interval(z), -1.5 + alpha, 2.5 + alpha, 1e-5)


BIT_VIEWS: dict[str, Callable[[Tensor], object]] = {
    "relu in place": lambda x: torch._neg_view(x).relu_(),
    "clamp in place": lambda x: torch._neg_view(x).clamp_(0.5, 1),
    "fill": lambda x: torch._neg_view(x).fill_(3.0),
    "copy": lambda x: torch._neg_view(x).copy_(x.abs()),
    "copy of a negated view": lambda x: x.copy_(torch._neg_view(x.abs())),
    "part": lambda x: torch._neg_view(x)[:1].abs_(),
    "imaginary part": lambda x: torch.view_as_complex(x.view(-1, 2)).conj().imag.abs_(),
    "complex product": lambda x: torch.view_as_complex(x.view(-1, 2)).mul_(-1),
    "other bits": lambda x: x.view(torch.int32).bitwise_xor_(-(2**31)),
    "other dtype filled": lambda x: x.view(torch.int32).fill_(-1082130432),
    "other float filled": lambda x: x.view(torch.float64).fill_(-1.0),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", BIT_VIEWS)
@pytest.mark.parametrize("proved", [False, True], ids=["raw", "proved before"])
def test_writes_through_views_that_read_bits_otherwise(
    name: str, proved: bool, mode: Callable[[], torch.no_grad]
) -> None:
    with mode():
        prover = IntervalProver()
        with prover:
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
            x = x.clamp(0, 5) if proved else x
            BIT_VIEWS[name](x)
            views = [x, torch._neg_view(x), x.clone(), torch._neg_view(x).clone()]
        for view in views:
            lower, upper = limits(prover.interval(view))
            assert view.min() >= lower
            assert view.max() <= upper


class Affine(nn.Module):
    """A module with one constant of each kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.plain = nn.Linear(8, 5), nn.Linear(8, 5, bias=False)
        self.point = nn.Conv2d(4, 6, 1)
        self.wide = nn.Conv2d(4, 6, 3, padding=1)
        self.depth = nn.Conv2d(4, 4, 3, groups=4)
        self.norm, self.prelu = nn.BatchNorm2d(4), nn.PReLU(4)
        self.scale = nn.Parameter(torch.tensor([0.5, -2.0]).view(1, 2, 1, 1, 1))
        self.register_buffer("shift", torch.tensor(3.0))
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.1, 4)
            self.norm.weight.normal_()
            self.norm.bias.normal_()
            self.prelu.weight.copy_(torch.tensor([0.5, 0.25, -1.0, 0.0]))
        self.eval()


def corners(weight: Tensor, bias: Tensor | None, low: float, high: float) -> tuple[float, float]:
    """Return the exact range over the box of the rows of ``W x + b``, by fractions."""
    totals = []
    for k, row in enumerate(weight.flatten(1).double().tolist()):
        offset = Fraction(0.0 if bias is None else bias[k].item())
        ends = [[Fraction(w) * Fraction(x) for x in (low, high)] for w in row]
        totals.append((offset + sum(map(min, ends)), offset + sum(map(max, ends))))
    return float(min(t[0] for t in totals)), float(max(t[1] for t in totals))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("layer", ["linear", "plain", "point", "wide", "depth"])
def test_affine_maps_of_constants(layer: str, mode: Callable[[], torch.no_grad]) -> None:
    model = Affine()
    module = getattr(model, layer)
    low, high = corners(module.weight.detach(), module.bias, -1.5, 2.5)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with mode():
        prover = IntervalProver(model)
        with prover:
            z = module(base(x))
        found = prover.interval(z)
    assert_close_outside(found, low, high, 2e-2)
    assert found is not None
    assert {name for name, _ in found.constants} <= {f"{layer}.weight", f"{layer}.bias"}
    assert found.holds(model)
    assert limits(prove(lambda x: module(x), x, model)) == (-INF, INF)
    assert limits(prove(lambda x: module(base(x)), x)) == (-INF, INF)  # the model is not given


@pytest.mark.parametrize("bits", [7, 10], ids=["bfloat16", "TF32"])
@pytest.mark.parametrize("layer", ["linear", "plain", "point", "wide", "depth"])
def test_products_of_rounded_factors_stay_inside(layer: str, bits: int) -> None:
    """As tensor cores compute them, after torch's settings or the model's device changed."""

    def round_to(x: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(x.detach())
        return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)

    for seed in range(20):
        model = Affine()
        torch.manual_seed(seed)
        module = getattr(model, layer)
        with torch.no_grad():
            module.weight.normal_()
        signs = module.weight.detach()[0].sign().flatten()[:8]
        x = torch.where(signs > 0, 2.5 - 2.0**-8, -1.5 + 2.0**-9)
        x = x.view(1, 1, 1, 8) if layer in ("linear", "plain") else x[:4].view(1, -1, 1, 1)
        x = x.expand(1, 4, 8, 8).contiguous()
        found = prove(lambda z, m=module: m(z.clamp(-1.5, 2.5)), x, model)
        assert found is not None
        for parameter in module.parameters():
            parameter.data = round_to(parameter)
        y = module(round_to(x)).detach()
        assert found.lower <= y.min()
        assert y.max() <= found.upper


def test_a_nonnegative_affine_map_keeps_zero_exactly() -> None:
    model = Affine()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model.norm.running_mean.abs_().neg_()
    x = torch.randn(2, 4, 8, 8)
    for layer in (model.linear, model.plain, model.point, model.norm):
        found = prove(lambda x, layer=layer: layer(x.relu()), x, model)
        if layer in (model.plain,):
            assert limits(found) == (0.0, INF)
        assert limits(found)[0] >= 0
        assert limits(found)[1] == INF


def test_batch_norm_and_elementwise_constants() -> None:
    model = Affine()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = model.norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    ends = [scale * (end - norm.running_mean) + norm.bias for end in (-1.5, 2.5)]
    low, high = torch.minimum(*ends).min().item(), torch.maximum(*ends).max().item()
    found = prove(lambda x: norm(base(x)), x, model)
    assert_close_outside(found, low, high, 1e-5)
    assert found is not None
    assert found.reason == "clamp and batch_norm"
    names = ["norm.bias", "norm.running_mean", "norm.running_var", "norm.weight"]
    assert [name for name, _ in found.constants] == names
    assert_close_outside(prove(lambda x: base(x)[:, None] * model.scale, x, model), -5, 3, 1e-5)
    assert_close_outside(prove(lambda x: model.shift - base(x), x, model), 0.5, 4.5, 1e-5)
    assert_close_outside(prove(lambda x: model.prelu(base(x)), x, model), -0.75, 2.5, 1e-5)
    residual = prove(lambda x: F.silu(x) + model.shift * torch.sigmoid(x), x, model)
    assert_close_outside(residual, -0.2784645, INF, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layer", ["linear", "plain", "point", "norm", "scale", "shift"])
def test_constants_with_an_input_that_is_known_exactly(layer: str, dtype: torch.dtype) -> None:
    """The interval is a few roundings wide, so that an error of any other dtype would show."""
    model = Affine().to(dtype)
    module = getattr(model, layer)
    for value in (-0.1, 0.3, 1 / 3):

        def run(x: Tensor, value: float = value) -> Tensor:
            z = torch.full_like(x, value)
            if layer == "scale":
                return z[:, None] * module
            return z - module if layer == "shift" else module(z)

        x = torch.zeros(2, 4, 8, 8, dtype=dtype)
        found = prove(run, x, model)
        y = run(x).detach().double()
        assert found is not None
        assert found.lower <= y.min()
        assert y.max() <= found.upper
        products = dtype == torch.float32 and layer in ("linear", "plain", "point")
        room = 0.01 if products else 200 * torch.finfo(dtype).eps
        assert max(y.min() - found.lower, found.upper - y.max()) <= room


CHANGES: dict[str, Callable[[Affine], object]] = {
    "in place": lambda m: m.linear.weight.mul_(2),
    "behind autograd": lambda m: m.linear.weight.data.mul_(2),
    "one number": lambda m: m.linear.bias.data[0].add_(1),
    "other data": lambda m: setattr(m.linear.weight, "data", torch.zeros(5, 8)),
    "another parameter": lambda m: setattr(m.linear, "bias", nn.Parameter(torch.ones(5))),
    "another layer": lambda m: setattr(m, "linear", nn.Linear(8, 5)),
    "no bias": lambda m: setattr(m.linear, "bias", None),
    "loaded": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "another dtype": lambda m: m.half(),
    "NaN": lambda m: m.linear.weight.data[0].fill_(float("nan")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_proof_by_constants_ends_when_they_change(change: Callable[[Affine], object]) -> None:
    model = Affine()
    x = torch.randn(2, 4, 8, 8)
    found = prove(lambda x: model.linear(base(x)), x, model)
    plain = prove(base, x, model)
    assert found is not None
    assert plain is not None
    assert found.holds(model)
    with torch.no_grad():
        change(model)
    assert not found.holds(model)
    assert plain.holds(model)


WRITES: dict[str, Callable[[Affine, Tensor], Tensor]] = {
    "before the use": lambda m, x: (m.shift.mul_(-2), base(x) + m.shift)[1],
    "after the use": lambda m, x: (base(x) + m.shift, m.shift.copy_(x.max()))[0],
    "between two uses": lambda m, x: (base(x) + m.shift, m.shift.neg_(), base(x) + m.shift)[2],
    "by a view": lambda m, x: (base(x) + m.shift, m.shift.view(1)[:1].fill_(9.0))[0],
    "behind autograd": lambda m, x: (base(x) + m.shift, m.shift.data.fill_(9.0))[0],
    "by out=": lambda m, x: (base(x) + m.shift, torch.amax(x, (0, 1, 2, 3), out=m.shift))[0],
    "by training": lambda m, x: (
        m.norm(base(x)),
        F.batch_norm(x, m.norm.running_mean, m.norm.running_var, training=True),
    )[0],
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_constants_written_to_in_the_pass_prove_nothing(
    write: Callable[[Affine, Tensor], Tensor],
) -> None:
    model = Affine()
    assert prove(lambda x: write(model, x), torch.randn(2, 4, 8, 8), model) is None


NOT_CONSTANT: dict[str, Callable[[Affine, Tensor], Tensor]] = {
    "numbers of the image by NumPy": lambda m, x: base(x) + torch.from_numpy(x.numpy().copy()),
    "numbers of the image by a list": lambda m, x: base(x) + torch.tensor(x.tolist()),
    "a tensor made in the pass": lambda m, x: base(x) + torch.tensor(2.0),
    "chance": lambda m, x: base(x) + torch.randn(8),
    "a layer that is not the model's": lambda m, x: nn.Linear(8, 5)(base(x)),
    "the image": lambda m, x: base(x) + x,
    "a limit read from the image": lambda m, x: x.clamp(-x.max().item(), x.max().item()),
    "a factor read from the image": lambda m, x: base(x) * float(x.std()),
    "a count read from the image": lambda m, x: x.clamp(0, int(x.argmax())) - 1,
    "filled by a number read": lambda m, x: torch.full((3,), x.max().item()),
    "too large": lambda m, x: base(x) + m.large[:8],
}


@pytest.mark.parametrize("body", NOT_CONSTANT.values(), ids=NOT_CONSTANT.keys())
def test_what_differs_between_images_is_not_constant(
    body: Callable[[Affine, Tensor], Tensor],
) -> None:
    model = Affine()
    model.register_buffer("large", torch.zeros(1_000_001))
    assert prove(lambda x: body(model, x), torch.randn(2, 4, 8, 8), model) is None


def test_a_comparison_read_from_the_image_does_not_end_proofs() -> None:
    found = prove(lambda x: x.clamp(0, 3) if x.max() > -9 else x, torch.randn(5))
    assert limits(found) == (0.0, 3.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_of_long_sums_stays_inside(dtype: torch.dtype) -> None:
    """All numbers are at a limit, which rounding pushes outward as far as it can."""
    for size in (3, 7, 49, 1000):
        for limit in (0.1, -0.3, 1.7, 0.0):
            x = torch.full((2, 3, size, 1), limit, dtype=torch.float64).to(dtype)
            number = float(x[0, 0, 0, 0])
            for body in (
                lambda z: z.mean((2, 3)),
                lambda z: z.sum((2, 3)),
                lambda z: F.adaptive_avg_pool2d(z, (2, 1)),
                lambda z: F.avg_pool2d(z, (3, 1), 1, (1, 0)),
                lambda z: F.avg_pool2d(z, (2, 1), divisor_override=3),
                lambda z: F.interpolate(z, (17, 5), mode="bilinear"),
                lambda z: z * 0.1 + 0.7,
                lambda z: z / 3 - 0.1,
            ):
                run = lambda z, body=body, n=number: body(z.clamp(n, n))  # noqa: E731  # one line
                found = prove(run, x)
                y = run(x).double()
                assert found is not None
                assert found.lower <= y.min()
                assert y.max() <= found.upper
                assert math.isfinite(found.upper - found.lower)


def test_overflow_is_infinite() -> None:
    x = torch.full((4, 64), 6e4, dtype=torch.float16)
    for body in (
        lambda z: z.sum(1),
        lambda z: z * 2,
        lambda z: z + z,
        lambda z: z.pow(3),
        lambda z: z / 0.5,
        lambda z: z.float().mul(2).half(),
        lambda z: torch.add(z, z, alpha=2),
    ):
        for sign in (1, -1):
            run = lambda z, body=body, s=sign: body((s * z).clamp(-6e4, 6e4))  # noqa: E731  # one line
            assert body(sign * x).isinf().all()
            assert limits(prove(run, x)) == (-INF, INF)


def test_a_question_during_the_pass_changes_nothing() -> None:
    model = Affine()
    prover = IntervalProver(model)
    with prover:
        assert limits(prover.interval(model.shift)) == (3.0, 3.0)
        x = model.linear(base(torch.randn(3, 8)))
        assert prover.interval(x) is not None
        y = torch.randn(3, 8).clamp(-1.5, 2.5)
        assert not prover.proof(y)
    assert limits(prover.interval(y)) == (-1.5, 2.5)  # numbers are still trusted


def test_the_reason_names_the_operations() -> None:
    x = torch.randn(2, 4, 8, 8)
    for body, reason in (
        (lambda x: F.relu(x).mean((2, 3)), "relu"),
        (lambda x: F.relu(F.silu(x)), "relu"),  # whatever its input is
        (lambda x: torch.sigmoid(x) + F.silu(x).relu().tanh(), "sigmoid, relu and tanh"),
        (lambda x: F.hardtanh(F.silu(x)).abs(), "silu, hardtanh and abs"),
        (lambda x: torch.zeros_like(x) + 1, "zeros_like"),
    ):
        found = prove(body, x)
        assert found is not None
        assert found.reason == reason
    model = Affine()
    found = prove(lambda x: model.shift.expand(3).clone(), x, model)
    assert found is not None
    assert found.reason == "the model's parameters"


def test_only_whole_storages_are_proved() -> None:
    prover = IntervalProver()
    with prover:
        buffer = torch.randn(10) - 5
        part = buffer[:3]
        part.clamp_(0, 1)
        assert prover.interval(part) is None
        assert prover.interval(buffer) is None
        whole = buffer.clamp(-1, 2)
        whole[:3].fill_(7.0)
        found = prover.interval(whole[5:])
        assert limits(found) == (-1.0, 7.0)
        whole.resize_(100)
        assert prover.interval(whole) is None
