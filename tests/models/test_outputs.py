"""Logits in various model outputs, and the layer call that gave them."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fsboundary as fsb
from support.models.nets import CLASSES, WIDTH, Last, Net, images

RETURNS = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y,),
    "tuple after others": lambda y: (torch.zeros(()), "loss", torch.zeros(5), y, y.relu()),
    "mapping with another key": lambda y: {"scores": y, "loss": None},
    "extra axis": lambda y: y[:, None],
    "nested": lambda y: {"outputs": (None, [y])},
    "list": lambda y: [y, None],
    "mapping": lambda y: {"loss": None, "logits": y},
    "ordered mapping": lambda y: OrderedDict(logits=y),
    "object": lambda y: SimpleNamespace(logits=y, hidden_states=None),
    "1x1 map": lambda y: y[:, :, None, None],
    "another precision": lambda y: y.double(),
    "a copy": lambda y: y.clone(),
}


@pytest.mark.parametrize("output", RETURNS.values(), ids=RETURNS.keys())
def test_logits_are_found_in(output: object) -> None:
    space = fsb.FeatureSpace(Net(output))
    for batch in (space.extract(images(3)), space.extract(images())):
        assert space.notes()["layer"] == "fc"
        torch.testing.assert_close(batch.logits, Net()(images(len(batch.logits))).to(batch.logits))


@pytest.mark.parametrize("link", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_logits_behind_a_softmax_are_found(link: str, dtype: torch.dtype) -> None:
    model = Net(lambda y: getattr(F, link)(y, dim=1)).to(dtype)
    space = fsb.FeatureSpace(model)
    for scale in (1, 3):
        batch = space.extract(images().to(dtype) * scale)
        plain = Net().to(dtype)(images().to(dtype) * scale)
        assert torch.equal(batch.logits, plain)
        assert batch.logits.dtype == dtype
    assert space.notes()["link"] == f"{link}: logits are the layer's own outputs, before it"
    assert torch.equal(space.logits(images().to(dtype) * scale), plain)


def test_a_softmax_that_changes_later_raises() -> None:
    model = Net(lambda y: y.softmax(1))
    space = fsb.FeatureSpace(model)
    space.extract(images())
    model.output = lambda y: (y * 1.01).softmax(1)
    with pytest.raises(fsb.HeadMismatchError, match=r"'fc' \(Linear\), is another in this pass"):
        space.extract(images())


class Auxiliary(nn.Module):
    """The last linear layer to run is an auxiliary head of the main head's shape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES), nn.ReLU())
        self.auxiliary, self.main = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        main = self.main(x)
        return main, self.auxiliary(x)


def test_of_two_heads_one_must_be_chosen() -> None:
    with pytest.raises(fsb.HeadError, match=r"'0': 4 outputs of layer 'main'.*output='0'"):
        fsb.FeatureSpace(Auxiliary()).extract(images())
    for output, layer in ((0, "main"), ("1", "auxiliary")):
        space = fsb.FeatureSpace(Auxiliary(), output=output)
        assert torch.equal(space.extract(images()).logits, Auxiliary()(images())[int(output)])
        assert space.notes()["layer"] == layer
    with pytest.raises(fsb.HeadError, match=r"output='2' names no output.*'0', '1'"):
        fsb.FeatureSpace(Auxiliary(), output=2).extract(images())


