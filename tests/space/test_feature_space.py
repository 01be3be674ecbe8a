"""FeatureSpace: arguments, batches, statuses, gradients, fingerprints and notes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.core.protocols import ModelView
from fsboundary.core.rows import device_of
from support.models.nets import CLASSES, WIDTH, Last, Net, images
from support.models.untouched import state_of


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 256])
def test_batches_do_not_change_the_result(batch_size: int) -> None:
    space = fsb.FeatureSpace(Net())
    whole, parts = space.extract(images()), space.extract(images(), batch_size=batch_size)
    for name, value in whole.to_dict().items():
        other = parts.to_dict()[name]
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, other)
        else:
            assert value == other


def test_contents_of_a_batch() -> None:
    model = Net()
    batch = fsb.FeatureSpace(model).extract(images())
    assert batch.features.shape == (5, WIDTH)
    assert batch.logits.shape == (5, CLASSES)
    assert not batch.features.requires_grad
    assert not batch.logits.requires_grad
    assert batch.predicted.dtype == batch.status.dtype == torch.int64
    assert torch.equal(batch.predicted, model(images()).argmax(1))
    assert batch.disagrees.dtype == torch.bool
    assert not batch.disagrees.any()


def test_the_class_is_that_of_float64_logits_and_disagreement_is_reported() -> None:
    """In bfloat16 logits of 256 and 257 are the same number; in float64 they are not."""
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[256.0], [256.0]]))
        head.bias.copy_(torch.tensor([0.0, 0.5]))
    space = fsb.FeatureSpace(Last(nn.Identity(), head).bfloat16())
    batch = space.extract(torch.ones(1, 1, dtype=torch.bfloat16))
    assert batch.logits.argmax(1).item() == 0
    assert batch.predicted.item() == 1
    assert batch.disagrees.item()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_only_the_row_that_is_not_finite_fails(bad: float) -> None:
    x = images()
    x[2] = bad
    clean = fsb.FeatureSpace(Net()).extract(images())
    for batch_size in (256, 1):
        batch = fsb.FeatureSpace(Net()).extract(x, batch_size=batch_size)
        assert batch.status.tolist() == [0, 0, fsb.Status.NOT_FINITE, 0, 0]
        assert batch.predicted[2] == -1
        assert not batch.disagrees.any()
        rest = [0, 1, 3, 4]
        assert torch.equal(batch.predicted[rest], clean.predicted[rest])
        torch.testing.assert_close(batch.features[rest], clean.features[rest])
        with pytest.raises(fsb.StatusError, match="NOT_FINITE x 1"):
            batch.raise_for_status()


def test_only_rows_with_logits_that_overflow_fail() -> None:
    model = Net().half()
    x = images().half()
    x[0] = 3e4
    batch = fsb.FeatureSpace(model).extract(x)
    assert torch.isfinite(batch.features[1:]).all()
    assert batch.status.tolist() == [fsb.Status.NOT_FINITE, 0, 0, 0, 0]


def test_only_rows_with_logits_that_overflow_fail_if_features_are_finite() -> None:
    head = nn.Linear(3, CLASSES)
    with torch.no_grad():
        head.weight.fill_(2.0)
    x = torch.ones(4, 3, dtype=torch.float16)
    x[1] = 6e4
    batch = fsb.FeatureSpace(Last(nn.Identity(), head).half()).extract(x)
    assert torch.isfinite(batch.features).all()
    assert batch.status.tolist() == [0, fsb.Status.NOT_FINITE, 0, 0]


def test_a_first_batch_without_a_finite_row_is_an_error() -> None:
    space = fsb.FeatureSpace(Net())
    with pytest.raises(fsb.HeadError, match=r"all 3 rows .*\(rows 0, 1, 2\)"):
        space.extract(images(3) * torch.nan)
    with pytest.raises(fsb.HeadError, match=r"all 12 rows .*, 9, \.\.\.\)"):
        space.extract(images(12) * torch.nan)
    space.extract(images())
    assert not space.extract(images(3) * torch.nan).ok.any()


def test_no_images() -> None:
    space = fsb.FeatureSpace(Net())
    for method in (space.extract, space.features, space.logits):
        with pytest.raises(fsb.HeadError, match=r"head is not known yet"):
            method(images(0))
    full = space.extract(images())
    empty = space.extract(images(0))
    assert empty.fingerprint == full.fingerprint
    for name, value in full.take(slice(0, 0)).to_dict().items():
        other = empty.to_dict()[name]
        if isinstance(value, Tensor):
            assert (other.shape, other.dtype) == (value.shape, value.dtype), name
    assert space.features(images(0)).shape == (0, WIDTH)


WRONG_IMAGES = {
    "uint8": (torch.zeros(2, 3, 2, 2, dtype=torch.uint8), "divide by 255"),
    "complex": (torch.zeros(2, 3, dtype=torch.complex64), "dtype torch.complex64"),
    "one image": (torch.zeros(3), r"needs \[None\]"),
    "array of objects": (torch.zeros(2, 3).numpy().astype(object), "a ndarray.*torch.as_tensor"),
}


@pytest.mark.parametrize(("x", "message"), WRONG_IMAGES.values(), ids=WRONG_IMAGES.keys())
def test_images_that_are_rejected(x: Any, message: str) -> None:
    space = fsb.FeatureSpace(Net())
    for method in (space.extract, space.features, space.logits):
        with pytest.raises(fsb.ArgumentError, match=message):
            method(x)


def test_integers_are_passed_on_and_a_model_of_pixels_says_what_it_wants() -> None:
    with pytest.raises(RuntimeError, match="dtype") as caught:
        fsb.FeatureSpace(Net()).extract(torch.zeros(2, 3, 2, 2, dtype=torch.int64))
    assert "inputs are torch.int64" in caught.value.__notes__[0]
    assert "pass inputs.to(torch.float32)" in caught.value.__notes__[0]


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_batch_sizes_that_are_rejected(size: Any) -> None:
    with pytest.raises(fsb.ArgumentError, match=r"batch_size: got .*an integer, at least 1"):
        fsb.FeatureSpace(Net()).extract(images(), batch_size=size)


WRONG_ARGUMENTS = {
    "model": ({"model": lambda x: x}, "model: got a function; wanted a torch nn.Module"),
    "head": ({"head": 3}, "head: got 3; wanted a layer"),
    "domain": ({"domain": "positive"}, "domain: got 'positive'.*Domain.box"),
    "domain type": ({"domain": None}, "domain: got None; wanted"),
    "preprocess": ({"preprocess": 3}, "preprocess: got 3; wanted a module"),
    "extractor": ({"extractor": "head_inputs"}, "use 'head_input'"),
}


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS.keys()
)
def test_arguments_that_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(fsb.ArgumentError, match=message):
        fsb.FeatureSpace(**{"model": Net(), **arguments})


def test_a_head_together_with_an_extractor_instance_is_rejected() -> None:
    from fsboundary.builtin.head_input import HeadInput

    with pytest.raises(fsb.ArgumentError, match=r"pass them to HeadInput\(\.\.\.\)"):
        fsb.FeatureSpace(Net(), "fc", extractor=HeadInput())
    assert fsb.FeatureSpace(Net(), extractor=HeadInput("fc")).extract(images()).ok.all()


class Conditioned(nn.Module):
    """A model with a per-image shift, a setting and a shared table as further arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.sizes: list[tuple[int, int]] = []
        self.eval()

    def forward(self, x: Tensor, shift: Tensor, setting: str, table: Tensor) -> Tensor:
        self.sizes.append((len(x), len(shift)))
        assert setting == "on"
        assert table.shape == (7, 3)
        return self.net(x + shift[:, None, None, None])


