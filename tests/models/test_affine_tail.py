"""Heads of several operations: features and composed weights against a slow reading of both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fsboundary as fsb
from support.models.nets import CLASSES, WIDTH, Last, Net, images

T, D = 3, 4
"""Tokens and width of the token models: images (B,3,2,2) are three tokens of four numbers."""


class Model(nn.Module):
    """``forward`` is a function of the module itself and the images."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, part in parts.items():
            setattr(self, name, part)
        for p in self.parameters():
            p.data.copy_(torch.randn(p.shape, generator=generator))
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def slow_head(logits_of: Callable[[Tensor], Tensor], d: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias of an affine function of features (1,d), from its values."""
    zero = logits_of(torch.zeros(1, d, dtype=torch.float64))[0]
    basis = [logits_of(e[None])[0] - zero for e in torch.eye(d, dtype=torch.float64)]
    return torch.stack(basis, dim=1), zero


def norm(k: int = CLASSES) -> nn.BatchNorm1d:
    generator = torch.Generator().manual_seed(3)
    layer = nn.BatchNorm1d(k).eval()
    layer.running_mean.copy_(torch.randn(k, generator=generator))
    layer.running_var.copy_(torch.rand(k, generator=generator) + 0.5)
    return layer


AFTER: dict[str, Callable[[Tensor], Tensor]] = {
    "temperature": lambda y: y / 1.5,
    "scale": lambda y: 2 * y,
    "negative scale": lambda y: -y * 3.0,
    "vector scale": lambda y: y * torch.arange(1.0, CLASSES + 1).to(y),
    "prior": lambda y: y + torch.tensor([0.5, -1.0, 2.0, 0.25]).to(y),
    "shifted a little": lambda y: y + 1e-4,
    "subset and order": lambda y: y[:, [3, 1, 0]],
    "reversed": lambda y: y.flip(1),
    "difference to the mean": lambda y: y - y.mean(1, keepdim=True),
    "a zero logit": lambda y: torch.cat([torch.zeros_like(y[:, :1]), y], dim=1),
    "both signs": lambda y: torch.stack([-y[:, 0], y[:, 0]], dim=1),
    "in place": lambda y: y.clone().mul_(2).add_(1),
    "rsub": lambda y: 1 - y,
    "coarse and fine": lambda y: y + y.view(-1, 2, 2).mean(2).repeat_interleave(2, dim=1),
}


@pytest.mark.parametrize("function", AFTER.values(), ids=AFTER.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_affine_operations_after_the_head(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    model = Net(function).to(dtype)
    space = fsb.FeatureSpace(model)
    x = images().to(dtype)
    batch = space.extract(x)
    fc = copy.deepcopy(model.fc).double()
    weight, bias = slow_head(lambda z: function(fc(z)), WIDTH)
    torch.testing.assert_close(space.head.weight, weight.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(space.head.bias, bias.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(batch.features, model.body(x))
    assert torch.equal(batch.logits, model(x))
    assert space.extract(x[:2]).ok.all()


@pytest.mark.parametrize("link", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_softmax_of_a_scaled_head_is_read_from_the_graph(link: str, dtype: torch.dtype) -> None:
    """Probabilities of one class near 1 match the softmax of many heads; the graph has one."""
    model = Net(lambda y: getattr(F, link)(y / 1.3, dim=1)).to(dtype)
    with torch.no_grad():
        model.fc.weight.mul_(30)
    space = fsb.FeatureSpace(model)
    space.extract(images().to(dtype))
    torch.testing.assert_close(space.head.weight, model.fc.weight.detach().double() / 1.3)
    assert space.notes()["link"].startswith(link)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).relu()


class Attention(nn.Module):
    """Attention pooling with a projection to the classes, as in CLIP's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(D, 2, batch_first=True)
        self.fc = nn.Linear(D, CLASSES)

    def forward(self, t: Tensor) -> Tensor:
        mean = t.mean(1, keepdim=True)
        return self.fc(self.mha(mean, t, t, need_weights=False)[0])[:, 0]


W = torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(5))

