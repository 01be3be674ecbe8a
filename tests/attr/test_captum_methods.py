"""Captum's methods on the distances of the demo's network, and the reasons of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr as ca
import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from benchmarks.completeness import FLIP, Case
from fsboundary.attr import BoundaryDistance, ClassHullDistance, HullDistance
from fsboundary.attr.distances.base import Distance
from fsboundary.demo import DemoData, load_demo

ROWS, TARGET = 2, 0
SQUARES = (torch.arange(28)[:, None] // 14 * 2 + torch.arange(28) // 14)[None, None]
MASKED = {"feature_mask": SQUARES, "target": TARGET}
HALVES = (torch.arange(64) // 32)[None, :, None, None]
NEURON = (24, 6, 6)  # alive for these images

# pixel methods: the attribution has the shape of the images
PIXELS: dict[str, Callable[[Distance, Tensor], Any]] = {
    "IntegratedGradients": lambda m, x: ca.IntegratedGradients(m).attribute(
        x, target=TARGET, n_steps=5
    ),
    "Saliency": lambda m, x: ca.Saliency(m).attribute(x, target=TARGET),
    "InputXGradient": lambda m, x: ca.InputXGradient(m).attribute(x, target=TARGET),
    "Deconvolution": lambda m, x: ca.Deconvolution(m).attribute(x, target=TARGET),
    "GuidedBackprop": lambda m, x: ca.GuidedBackprop(m).attribute(x, target=TARGET),
    "GradientShap": lambda m, x: ca.GradientShap(m).attribute(
        x, baselines=torch.zeros_like(x), n_samples=2, target=TARGET
    ),
    "Occlusion": lambda m, x: ca.Occlusion(m).attribute(
        x, sliding_window_shapes=(1, 14, 14), strides=(1, 14, 14), target=TARGET
    ),
    "FeatureAblation": lambda m, x: ca.FeatureAblation(m).attribute(x, **MASKED),
    "ShapleyValueSampling": lambda m, x: ca.ShapleyValueSampling(m).attribute(
        x, n_samples=2, **MASKED
    ),
    "KernelShap": lambda m, x: ca.KernelShap(m).attribute(x, n_samples=8, **MASKED),
    "Lime": lambda m, x: ca.Lime(m).attribute(x, n_samples=8, **MASKED),
    "GuidedGradCam": lambda m, x: ca.GuidedGradCam(m, m.model.blocks[3]).attribute(
        x, target=TARGET
    ),
    "FeaturePermutation": lambda m, x: ca.FeaturePermutation(m).attribute(x, **MASKED),
    "ShapleyValues": lambda m, x: ca.ShapleyValues(m).attribute(
        x, feature_mask=SQUARES % 2, target=TARGET
    ),
    "DeepLift": lambda m, x: ca.DeepLift(m).attribute(x, target=TARGET),
    "DeepLiftShap": lambda m, x: ca.DeepLiftShap(m).attribute(
        x, torch.zeros_like(x), target=TARGET
    ),
    "NoiseTunnel": lambda m, x: ca.NoiseTunnel(ca.Saliency(m)).attribute(
        x, nt_samples=2, stdevs=0.01, target=TARGET
    ),
}
LAYERS: dict[str, Callable[[Distance, Tensor], Any]] = {
    "LayerGradCam": lambda m, x: ca.LayerGradCam(m, m.model.blocks[3]).attribute(x, target=TARGET),
    "LayerDeepLift": lambda m, x: ca.LayerDeepLift(m, m.model.stem).attribute(x, target=TARGET),
    "LayerDeepLiftShap": lambda m, x: ca.LayerDeepLiftShap(m, m.model.stem).attribute(
        x, torch.zeros_like(x), target=TARGET
    ),
    "LayerActivation": lambda m, x: ca.LayerActivation(m, m.model.blocks[3]).attribute(x),
    "LayerIntegratedGradients": lambda m, x: ca.LayerIntegratedGradients(
        m, m.model.blocks[3]
    ).attribute(x, target=TARGET, n_steps=5),
    "LayerConductance": lambda m, x: ca.LayerConductance(m, m.model.blocks[3]).attribute(
        x, target=TARGET, n_steps=5
    ),
    "InternalInfluence": lambda m, x: ca.InternalInfluence(m, m.model.blocks[3]).attribute(
        x, target=TARGET, n_steps=5
    ),
    "LayerGradientXActivation": lambda m, x: ca.LayerGradientXActivation(
        m, m.model.blocks[3]
    ).attribute(x, target=TARGET),
    "LayerGradientShap": lambda m, x: ca.LayerGradientShap(m, m.model.blocks[3]).attribute(
        x, baselines=torch.zeros_like(x), n_samples=2, target=TARGET
    ),
    "LayerFeatureAblation": lambda m, x: ca.LayerFeatureAblation(m, m.model.pool).attribute(
        x, target=TARGET, layer_mask=HALVES
    ),
    "NeuronConductance": lambda m, x: ca.NeuronConductance(m, m.model.blocks[3]).attribute(
        x, NEURON, target=TARGET, n_steps=5
    ),
}
# they explain a neuron inside the model, whatever comes after it
NEURONS: dict[str, Callable[[Distance, Tensor], Any]] = {
    "NeuronGradient": lambda m, x: ca.NeuronGradient(m, m.model.blocks[3]).attribute(x, NEURON),
    "NeuronIntegratedGradients": lambda m, x: ca.NeuronIntegratedGradients(
        m, m.model.blocks[3]
    ).attribute(x, NEURON, n_steps=5),
    "NeuronGradientShap": lambda m, x: ca.NeuronGradientShap(m, m.model.blocks[3]).attribute(
        x, NEURON, baselines=torch.zeros_like(x), n_samples=2
    ),
    "NeuronFeatureAblation": lambda m, x: ca.NeuronFeatureAblation(m, m.model.blocks[3]).attribute(
        x, NEURON, feature_mask=SQUARES
    ),
    "NeuronDeepLift": lambda m, x: ca.NeuronDeepLift(m, m.model.blocks[3]).attribute(x, NEURON),
    "NeuronDeepLiftShap": lambda m, x: ca.NeuronDeepLiftShap(m, m.model.blocks[3]).attribute(
        x, neuron_selector=NEURON, baselines=torch.zeros_like(x)
    ),
    "NeuronDeconvolution": lambda m, x: ca.NeuronDeconvolution(m, m.model.blocks[3]).attribute(
        x, NEURON
    ),
    "NeuronGuidedBackprop": lambda m, x: ca.NeuronGuidedBackprop(m, m.model.blocks[3]).attribute(
        x, NEURON
    ),
}
# what does not run, and why
REFUSED: dict[str, tuple[Callable[[Distance, Tensor], Any], type[Exception], str]] = {
    # Captum 0.9 applies the target twice, on the logits just as here
    "LayerFeaturePermutation": (
        lambda m, x: ca.LayerFeaturePermutation(m, m.model.pool).attribute(
            x, target=TARGET, layer_mask=HALVES
        ),
        AssertionError,
        "Cannot choose target column",
    ),
    # LRP propagates by rules for known layers; a distance is none, and neither is nn.Identity
    "LRP": (lambda m, x: ca.LRP(m).attribute(x, target=TARGET), TypeError, "no rule defined"),
    "LayerLRP": (
        lambda m, x: ca.LayerLRP(m, m.model.pool).attribute(x, target=TARGET),
        TypeError,
        "no rule defined",
    ),
    # the head's outputs are replaced, so the logits are no longer W z + b; and a distance depends
    # on the input of the head only
    "LayerIntegratedGradients of the head": (
        lambda m, x: ca.LayerIntegratedGradients(m, m.model.head).attribute(x, target=TARGET),
        fsb.HeadMismatchError,
        "'head' \\(Linear\\), is not the last linear map of this pass",
    ),
}
# what explains no images, or is no method by itself
ELSEWHERE = {
    "Attribution": "a base class",
    "GradientAttribution": "a base class",
    "PerturbationAttribution": "a base class",
    "NeuronAttribution": "a base class",
    "LayerAttribution": "a base class",
    "LimeBase": "Lime, with its sampling left to the caller",
    "DataLoaderAttribution": "a sum over a data set, of a method in this table",
    "LLMAttribution": "of texts",
    "LLMGradientAttribution": "of texts",
    "RemoteLLMAttribution": "of texts",
}


@pytest.fixture(scope="module")
def demo() -> DemoData:
    return load_demo()


@pytest.fixture(scope="module")
def space(demo: DemoData) -> fsb.FeatureSpace:
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    space.extract(demo.test_images[:1])
    return space


@pytest.fixture(scope="module", params=["boundary", "source", "hull", "class hull"])
def distance(request: pytest.FixtureRequest, demo: DemoData, space: fsb.FeatureSpace) -> Distance:
    few = slice(None, None, len(demo.train_images) // 60)
    bank = space.bank([(demo.train_images[few], demo.train_labels[few])])
    return {
        "boundary": lambda: BoundaryDistance(space),
        "source": lambda: BoundaryDistance(space, source=7),
        "hull": lambda: HullDistance(space, bank),
        "class hull": lambda: ClassHullDistance(space, bank),
    }[request.param]()


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")  # Captum's hint
@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")  # Captum's hint
@pytest.mark.filterwarnings("ignore:You are providing multiple inputs for Lime")  # Captum's hint
# reported once where no gradient is taken: class 7 itself, in the columns of `source=7`
@pytest.mark.filterwarnings(r"ignore:columns \[7\] are NaN")
# at a black image the neuron is dead, and its gradient comes after that of the distance
@pytest.mark.filterwarnings("ignore:the features do not react")
@pytest.mark.parametrize("name", [*PIXELS, *LAYERS, *NEURONS])
def test_runs(name: str, distance: Distance, demo: DemoData) -> None:
    torch.manual_seed(0)
    x = demo.test_images[:ROWS].clone()
    found = (PIXELS | LAYERS | NEURONS)[name](distance, x)
    assert len(found) == ROWS
    assert name in LAYERS or found.shape == x.shape
    assert bool(torch.isfinite(found).all())
    assert bool((found != 0).flatten(1).any(dim=1).all())


def test_no_method_of_captums_is_left_out() -> None:
    methods = {
        name
        for name in ca.__all__
        if isinstance(found := getattr(ca, name), type) and issubclass(found, ca.Attribution)
    }
    names = [*PIXELS, *LAYERS, *NEURONS, *REFUSED, *ELSEWHERE]
    assert len(names) == len(set(names))
    assert methods <= set(names), methods - set(names)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")  # Captum's hint
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # Captum's hint
@pytest.mark.parametrize("name", list(REFUSED))
def test_does_not_run(name: str) -> None:
    run, error, message = REFUSED[name]
    demo = load_demo()  # of its own: LRP and DeepLift leave hooks behind when they fail
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    with pytest.raises(error, match=message):
        run(BoundaryDistance(space), demo.test_images[:1].clone())


# reported once where no gradient is taken: the class itself, in the columns of `source=`
@pytest.mark.filterwarnings(r"ignore:columns \[\d\] are NaN")
@pytest.mark.parametrize("column", ["own", "flip point"])
def test_completeness_from_the_flip_image(column: str) -> None:
    found = Case(torch.float32, 2).run(FLIP, column, False, 4000, "riemann_middle")
    print("delta over the difference:", found["of_difference"])
    assert found["of_difference"]["within"] == 2
    assert found["of_difference"]["largest"] <= 1e-4


def test_completeness_from_a_blurred_image() -> None:
    """Tolerance relative to the sum of absolute attributions, which cancels in the delta."""
    found = Case(torch.float32, 3).run("blurred, 0.5", "own", False, 2000, "riemann_middle")
    print("delta over the sum of absolute attributions:", found["of_total"])
    assert found["of_total"]["within"] == 3
    assert found["of_total"]["largest"] <= 1e-4


def test_completeness_in_pixels_is_that_of_the_logits(
    demo: DemoData, space: fsb.FeatureSpace
) -> None:
    """Nothing is lost on the way through the distance."""
    x = demo.test_images[:2].clone().requires_grad_()
    base = x.detach() * 0.9
    share = []
    for function in (BoundaryDistance(space), space.logits):
        found, delta = ca.IntegratedGradients(function).attribute(
            x,
            baselines=base,
            target=9,
            n_steps=200,
            internal_batch_size=100,
            return_convergence_delta=True,
        )
        share.append((delta.abs() / found.abs().flatten(1).sum(dim=1)).max().detach())
    print("delta over the sum of absolute attributions:", [f"{float(s):.1e}" for s in share])
    assert float(share[0]) <= 1e-4
    assert float(share[1]) <= 1e-4


@pytest.mark.filterwarnings("ignore:Setting backward hooks")  # Captum's hint
@pytest.mark.parametrize("method", [ca.GuidedBackprop, ca.Deconvolution])
def test_methods_that_replace_the_gradient_of_a_relu_do_so(method: Any) -> None:
    """The demo's network has none, so there they are the plain gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    distance = BoundaryDistance(fsb.FeatureSpace(model.eval()))
    own = distance(x).argmax(dim=1)
    plain = ca.Saliency(distance).attribute(x, target=own, abs=False)
    found = method(distance).attribute(x, target=own)
    assert bool((found - plain).flatten(1).abs().amax(dim=1).gt(0.01 * plain.abs().max()).all())