def test_additional_arguments_are_passed_on_and_batched() -> None:
    model, shift = Conditioned(), torch.arange(5.0)
    more = (shift, "on", torch.ones(7, 3))
    space = fsb.FeatureSpace(model)
    batch = space.extract(images(), *more, batch_size=2)
    # and a row of the first batch alone, twice
    assert model.sizes == [(2, 2), (1, 1), (1, 1), (2, 2), (1, 1)]
    torch.testing.assert_close(batch.logits, Net()(images() + shift[:, None, None, None]))
    torch.testing.assert_close(space.logits(images(), *more), batch.logits)
    torch.testing.assert_close(space.features(images(), *more), batch.features)


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@pytest.mark.parametrize("preprocess", [Half(), lambda x: x / 2], ids=["module", "function"])
def test_preprocess_is_applied_inside_and_gradients_pass_through(preprocess: Any) -> None:
    space = fsb.FeatureSpace(Net(), preprocess=preprocess)
    torch.testing.assert_close(space.extract(images()).logits, Net()(images() / 2))
    x, y = images().requires_grad_(), images().requires_grad_()
    space.logits(x)[:, 0].sum().backward()
    Net()(y / 2)[:, 0].sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert x.grad.abs().sum() > 0


def test_preprocess_in_training_mode_is_rejected() -> None:
    space = fsb.FeatureSpace(Net(), preprocess=nn.Sequential(Half(), nn.Dropout()))
    with pytest.raises(fsb.HeadError, match=r"preprocess is in training mode.*\.eval\(\) on prep"):
        space.extract(images())