HEADS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "F.linear": (
        lambda: Model(
            lambda s, x: F.linear(s.body(x), s.weight, s.bias),
            body=Net().body,
            weight=nn.Parameter(W.T.clone()),
            bias=nn.Parameter(torch.ones(CLASSES)),
        ),
        WIDTH,
    ),
    "z @ W": (
        lambda: Model(lambda s, x: s.body(x) @ s.w, body=Net().body, w=nn.Parameter(W.clone())),
        WIDTH,
    ),
    "a tensor that is no parameter": (lambda: Model(lambda s, x: s.b(x) @ W, b=Net().body), WIDTH),
    "einsum": (
        lambda: Model(lambda s, x: torch.einsum("bd,dk->bk", s.b(x), W), b=Net().body),
        WIDTH,
    ),
    "sum of products": (
        lambda: Model(lambda s, x: (s.b(x)[:, None] * W.T).sum(2), b=Net().body),
        WIDTH,
    ),
    "forward without call": (
        lambda: Model(
            lambda s, x: s.fc.forward(s.b(x)), b=Net().body, fc=nn.Linear(WIDTH, CLASSES)
        ),
        WIDTH,
    ),
    "normalised weights": (
        lambda: Model(
            lambda s, x: F.linear(s.b(x), F.normalize(s.w)),
            b=Net().body,
            w=nn.Parameter(W.T.clone()),
        ),
        WIDTH,
    ),
    "batch norm after it": (lambda: Last(Net().body, nn.Linear(WIDTH, CLASSES), norm()), WIDTH),
    "two heads": (
        lambda: Model(
            lambda s, x: (s.a(z := s.b(x)) + s.c(z)) / 2,
            b=Net().body,
            a=nn.Linear(WIDTH, CLASSES),
            c=nn.Linear(WIDTH, CLASSES),
        ),
        WIDTH,
    ),
    "two heads on different features": (
        lambda: Model(
            lambda s, x: s.a(z := s.b(x)) + s.c(z.tanh()),
            b=Net().body,
            a=nn.Linear(WIDTH, CLASSES),
            c=nn.Linear(WIDTH, CLASSES),
        ),
        2 * WIDTH,
    ),
    "ensemble": (
        lambda: Model(
            lambda s, x: torch.stack([m(x) for m in s.m]).mean(0),
            m=nn.ModuleList([Net(), Net(), Net()]),
        ),
        3 * WIDTH,
    ),
    "low rank beside it": (
        lambda: Model(
            lambda s, x: s.fc(z := s.b(x)) + 0.5 * s.up(s.down(z)),
            b=Net().body,
            fc=nn.Linear(WIDTH, CLASSES),
            down=nn.Linear(WIDTH, 2, bias=False),
            up=nn.Linear(2, CLASSES, bias=False),
        ),
        WIDTH,
    ),
    "one token after it": (
        lambda: Last(nn.Identity(), nn.Linear(D, CLASSES), lambda y: y[:, 0]),
        D,
    ),
    "last two tokens": (
        lambda: Last(nn.Identity(), nn.Linear(D, CLASSES), lambda y: y[:, 1:].sum(1)),
        D,
    ),
    "mean of tokens": (lambda: Last(nn.Identity(), nn.Linear(D, CLASSES), lambda y: y.mean(1)), D),
    "weighted tokens": (
        lambda: Last(
            nn.Identity(),
            nn.Linear(D, CLASSES),
            lambda y: (y * torch.tensor([1.0, 2.0, 3.0])[:, None]).sum(1),
        ),
        T * D,
    ),
    "tokens first": (
        lambda: Model(lambda s, t: s.fc(t.transpose(0, 1))[0], fc=nn.Linear(D, CLASSES)),
        D,
    ),
    "attention pooling": (lambda: Model(lambda s, t: s.p(t), p=Attention()), D),
    "convolution of the whole map": (
        lambda: Last(nn.ReLU(), nn.Conv2d(3, CLASSES, 2), nn.Flatten()),
        12,
    ),
    "3x3 convolution and average": (
        lambda: Last(
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(3, CLASSES, 3, padding=1), nn.AdaptiveAvgPool2d(1)),
            lambda y: y.flatten(1),
        ),
        12,
    ),
    "grouped 1x1": (
        lambda: Last(nn.ReLU(), nn.Conv2d(3, 6, 1, groups=3), lambda y: y.mean((2, 3))),
        3,
    ),
    "strided 1x1": (
        lambda: Last(nn.ReLU(), nn.Conv2d(3, CLASSES, 1, 2), lambda y: y[..., 0, 0]),
        3,
    ),
    "sum over space": (
        lambda: Last(nn.ReLU(), nn.Conv2d(3, CLASSES, 1), lambda y: y.sum((2, 3))),
        3,
    ),
    "conv, batch norm, average": (
        lambda: Last(
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.BatchNorm2d(CLASSES)),
            lambda y: y.mean((2, 3)),
        ),
        3,
    ),
}

