"""Attribution methods: sums, directions, targets, batches, failures, bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.attr import (
    BoundaryDirection,
    BoundaryDistance,
    ClassHullDistance,
    FlipImageAttribution,
    HullDistance,
    LayerBoundaryDirection,
)
from support.attr.nets import bank, images, linear, positive, smooth


def nudge(x: Tensor, target: Tensor) -> Tensor:
    return x + 0.05 * (1 + target.view(-1, 1, 1, 1)) * x.cos()


def test_integrated_sums_to_the_way_of_the_features() -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    x = images()
    method = BoundaryDirection(space, "integrated", nudge)
    found, delta = method.attribute(x, return_convergence_delta=True)
    assert float(delta.abs().max()) <= 1e-9
    assert method.has_convergence_delta()
    features = space.extract(x).features
    ends = nudge(x, fsb.flip_points(space.head, features).target[:, 0])
    again = method.compute_convergence_delta(found, x, ends)
    torch.testing.assert_close(again, delta, rtol=0, atol=1e-9)
    given = BoundaryDirection(space, "integrated").attribute(x, baselines=ends)
    torch.testing.assert_close(given, found)
    few = method.attribute(x, internal_batch_size=2)
    torch.testing.assert_close(few, found)


def test_on_a_linear_body_the_flip_image_is_reached_exactly() -> None:
    model, body = linear()
    space = fsb.FeatureSpace(model, domain="unbounded")
    x = images()
    features = space.extract(x).features
    flips = fsb.flip_points(space.head, features)
    ends = torch.linalg.solve(body, flips.points[:, 0].T).T.view_as(x)
    found = BoundaryDirection(space, "integrated").attribute(x, baselines=ends)
    torch.testing.assert_close(found.flatten(1).sum(dim=1), flips.distance[:, 0])
    share = FlipImageAttribution(space).attribute(x, baselines=ends)
    length = torch.linalg.vector_norm((ends - x).flatten(1), dim=1)
    torch.testing.assert_close(share.flatten(1).sum(dim=1), length)
    assert bool((share >= 0).all())
    times = BoundaryDirection(space, "times_input").attribute(x)
    torch.testing.assert_close(times, BoundaryDirection(space).attribute(x) * x)


def test_layer_direction_at_the_head_is_the_direction_itself() -> None:
    model = positive()
    space = fsb.FeatureSpace(model, domain="nonnegative")
    x = images()
    features = space.extract(x).features
    flips = fsb.flip_points(space.head, features)
    unit = (flips.points[:, 0] - features) / flips.distance
    method = LayerBoundaryDirection(space, model[3])
    torch.testing.assert_close(method.attribute(x, attribute_to_layer_input=True), unit)
    torch.testing.assert_close(LayerBoundaryDirection(space, model[2]).attribute(x), unit)
    share = LayerBoundaryDirection(space, model[3], "fraction")
    shares = share.attribute(x, attribute_to_layer_input=True, internal_batch_size=2)
    torch.testing.assert_close(shares, unit.square())
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(5, dtype=torch.float64))
    with pytest.raises(fsb.ArgumentError, match="attribute_to_layer_input=True"):
        method.attribute(x)


def test_the_own_class_as_target_turns_the_direction_round() -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    x = images()
    own = space.extract(x).predicted
    nearest = BoundaryDirection(space).attribute(x)
    torch.testing.assert_close(BoundaryDirection(space).attribute(x, target=own), -nearest)
    same = FlipImageAttribution(space, nudge).attribute(x)
    torch.testing.assert_close(FlipImageAttribution(space, nudge).attribute(x, target=own), same)


def test_tuples_of_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = smooth()

        def forward(self, first: Tensor, second: Tensor) -> Any:
            return self.inner(first + 2 * second)

    space = fsb.FeatureSpace(Sum().eval(), domain="unbounded")
    a, b = images(seed=1), images(seed=3)
    first, second = BoundaryDirection(space).attribute((a, b))
    torch.testing.assert_close(second, 2 * first)
    ends = (a + 0.1, b)
    parts = FlipImageAttribution(space).attribute((a, b), baselines=ends)
    assert bool((parts[1] == 0).all())
    with pytest.raises(fsb.ArgumentError, match="baselines"):
        FlipImageAttribution(space).attribute((a, b))


def test_a_batch_without_images_is_empty_or_says_why() -> None:
    model = smooth()
    space = fsb.FeatureSpace(model, domain="unbounded")
    space.extract(images())
    none = images()[:0]
    assert BoundaryDirection(space).attribute(none).shape == none.shape
    method = BoundaryDirection(space, "integrated")
    found, delta = method.attribute(none, baselines=none, return_convergence_delta=True)
    assert found.shape == none.shape
    assert delta.shape == (0,)
    assert FlipImageAttribution(space).attribute(none, baselines=none).shape == none.shape
    with pytest.raises(fsb.ArgumentError, match="inputs: got no examples"):
        LayerBoundaryDirection(space, model[2]).attribute(none)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    exact, x = smooth(), images()
    expected = BoundaryDirection(fsb.FeatureSpace(exact, domain="unbounded")).attribute(x)
    space = fsb.FeatureSpace(smooth().to(dtype), domain="unbounded")
    found = BoundaryDirection(space).attribute(x.to(dtype))
    assert found.dtype == dtype
    close = torch.nn.functional.cosine_similarity(found.double().flatten(1), expected.flatten(1))
    assert bool((close > 0.99).all())
    share = FlipImageAttribution(space).attribute(x.to(dtype), baselines=(0.5 * x).to(dtype))
    assert share.dtype == dtype


def test_rows_without_a_flip_are_nan_with_a_warning() -> None:
    space = fsb.FeatureSpace(positive(seed=0), domain="nonnegative")
    x = images()
    with pytest.warns(UserWarning, match="INFEASIBLE"):
        out = BoundaryDirection(space).attribute(x, target=[1, 0, 0, 0, 0])
    assert bool(torch.isnan(out[0]).all())
    assert bool(torch.isfinite(out[1:]).all())

    def lost(x: Tensor, target: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) == 0, torch.nan, x + 1)

    for method in (FlipImageAttribution(space, lost), BoundaryDirection(space, "integrated", lost)):
        with pytest.warns(UserWarning, match=r"no flip image .* \(1 of 5 rows, first \[0\]"):
            out = method.attribute(x)
        assert bool(torch.isnan(out[0]).all())
        assert bool(torch.isfinite(out[1:]).all())
    with pytest.warns(UserWarning, match="are equal"):
        out = FlipImageAttribution(space, lambda x, target: x).attribute(x)
    assert bool((out == 0).all())


def test_flip_images_are_sought_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    x = images()
    calls: list[Any] = []

    def search(model: Any, found: Tensor, targets: Tensor, *, bounds: tuple[float, float]) -> Any:
        calls.extend((model, row, int(k), bounds) for row, k in zip(found, targets, strict=True))
        return SimpleNamespace(images=nudge(found, targets))

    monkeypatch.setattr("fsboundary.attr.methods.flip_baselines.flip_images", search)
    found = FlipImageAttribution(space).attribute(x, perturbations_per_eval=3)
    torch.testing.assert_close(found, FlipImageAttribution(space, nudge).attribute(x))
    batch = space.extract(x)
    nearest = fsb.flip_points(space.head, batch.features).target[:, 0]
    assert len(calls) == len(x)
    for model, row, k, (low, high) in calls:
        place = next(i for i in range(len(x)) if torch.equal(x[i], row))
        assert model is space
        assert k == int(nearest[place])
        # (0, 1), wider by as many eighths as this image needs
        over = max(-float(row.min()), float(row.max()) - 1, 0)
        assert 0 <= high - 1 - over < 1 / 8
        assert low == pytest.approx(1 - high)
    with pytest.raises(fsb.ArgumentError, match="additional arguments"):
        FlipImageAttribution(space).attribute(x, additional_forward_args=1.0)


def test_empty_regions_and_classes() -> None:
    space = fsb.FeatureSpace(positive(seed=0), domain="nonnegative")
    x = images()
    late = BoundaryDistance(space)  # the head is found by the first batch
    with pytest.raises(fsb.ArgumentError, match=r"\[1\], whose regions are empty.*\[0, 2, 3\]"):
        late(x)
    with pytest.raises(fsb.ArgumentError, match="regions are empty"):
        BoundaryDistance(space)
    with pytest.raises(fsb.ArgumentError, match="source"):
        BoundaryDistance(space, source=1, classes=[0, 2])
    distance = BoundaryDistance(space, classes=[0, 2, 3])
    value = distance(x.requires_grad_())
    assert bool(torch.isnan(value[:, 1]).all())
    torch.autograd.grad(value[:, 0].sum(), x, retain_graph=True)
    with pytest.raises(fsb.ArgumentError, match="left out"):
        torch.autograd.grad(value[:, 1].sum(), x)


def test_source_as_target_says_why() -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    x = images().requires_grad_()
    with pytest.raises(fsb.ArgumentError, match="2 is the source itself"):
        BoundaryDistance(space, source=2)(x)[:, 2].sum().backward()


@pytest.mark.parametrize("target", [4, -1, [0, 1, 2, 3, 9], torch.tensor(7)])
def test_targets_out_of_range(target: Any) -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    with pytest.raises(fsb.ArgumentError, match="0 to 3"):
        BoundaryDirection(space).attribute(images(), target=target)


@pytest.mark.parametrize("target", [1.5, "2", [0, 1], torch.zeros(5), torch.zeros(5, 1).long()])
def test_malformed_targets(target: Any) -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    with pytest.raises(fsb.ArgumentError, match="target"):
        BoundaryDirection(space).attribute(images(), target=target)


def test_missing_additional_arguments() -> None:
    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = smooth()

        def forward(self, x: Tensor, gain: float) -> Any:
            return self.inner(gain * x)

    space = fsb.FeatureSpace(Needs().eval(), domain="unbounded")
    for run in (BoundaryDistance(space), BoundaryDirection(space).attribute):
        with pytest.raises(TypeError, match="gain"):
            run(images())
    assert BoundaryDistance(space)(images(), 2.0).shape == (5, 4)
    assert BoundaryDirection(space).attribute(images(1), additional_forward_args=2.0).ndim == 4


def test_wrong_banks() -> None:
    space = fsb.FeatureSpace(smooth(), domain="unbounded")
    other = fsb.FeatureSpace(positive(), domain="nonnegative")
    points = bank(space)
    with pytest.raises(fsb.ArgumentError, match="bank"):
        HullDistance(space, points.features)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(fsb.ArgumentError, match="width"):
        HullDistance(space, fsb.FeatureBank(torch.zeros(3, 2)))
    with pytest.raises(fsb.HeadMismatchError):
        HullDistance(space, bank(other))
    with pytest.raises(fsb.ArgumentError, match="labels"):
        ClassHullDistance(space, fsb.FeatureBank(points.features))
    part = points.subset(labels=[0, 2])
    with pytest.raises(fsb.ArgumentError, match=r"\[1, 3\], which no row has"):
        ClassHullDistance(space, part)
    assert torch.isnan(ClassHullDistance(space, part, classes=[0, 2])(images())).sum() == 10
    with pytest.raises(fsb.ArgumentError, match="labels"):
        ClassHullDistance(space, fsb.FeatureBank(points.features, torch.arange(12)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda s: BoundaryDistance(s, source="2"), "source"),
        (lambda s: BoundaryDistance(s, classes=[]), "classes"),
        (lambda s: BoundaryDistance(s, classes=[0.5]), "classes"),
        (lambda s: BoundaryDistance(s, source=1, classes=[1]), "classes"),
        (lambda s: BoundaryDistance(s, tolerance=2.0), "tolerance"),
        (lambda s: BoundaryDirection(s, "sideways"), "kind"),
        (lambda s: BoundaryDirection(s, finder=3), "finder"),
        (lambda s: LayerBoundaryDirection(s, None, "size"), "kind"),
        (lambda s: BoundaryDirection(s).attribute(3), "inputs: got 3; wanted a float tensor"),
        (lambda s: BoundaryDirection(s).attribute(()), "inputs"),
        (lambda s: BoundaryDirection(s).attribute((images(2), images(3))), "inputs"),
        (lambda s: BoundaryDirection(s).attribute(images(), internal_batch_size=0), "batch_size"),
        (
            lambda s: BoundaryDirection(s).attribute(images(), return_convergence_delta=True),
            "delta",
        ),
        (lambda s: FlipImageAttribution(s).attribute(images(), baselines=images(2)), "baselines"),
    ],
)
def test_malformed_arguments(make: Any, name: str) -> None:
    with pytest.raises(fsb.ArgumentError, match=name):
        make(fsb.FeatureSpace(smooth(), domain="unbounded"))
