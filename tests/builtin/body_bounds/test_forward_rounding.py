"""Rounding of float32 passes: measured against float64 passes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import pixels
from fsboundary.builtin.body_bounds import forward_rounding
from fsboundary.builtin.body_bounds.forward_rounding import ForwardRounding
from fsboundary.core.errors import ArgumentError, HeadError
from fsboundary.core.status import Status
from fsboundary.geometry.bounds.rounding import pass_error
from support.bounds.bodies import OPERATIONS, Body, body, pictures, points_inside


def narrow(name: str, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return the model of an operation in float32, and in float64 with the same numbers."""
    small = body(name, seed).float()
    wide = body(name, seed).float().double()
    return small, wide


def errors_of(model: nn.Module, images: Tensor, radius: float, norm: str) -> Tensor:
    rounding = ForwardRounding(fsb.FeatureSpace(model, example=images), images)
    radii = torch.full((len(images),), radius, dtype=torch.float64)
    return rounding.logit_errors(images, radii, norm, (0.0, 1.0))


def measured(small: nn.Module, wide: nn.Module, x: Tensor, errors: Tensor, size: int) -> float:
    """Return the largest error of float32 logits relative to its bound."""
    exact = wide(x.double())
    computed = torch.cat([small(part) for part in x.split(size)]).double()
    return float(((computed - exact).abs() / errors).max())


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_float32_pass_is_off_by_more(name: str) -> None:
    small, wide = narrow(name, 3)
    images = pictures(16, 5).float()
    for norm, radius in (("linf", 0.05), ("l2", 0.3)):
        errors = errors_of(small, images, radius, norm)
        assert bool((errors < 0.1).all())
        radii = torch.full((16,), radius, dtype=torch.float64)
        inside = points_inside(images.double(), radii, norm, lambda x: wide(x)[:, 0], 7)
        for number, points in enumerate(inside):  # 78 batches of 16
            x = points.float().clamp(0, 1)
            if number % 2:
                x = x.to(memory_format=torch.channels_last)
            # the float64 pass of the other model is exact to 1e-9 of the bound
            assert measured(small, wide, x, errors, (1, 3, 16)[number % 3]) <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_bounds_hold_with_any_number_of_threads(threads: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(),
        nn.Linear(2048, 10),
    ).eval()  # fmt: skip
    wide = nn.Sequential(*model)
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    errors = errors_of(model, images, 0.0, "linf")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        computed = [torch.cat([model(part) for part in images.split(s)]) for s in (1, 7, 24)]
    finally:
        torch.set_num_threads(before)
    exact = wide.double()(images.double())
    for found in computed:
        assert bool(((found.double() - exact).abs() <= errors).all())


def test_the_measurement_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        forward_rounding,
        "pass_error",
        lambda terms, size, dtype: pass_error(terms, size, dtype) / 1000,
    )
    small, wide = narrow("residual", 3)
    images = pictures(16, 5).float()
    errors = errors_of(small, images, 0.0, "linf")
    assert measured(small, wide, images, errors, 16) > 1


def test_a_sum_has_the_error_of_the_textbook() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = errors_of(model, images, 0.0, "linf")
    size = images.flatten(1).double() @ model[1].weight.detach().double().abs().T
    u = 2.0**-24
    # 65 roundings of a rule for 64 products, and two of constants
    gamma = 67 * u / (1 - 67 * u)
    # bounds are rounded outward by 2^-20 a few times
    torch.testing.assert_close(found, gamma * size, rtol=1e-4, atol=0)


