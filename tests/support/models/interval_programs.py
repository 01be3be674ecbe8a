"""Random programs of torch operations, for the search for false intervals.

A program is a pool of tensors of one shape: each step applies an operation, in place or not, to
some of them. It runs once under the prover and then, without it, on other inputs. Every number of
every tensor must lie in the interval proved in the first pass. All that is random is drawn anew
from the same seed in each pass, so that passes differ only by their inputs.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsboundary.models.intervals import Interval, IntervalProver

A: Any = torch.ops.aten
SHAPE = (2, 3, 4, 4)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SCALARS = (-100.0, -2.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 2, 3.0, 6.0, 1e4)

Step = Callable[["Parts", random.Random, Tensor, Tensor], Any]


class Parts(nn.Module):
    """Parameters and buffers that programs use as constants."""

    def __init__(self, r: random.Random, dtype: torch.dtype) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(r.randrange(10**6))
        size = r.choice([0.1, 1.0, 30.0])
        sign = r.random() < 0.4

        def draw(*shape: int) -> Tensor:
            x = torch.randn(*shape, generator=g) * size
            return (x.abs() if sign else x).to(dtype)

        self.scale, self.shift = nn.Parameter(draw(1)), nn.Parameter(draw(3, 1, 1))
        self.positive = nn.Parameter(draw(1, 3, 1, 1).abs() + 0.125)
        self.linear, self.plain = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.point, self.wide = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.depth = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.norm, self.prelu = nn.BatchNorm2d(3), nn.PReLU(3)
        self.table = nn.Embedding(5, 4)
        self.register_buffer("state", draw(4))
        self.to(dtype)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(draw(*p.shape))
            self.norm.running_mean.copy_(draw(3))
            self.norm.running_var.copy_(draw(3).abs())
        self.eval()


def scalar(r: random.Random) -> float:
    return r.choice(SCALARS)


def _then(x: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    change(x)
    return x


def _sorted(r: random.Random) -> list[float]:
    return sorted((scalar(r), scalar(r)))


def _fit(x: Tensor) -> Tensor:
    return x[..., :4, :4]


STEPS: dict[str, Step] = {
    "relu": lambda m, r, x, y: x.relu(),
    "relu_": lambda m, r, x, y: x.relu_(),
    "relu6": lambda m, r, x, y: F.relu6(x),
    "neg": lambda m, r, x, y: -x,
    "neg_": lambda m, r, x, y: x.neg_(),
    "add number": lambda m, r, x, y: x + scalar(r),
    "add_ number": lambda m, r, x, y: x.add_(scalar(r)),
    "sub number": lambda m, r, x, y: x - scalar(r),
    "rsub number": lambda m, r, x, y: scalar(r) - x,
    "rsub alpha": lambda m, r, x, y: torch.rsub(x, y, alpha=scalar(r)),
    "mul number": lambda m, r, x, y: x * scalar(r),
    "mul_ number": lambda m, r, x, y: x.mul_(scalar(r)),
    "div number": lambda m, r, x, y: x / r.choice([-2.0, 0.3, 3.0, 1e-40, 1e39, 7e3]),
    "div floor": lambda m, r, x, y: torch.div(x, r.choice([-2.0, 2.0]), rounding_mode="floor"),
    "pow": lambda m, r, x, y: x ** r.choice([1, 2, 3, 0.5, -1, 4, 1 / 3, -0.5, 2.999]),
    "pow_": lambda m, r, x, y: x.pow_(r.choice([1, 2, 3])),
    "number to the": lambda m, r, x, y: r.choice([-2.0, 2.0, 0.5]) ** x.clamp(-3, 3).round(),
    "abs": lambda m, r, x, y: x.abs(),
    "square": lambda m, r, x, y: x.square(),
    "exp": lambda m, r, x, y: x.exp(),
    "exp clamped": lambda m, r, x, y: x.clamp(-5, 5).exp(),
    "log": lambda m, r, x, y: x.log(),
    "log of positive": lambda m, r, x, y: (x.abs() + 0.1).log(),
    "sqrt": lambda m, r, x, y: x.sqrt(),
    "rsqrt": lambda m, r, x, y: (x.square() + r.choice([0.0, 1e-30, 1e-5, 1.0])).rsqrt(),
    "reciprocal": lambda m, r, x, y: (x.abs() + r.choice([0.0, 0.1, 3.0])).reciprocal(),
    "sigmoid": lambda m, r, x, y: x.sigmoid(),
    "tanh": lambda m, r, x, y: x.tanh(),
    "gelu": lambda m, r, x, y: F.gelu(x, approximate=r.choice(["none", "tanh"])),
    "silu": lambda m, r, x, y: F.silu(x),
    "silu_": lambda m, r, x, y: F.silu(x, inplace=True),
    "mish": lambda m, r, x, y: F.mish(x),
    "hardswish": lambda m, r, x, y: F.hardswish(x),
    "hardsigmoid": lambda m, r, x, y: F.hardsigmoid(x),
    "softplus": lambda m, r, x, y: F.softplus(x, r.choice([1, 2, -1]), r.choice([20, 0, -3])),
    "elu": lambda m, r, x, y: F.elu(x, r.choice([1.0, 0.3, -0.5])),
    "elu all": lambda m, r, x, y: A.elu(x, scalar(r), scalar(r), scalar(r)),
    "selu": lambda m, r, x, y: F.selu(x),
    "celu": lambda m, r, x, y: F.celu(x, r.choice([1.0, 0.3, -0.5])),
    "leaky_relu": lambda m, r, x, y: F.leaky_relu(x, r.choice([0.1, -0.1, 0.0, 3.0])),
    "prelu": lambda m, r, x, y: m.prelu(x),
    "threshold": lambda m, r, x, y: F.threshold(x, scalar(r), scalar(r)),
    "threshold_": lambda m, r, x, y: F.threshold_(x, scalar(r), scalar(r)),
    "clamp": lambda m, r, x, y: x.clamp(*_sorted(r)),
    "clamp any": lambda m, r, x, y: x.clamp(scalar(r), scalar(r)),
    "clamp min": lambda m, r, x, y: x.clamp(min=scalar(r)),
    "clamp max": lambda m, r, x, y: x.clamp(max=scalar(r)),
    "clamp_": lambda m, r, x, y: x.clamp_(scalar(r), scalar(r)),
    "clamp tensors": lambda m, r, x, y: torch.clamp(x, min=y, max=x * 0 + scalar(r)),
    "clamp nan": lambda m, r, x, y: x.clamp(min=float("nan"), max=scalar(r)),
    "clamp_min": lambda m, r, x, y: A.clamp_min(x, scalar(r)),
    "clamp_min tensor": lambda m, r, x, y: A.clamp_min.Tensor(x, y),
    "clamp_max tensor": lambda m, r, x, y: A.clamp_max.Tensor(x, y),
    "hardtanh": lambda m, r, x, y: A.hardtanh(x, *_sorted(r)),
    "softmax": lambda m, r, x, y: x.softmax(r.choice([1, -1])),
    "log_softmax": lambda m, r, x, y: x.log_softmax(1),
    "logsigmoid": lambda m, r, x, y: F.logsigmoid(x),
    "sin": lambda m, r, x, y: x.sin(),
    "cos": lambda m, r, x, y: x.cos(),
    "erf": lambda m, r, x, y: x.erf(),
    "atan": lambda m, r, x, y: x.atan(),
    "floor": lambda m, r, x, y: (x - 0.5).floor(),
    "round": lambda m, r, x, y: x.round(),
    "nan_to_num": lambda m, r, x, y: x.nan_to_num(),
    "mean": lambda m, r, x, y: x.mean(r.choice([1, (2, 3), -1]), keepdim=True).expand_as(x).clone(),
    "mean of all": lambda m, r, x, y: x.mean().expand_as(x).contiguous(),
    "sum": lambda m, r, x, y: x.sum(r.choice([0, 1, (2, 3)]), keepdim=True).expand_as(x).clone(),
    "sum double": lambda m, r, x, y: x.sum(0, True, dtype=torch.float64).to(x.dtype).expand_as(x),
    "sum of none": lambda m, r, x, y: x[:0].sum(0, keepdim=True).expand_as(x).clone(),
    "amax": lambda m, r, x, y: x.amax(1, keepdim=True).expand_as(x).clone(),
    "amin": lambda m, r, x, y: x.amin(1, keepdim=True).expand_as(x),
    "max": lambda m, r, x, y: x.max(1, keepdim=True)[0].expand_as(x).contiguous(),
    "min": lambda m, r, x, y: x.min(1, keepdim=True)[0].expand_as(x),
    "cumsum": lambda m, r, x, y: x.cumsum(1),
    "cummax": lambda m, r, x, y: x.cummax(1)[0],
    "sort": lambda m, r, x, y: x.sort(1)[0],
    "sort order": lambda m, r, x, y: x.sort(1)[1].to(x.dtype) - 1,
    "topk": lambda m, r, x, y: x.topk(2, 1)[0][:, :1].expand_as(x).clone(),
    "flip": lambda m, r, x, y: x.flip(1),
    "roll": lambda m, r, x, y: x.roll(1, 1),
    "gather": lambda m, r, x, y: x.gather(1, torch.zeros(SHAPE, dtype=torch.long)),
    "index": lambda m, r, x, y: x[:, torch.tensor([2, 0, 1])],
    "repeat": lambda m, r, x, y: x[:, :1].repeat(1, 3, 1, 1),
    "shuffles": lambda m, r, x, y: F.pixel_unshuffle(F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2), 2)[
        :, :3
    ],
    "permute": lambda m, r, x, y: x.transpose(2, 3),
    "view": lambda m, r, x, y: x.reshape(-1).view(x.shape),
    "clone": lambda m, r, x, y: x.clone(),
    "detach": lambda m, r, x, y: x.detach(),
    "data": lambda m, r, x, y: x.data,
    "set data": lambda m, r, x, y: (setattr(x, "data", y.data), x)[1],
    "set_": lambda m, r, x, y: x.set_(y),
    "resize_": lambda m, r, x, y: x.clone().resize_(4, 3, 4, 4)[:2],
    "integers": lambda m, r, x, y: x.clamp(-1e3, 1e3).to(torch.int32).to(x.dtype),
    "small integers": lambda m, r, x, y: (
        (x.clamp(-1e3, 1e3) * 100).to(torch.int32).to(torch.int8).to(x.dtype)
    ),
    "unsigned": lambda m, r, x, y: x.clamp(0, 255).to(torch.uint8).to(x.dtype) / 255,
    "mask": lambda m, r, x, y: (x > 0).to(x.dtype),
    "times mask": lambda m, r, x, y: x * (y > 0),
    "half": lambda m, r, x, y: x.half().to(x.dtype),
    "brain": lambda m, r, x, y: x.bfloat16().to(x.dtype),
    "double": lambda m, r, x, y: x.double().to(x.dtype),
    "bits": lambda m, r, x, y: x.contiguous().view(torch.int16).view(x.dtype),
    "bits halved": lambda m, r, x, y: x.contiguous().view(torch.float16).to(x.dtype)[..., :4],
    "bits filled": lambda m, r, x, y: _then(x, lambda z: z.view(torch.int16).fill_(-16256)),
    "sign bits": lambda m, r, x, y: _then(
        x, lambda z: z.view(torch.int16).bitwise_xor_(-(2**15))
    ),
    "zeros": lambda m, r, x, y: torch.zeros_like(x),
    "ones": lambda m, r, x, y: torch.ones_like(x),
    "full_like": lambda m, r, x, y: torch.full_like(x, scalar(r)),
    "full": lambda m, r, x, y: torch.full(x.shape, scalar(r), dtype=x.dtype),
    "new_full": lambda m, r, x, y: x.new_full(x.shape, scalar(r)),
    "empty filled": lambda m, r, x, y: torch.empty_like(x).fill_(scalar(r)),
    "randn": lambda m, r, x, y: torch.randn_like(x),
    "normal_": lambda m, r, x, y: x.normal_(),
    "fill_": lambda m, r, x, y: x.fill_(scalar(r)),
    "zero_": lambda m, r, x, y: x.zero_(),
    "slice sub_": lambda m, r, x, y: _then(x, lambda z: z[:1].sub_(1.0)),
    "slice relu_": lambda m, r, x, y: _then(x, lambda z: z[:1].relu_()),
    "slice clamp_": lambda m, r, x, y: _then(x, lambda z: z[:, :2].clamp_(*_sorted(r))),
    "slice set": lambda m, r, x, y: _then(x, lambda z: z.__setitem__((0, 0), scalar(r))),
    "slice copy_": lambda m, r, x, y: _then(x, lambda z: z[1:].copy_(y[1:])),
    "diagonal sub_": lambda m, r, x, y: _then(x, lambda z: z.diagonal().sub_(2.0)),
    "strided sub_": lambda m, r, x, y: _then(x, lambda z: z.as_strided((2,), (1,)).sub_(3.0)),
    "chunk sub_": lambda m, r, x, y: _then(x, lambda z: z.chunk(2)[0].sub_(1.0)),
    "view add_": lambda m, r, x, y: _then(x, lambda z: z.view(-1).add_(-1.0)),
    "index_put": lambda m, r, x, y: x.index_put((torch.tensor([0]),), y[0]),
    "index_put_": lambda m, r, x, y: x.index_put_(
        (torch.tensor([0, 0]),), y[0], accumulate=r.random() < 0.5
    ),
    "index_fill": lambda m, r, x, y: x.index_fill(1, torch.tensor([0]), scalar(r)),
    "index_add": lambda m, r, x, y: x.index_add(0, torch.tensor([0]), y[:1]),
    "masked_fill": lambda m, r, x, y: x.masked_fill(y > 0.5, scalar(r)),
    "masked_fill_": lambda m, r, x, y: x.masked_fill_(y > 0.5, scalar(r)),
    "masked_scatter": lambda m, r, x, y: x.masked_scatter(x > 0.5, y),
    "scatter": lambda m, r, x, y: x.scatter(1, torch.zeros(SHAPE, dtype=torch.long), scalar(r)),
    "scatter add": lambda m, r, x, y: x.scatter(
        1, torch.zeros(SHAPE, dtype=torch.long), y, reduce="add"
    ),
    "slice_scatter": lambda m, r, x, y: torch.slice_scatter(x, y[:, :1], 1, 0, 1),
    "where": lambda m, r, x, y: torch.where(x > 0.3, x, y),
    "where number": lambda m, r, x, y: torch.where(x > 0.5, x, scalar(r)),
    "where ScalarSelf": lambda m, r, x, y: A.where.ScalarSelf(x > 0, scalar(r), x),
    "pad": lambda m, r, x, y: _fit(F.pad(x, (1, 0), value=scalar(r))),
    "pad reflect": lambda m, r, x, y: _fit(F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "add alpha": lambda m, r, x, y: torch.add(x, y, alpha=scalar(r)),
    "add_ alpha": lambda m, r, x, y: x.add_(y, alpha=scalar(r)),
    "add.Scalar": lambda m, r, x, y: A.add.Scalar(x, scalar(r), scalar(r)),
    "sub.Scalar": lambda m, r, x, y: A.sub.Scalar(x, scalar(r), scalar(r)),
    "rsub.Scalar": lambda m, r, x, y: A.rsub.Scalar(x, scalar(r), scalar(r)),
    "add.Tensor": lambda m, r, x, y: A.add.Tensor(x, y, alpha=r.choice([1, -5])),
    "mul.Scalar": lambda m, r, x, y: A.mul.Scalar(x, scalar(r)),
    "fill.Tensor": lambda m, r, x, y: A.fill.Tensor(x, y.flatten()[0]),
    "copy": lambda m, r, x, y: A.copy(x, y),
    "relu.out": lambda m, r, x, y: A.relu.out(x, out=torch.randn_like(x)),
    "neg.out": lambda m, r, x, y: torch.neg(y, out=x),
    "mul.out": lambda m, r, x, y: torch.mul(x, y, out=x),
    "lerp": lambda m, r, x, y: torch.lerp(x, y, 0.3),
    "addcmul": lambda m, r, x, y: torch.addcmul(x, x, y, value=scalar(r)),
    "upsample": lambda m, r, x, y: _fit(
        F.interpolate(x, scale_factor=2, mode=r.choice(["nearest", "bilinear", "bicubic"]))
    ),
    "resize": lambda m, r, x, y: F.interpolate(
        F.interpolate(x, 7, mode="bilinear", antialias=r.random() < 0.3), 4, mode="nearest"
    ),
    "avg_pool2d": lambda m, r, x, y: _fit(
        F.avg_pool2d(
            x,
            2,
            1,
            1,
            ceil_mode=r.random() < 0.3,
            count_include_pad=r.random() < 0.7,
            divisor_override=r.choice([None, -3, 3]),
        )
    ),
    "avg_pool3d": lambda m, r, x, y: F.avg_pool3d(x, 3, 1, 1),
    "avg_pool1d": lambda m, r, x, y: F.avg_pool1d(x.flatten(2), 3, 1, 1).view(x.shape),
    "adaptive average": lambda m, r, x, y: F.adaptive_avg_pool2d(x, (2, 2)).repeat(1, 1, 2, 2),
    "global average": lambda m, r, x, y: F.adaptive_avg_pool2d(x, 1).expand_as(x).clone(),
    "max_pool2d": lambda m, r, x, y: F.max_pool2d(x, 3, 1, 1),
    "max_pool2d gaps": lambda m, r, x, y: F.max_pool2d(
        x[..., :1], (1, 2), 1, (0, 1), dilation=(1, 2)
    ).expand_as(x),
    "adaptive max": lambda m, r, x, y: F.adaptive_max_pool2d(x, 2).repeat(1, 1, 2, 2),
    "batch_norm": lambda m, r, x, y: m.norm(x),
    "batch_norm own": lambda m, r, x, y: F.batch_norm(x, torch.zeros(3), torch.ones(3)),
    "batch_norm training": lambda m, r, x, y: F.batch_norm(
        x, m.norm.running_mean, m.norm.running_var, training=True
    ),
    "layer_norm": lambda m, r, x, y: F.layer_norm(x, x.shape[1:]),
    "normalize": lambda m, r, x, y: F.normalize(x, dim=1),
    "linear": lambda m, r, x, y: m.linear(x),
    "linear plain": lambda m, r, x, y: m.plain(x),
    "functional linear": lambda m, r, x, y: F.linear(x, m.linear.weight * 2, m.linear.bias),
    "addmm": lambda m, r, x, y: A.addmm(
        m.state, x.reshape(-1, 4), m.plain.weight, beta=r.choice([1, 2]), alpha=r.choice([1, -1])
    ).view(x.shape),
    "conv 1x1": lambda m, r, x, y: m.point(x),
    "conv 3x3": lambda m, r, x, y: m.wide(x),
    "conv depthwise": lambda m, r, x, y: m.depth(x),
    "conv transposed": lambda m, r, x, y: F.conv_transpose2d(x, m.point.weight, m.point.bias),
    "scale": lambda m, r, x, y: x * m.scale,
    "scale_": lambda m, r, x, y: x.mul_(m.scale),
    "shift": lambda m, r, x, y: x + m.shift,
    "minus shift": lambda m, r, x, y: m.shift - x,
    "over": lambda m, r, x, y: x / m.positive,
    "over shift": lambda m, r, x, y: x / m.shift,
    "clamp by": lambda m, r, x, y: torch.minimum(x, m.positive),
    "embedding": lambda m, r, x, y: x + m.table(torch.tensor([0, 3, 1, 1])),
    "constant": lambda m, r, x, y: m.shift.expand_as(x).clone(),
    "state": lambda m, r, x, y: x.clamp(-1, 1) + m.state,
    "write state": lambda m, r, x, y: _then(x, lambda z: m.state.copy_(z.reshape(-1)[:4])),
    "write parameter": lambda m, r, x, y: _then(x, lambda z: m.shift.data.mul_(-3)),
    "write view": lambda m, r, x, y: _then(x, lambda z: m.linear.weight.data[0].fill_(9.0)),
    "read clamp": lambda m, r, x, y: y.clamp(-float(x.abs().max()), float(x.abs().max())),
    "read scale": lambda m, r, x, y: y.relu() * x.flatten()[0].item(),
    "read full": lambda m, r, x, y: torch.full_like(x, x.sum().item()),
    "read count": lambda m, r, x, y: y.clamp(0, int(x.argmax())),
    "read new": lambda m, r, x, y: torch.tensor(x.flatten()[0].item(), dtype=x.dtype) * x.relu(),
    "tensor of list": lambda m, r, x, y: torch.tensor(x.tolist(), dtype=x.dtype),
    "neg view": lambda m, r, x, y: torch._neg_view(x),
    "neg view relu_": lambda m, r, x, y: _then(x, lambda z: torch._neg_view(z).relu_()),
    "neg view clamp_": lambda m, r, x, y: _then(
        x, lambda z: torch._neg_view(z).clamp_(*_sorted(r))
    ),
    "neg view fill_": lambda m, r, x, y: _then(x, lambda z: torch._neg_view(z).fill_(scalar(r))),
    "neg view copy_": lambda m, r, x, y: _then(x, lambda z: torch._neg_view(z).copy_(y)),
    "copy neg view": lambda m, r, x, y: x.copy_(torch._neg_view(y)),
    "conj": lambda m, r, x, y: torch.view_as_real(torch.complex(x, y).conj_physical())[..., 1],
    "imag of conj": lambda m, r, x, y: torch.complex(x, y).conj().imag,
    "imag relu_": lambda m, r, x, y: (
        z := torch.complex(x, y), z.conj().imag.relu_(), z.imag.clone()
    )[2],
    "complex mul_": lambda m, r, x, y: _then(
        x, lambda z: torch.view_as_complex(z.view(2, 3, 4, 2, 2)).mul_(-1)
    ),
    "foreach neg": lambda m, r, x, y: torch._foreach_neg([x])[0],
    "foreach sub_": lambda m, r, x, y: _then(x, lambda z: torch._foreach_sub_([z], 1.0)),
    "foreach clamp": lambda m, r, x, y: torch._foreach_clamp_min([x], 0.0)[0],
    "add": lambda m, r, x, y: x + y,
    "sub": lambda m, r, x, y: x - y,
    "mul": lambda m, r, x, y: x * y,
    "mul itself": lambda m, r, x, y: x * x,
    "mul_ itself": lambda m, r, x, y: x.mul_(x),
    "div": lambda m, r, x, y: x / y,
    "div positive": lambda m, r, x, y: x / (y.abs() + 0.1),
    "maximum": lambda m, r, x, y: torch.maximum(x, y),
    "minimum": lambda m, r, x, y: torch.minimum(x, y),
    "max of two": lambda m, r, x, y: torch.max(x, y),
    "fmax": lambda m, r, x, y: torch.fmax(x, y),
    "cat": lambda m, r, x, y: torch.cat([x, y])[1:3],
    "stack": lambda m, r, x, y: torch.stack([x, y]).mean(0),
    "copy_": lambda m, r, x, y: x.copy_(y),
    "add_": lambda m, r, x, y: x.add_(y),
    "mul_": lambda m, r, x, y: x.mul_(y),
    "matmul": lambda m, r, x, y: x @ y,
    "swap": lambda m, r, x, y: _then(x, lambda z: z[0].copy_(y[1])),
    "promoted": lambda m, r, x, y: (x + y.double()).to(x.dtype),
    "promoted_": lambda m, r, x, y: x.add_(y.double()),
    "dropout": lambda m, r, x, y: F.dropout(x, 0.5, training=r.random() < 0.5),
    "logsumexp": lambda m, r, x, y: x.logsumexp(1, keepdim=True).expand_as(x),
    "norm": lambda m, r, x, y: torch.linalg.vector_norm(x, dim=1, keepdim=True).expand_as(x),
    "remainder": lambda m, r, x, y: torch.remainder(x, r.choice([-2.0, 2.0])),
    "copysign": lambda m, r, x, y: torch.copysign(x, y),
}  # fmt: skip
"""Operations on tensors `x` and `y`, with numbers drawn from `r` and constants of `m`."""


def inputs(seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Return inputs of very different sizes, also with zeros, infinities and NaN."""
    g = torch.Generator().manual_seed(seed)
    large = torch.finfo(dtype).max / 4
    rows = [torch.randn(*SHAPE, generator=g, dtype=torch.float64) for _ in range(6)]
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40, -large, large])
    chosen = torch.randint(len(special) * 2, SHAPE, generator=g)
    rows[1] *= 40.0
    rows[2] = rows[2].clamp(-3.9, 3.9) * large
    rows[3] *= torch.finfo(dtype).tiny
    rows[4] = rows[4].sign() * 10.0 ** (10 * torch.rand(SHAPE, generator=g) - 5)
    rows[5] = torch.where(
        chosen < len(special), special.double()[chosen % len(special)], rows[5] * 3
    )
    rows.append(torch.full(SHAPE, float(torch.rand(1, generator=g)) * 20 - 10, dtype=torch.float64))
    return [x.clamp(-3.9 * large, 3.9 * large).to(dtype) if i != 5 else x.to(dtype)
            for i, x in enumerate(rows)]  # fmt: skip


