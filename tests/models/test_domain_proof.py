"""The domain is nonnegative only if the operations prove it, whatever was observed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.models.intervals import IntervalProver


class Net(nn.Module):
    """A function of a 4x4 map with 6 channels, followed by a linear head."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.layer_norm = nn.LayerNorm(4)
        self.body = body
        self.head = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).flatten(1))


def images() -> Tensor:
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def in_place(x: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    """Apply ReLU, then `change` the result, and return it."""
    y = F.relu(x)
    change(y)
    return y


PROVED = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "relu6 in place": lambda x: F.relu6(x, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 2.0),
    "clamp": lambda x: x.clamp(min=0, max=3),
    "clamp from above zero": lambda x: x.clamp_min(0.5),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "softmax": lambda x: x.softmax(1),
    "abs": torch.abs,
    "square": torch.square,
    "fourth power": lambda x: x**4,
    "exp": torch.exp,
    "maximum with relu": lambda x: torch.maximum(x, F.relu(-x)),
    "max pooling": lambda x: F.max_pool2d(F.relu(x), 2),
    "average pooling": lambda x: F.avg_pool2d(F.relu(x), 2),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(F.relu(x), (2, 1)),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(F.relu(x), 2),
    "mean": lambda x: F.relu(x).mean((2, 3)),
    "largest": lambda x: F.relu(x).amax((2, 3)),
    "generalised mean": lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "reshapes": lambda x: F.relu(x).permute(0, 2, 3, 1).reshape(4, -1, 3).contiguous()[:, 1:, :2],
    "concatenation": lambda x: torch.cat([F.relu(x), x.abs()], dim=1),
    "sum of two": lambda x: F.relu(x) + torch.sigmoid(x),
    "sum of two in place": lambda x: in_place(x, lambda y: y.add_(x.abs())),
    "product": lambda x: F.relu(x) * torch.sigmoid(x),
    "scaled": lambda x: F.relu(x) * 2.0 / 3 + 0.5,
    "dropout in eval mode": lambda x: F.dropout(F.relu(x), training=False),
    "padding": lambda x: F.pad(F.relu(x), (1, 1)),
    "precision": lambda x: F.relu(x).to(torch.float64).to(torch.float32),
    "negative before relu": lambda x: F.relu(x - 1),
    "written into zeros": lambda x: torch.zeros_like(x).copy_(F.relu(x)),
    "view of relu in place": lambda x: in_place(x, lambda y: y.view(-1).mul_(2)),
    "part made positive again": lambda x: in_place(x, lambda y: y[:, :2].abs_()),
    "after a subtraction, all again": lambda x: in_place(x, lambda y: y.sub_(1).relu_()),
}