TOKENS = {"one token after it", "last two tokens", "mean of tokens", "weighted tokens",
          "tokens first", "attention pooling"}  # fmt: skip


@pytest.mark.parametrize(("build", "width"), HEADS.values(), ids=HEADS.keys())
def test_heads_of_several_operations(
    build: Callable[[], nn.Module], width: int, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    name = request.node.callspec.id
    x = tokens(images(6)) if name in TOKENS else images(6)
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    with torch.no_grad():
        logits = model(x)
    assert space.head.num_features == width
    assert torch.equal(batch.logits, logits)
    torch.testing.assert_close(space.head.logits(batch.features).float(), logits)
    # rows alone, another batch size, and with gradients
    one = torch.cat([space.extract(row[None]).features for row in x])
    torch.testing.assert_close(one, batch.features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(space.extract(x[:5]).features, batch.features[:5])
    x = x.clone().requires_grad_()
    z = space.features(x)
    torch.testing.assert_close(z.detach(), batch.features)
    (gradient,) = torch.autograd.grad(z.square().sum(), x)
    assert gradient.abs().sum() > 0


def test_positions_that_the_inputs_determine() -> None:
    """The head runs on all tokens, and each row takes that of its last word."""

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.fc = nn.Embedding(10, D, padding_idx=0), nn.Linear(D, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            ids = x.long()
            last = (ids != 0).int().argmin(dim=1) - 1
            return self.fc(self.e(ids).tanh())[torch.arange(len(x)), last]

    torch.manual_seed(0)
    model, x = (
        Text().eval(),
        torch.tensor([[1, 2, 0, 0], [3, 4, 5, 0], [7, 0, 0, 0], [8, 9, 1, 0.0]]),
    )
    space = fsb.FeatureSpace(model)
    for rows in (4, 2, 3):
        batch = space.extract(x[:rows])
        last = [1, 2, 0, 2][:rows]
        wanted = torch.stack([model.e(x[r].long())[k].tanh() for r, k in enumerate(last)])
        assert torch.equal(batch.features, wanted.detach())
        assert torch.equal(batch.logits, model(x[:rows]))


def test_int8_weights_are_read_as_the_numbers_that_they_stand_for() -> None:
    class Int8(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            w = torch.randint(-127, 128, (CLASSES, WIDTH), generator=generator, dtype=torch.int8)
            self.register_buffer("w", w)
            self.register_buffer("s", torch.rand(CLASSES, generator=generator) / 100)

        def forward(self, z: Tensor) -> Tensor:
            return F.linear(z, self.w.to(z.dtype) * self.s[:, None])

    model = Last(Net().body, Int8())
    space = fsb.FeatureSpace(model)
    assert space.extract(images()).ok.all()
    torch.testing.assert_close(
        space.head.weight, (model.head.w.float() * model.head.s[:, None]).double()
    )
    model.head.s.mul_(1 + 1e-6)
    with pytest.raises(fsb.HeadMismatchError, match="changed since it was found"):
        space.extract(images())


def test_weights_replaced_for_one_call() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.other = nn.Parameter(torch.ones(CLASSES, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.functional_call(self.net, {"fc.weight": self.other}, (x,))

    space = fsb.FeatureSpace(Functional().eval())
    space.extract(images())
    assert torch.equal(space.head.weight, torch.ones(CLASSES, WIDTH, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, and still in use
@pytest.mark.parametrize("how", ["trace", "script", "export", "fx", "script inside"])
def test_graphs(how: str) -> None:
    net = nn.Sequential(Net().body, nn.Linear(WIDTH, CLASSES)).eval()
    with torch.no_grad():
        wanted = net(images())
    if how == "trace":
        model = torch.jit.trace(net, images())
    elif how == "script":
        model = torch.jit.script(net)
    elif how == "script inside":
        model = nn.Sequential(torch.jit.script(net[0]), net[1]).eval()
    elif how == "fx":
        model = torch.fx.symbolic_trace(net).eval()
    else:
        model = torch.export.export(net, (images(),)).module()
    space = fsb.FeatureSpace(model)
    for _ in range(4):  # TorchScript compiles after some passes
        torch.testing.assert_close(space.extract(images()).logits, wanted)
    assert torch.equal(space.head.weight, net[1].weight.detach().double())


def test_a_named_layer_is_the_head_although_another_follows() -> None:
    model = Last(Net().body, nn.Sequential(nn.Linear(WIDTH, 5), nn.Linear(5, CLASSES)))
    last, first = fsb.FeatureSpace(model), fsb.FeatureSpace(model, "head.0")
    for space, width in ((last, 5), (first, WIDTH)):
        assert space.extract(images()).ok.all()
        assert space.head.num_features == width
    torch.testing.assert_close(first.head.weight, last.head.weight @ model.head[0].weight.double())


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda y: y * 1.7,
    "shift": lambda y: y - 0.3,
    "centre": lambda y: y - y.mean(1, keepdim=True),
    "roll": lambda y: y.roll(1, 1),
    "map": lambda y: y @ torch.linspace(-1, 1, y.shape[1] ** 2).reshape(y.shape[1], -1).to(y),
    "flip": lambda y: y.flip(1),
    "double": lambda y: torch.cat([y, -y], dim=1)[:, : y.shape[1]],
    "copy": lambda y: y.clone(),
    "sum": lambda y: y + y.cumsum(1),
    "half": lambda y: y.div(2),
    "pad": lambda y: F.pad(y, (1, 0))[:, :-1] + y,
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=5), st.integers(1, 6))
def test_any_affine_chain_is_composed(names: list[str], rows: int) -> None:
    def chain(y: Tensor) -> Tensor:
        for name in names:
            y = STEPS[name](y)
        return y

    model = Net(chain)
    space = fsb.FeatureSpace(model)
    batch = space.extract(images(rows))
    with torch.no_grad():
        torch.testing.assert_close(batch.logits, model(images(rows)), rtol=0, atol=0)
        fc = Net().fc.double()
        wanted = chain(fc(torch.eye(WIDTH, dtype=torch.float64)))
        zero = chain(fc(torch.zeros(1, WIDTH, dtype=torch.float64)))
    # the last product may be one of the chain: compare what the head says of the model's features
    if space.head.num_features == WIDTH and "map" not in names:
        torch.testing.assert_close(space.head.weight, (wanted - zero).T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        space.head.logits(batch.features), batch.logits.double(), rtol=1e-4, atol=1e-4
    )


def test_of_two_outputs_the_one_that_needs_another_pass_leaves_the_other_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Candidates are composed from different passes; features are read from a pass that fits."""

    class Both(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            first = self.fc(self.body(x))
            z = self.body(x * 2)
            other = z.relu().mean(1, keepdim=True) * torch.ones(2) * z[:, :1]
            return first, other

    for room in (2**27, 1, 400, 1000):
        monkeypatch.setattr("fsboundary.models.head_search.find.RECENT", room)
        batch = fsb.FeatureSpace(Both()).extract(images())
        assert torch.equal(batch.logits, Both()(images())[0])


def test_a_scaled_activation_of_the_head_that_is_added_to_it_is_seen() -> None:
    class Gate(Net):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(CLASSES, CLASSES)
            nn.init.zeros_(self.mix.weight)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(self.body(x))
            return y + self.mix(2 * y.tanh())

    with pytest.raises(fsb.HeadError, match="'tanh' is applied to the output of its last linear"):
        fsb.FeatureSpace(Gate().eval()).extract(images())