class Cancelling(nn.Module):
    """A model whose float32 passes lose most digits of their features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]]))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.flatten(1) - 0.5 + 2.0**20) - 2.0**20)


def test_claims_cover_passes_that_those_in_exact_arithmetic_do_not() -> None:
    model = Cancelling().eval().requires_grad_(False)
    away = torch.tensor([0.125, 0.25, 0.375])
    images = 0.5 + away[:, None, None, None].expand(3, 1, 2, 2)
    # known images on the other side of the boundary, which float32 takes for ties, refute nothing
    options = {"tolerance": 1e-6, "upper": 1 - images}
    exact = pixels.certify(model, images, **options)
    covered = pixels.certify(model, images, arithmetic="floating_point", **options)
    assert not bool(exact.covers_rounding.any())
    assert bool(covered.covers_rounding.all())
    torch.testing.assert_close(exact.radius, away.double(), rtol=1e-5, atol=0)
    # steps of 1/8 at 2^20: within 1/16 of the tie, all features are 0
    moved = images - 0.9 * away[:, None, None, None]
    assert model(moved).tolist() == 3 * [[0.0, 0.0]]
    assert bool((covered.radius < 0.9 * exact.radius).all())
    assert covered.status.tolist()[:2] == 2 * [int(Status.UNDECIDED)]


@pytest.mark.parametrize("method", ["linear_bounds", "interval"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_radius_is_larger_than_that_of_exact_arithmetic(norm: str, method: str) -> None:
    for name in ("gelu", "max_pool", "scaled"):
        model, images = narrow(name, 1)[0], pictures(4, 2).float()
        flips = images.flip(0)  # their classes are checked
        exact = pixels.certify(model, images, norm=norm, method=method, upper=flips)
        found = pixels.certify(
            model, images, norm=norm, method=method, upper=flips, arithmetic="floating_point"
        )
        assert torch.equal(found.source, exact.source)
        assert torch.equal(found.upper, exact.upper)
        assert bool((found.radius <= exact.radius).all())
        assert bool((found.steps > exact.steps).all())
        # margins here are at least three times the rounding
        assert bool((found.radius >= 0.7 * exact.radius).all())


def test_rows_alone_give_the_same() -> None:
    model, images = narrow("relu", 1)[0], pictures(4, 2).float()
    images[2] = torch.nan
    options = {"arithmetic": "floating_point", "upper": images}
    together = pixels.certify(model, images, **options)
    assert together.status[2] == Status.NOT_FINITE
    assert bool(together.radius[2].isnan())
    assert bool(together.covers_rounding.all())
    for row in (0, 1, 3):
        alone = pixels.certify(
            model, images[row : row + 1], arithmetic="floating_point", upper=images[row : row + 1]
        )
        # searches of other steps end within the tolerance
        torch.testing.assert_close(alone.radius[0], together.radius[row], rtol=1e-3, atol=0)
    space = fsb.FeatureSpace(model)
    space.extract(images[:1])
    assert len(pixels.certify(space, images[:0], arithmetic="floating_point").radius) == 0


def test_operations_after_the_features_are_covered() -> None:
    plain = Body(lambda x, b: torch.relu(x.flatten(1)[:, :8]), 8, 0).float()

    class Scaled(nn.Module):
        def __init__(self, inner: Body) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return (self.inner(x) + 1000) / 3 * 10

    images = pictures(4, 2).float()
    scaled = Scaled(plain).eval()
    errors = errors_of(scaled, images, 0.0, "linf")
    assert bool((errors > 10 * errors_of(plain, images, 0.0, "linf")).all())
    exact = (plain.double()(images.double()) + 1000) / 3 * 10
    plain.float()
    assert bool(((scaled(images).double() - exact).abs() <= errors).all())


class Pass(nn.Module):
    """A model with an operation between the images and a linear head."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x.flatten(1)))


BEFORE_THE_HEAD = {
    "scaled": lambda x: torch.relu(x) * 2 / 3,
    "shifted": lambda x: torch.relu(x) + 1,
    "reversed": lambda x: torch.cat(torch.relu(x).split(4, dim=1)[::-1], dim=1),
}


@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
def test_features_are_recognised_after_any_operation(name: str) -> None:
    model = Pass(BEFORE_THE_HEAD[name]).eval().requires_grad_(False)
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    errors = errors_of(model, images, 0.0, "linf")
    computed = model(images).double()
    assert bool(((computed - model.double()(images.double())).abs() <= errors).all())


REFUSED = {
    "float16": lambda x: x.half().float(),
    "bfloat16": lambda x: torch.relu(x.bfloat16()).float(),
    "softplus": lambda x: nn.functional.softplus(x, threshold=500.0),
    "softmax": lambda x: x.softmax(dim=1),
    "div": lambda x: torch.relu(torch.relu(x * 1e-20) / 1e-39 * 1e-19),
    "native_batch_norm": lambda x: nn.functional.batch_norm(
        torch.relu(x), torch.zeros(16), torch.full((16,), -1e-6), eps=1e-5
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_for_its_rounding_is_refused_by_name(name: str) -> None:
    model = Pass(REFUSED[name]).eval().requires_grad_(False)
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(HeadError, match=name):
        pixels.certify(model, images, upper=images, arithmetic="floating_point")


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_convolutions_by_other_algorithms_are_refused() -> None:
    small, images = narrow("relu")[0], pictures(2, 2).float()
    if not torch.backends.mkldnn.is_available():
        return
    with (
        torch.backends.mkldnn.flags(enabled=False),
        pytest.raises(HeadError, match="convolutions of float32 are no sums of products"),
    ):
        pixels.certify(small, images, upper=images, arithmetic="floating_point")


def test_a_vouched_constant_says_nothing_of_rounding() -> None:
    model, images = narrow("relu")[0], pictures(2, 2).float()
    with pytest.raises(ArgumentError, match="says nothing of rounding"):
        pixels.certify(model, images, lipschitz=3.0, arithmetic="floating_point")
    with pytest.raises(ArgumentError, match="arithmetic"):
        pixels.certify(model, images, arithmetic="float32")


def test_sums_that_may_overflow_have_no_bound() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    model.requires_grad_(False)
    model[1].weight.fill_(1e3)
    model[3].weight.fill_(1e36)
    images = torch.rand(2, 1, 4, 4) / 1e4
    assert bool(torch.isinf(errors_of(model, images, 0.5, "linf")).all())
