"""Naive use by a user of Captum: noise, positional targets, NaN columns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import captum.attr as ca
import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

import fsboundary as fsb
from fsboundary.attr import (
    BoundaryDirection,
    BoundaryDistance,
    BoundaryPush,
    FlipImageAttribution,
    HullDistance,
    HullInfluence,
    attribute_methods,
    compare,
    draw_attributions,
)
from fsboundary.demo import DemoData
from support.attr.cases import LinearCase
from support.attr.nets import bank, images, positive, smooth

SEARCHING = {
    "flip image": FlipImageAttribution,
    "integrated": lambda space, **kw: BoundaryDirection(space, "integrated", **kw),
}


@pytest.mark.parametrize(
    ("kind", "nt_type"),
    [
        ("flip image", "smoothgrad"),
        ("flip image", "smoothgrad_sq"),
        ("flip image", "vargrad"),
        ("integrated", "smoothgrad"),
    ],
)
def test_noise_that_leaves_the_range_of_pixels(linear: LinearCase, kind: str, nt_type: str) -> None:
    torch.manual_seed(0)
    tunnel = ca.NoiseTunnel(SEARCHING[kind](linear.space))
    found = tunnel.attribute(linear.images, nt_type=nt_type, nt_samples=2, stdevs=0.3, target=1)
    assert bool(torch.isfinite(found).all())
    assert bool((found != 0).flatten(1).any(dim=1).all())


def test_sensitivity_of_a_method_that_searches(linear: LinearCase) -> None:
    torch.manual_seed(0)
    method = FlipImageAttribution(linear.space)
    found = sensitivity_max(method.attribute, linear.images[:2], n_perturb_samples=1, target=1)
    assert bool(torch.isfinite(found).all())


def test_noise_tunnel_of_the_flip_image_on_the_demo_network(
    demo: DemoData, demo_space: fsb.FeatureSpace
) -> None:
    torch.manual_seed(0)
    x = demo.test_images[:1]
    tunnel = ca.NoiseTunnel(FlipImageAttribution(demo_space))
    found = tunnel.attribute(x, nt_samples=2, stdevs=0.05)
    assert bool(torch.isfinite(found).all())
    assert float(found.sum()) > 0


def test_a_row_out_of_range_changes_no_other(linear: LinearCase) -> None:
    x = linear.images.clone()
    x[1] += 0.3
    x[3] -= 2.2
    method = FlipImageAttribution(linear.space)
    found = method.attribute(x)
    for row in range(5):
        single = method.attribute(x[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], single, rtol=1e-5, atol=1e-8)
    # the range of the images decides, and here the user's own
    wide = FlipImageAttribution(linear.space, bounds=(-3, 3)).attribute(x)
    assert bool((wide.flatten(1).sum(dim=1) <= found.flatten(1).sum(dim=1) * 1.001).all())
    with pytest.raises(fsb.ArgumentError, match="bounds: got"):
        FlipImageAttribution(linear.space, bounds=(1, 0))


def test_pixels_on_the_edge_of_the_range_do_not_leave_it(linear: LinearCase) -> None:
    # 0.8 in float32 is larger than in float64
    space = fsb.FeatureSpace(copy.deepcopy(linear.space.model).float())
    x = (linear.images.float() * 0.8).clamp(0, 0.8)
    x[:, :, 0] = 0.8
    way = FlipImageAttribution(space, bounds=(0, 0.8))
    found = way.attribute(x)
    targets = fsb.flip_points(space.head, space.extract(x).features).target[:, 0]
    ends = fsb.pixels.flip_images(space, x, targets, bounds=(0, 0.8)).images
    torch.testing.assert_close(found, way.attribute(x, baselines=ends))
    # rounding of a normalisation is put back
    torch.testing.assert_close(way.attribute(x + 1e-7), found, rtol=1e-3, atol=1e-5)


def test_a_copy_searches_its_own_network(linear: LinearCase) -> None:
    method = FlipImageAttribution(linear.space)
    method.attribute(linear.images[:1])
    other = copy.deepcopy(method)
    with torch.no_grad():
        other.space.model[1].weight.mul_(-2)
    fresh = FlipImageAttribution(other.space)
    found = other.attribute(linear.images)
    torch.testing.assert_close(found, fresh.attribute(linear.images))
    assert not torch.allclose(found, method.attribute(linear.images))


@pytest.mark.parametrize("kind", SEARCHING)
def test_a_row_that_is_not_finite_spoils_no_other(linear: LinearCase, kind: str) -> None:
    x = linear.images.clone()
    x[2, 0, 0, 0] = torch.nan
    x[2, 0, 0, 1] = 1.5
    method = SEARCHING[kind](linear.space)
    want = method.attribute(linear.images)
    for target in (None, 1):
        with pytest.warns(UserWarning, match=r"1 of 5 rows, first \[2\]"):
            found = method.attribute(x, target=target)
        assert (
            torch.isnan(found).flatten(1).any(dim=1).tolist() == [False] * 2 + [True] + [False] * 2
        )
        if target is None:
            torch.testing.assert_close(found[[0, 1, 3, 4]], want[[0, 1, 3, 4]])
    if kind == "flip image":
        with pytest.warns(UserWarning, match=r"NOT_FINITE.*1 of 5 rows, first \[2\]"):
            method.attribute(x, baselines=linear.images.flip(0) + 0.1)


def test_both_senses_of_a_line_count_the_same_where_one_has_no_answer() -> None:
    class Root(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sqrt()

    model = torch.nn.Sequential(Root(), torch.nn.Linear(12, 3)).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 1, 3, 4, generator=generator, dtype=torch.float64) + 0.1
    given = torch.rand(4, 1, 3, 4, generator=generator, dtype=torch.float64)
    found = compare(x, {"a": given, "-a": -given}, space=model, flips=x + 0.3, steps=5)
    assert torch.isnan(found.crossing[0]).any()
    torch.testing.assert_close(found.crossing[0], found.crossing[1], equal_nan=True)
    torch.testing.assert_close(found.reach[0], found.reach[1], equal_nan=True)


@pytest.mark.parametrize("kind", ["gradient", "times_input"])
def test_a_class_in_the_second_place_is_not_taken_for_baselines(kind: Any) -> None:
    method, x = BoundaryDirection(smooth(), kind), images()
    with pytest.raises(fsb.ArgumentError, match=r"baselines: got 2; .*pass the class as target="):
        method.attribute(x, 2)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(fsb.ArgumentError, match=r"baselines: got a tensor \(5, 1, 2, 3\)"):
        method.attribute(x, x)


def test_perturbation_methods_warn_of_columns_without_a_value() -> None:
    windows = {"sliding_window_shapes": (1, 1, 1)}
    distance = BoundaryDistance(smooth(), source=2)
    with pytest.warns(UserWarning, match=r"columns \[2\] are NaN") as caught, torch.no_grad():
        distance(images())
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(
        UserWarning, match=r"columns \[2\] are NaN and cannot be targets: 2 is the source"
    ):
        found = ca.Occlusion(BoundaryDistance(smooth(), source=2)).attribute(
            images(), target=2, **windows
        )
    assert bool(torch.isnan(found).all())
    distance = BoundaryDistance(positive(0), classes=[0, 2, 3])
    with pytest.warns(UserWarning, match=r"columns \[1\] are NaN .* left out by classes="):
        ca.FeatureAblation(distance).attribute(images(), target=1)
    # once is enough
    ca.FeatureAblation(distance).attribute(images(), target=0)


def test_perturbation_methods_warn_of_rows_that_fail() -> None:
    x = images()
    x[1, 0, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match=r"no certified distance.*1 of 5 rows, first \[1\]"):
        found = ca.FeatureAblation(BoundaryDistance(smooth())).attribute(x, target=0)
    assert torch.isnan(found).flatten(1).any(dim=1).tolist() == [False, True, False, False, False]


def test_given_flip_images_need_no_flip_point() -> None:
    # the region of class 1 is empty, so there is no flip point to it
    x = images()
    ends = x + 0.1
    found = FlipImageAttribution(positive(0)).attribute(x, baselines=ends, target=1)
    assert found.flatten(1).sum(dim=1).tolist() == pytest.approx([0.1 * 6**0.5] * 5)


def test_options_with_a_row_for_each_image_are_cut_with_the_images(linear: LinearCase) -> None:
    x = linear.images
    given: dict[str, Any] = {"baselines": x.flip(0), "target": [0, 1, 2, 3, 0]}
    whole, cut = (
        attribute_methods(
            linear.space,
            x,
            {"IG": ca.IntegratedGradients},
            options={"IG": {"n_steps": 4}},
            row_options={"IG": given},
            batch_size=size,
        )
        for size in (5, 2)
    )
    torch.testing.assert_close(cut["IG"], whole["IG"])
    # a distribution of baselines is no row for each image, whatever its length
    shap: dict[str, Any] = {"methods": {"GS": ca.GradientShap}, "batch_size": 2}
    base = torch.cat([0 * x[:2], 5 + 0 * x[:3]])
    five = attribute_methods(linear.space, x, options={"GS": {"baselines": base}}, **shap)
    four = attribute_methods(linear.space, x[:4], options={"GS": {"baselines": base}}, **shap)
    torch.testing.assert_close(five["GS"][:4], four["GS"])
    for value in (x[:2], 0.5):
        with pytest.raises(fsb.ArgumentError, match=r"row_options\['GS'\]\['baselines'\]: got"):
            attribute_methods(linear.space, x, row_options={"GS": {"baselines": value}}, **shap)
    with pytest.raises(fsb.ArgumentError, match="row_options: got 'IG'"):
        attribute_methods(linear.space, x, row_options={"IG": given}, **shap)


def test_a_method_of_another_model_takes_a_target_of_its_own() -> None:
    space = fsb.FeatureSpace(smooth())
    x = images()
    space.extract(x)
    hull = ca.Saliency(HullDistance(space, bank(space)))
    found = attribute_methods(space, x, {"hull": hull}, options={"hull": {"target": 0}})
    torch.testing.assert_close(found["hull"], hull.attribute(x.clone().requires_grad_(), target=0))
    with pytest.raises(fsb.ArgumentError, match="leave return_convergence_delta out"):
        attribute_methods(
            space,
            x,
            {"IG": ca.IntegratedGradients},
            options={"IG": {"return_convergence_delta": True}},
        )


@pytest.mark.parametrize(
    ("sign", "text"),
    [("positive", "nothing positive"), ("negative", ""), ("all", ""), ("absolute_value", "")],
)
def test_pictures_of_attributions_of_one_sign(sign: Any, text: str, tmp_path: Path) -> None:
    shown = torch.zeros(2, 3, 8, 8)  # a black image
    shown[1] = 5.0
    given = -torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = draw_attributions(shown, {"a": given}, sign=sign)
    axes = figure.get_axes()
    assert [t.get_text() for t in axes[1].texts] == ([text] if text else [])
    figure.savefig(tmp_path / "figure.png")


def test_pictures_where_channels_cancel_and_of_two_channels() -> None:
    given = torch.ones(1, 2, 8, 8)
    given[:, 1] = -1
    figure = draw_attributions(torch.rand(1, 2, 8, 8), {"a": given})
    assert [t.get_text() for t in figure.get_axes()[1].texts] == ["zero over the channels"]
    for method in ("masked_image", "alpha_scaling"):
        with pytest.raises(fsb.ArgumentError, match="sign: got 'all'; wanted one sign"):
            draw_attributions(torch.rand(1, 2, 8, 8), {"a": given}, method=method)
    unknown: dict[str, Any]
    for unknown in ({"sign": "foo"}, {"method": "foo"}):
        with pytest.raises(fsb.ArgumentError, match="got 'foo'; wanted one of"):
            draw_attributions(torch.rand(1, 2, 8, 8), {"a": given}, **unknown)


def test_pictures_of_one_grey_value() -> None:
    grey: Tensor = torch.full((1, 1, 8, 8), 0.25)
    figure = draw_attributions(grey, {"a": torch.rand(1, 1, 8, 8)})
    assert figure.get_axes()[0].images[0].get_array().tolist()[0][0] == [0.25] * 3


def test_a_black_image_times_its_gradient_is_zero_without_a_warning() -> None:
    method = BoundaryDirection(smooth(), "times_input")
    assert not bool(method.attribute(torch.zeros(1, 1, 2, 3).double()).any())


def test_a_body_without_gradients_is_told() -> None:
    class Cut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(6, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x.detach().flatten(1))
            return out

    message = "model: got features without a gradient"
    with pytest.raises(fsb.ArgumentError, match=message):
        BoundaryDirection(Cut().eval()).attribute(images())
    with pytest.raises(fsb.ArgumentError, match=message):
        BoundaryPush(Cut().eval()).perturb(images(), 0.5)


def test_influence_takes_a_tuple_as_captums_do() -> None:
    space = fsb.FeatureSpace(smooth())
    x = images()
    influence = HullInfluence(space, bank(space))
    found, want = influence.influence((x,), 2), influence.influence(x, 2)
    assert torch.equal(found.indices, want.indices)
    assert torch.equal(found.weights, want.weights)