NOT_PROVED = {
    "nothing": lambda x: x,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "hardtanh below zero": F.hardtanh,
    "clamp below zero": lambda x: x.clamp(min=-0.1),
    "clamp to below zero": lambda x: x.clamp(min=0, max=-1),
    "clamp by a tensor": lambda x: x.clamp(min=torch.tensor(-1.0)),
    "softplus with a negative threshold": lambda x: F.softplus(x, threshold=-20),
    "cube": lambda x: x**3,
    "log-softmax": lambda x: x.log_softmax(1),
    "difference": lambda x: F.relu(x) - 0.25,
    "difference of two": lambda x: F.relu(x) - x.abs(),
    "negative term": lambda x: F.relu(x) + (-0.25),
    "negative alpha": lambda x: torch.add(F.relu(x), x.abs(), alpha=-1),
    "negative factor": lambda x: F.relu(x) * -1.0,
    "negation": lambda x: -F.relu(x),
    "reversed difference": lambda x: 0.25 - F.relu(x),
    "quotient": lambda x: F.relu(x) / x.abs(),
    "sum with a raw map": lambda x: F.relu(x) + x,
    "mean of a mix": lambda x: torch.cat([F.relu(x), x], dim=1).mean((2, 3)),
    "minimum with a raw map": lambda x: torch.minimum(F.relu(x), x),
    "choice of a raw map": lambda x: torch.where(x > -0.5, x, F.relu(x)),
    "negative padding value": lambda x: F.pad(F.relu(x), (1, 1), value=-1.0),
    "negative divisor": lambda x: F.avg_pool2d(F.relu(x), 2, divisor_override=-4),
    "cubic interpolation": lambda x: F.interpolate(F.relu(x), scale_factor=2, mode="bicubic"),
    "matrix product": lambda x: F.relu(x) @ torch.eye(4),
    "subtracted from in place": lambda x: in_place(x, lambda y: y.sub_(0.25)),
    "added to in place": lambda x: in_place(x, lambda y: y.add_(x)),
    "added to in place, by alpha": lambda x: in_place(x, lambda y: y.add_(y, alpha=-2)),
    "filled in place": lambda x: in_place(x, lambda y: y.fill_(-1.0)),
    "written over": lambda x: in_place(x, lambda y: y.copy_(x)),
    "written over by out=": lambda x: in_place(x, lambda y: torch.neg(x, out=y)),
    "a view changed": lambda x: in_place(x, lambda y: y.view(4, -1)[:, :3].sub_(1)),
    "an element set": lambda x: in_place(x, lambda y: y.__setitem__((0, 0, 0, 0), -1.0)),
    "a transposed view changed": lambda x: in_place(x, lambda y: y.mT.neg_()),
    "changed behind autograd": lambda x: in_place(x, lambda y: y.data.sub_(1)),
    "part of a raw map": lambda x: in_place(x, lambda y: y.copy_(x)[:, :2].relu_()),
    "changed through detach": lambda x: in_place(x, lambda y: y.detach().sub_(1)),
    "bits read otherwise": lambda x: F.relu(x).view(torch.float16).float(),
    "integers that overflow": lambda x: (0 * x - 128).to(torch.int8).abs().float(),
    "several at once": lambda x: in_place(x, lambda y: torch._foreach_sub_([y], 1.0)),
}


def space_of(body: Callable[[Tensor], Tensor]) -> fsb.FeatureSpace:
    net = Net(body).eval()
    with torch.no_grad():
        net(images())  # initialises the lazy head
        net.head.weight.normal_(generator=torch.Generator().manual_seed(2))
    return fsb.FeatureSpace(net)


def shifted_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(6)
    nn.init.constant_(norm.bias, -0.5)
    return norm


def lower_limits(space: fsb.FeatureSpace) -> Tensor:
    return space.domain.limits(space.head.weight)[0]


@pytest.mark.parametrize("body", PROVED.values(), ids=PROVED.keys())
def test_a_nonnegative_structure_is_proved(body: Callable[[Tensor], Tensor]) -> None:
    space = space_of(body)
    batch = space.extract(images())
    assert (lower_limits(space) >= 0).all()
    assert space.domain.contains(batch.features).all()
    assert (batch.features >= 0).all()
    assert "proved by the model's structure" in space.notes()["domain"]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode], ids=str)
@pytest.mark.parametrize("body", NOT_PROVED.values(), ids=NOT_PROVED.keys())
def test_no_other_structure_is_proved(
    body: Callable[[Tensor], Tensor], mode: Callable[[], torch.inference_mode]
) -> None:
    prover = IntervalProver()
    with mode(), prover:
        x = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(0))
        assert not prover.proof(body(x))


@pytest.mark.parametrize("body", PROVED.values(), ids=PROVED.keys())
def test_the_proof_is_the_same_in_inference_mode_and_with_gradients(
    body: Callable[[Tensor], Tensor],
) -> None:
    for mode in (torch.inference_mode, torch.enable_grad):
        prover = IntervalProver()
        with mode(), prover:
            x = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(0))
            assert prover.proof(body(x))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.ReLU(), shifted_norm()],
        [nn.ReLU(), nn.LayerNorm(4)],
        [nn.ReLU(), nn.Conv2d(6, 6, 1)],
        [nn.PReLU()],
        [nn.Softplus(), nn.Hardshrink()],
    ],
    ids=["batch norm", "layer norm", "convolution", "PReLU", "Hardshrink"],
)
def test_modules_after_relu_end_the_proof(layers: list[nn.Module]) -> None:
    space = space_of(nn.Sequential(*layers))
    batch = space.extract(images())
    assert (lower_limits(space) < 0).all()
    assert space.domain.contains(batch.features).all()


