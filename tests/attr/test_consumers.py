"""Captum's consumers of attributions, applied to fsboundary's, on the demo's network."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency, visualization
from captum.concept import TCAV, Concept
from captum.influence import SimilarityInfluence
from captum.metrics import infidelity, sensitivity_max
from captum.robust import AttackComparator, MinParamPerturbation
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fsboundary as fsb
from fsboundary.attr import (
    BoundaryDirection,
    BoundaryDistance,
    BoundaryPush,
    HullClassifier,
    HullInfluence,
    LayerBoundaryDirection,
    compare_methods,
    draw_attributions,
)
from fsboundary.demo import DemoData


@pytest.fixture(scope="module")
def images(demo: DemoData) -> Tensor:
    return demo.test_images[:3]


@pytest.fixture(scope="module")
def predicted(demo_space: fsb.FeatureSpace, images: Tensor) -> Tensor:
    return demo_space.extract(images).predicted


def noise(inputs: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(demo_space: fsb.FeatureSpace, images: Tensor, kind: str) -> None:
    method = BoundaryDirection(demo_space)
    options = {"nt_samples": 3, "nt_samples_batch_size": 2, "nt_type": kind}
    plain = method.attribute(images, target=5)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        still = NoiseTunnel(method).attribute(images, stdevs=0.0, target=5, **options)
        found = NoiseTunnel(method).attribute(images, stdevs=0.05, target=5, **options)
    expected = {"smoothgrad": plain, "smoothgrad_sq": plain**2, "vargrad": torch.zeros_like(plain)}
    torch.testing.assert_close(still, expected[kind], rtol=1e-4, atol=1e-5)
    assert bool((found != still).any())


def test_infidelity_is_0_where_the_attribution_is_linear_in_the_perturbation(
    demo_space: fsb.FeatureSpace, images: Tensor, predicted: Tensor
) -> None:
    distance = BoundaryDistance(demo_space)

    def small(inputs: Tensor) -> tuple[Tensor, Tensor]:
        step = 1e-3 * noise(inputs)
        return step, inputs - step

    given = {"perturb_func": small, "inputs": images, "target": predicted, "n_perturb_samples": 4}
    own = BoundaryDirection(demo_space).attribute(images, target=predicted)
    good = infidelity(distance, attributions=own, **given)
    bad = infidelity(distance, attributions=-own, **given)
    assert good.shape == (3,)
    assert bool((good < 0.02 * bad).all())


def test_sensitivity_max(demo_space: fsb.FeatureSpace, images: Tensor) -> None:
    def none(inputs: Tensor, radius: float) -> Tensor:
        return inputs + 0 * radius

    def some(inputs: Tensor, radius: float) -> Tensor:
        return inputs + radius * noise(inputs)

    method = BoundaryDirection(demo_space)
    still = sensitivity_max(method.attribute, images, none, n_perturb_samples=2, target=5)
    moved = sensitivity_max(method.attribute, images, some, n_perturb_samples=2, target=5)
    assert still.tolist() == pytest.approx([0.0] * 3, abs=1e-4)
    assert bool((moved > 1e-3).all())


def test_visualisers(demo_space: fsb.FeatureSpace, images: Tensor) -> None:
    found = BoundaryDirection(demo_space).attribute(images)[0].permute(1, 2, 0).numpy()
    image = images[0].permute(1, 2, 0).numpy()
    figure, axis = visualization.visualize_image_attr(
        found, image, "blended_heat_map", "all", use_pyplot=False
    )
    assert isinstance(figure, Figure)
    assert len(axis.images) == 2
    figure, axes = visualization.visualize_image_attr_multiple(
        found, image, ["original_image", "heat_map"], ["all", "positive"], use_pyplot=False
    )
    assert isinstance(figure, Figure)
    assert [len(axis.images) for axis in axes] == [1, 1]


def test_pictures_side_by_side(
    demo_space: fsb.FeatureSpace, images: Tensor, tmp_path: Path
) -> None:
    found = {"boundary": BoundaryDirection(demo_space).attribute(images)}
    found["other"] = noise(images)
    found["other"][2, 0, 3, 3] = torch.nan
    open_figures = matplotlib.pyplot.get_fignums()
    figure = draw_attributions(images, found, rows=[0, 2])
    assert matplotlib.pyplot.get_fignums() == open_figures
    axes = figure.get_axes()
    assert [axis.get_title() for axis in axes[:3]] == ["image", "boundary", "other"]
    assert [len(axis.images) for axis in axes] == [1, 1, 1, 1, 1, 0]
    assert [text.get_text() for text in axes[5].texts] == ["NOT_FINITE"]
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    for rows in ([], [3], [-4]):
        with pytest.raises(fsb.ArgumentError, match="rows: got"):
            draw_attributions(images, found, rows=rows)


# Captum loads its saved vectors by numpy's old names
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
def test_tcav_with_our_layer_method_and_our_classifier(
    demo: DemoData, demo_space: fsb.FeatureSpace, images: Tensor, tmp_path: Path
) -> None:
    normal = demo.preprocess(demo.train_images)
    concepts = [
        Concept(k, f"class-{k}", DataLoader(TensorDataset(normal[demo.train_labels == k][:12])))
        for k in (1, 7, 8)
    ]
    for concept in concepts:  # TCAV takes batches of images, not of tuples
        concept.data_iter = [batch for (batch,) in concept.data_iter]
    space = fsb.FeatureSpace(demo.model)
    method = LayerBoundaryDirection(space, demo.model.pool)
    tcav = TCAV(
        demo.model,
        "pool",
        classifier=HullClassifier(),
        layer_attr_method=method,
        save_path=str(tmp_path),
    )
    given = demo.preprocess(demo.train_images[demo.train_labels == 0][:4])
    own = 0
    for target, concept in ((1, 0), (7, 1), (8, 2)):
        scores = tcav.interpret(given, [concepts], target=target)["1-7-8"]["pool"]
        # towards class k the features move towards the images of class k
        assert float(scores["sign_count"][concept]) == 1.0
        own += int(scores["magnitude"].argmax()) == concept
    assert own >= 2


def test_hull_classifier_separates_or_says_that_it_cannot(
    demo: DemoData, demo_space: fsb.FeatureSpace
) -> None:
    rows = torch.isin(demo.train_labels, torch.tensor([1, 7, 8])).nonzero()[:60, 0]
    batch = demo_space.extract(demo.train_images[rows])
    labels = demo.train_labels[rows]
    data = list(zip(batch.features.split(16), labels.split(16), strict=True))
    classifier = HullClassifier()
    with pytest.raises(RuntimeError, match="train_and_eval first"):
        classifier.weights()
    stats = classifier.train_and_eval(data, test_split_ratio=0.3)
    weights, features = classifier.weights(), batch.features.double()
    assert classifier.classes() == [1, 7, 8]
    assert weights.shape == (3, 64)
    for k, weight, distance in zip(classifier.classes(), weights, stats["distance"], strict=True):
        along = features @ weight
        gap = along[labels == k].min() - along[labels != k].max()
        assert float(gap) == pytest.approx(float(distance), rel=1e-4)
        assert float(gap) > 0
    mixed = [(batch.features, torch.arange(len(rows)) % 2)]
    with pytest.raises(fsb.ArgumentError, match="concept 0, whose hull meets"):
        classifier.train_and_eval([(f.repeat(2, 1), t.repeat(2).sort()[0]) for f, t in mixed])
    with pytest.raises(fsb.ArgumentError, match="1 concept; wanted at least two"):
        classifier.train_and_eval([(batch.features, torch.zeros(len(rows)).long())])
    with pytest.raises(fsb.ArgumentError, match="no batches"):
        classifier.train_and_eval([])


def test_min_param_perturbation(
    demo_space: fsb.FeatureSpace, images: Tensor, predicted: Tensor
) -> None:
    push = BoundaryPush(demo_space, lower_bound=0.0, upper_bound=1.0)
    found = []
    for mode in ("linear", "binary"):
        search = MinParamPerturbation(demo_space.logits, push, "amount", 0.0, 4.0, 0.25, mode=mode)
        image, amount = search.evaluate(images[:1], target=predicted[:1])
        assert int(demo_space.extract(image).predicted) != int(predicted[0])
        less = push(images[:1], amount=amount - 0.25)
        assert int(demo_space.extract(less).predicted) == int(predicted[0])
        found.append(amount)
    assert found[0] == found[1]


def test_attack_comparator(demo_space: fsb.FeatureSpace, images: Tensor, predicted: Tensor) -> None:
    def accuracy(logits: Tensor, target: Tensor) -> Tensor:
        return (logits.argmax(dim=1) == target).float()

    comparator = AttackComparator(demo_space.logits, accuracy)
    push = BoundaryPush(demo_space)
    for amount in (0.0, 8.0):
        comparator.add_attack(push, f"push {amount}", attack_kwargs={"amount": amount})
    comparator.add_attack(
        push, "away", attack_kwargs={"amount": 1.0}, additional_attack_arg_names=["target"]
    )
    found = comparator.evaluate(images, target=predicted, perturbations_per_eval=2)
    means = {
        name: float(torch.as_tensor(value["mean"] if isinstance(value, dict) else value).mean())
        for name, value in found.items()
    }
    assert means == {"Original": 1.0, "push 0.0": 1.0, "push 8.0": 0.0, "away": 1.0}


def test_influence_has_the_shape_of_similarity_influence(
    demo: DemoData, images: Tensor, tmp_path: Path
) -> None:
    space = fsb.FeatureSpace(demo.model)
    train, given = demo.preprocess(demo.train_images[:80]), demo.preprocess(images)
    ours = HullInfluence(space, space.bank([train])).by_layer(given, top_k=4)
    # two layers: Captum 0.9 fails on a single one
    theirs = SimilarityInfluence(
        demo.model, ["head", "pool"], TensorDataset(train), str(tmp_path), batch_size=80
    ).influence(given, top_k=4)
    assert list(ours) == ["head"]
    for mine, other in zip(ours["head"], theirs["head"], strict=True):
        assert mine.shape == other.shape == (3, 4)
    assert ours["head"][0].dtype == theirs["head"][0].dtype


def test_comparison_of_captums_methods_on_the_demo(
    demo_space: fsb.FeatureSpace, images: Tensor
) -> None:
    methods = {"IG": IntegratedGradients, "Saliency": Saliency}
    options = {"IG": {"n_steps": 8}, "Saliency": {"abs": False}}
    found = compare_methods(demo_space, images, methods, options=options, steps=5)
    assert found.methods == ("boundary", "IG", "Saliency")
    assert bool(found.ok.all())
    place = found.metrics.index("cosine")
    # the gradient of the class's own logit and of the way to the boundary have much in common
    assert float(found.ci_low[place, 0, 2]) > 0
    assert bool((found.deletion[:, :, 0] == 1).all())
    assert bool((found.reach[:, :, 0] == 1).all())
    assert bool((found.crossing > 0).all())