def test_features_and_logits_keep_the_graph_from_the_first_call_on() -> None:
    for first in (True, False):
        for name in ("features", "logits"):
            space = fsb.FeatureSpace(Net())
            if not first:
                space.extract(images())
            before = state_of(space.model)
            x, y = images().requires_grad_(), images().requires_grad_()
            getattr(space, name)(x).pow(2).sum().backward()
            model = Net()
            ((model.body if name == "features" else model)(y)).pow(2).sum().backward()
            torch.testing.assert_close(x.grad, y.grad)
            space.model.zero_grad()
            assert state_of(space.model) == before
    assert isinstance(space, ModelView)


def test_the_mode_of_gradients_is_left_as_it_was() -> None:
    space = fsb.FeatureSpace(Net())
    for mode, enabled in ((torch.enable_grad, True), (torch.no_grad, False)):
        with mode():
            space.extract(images())
            assert torch.is_grad_enabled() is enabled


def test_a_head_found_in_inference_mode_carries_gradients_later() -> None:
    space = fsb.FeatureSpace(Net())
    with torch.inference_mode():
        space.extract(images())
        head = space.head
    x = images().requires_grad_()
    head.margins(space.features(x)).sum().backward()
    assert x.grad.abs().sum() > 0
    from fsboundary.builtin.head_input import HeadInput

    extractor, model = HeadInput(), Net()
    with torch.inference_mode():
        extractor.features(model, images())
    head = extractor.head(model)
    head.margins(torch.ones(1, WIDTH, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_features_keep_the_models_dtype(dtype: torch.dtype) -> None:
    space = fsb.FeatureSpace(Net().to(dtype))
    batch = space.extract(images().to(dtype))
    assert batch.features.dtype == batch.logits.dtype == dtype
    assert space.head.weight.dtype == torch.float64
    assert torch.equal(space.head.weight, Net().to(dtype).fc.weight.double())


def test_batches_go_to_the_device_of_the_model() -> None:
    here, there = torch.device("cpu"), torch.device("meta")
    assert device_of(nn.ReLU(), here) == here
    assert device_of(nn.Linear(2, 2, device=there), here) == there
    assert device_of(nn.BatchNorm1d(2, affine=False, device=there), here) == there


def test_the_fingerprint_distinguishes_heads_layers_and_extractors() -> None:
    first = fsb.FeatureSpace(Net()).extract(images())
    assert fsb.FeatureSpace(Net()).extract(images(3)).fingerprint == first.fingerprint
    other = Net()
    with torch.no_grad():
        other.fc.bias[0] += 1
    assert fsb.FeatureSpace(other).extract(images()).fingerprint != first.fingerprint
    renamed = Last(Net().body, Net().fc)
    assert fsb.FeatureSpace(renamed).extract(images()).fingerprint != first.fingerprint
    custom = fsb.FeatureSpace(Net(), extractor=Body()).extract(images())
    assert custom.fingerprint != first.fingerprint
    again = fsb.FeatureSpace(Net(), extractor=Body()).extract(images())
    assert custom.fingerprint == again.fingerprint  # it contains no address


class Body(fsb.FeatureExtractor):
    """A user-defined extractor without a repr, which may drop its first `cut` features."""

    def __init__(self, cut: int = 0) -> None:
        self.cut, self.num_fitted = cut, 0

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        z = model.body(images)
        return z[:, self.cut :], model.fc(z)

    def head(self, model: nn.Module) -> fsb.LinearHead:
        return fsb.LinearHead(model.fc.weight, model.fc.bias)

    def fit(self, model: nn.Module, loader: Any) -> Body:
        self.num_fitted = sum(len(x) for x in loader)
        return self


def test_a_user_defined_extractor() -> None:
    extractor = Body()
    space = fsb.FeatureSpace(Net(), extractor=extractor)
    batch = space.extract(images())
    torch.testing.assert_close(batch.logits, Net()(images()))
    assert space.domain == fsb.Domain.unbounded()
    assert set(space.notes()) == {"domain", "observed minimum", "residual"}
    assert space.fit([images(), images(3)]) is space
    assert extractor.num_fitted == 8
    with pytest.raises(fsb.PluginError, match=r"features \(5, 5\) .* wanted \(5, 6\)"):
        fsb.FeatureSpace(Net(), extractor=Body(cut=1)).extract(images())


class Boxed(Body):
    """An extractor that claims a box: features between 0 and `upper`."""

    def __init__(self, upper: Tensor) -> None:
        super().__init__()
        self.upper = upper

    def domain(self, model: nn.Module) -> fsb.Domain:
        return fsb.Domain.box(torch.zeros_like(self.upper), self.upper)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_feature_outside_of_a_proved_box_raises(dtype: torch.dtype) -> None:
    net, x = Net().to(dtype), images().to(dtype)
    z = net.body(x).detach()
    assert (z >= 0).all()
    upper = z.amax(dim=0).double() + 0.5
    row, m = divmod(int(z.argmax()), z.shape[1])
    space = fsb.FeatureSpace(net, extractor=Boxed(upper))
    batch = space.extract(x)
    assert space.domain.kind == "box"
    assert space.domain.contains(batch.features).all()
    upper[m] = z[row, m].double() * (1 - 1e-15)  # closer than float32 can tell
    space = fsb.FeatureSpace(net, extractor=Boxed(upper))
    kept = torch.arange(len(z)) != row
    space.extract(x[kept])
    words = rf"feature {m} of row {row} is .* proved that it lies in \[0\.0, .*domain='unbounded'"
    with pytest.raises(fsb.HeadError, match=words):
        space.extract(x)
    with pytest.raises(fsb.HeadError, match=rf"feature {m} of row 0 is"):
        space.extract(x[row : row + 1])
    bad = x[row : row + 1] * float("nan")  # such a row has a status of its own
    assert not space.extract(torch.cat([x[kept][:1], bad])).ok[1]
    free = fsb.FeatureSpace(net, extractor=Boxed(upper), domain="unbounded")
    assert free.extract(x).ok.all()


def test_progress_is_shown_only_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    space = fsb.FeatureSpace(Net())
    space.extract(images())
    assert capfd.readouterr() == ("", "")
    space.extract(images(), batch_size=2, show_progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "5/5" in err


def test_notes_report_the_head_and_the_domain() -> None:
    space = fsb.FeatureSpace(Net())
    space.extract(images())
    notes = space.notes()
    assert list(notes) == [
        "layer", "layer class", "features", "link", "residual", "domain", "observed minimum",
    ]  # fmt: skip
    assert notes["layer"] == "fc"
    assert notes["layer class"] == "Linear"
    assert notes["link"] == "none: the model returns its logits"
    assert notes["domain"].startswith("nonnegative (proved by the model's structure: the features")
    assert notes["domain"].endswith("from relu)")


def test_the_model_itself_may_be_the_head() -> None:
    model = nn.Linear(3, 4).eval()
    space = fsb.FeatureSpace(model)
    x = torch.randn(5, 3)
    assert torch.equal(space.extract(x).features, x)
    assert space.notes()["layer"] == "(the model itself)"
    assert space.domain == fsb.Domain.unbounded()
