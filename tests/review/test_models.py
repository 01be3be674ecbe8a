"""Comparison of models: against loops over images, exact binomials, and models known in advance."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError
from fsboundary.scores import pixel_margin

G = torch.Generator().manual_seed(5)
IMAGES = torch.rand(24, 1, 3, 3, generator=G)
LABELS = torch.arange(24) % 3
LABELS[7] = -1


def space(seed: int, classes: int = 3) -> fsb.FeatureSpace:
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, classes)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return fsb.FeatureSpace(net, example=IMAGES[:1])


SPACES = {"a": space(0), "b": space(1), "c": space(2)}


@pytest.fixture(scope="module")
def found() -> fsb.ModelComparison:
    return fsb.compare_models(SPACES, IMAGES, LABELS)


def linear(weight: Tensor) -> fsb.FeatureSpace:
    """Return the space of a model whose features are the pixels."""
    head = nn.Linear(weight.shape[1], len(weight), bias=False)
    head.weight.data = weight
    return fsb.FeatureSpace(nn.Sequential(nn.Flatten(), head).eval())


def test_predictions_distances_and_accuracies_are_those_of_each_model(
    found: fsb.ModelComparison,
) -> None:
    for m, name in enumerate(SPACES):
        batch, margins = SPACES[name].extract(IMAGES), pixel_margin(SPACES[name], IMAGES)
        assert torch.equal(found.predicted[m], batch.predicted)
        assert torch.equal(found.distance[m], margins.value)
        right = [int(p) == int(t) for p, t in zip(batch.predicted, LABELS, strict=True) if t >= 0]
        assert float(found.accuracy[m]) == sum(right) / 23
    assert "first order" in found.quantity


def test_curves_count_images_one_by_one(found: fsb.ModelComparison) -> None:
    for m in range(3):
        for k, r in enumerate(found.radii.tolist()):
            far = [d > r for d in found.distance[m].tolist()]
            right = [
                f and int(p) == int(t)
                for f, p, t in zip(far, found.predicted[m], LABELS, strict=True)
                if t >= 0
            ]
            assert float(found.share[m, k]) == sum(far) / 24
            assert float(found.robust_accuracy[m, k]) == sum(right) / 23
    assert bool((found.share[:, 1:] <= found.share[:, :-1]).all())
    assert bool((found.share_interval[..., 0] <= found.share).all())
    assert bool((found.share <= found.share_interval[..., 1]).all())


def test_an_image_without_a_distance_is_no_robust_image() -> None:
    """A failed image that is predicted wrong still counts as wrong; one predicted right does not
    count, because nothing is known of it."""
    first = fsb.compare_models(SPACES, IMAGES, LABELS)
    given = {name: torch.ones(24) for name in SPACES}
    given["b"] = torch.where(torch.arange(24) < 6, torch.nan, 1.0)
    got = fsb.compare_models(SPACES, IMAGES, LABELS, distances=given, radii=[0.0, 0.5, 1.0])
    right = (first.predicted[1] == LABELS) & (LABELS >= 0)
    wrong = (first.predicted[1] != LABELS) & (LABELS >= 0)
    assert float(got.share[1, 0]) == 1
    kept = int(right[6:].sum())
    assert float(got.robust_accuracy[1, 1]) == kept / (kept + int(wrong.sum()))
    assert got.robust_accuracy[:, 2].tolist() == [0, 0, 0]  # at the radius is not beyond it
    assert int(got.num_ratios[1]) == 18


def test_the_interval_of_the_median_is_that_of_the_binomial(found: fsb.ModelComparison) -> None:
    for m in range(1, 3):
        ratios = sorted(
            a / b
            for a, b in zip(found.distance[m].tolist(), found.distance[0].tolist(), strict=True)
        )
        n = len(ratios)
        # the largest rank of which at most 2.5 % of all samples have fewer values below the median
        below = [Fraction(sum(math.comb(n, i) for i in range(k)), 2**n) for k in range(n + 1)]
        rank = max(k for k in range(n + 1) if below[k] <= Fraction(25, 1000))
        expected = (ratios[rank - 1], ratios[n - rank])
        assert found.ratio_interval[m].tolist() == pytest.approx(expected, rel=1e-12)  # a division
        assert float(found.median_ratio[m]) == pytest.approx((ratios[11] + ratios[12]) / 2)
    assert found.median_ratio[0] == 1


def test_a_model_of_scaled_logits_is_the_same_model() -> None:
    weight = torch.randn(4, 9, generator=G)
    got = fsb.compare_models({"one": linear(weight), "ten": linear(10 * weight)}, IMAGES)
    assert got.changed("one", "ten").tolist() == []
    # float32 gradients of the pixels
    assert got.ratio_interval[1].tolist() == pytest.approx([1, 1], rel=1e-5)
    assert got.gained("one", "ten").tolist() == got.gained("ten", "one").tolist() == []
    assert bool(got.accuracy.isnan().all())
    assert bool(got.robust_accuracy.isnan().all())


def test_longer_features_are_not_more_robust() -> None:
    """Distances in feature space double with the features; the images that flip are the same."""
    weight = torch.randn(3, 9, generator=G)

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    plain = linear(weight)
    double = fsb.FeatureSpace(nn.Sequential(Double(), *plain.model).eval())
    got = fsb.compare_models({"plain": plain, "double": double}, IMAGES)
    one, two = (
        fsb.flip_points(s.head, s.extract(IMAGES).features).distance for s in (plain, double)
    )
    torch.testing.assert_close(two, 2 * one, rtol=1e-6, atol=0)  # float32 features
    assert got.ratio_interval[1].tolist() == pytest.approx([1, 1], rel=1e-5)


def test_neighbours_gained_are_those_of_the_plane() -> None:
    """Three sectors of a plane all meet; of three parallel strips the outer two do not."""
    angle = torch.tensor([0.0, 2.1, 4.2])
    sectors = nn.Linear(2, 3)
    sectors.weight.data, sectors.bias.data = torch.stack([angle.cos(), angle.sin()], 1), 0 * angle
    strips = nn.Linear(2, 3)
    strips.weight.data = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    strips.bias.data = torch.tensor([0.0, 1.0, 0.0])
    spaces = {k: fsb.FeatureSpace(nn.Sequential(h)) for k, h in (("s", strips), ("t", sectors))}
    for space_ in spaces.values():
        space_.model.eval()
    got = fsb.compare_models(spaces, torch.randn(9, 2, generator=G))
    assert got.gained("s", "t").tolist() == [[0, 2]]
    assert got.gained("t", "s").tolist() == []
    assert got.neighbours[0].tolist() == [[0, 1, -1], [1, 0, 1], [-1, 1, 0]]


def test_many_classes_are_left_undecided_unless_a_partition_is_passed() -> None:
    spaces = {"a": space(3, 31), "b": space(4, 31)}
    got = fsb.compare_models(spaces, IMAGES)
    assert not bool(got.neighbours.any())
    known = {"b": fsb.partition(spaces["b"].head, pairs=torch.tensor([[0, 1]]))}
    got = fsb.compare_models(spaces, IMAGES, partitions=known)
    assert not bool(got.neighbours[0].any())
    assert torch.equal(got.neighbours[1] == 1, known["b"].adjacency)


def test_an_image_that_is_not_finite_fails_alone(found: fsb.ModelComparison) -> None:
    images = IMAGES.clone()
    images[3, 0, 0, 0] = torch.nan
    got = fsb.compare_models(SPACES, images, LABELS)
    others = [i for i in range(24) if i != 3]
    assert torch.equal(got.distance[:, others], found.distance[:, others])
    assert bool(got.distance[:, 3].isnan().all())
    assert not bool(got.ok[:, 3].any())
    assert 3 not in got.changed("a", "b").tolist()
    assert float(got.accuracy[0]) <= float(found.accuracy[0])


def test_batches_do_not_matter_and_rows_can_be_taken(found: fsb.ModelComparison) -> None:
    small = fsb.compare_models(SPACES, IMAGES, LABELS, batch_size=5)
    torch.testing.assert_close(small.distance, found.distance, rtol=1e-5, atol=1e-6)  # float32 pass
    some = found[[2, 7]]
    assert torch.equal(some.distance, found.distance[:, [2, 7]])
    assert torch.equal(some.share, found.share)
    table = found.to_pandas()
    assert list(table.columns[:2]) == ["model", "image"]
    assert len(table) == 72


def test_certified_radii_of_each_model_make_certified_curves() -> None:
    results = {name: fsb.pixels.certify(s, IMAGES) for name, s in SPACES.items()}
    got = fsb.compare_models(SPACES, IMAGES, LABELS, distances=results)
    assert got.quantity == "certified radius"
    assert torch.equal(got.distance[1], results["b"].radius.double())
    axes = fsb.plot.robustness_curve(got.distances())
    assert len(axes.get_lines()) == 3


@pytest.mark.parametrize(
    ("spaces", "options", "message"),
    [
        ({}, {}, "an empty mapping"),
        (SPACES["a"], {}, "a mapping of names"),
        ({"a": SPACES["a"].model}, {}, r"spaces\['a'\]"),
        ({1: SPACES["a"]}, {}, "names as text"),
        ({"a": SPACES["a"], "b": space(1, 4)}, {}, "'a' has 3 classes, 'b' has 4 classes"),
        (SPACES, {"labels": torch.full((24,), 3)}, "labels"),
        (SPACES, {"labels": torch.zeros(3).long()}, "labels"),
        (SPACES, {"distances": {"a": torch.ones(24)}}, "no distances of 'b', 'c'"),
        (SPACES, {"distances": dict.fromkeys(("a", "b", "d"), torch.ones(24))}, "'d'"),
        (SPACES, {"distances": dict.fromkeys("abc", torch.ones(23))}, "23 distances"),
        (SPACES, {"radii": [0.5, 0.2]}, "ascending"),
        (SPACES, {"radii": []}, "radii"),
        (SPACES, {"partitions": {"a": 3}}, "a Partition"),
        (SPACES, {"partitions": {"a": fsb.partition(space(1, 4).head)}}, "partition of 4 classes"),
        (SPACES, {"batch_size": 0}, "batch_size"),
    ],
)
def test_malformed_arguments_are_refused(
    spaces: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        fsb.compare_models(spaces, IMAGES, **options)  # type: ignore[arg-type]  # on purpose


def test_distances_of_different_kinds_are_not_compared() -> None:
    z = {name: s.extract(IMAGES).features for name, s in SPACES.items()}
    flips = fsb.flip_points(SPACES["a"].head, z["a"])
    balls = {name: fsb.guaranteed_balls(s.head, z[name]) for name, s in SPACES.items()}
    with pytest.raises(ArgumentError, match="one kind and unit"):
        fsb.compare_models(SPACES, IMAGES, distances=balls | {"a": flips})


def test_no_model_or_image_is_changed(found: fsb.ModelComparison) -> None:
    with pytest.raises(ArgumentError, match="one of 'a', 'b', 'c'"):
        found.changed("a", "z")
    before = IMAGES.clone()
    fsb.compare_models(SPACES, before, LABELS)
    assert torch.equal(before, IMAGES)