class Outside(Exception):
    """A number outside its proved interval; the message says which."""


def check(value: Tensor, proved: Interval | None, where: str) -> None:
    """Raise Outside if a number of `value` is outside of the interval; NaN is inside."""
    if proved is None:
        return
    z = value.detach().double()
    outside = (z < proved.lower) | (z > proved.upper)
    if bool(outside.any()):
        raise Outside(f"{z[outside][0].item()!r} outside {proved[:3]} in {where}")


def run_program(
    seed: int, length: int, x: Tensor, parts: Parts, prover: IntervalProver | None, inference: bool
) -> tuple[list[Tensor], list[str], list[Interval | None]]:
    """Return the pool of tensors, the operations that made each, and the intervals at the end."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    pool, made = [x.clone(), x.flip(0).clone()], ["input", "input"]
    with torch.inference_mode() if inference else torch.no_grad():
        for _ in range(length):
            name = r.choice(list(STEPS))
            first = len(pool) - 1 if r.random() < 0.6 else r.randrange(len(pool))
            second, draws = r.randrange(len(pool)), random.Random(r.random())
            try:
                if prover is None:
                    y = STEPS[name](parts, draws, pool[first], pool[second])
                else:
                    with prover:
                        y = STEPS[name](parts, draws, pool[first], pool[second])
            except (RuntimeError, ValueError, TypeError, IndexError):
                pool.append(pool[first])  # not defined for this dtype, or not in place
                made.append(made[first])
                continue
            pool.append(y if y.shape == SHAPE and y.dtype == x.dtype else pool[first])
            made.append(f"{name}({made[first]}; {made[second]})"[:300])
            if prover is not None:
                for value, what in zip(pool, made, strict=True):
                    check(value, prover.interval(value), f"seed {seed}: {what}")
    proved = [None if prover is None else prover.interval(value) for value in pool]
    return pool, made, proved


def attack(seed: int) -> int:
    """Run one program on all inputs; return how many tensors were proved at the end.

    Raises
    ------
    Outside
        An interval is false.
    """
    r = random.Random(seed)
    dtype, inference = r.choice(DTYPES[: 1 + 3 * (seed % 2)]), r.random() < 0.3
    length, first = r.randint(2, 12), r.randrange(7)
    images = inputs(seed, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of writes to tensors that overlap themselves
        parts = Parts(random.Random(seed), dtype)
        prover = IntervalProver(parts)
        _, made, proved = run_program(seed, length, images[first], parts, prover, inference)
        for image in images:
            # a program may write to the constants
            proved = [i if i is not None and i.holds(parts) else None for i in proved]
            later, _, _ = run_program(seed, length, image, parts, None, inference)
            for value, interval, what in zip(later, proved, made, strict=True):
                if interval is not None and interval.holds(parts):
                    check(value, interval, f"seed {seed}, later: {what}")
    return sum(interval is not None for interval in proved)