def test_observed_nonnegativity_is_reported_and_not_assumed() -> None:
    space = space_of(lambda x: F.layer_norm(x, (4,)) + 9)
    batch = space.extract(images())
    assert (batch.features >= 0).all()
    assert space.domain == fsb.Domain.unbounded()
    assert space.notes()["domain"].startswith("unbounded (nothing")
    assert "no negative feature was seen" in space.notes()["observed minimum"]
    assert float(space.notes()["observed minimum"].split()[0]) == pytest.approx(
        batch.features.min().item(), rel=1e-5
    )


def test_the_observed_minimum_covers_all_batches() -> None:
    space = space_of(lambda x: x)
    low = min(space.extract(images() * scale).features.min() for scale in (1.0, 9.0, 2.0))
    assert float(space.notes()["observed minimum"].split()[0]) == pytest.approx(low.item(), 1e-5)
    assert "negative features were seen" in space.notes()["observed minimum"]


def test_a_storage_that_is_freed_and_reused_loses_its_proof() -> None:
    prover = IntervalProver()
    with prover:
        for _ in range(50):
            y = F.relu(torch.ones(1000))
            assert prover.proof(y)
            del y
            assert not prover.proof(torch.empty(1000))
            assert not prover.proof(torch.frombuffer(bytearray(4000), dtype=torch.float32))


def test_a_negative_feature_after_a_proof_raises() -> None:
    def body(x: Tensor) -> Tensor:
        return x.abs() if x.max() < 100 else x

    space = space_of(body)
    space.extract(images())
    assert space.domain.kind == "nonnegative"
    with pytest.raises(fsb.HeadError, match=r"path depends on its input.*domain='unbounded'"):
        space.extract(images() * 1e4)
    given = fsb.FeatureSpace(space.model, domain="nonnegative")
    given.extract(images())
    assert (given.extract(images() * 1e4).features < 0).any()  # the domain given by the user stays


def test_a_given_domain_is_used_and_its_width_checked() -> None:
    net = space_of(F.relu).model
    box = fsb.Domain.box(torch.zeros(96), torch.ones(96))
    for domain, kind in (("unbounded", "unbounded"), ("nonnegative", "nonnegative"), (box, "box")):
        space = fsb.FeatureSpace(net, domain=domain)
        assert space.domain.kind == kind
        batch = space.extract(images() * 9)
        assert space.domain.kind == space.head.domain.kind == kind
        assert batch.ok.all()
        assert "given by the user" in space.notes()["domain"]
    narrow = fsb.Domain.box(torch.zeros(3), torch.ones(3))
    with pytest.raises(fsb.ArgumentError, match="box of width 3 for features of width 96"):
        fsb.FeatureSpace(net, domain=narrow).extract(images())


class Jagged(nn.Module):
    """Pixels as a jagged tensor inside; may write to the features through one, unseen."""

    def __init__(self, activation: nn.Module, write: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body, self.fc = nn.Linear(3, 8), nn.Linear(8, 4)
        self.activation, self.write = activation, write
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that nested tensors are new
            pixels = torch.nested.nested_tensor([i.flatten(1).T for i in x], layout=torch.jagged)
            z = self.activation(torch.stack([t.mean(0) for t in self.body(pixels).unbind()]))
            if self.write:
                offsets = torch.arange(len(z) + 1)
                torch.nested.nested_tensor_from_jagged(z, offsets).sub_(1)
        return self.fc(z)


@pytest.mark.parametrize(
    ("activation", "write", "kind"),
    [
        (nn.ReLU(), False, "nonnegative"),
        (nn.Identity(), False, "unbounded"),
        (nn.ReLU(), True, "unbounded"),
    ],
)
def test_nothing_is_known_of_what_nested_tensors_hide(
    activation: nn.Module, write: bool, kind: str
) -> None:
    x = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = Jagged(activation, write)
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    torch.testing.assert_close(batch.logits, model(x).detach())
    assert space.domain.kind == kind
    assert bool((batch.features < 0).any()) == (kind == "unbounded")