@pytest.mark.parametrize("first", [True, False])
def test_features_beside_the_logits_are_not_taken_for_them(first: bool) -> None:
    class Both(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.body(x)
            return (z, self.fc(z)) if first else (self.fc(z), z)

    batch = fsb.FeatureSpace(Both()).extract(images())
    assert torch.equal(batch.logits, Net()(images()))


class Reused(nn.Module):
    """A layer that runs several times; `returned` selects the call that gives the logits."""

    def __init__(self, calls: int, returned: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.again = nn.Linear(12, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.calls, self.returned = calls, returned
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = [self.first(x.flatten(1))]
        for _ in range(self.calls):
            values.append(self.again(values[-1].relu()))
        return values[self.returned]


@pytest.mark.parametrize(("calls", "returned"), [(1, 1), (3, 3), (3, 1), (3, 2)])
def test_a_reused_layer_is_read_at_the_call_that_gave_the_logits(calls: int, returned: int) -> None:
    model = Reused(calls, returned)
    space = fsb.FeatureSpace(model)
    for rows in (3, 5):
        batch = space.extract(images(rows))
        assert torch.equal(batch.features, Reused(calls, returned - 1)(images(rows)).relu())
        assert torch.equal(batch.logits, model(images(rows)))
    assert space.notes()["layer"] == "again"


def test_a_reused_layer_that_runs_less_often_is_read_where_it_gives_the_logits() -> None:
    model = Reused(2, 1)
    space = fsb.FeatureSpace(model)
    space.extract(images())
    model.calls = 1
    assert torch.equal(space.extract(images()).logits, model(images()))
    model.returned = 0  # another head of the same shape
    with pytest.raises(fsb.HeadMismatchError, match=r"changed|another in this pass"):
        space.extract(images())


HEADS = {
    "no bias": nn.Linear(WIDTH, CLASSES, bias=False),
    "two linear layers in a row": nn.Sequential(nn.Linear(WIDTH, 5), nn.Linear(5, CLASSES)),
    "identity and dropout before": nn.Sequential(
        nn.Identity(), nn.Dropout(), nn.Linear(WIDTH, CLASSES), nn.Identity()
    ),
    "parametrized": nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, CLASSES)),
    "spectral norm": nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, CLASSES)),
    "lazy": nn.LazyLinear(CLASSES),
    "a subclass": type("Mine", (nn.Linear,), {})(WIDTH, CLASSES),
    "inside a module": Last(nn.Identity(), Last(nn.Linear(WIDTH, 8), nn.Linear(8, CLASSES))),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_heads(head: nn.Module) -> None:
    model = Last(Net().body, head)
    space = fsb.FeatureSpace(model)
    for rows in (3, 5):
        assert torch.equal(space.extract(images(rows)).logits, model(images(rows)))
    assert space.head.num_classes == CLASSES


class Keyword(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(input=self.body(x))


def test_an_input_passed_by_keyword_is_recorded() -> None:
    assert torch.equal(fsb.FeatureSpace(Keyword()).extract(images()).logits, Net()(images()))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, "same", "valid"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_convolution_before_average_pooling(
    dimensions: int, padding: int | str, bias: bool
) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    head = conv(3, CLASSES, 1, padding=padding, bias=bias)
    space_dims = tuple(range(2, 2 + dimensions))
    model = Last(nn.ReLU(), head, lambda y: y.mean(space_dims))
    x = torch.randn(4, 3, *[5] * dimensions, generator=torch.Generator().manual_seed(0))
    space = fsb.FeatureSpace(model)
    for rows in (4, 2):
        batch = space.extract(x[:rows])
        torch.testing.assert_close(batch.features, x[:rows].relu().mean(space_dims))
        assert torch.equal(batch.logits, model(x[:rows]))
    assert space.domain.kind == "nonnegative"
    assert space.notes()["features"].startswith("mean over space")


def test_the_tolerance_of_pooled_features_that_cancel_covers_the_rounding_of_the_inputs() -> None:
    """Logits of means near 0 of numbers near 1000 have errors relative to 1000, not to 0."""
    x = 1000 * torch.randn(8, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    x = x - x.mean((2, 3), keepdim=True)
    model = Last(nn.Identity(), nn.Conv2d(16, 40, 1, bias=False), lambda y: y.mean((2, 3)))
    space = fsb.FeatureSpace(model)
    batch = space.extract(x)
    assert batch.features.abs().max() < 1e-3
    assert float(space.notes()["residual"].partition(" (tolerance ")[2].rstrip(")")) > 1e-5


def test_a_head_changed_in_place_after_it_ran_is_read_before_the_change() -> None:
    """Features and outputs are copies, so a body that reuses its buffers does no harm."""

    class Recycling(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.body(x)
            logits = self.fc(z)
            z.zero_()
            return logits

    space = fsb.FeatureSpace(Recycling())
    for rows in (3, 5):
        batch = space.extract(images(rows))
        assert torch.equal(batch.logits, Net()(images(rows)))
        assert torch.equal(batch.features, Net().body(images(rows)))


def test_a_head_given_by_name_or_module_is_used_and_verified() -> None:
    model = Net()
    for head in ("fc", model.fc):
        space = fsb.FeatureSpace(model, head)
        assert torch.equal(space.extract(images()).logits, model(images()))
        assert space.fingerprint == fsb.FeatureSpace(model).extract(images()).fingerprint
    with pytest.raises(fsb.HeadError, match=r"head='body.1': no affine operations lead from"):
        fsb.FeatureSpace(model, "body.1").extract(images())
    with pytest.raises(fsb.HeadError, match=r"'body.2' was not called as a linear layer"):
        fsb.FeatureSpace(model, "body.2").extract(images())
    assert fsb.FeatureSpace(Auxiliary(), "auxiliary").extract(images()).ok.all()
    for wrong in ("fcc", nn.Linear(2, 2)):
        with pytest.raises(fsb.ArgumentError, match=r"last linear layers, \['body.1', 'fc'\]"):
            fsb.FeatureSpace(model, wrong).extract(images())
