"""Verification of ``W z + b`` against the model's logits: what passes, what raises, tightness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.models import linear_maps
from fsboundary.models.linear_maps import LayerCall, largest_residual
from fsboundary.modes import product_precision
from support.models.nets import CLASSES, WIDTH, Last, Net, images


def test_weights_that_changed_since_the_head_was_found_raise() -> None:
    for name in ("weight", "bias"):
        model = Net()
        space = fsb.FeatureSpace(model)
        space.extract(images())
        with torch.no_grad():
            getattr(model.fc, name)[0] += 1e-7  # far below the tolerance of W z + b
        with pytest.raises(fsb.HeadMismatchError, match=r"'fc' \(Linear\), changed.*Make a new"):
            space.extract(images())
        assert fsb.FeatureSpace(model).extract(images()).ok.all()


def test_a_layer_that_was_replaced_raises() -> None:
    for change in (
        lambda m: setattr(m, "fc", nn.Linear(WIDTH, CLASSES).eval()),
        lambda m: setattr(m.fc, "bias", None),
        lambda m: m.double(),
    ):
        model = Net()
        space = fsb.FeatureSpace(model)
        space.extract(images())
        change(model)
        with pytest.raises(fsb.HeadMismatchError, match="changed since it was found"):
            space.extract(images().to(model.fc.weight.dtype))


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        (lambda m, z: m.fc(z), lambda m, z: m.fc(z).tanh()),
        (lambda m, z: m.fc(z), lambda m, z: nn.functional.linear(z, m.fc.weight * z.mean())),
        (lambda m, z: m.fc(z) + m.fc.bias, lambda m, z: m.fc(z) + z[:, :CLASSES].sin()),
    ],
    ids=["function of the logits", "weight from the data", "another source"],
)
def test_a_pass_whose_end_is_another_raises(
    usual: Callable[[Net, Tensor], Tensor], other: Callable[[Net, Tensor], Tensor]
) -> None:
    model = Net()
    model.forward = lambda x: usual(model, model.body(x))
    space = fsb.FeatureSpace(model)
    space.extract(images())
    model.forward = lambda x: other(model, model.body(x))
    with pytest.raises(fsb.HeadMismatchError, match=r"[Tt]he model's path depends"):
        space.extract(images())


def test_a_softmax_that_some_passes_leave_out() -> None:
    model = Net(lambda logits: logits.softmax(1))
    space = fsb.FeatureSpace(model)
    logits = []
    for output in (model.output, lambda logits: logits, model.output):
        model.output = output
        logits.append(space.extract(images()).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


class Scaled(Net):
    """A model that multiplies its logits by a factor that can be changed."""

    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)) * self.factor


@pytest.mark.parametrize(
    ("dtype", "small", "large"),
    [
        (torch.float64, 1e-16, 1e-14),
        (torch.float32, 1e-7, 1e-5),
        (torch.bfloat16, 1e-3, 1e-1),
        (torch.float16, 1e-4, 1e-2),
    ],
    ids=str,
)
def test_a_factor_larger_than_rounding_is_detected(
    dtype: torch.dtype, small: float, large: float
) -> None:
    model = Scaled().to(dtype)
    space = fsb.FeatureSpace(model)
    x = images(50).to(dtype)
    space.extract(x)
    model.factor = 1 + small
    space.extract(x)
    model.factor = 1 + large
    with pytest.raises(
        fsb.HeadMismatchError, match=f"'fc'.*differs from the model's output.*{dtype}"
    ):
        space.extract(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 16, 512, 4096])
@pytest.mark.parametrize("sign", ["both", "positive"])
def test_true_heads_pass_whatever_their_width_and_precision(
    dtype: torch.dtype, width: int, sign: str
) -> None:
    generator = torch.Generator().manual_seed(width)
    head = nn.Linear(width, 50)
    with torch.no_grad():
        head.weight.copy_(torch.randn(50, width, generator=generator))
    x = torch.randn(64, width, generator=generator)
    x = x.abs() if sign == "positive" else x
    space = fsb.FeatureSpace(Last(nn.Identity(), head).to(dtype))
    batch = space.extract(x.to(dtype))
    assert torch.equal(batch.features, x.to(dtype))
    residual, _, tolerance = space.notes()["residual"].partition(" (tolerance ")
    assert 0 <= float(residual) < float(tolerance.rstrip(")"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_tolerated(dtype: torch.dtype) -> None:
    head = nn.Linear(200, 20)
    for output in (lambda y: y, lambda y: y.float()):
        space = fsb.FeatureSpace(Last(nn.Identity(), head, output))
        with torch.autocast("cpu", dtype):
            for _ in range(2):
                batch = space.extract(torch.randn(9, 200))
        assert batch.ok.all()
        assert batch.features.dtype == torch.float32


def layer_call(width: int, dtype: torch.dtype, convolution: bool = False) -> LayerCall:
    return LayerCall(
        layer="fc",
        features=torch.ones(2, width, dtype=dtype),
        outputs=torch.ones(2, 3, dtype=dtype),
        size=None,
        positions=1,
        convolution=convolution,
    )


def test_the_tolerance_is_that_of_the_module_docstring() -> None:
    u32, u64 = 2.0**-24, 2.0**-53
    assert linear_maps.relative_tolerance(layer_call(4, torch.float32)) == pytest.approx(
        8 * (u32 + u64)
    )
    wide = 8 * 1025**0.5 * (u32 + u64)
    assert linear_maps.relative_tolerance(layer_call(1023, torch.float32)) == pytest.approx(wide)
    assert linear_maps.relative_tolerance(layer_call(4, torch.float64)) == pytest.approx(16 * u64)
    for half in (torch.bfloat16, torch.float16):
        added = 3 * torch.finfo(half).eps
        assert linear_maps.relative_tolerance(layer_call(4, half)) == pytest.approx(
            8 * (u32 + u64) + added
        )
        assert linear_maps.relative_tolerance(layer_call(4, torch.float32), half) > added
    head = fsb.LinearHead(-torch.ones(3, 4), torch.ones(3))
    bound = linear_maps.logit_tolerance(layer_call(4, torch.float64), head, torch.ones(2, 3))
    assert torch.allclose(bound, torch.full((2, 3), 5 * 8 * (u32 + u64), dtype=torch.float64))


@pytest.fixture
def default_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize(("precision", "eps"), [("high", 2.0**-10), ("medium", 2.0**-7)])
def test_reduced_precision_of_products_is_tolerated(precision: str, eps: float) -> None:
    exact = linear_maps.relative_tolerance(layer_call(9, torch.float32))
    double = linear_maps.relative_tolerance(layer_call(9, torch.float64))
    torch.set_float32_matmul_precision(precision)
    assert linear_maps.relative_tolerance(layer_call(9, torch.float32)) == pytest.approx(
        exact + 2 * eps
    )
    assert linear_maps.relative_tolerance(layer_call(9, torch.float64)) == double
    space = fsb.FeatureSpace(Last(nn.Identity(), nn.Linear(512, 100)))
    assert space.extract(torch.randn(256, 512)).ok.all()


class Settings:
    """A torch backend as before 2.9, without ``fp32_precision``."""

    def __init__(self, allow_tf32: bool) -> None:
        self.allow_tf32 = allow_tf32


@pytest.mark.parametrize("allow", [True, False])
def test_the_settings_of_older_torch_are_read(monkeypatch: pytest.MonkeyPatch, allow: bool) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", Settings(allow))
    assert product_precision("cuda") == ("tf32" if allow else "")
    monkeypatch.setattr(torch.backends, "mkldnn", Settings(allow))
    monkeypatch.setattr(
        torch, "get_float32_matmul_precision", lambda: "medium" if allow else "highest"
    )
    assert product_precision("cpu") == ("bf16" if allow else "")


def test_cudnn_has_a_separate_precision_setting_for_convolutions() -> None:
    cudnn = torch.backends.cudnn
    for found, settings in (
        (product_precision("cuda", convolution=True), getattr(cudnn, "conv", cudnn)),
        (product_precision("cuda"), torch.backends.cuda.matmul),
    ):
        if hasattr(cudnn, "conv"):
            setting = settings.fp32_precision
        else:  # torch before 2.9
            setting = "tf32" if settings.allow_tf32 else "ieee"
        assert found == ("" if setting in ("none", "ieee") else setting)


def test_finite_rows_are_verified_next_to_rows_that_are_not() -> None:
    model = Scaled()
    space = fsb.FeatureSpace(model)
    x = images()
    x[1] = torch.nan
    assert space.extract(x).ok.tolist() == [True, False, True, True, True]
    model.factor = 1.1
    with pytest.raises(fsb.HeadMismatchError, match=r"at row [0234]"):
        space.extract(x)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("error", [0.0, 0.25])
def test_rows_that_are_not_finite_have_no_residual(bad: float, row: int, error: float) -> None:
    output = torch.zeros(3, 2, dtype=torch.float64)
    expected = output + error
    output[row, 0] = expected[row, 0] = bad
    found = largest_residual(expected, output, torch.ones_like(output))
    assert found is not None
    assert (found.row, found.column) != (row, 0)
    assert found.size == error
    output[:], expected[:] = bad, bad
    assert largest_residual(expected, output, torch.ones_like(output)) is None


def test_a_first_row_that_is_not_finite_does_not_hide_the_residual() -> None:
    head = nn.Linear(2, 2)
    space = fsb.FeatureSpace(Last(nn.Identity(), head))
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    space.extract(torch.tensor([[torch.nan, 1.0], [1.0, 2.0]]))
    assert space.notes()["residual"].startswith("0 (tolerance ")
