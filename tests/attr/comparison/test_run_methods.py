from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    LayerActivation,
    LayerGradientXActivation,
    NoiseTunnel,
    Occlusion,
    Saliency,
)

import fsboundary as fsb
from fsboundary.attr import attribute_methods, compare, compare_methods
from fsboundary.demo import DemoData
from support.attr.cases import LinearCase

SIGNED = {"Saliency": {"abs": False}}


def test_on_a_linear_model_the_gradients_are_the_weights(linear: LinearCase) -> None:
    methods = {"Saliency": Saliency, "IG": IntegratedGradients, "FA": FeatureAblation}
    found = attribute_methods(linear.space, linear.images, methods, options=SIGNED, batch_size=2)
    assert list(found) == ["boundary", *methods]
    own = linear.weight[linear.predicted].reshape(linear.images.shape)
    torch.testing.assert_close(found["Saliency"], own)
    torch.testing.assert_close(found["IG"], own * linear.images)
    torch.testing.assert_close(found["FA"], own * linear.images)
    assert not any(value.requires_grad for value in found.values())


def test_the_boundary_has_the_sign_of_evidence_for_the_class(linear: LinearCase) -> None:
    predicted = linear.predicted
    for target in (None, predicted, (predicted + 1) % 4):
        found = attribute_methods(linear.space, linear.images, {}, target)["boundary"]
        classes = predicted if target is None else target
        step = 1e-6 * found
        before = torch.softmax(linear.logits(linear.images), dim=1)
        after = torch.softmax(linear.logits(linear.images + step), dim=1)
        rows = torch.arange(5)
        nearest = fsb.flip_points(
            linear.space.head,
            linear.space.extract(linear.images).features,
            "nearest" if target is None or torch.equal(classes, predicted) else classes,
        ).target[:, 0]
        rival = torch.where(classes == predicted, nearest, predicted)
        gain = (after / before).log()
        assert bool((gain[rows, classes] > gain[rows, rival]).all())


def test_comparison_is_that_of_the_attributions(linear: LinearCase) -> None:
    methods = {"Saliency": Saliency, "IG": IntegratedGradients}
    found = compare_methods(
        linear.space, linear.images, methods, options=SIGNED, metrics=("cosine",), steps=4
    )
    given = attribute_methods(linear.space, linear.images, methods, options=SIGNED)
    expected = compare(linear.images, given, space=linear.space, metrics=("cosine",), steps=4)
    assert found.methods == ("boundary", "Saliency", "IG")
    assert found.reference == "boundary"
    for name, value in expected.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found.to_dict()[name], value)
    own = {"boundary": Saliency}
    assert compare_methods(linear.space, linear.images, own, steps=2).methods == ("boundary",)


def test_ways_to_name_a_method(demo: DemoData, demo_space: fsb.FeatureSpace) -> None:
    images = demo.test_images[:2]
    methods = {
        "class": Saliency,
        "made": Saliency(demo_space.logits),
        "function": lambda model: Saliency(model),
        "tunnel": lambda model: NoiseTunnel(Saliency(model)),
    }
    options = {"tunnel": {"nt_samples": 2, "stdevs": 0.0}}
    found = attribute_methods(demo_space, images, methods, options=options)
    for name in ("made", "function", "tunnel"):
        torch.testing.assert_close(found[name], found["class"])


def test_random_methods_repeat_and_leave_the_global_generators(linear: LinearCase) -> None:
    methods = {"GS": GradientShap}
    options = {"GS": {"baselines": torch.rand(3, 2, 3, 4).double(), "stdevs": 0.1}}
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second, other = (
        attribute_methods(linear.space, linear.images, methods, options=options, seed=seed)["GS"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_an_image_with_nan_leaves_the_others_alone(linear: LinearCase) -> None:
    methods = {"IG": IntegratedGradients, "FA": FeatureAblation}
    expected = attribute_methods(linear.space, linear.images, methods)
    images = linear.images.clone()
    images[2, 0, 1, 1] = torch.nan
    with pytest.warns(UserWarning, match="no flip point"):
        found = attribute_methods(linear.space, images, methods)
    rest = [0, 1, 3, 4]
    for name, value in found.items():
        assert bool(value[2].isnan().any())
        torch.testing.assert_close(value[rest], expected[name][rest])


def test_progress_counts_batches(linear: LinearCase, capsys: pytest.CaptureFixture[str]) -> None:
    attribute_methods(linear.space, linear.images, {"S": Saliency}, batch_size=2)
    assert capsys.readouterr().err == ""
    attribute_methods(
        linear.space, linear.images, {"S": Saliency}, batch_size=2, show_progress=True
    )
    assert "6/6" in capsys.readouterr().err


BAD: list[tuple[dict[str, Any], str]] = [
    ({"methods": {"x": 3}}, r"methods\['x'\]: got 3"),
    ({"methods": {"x": lambda model: model}}, r"methods\['x'\]: got a _Logits"),
    (
        {"methods": {"Occ": Occlusion}},
        r"options\['Occ'\]: got no 'sliding_window_shapes' for Occlusion",
    ),
    (
        {"methods": {"GS": GradientShap}},
        r"options\['GS'\]: got no 'baselines'.*Fix: add 'baselines'",
    ),
    ({"options": {"IG": {}}}, "options: got 'IG'; wanted one of 'S'"),
    ({"target": 4}, "target: got classes from 4 to 4; wanted.* of classes 0 to 3"),
    ({"target": [0, 1]}, "target: got"),
    ({"images": torch.zeros(3, 24).double()}, "images: got"),
    ({"batch_size": 0}, "batch_size: got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(linear: LinearCase, change: dict[str, Any], message: str) -> None:
    given = {"images": linear.images, "methods": {"S": Saliency}, **change}
    with pytest.raises(fsb.ArgumentError, match=message):
        attribute_methods(linear.space, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("pearson",)}, "metrics: got 'pearson'"),
        ({"reference": "IG"}, "reference: got 'IG'"),
        ({"bounds": (0, 0.1)}, "wanted pixels from 0 to 0.1"),
        ({"steps": 1}, "steps: got 1"),
    ],
)
def test_options_are_checked_before_a_method_runs(
    linear: LinearCase, options: dict[str, Any], message: str
) -> None:
    class Never(Saliency):  # type: ignore[misc]  # Captum has no types
        def attribute(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("ran")

    with pytest.raises(fsb.ArgumentError, match=message):
        compare_methods(linear.space, linear.images, {"S": Never}, **options)


def test_a_method_that_does_not_attribute_to_pixels(linear: LinearCase) -> None:
    methods = {"S": Saliency, "L": lambda model: LayerActivation(model, model.model[1])}
    # Captum's layer activations take no target
    with pytest.raises(TypeError, match="unexpected keyword argument 'target'"):
        attribute_methods(linear.space, linear.images, methods)
    methods["L"] = lambda model: LayerGradientXActivation(model, model.model[1])
    with pytest.raises(fsb.ArgumentError, match=r"'L'\]: got shape \(5, 6\)"):
        attribute_methods(linear.space, linear.images, methods)
