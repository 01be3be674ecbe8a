"""The distance modules: values, first and second derivatives, closed forms, kinks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, NoiseTunnel, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.attr import BoundaryDistance, ClassHullDistance, HullDistance
from fsboundary.attr.distances.boundary import empty_regions
from support.attr.nets import bank, images, linear, positive, smooth
from support.flips.oracles import make_domain

SPACES = {
    "unbounded": lambda: fsb.FeatureSpace(smooth(), domain="unbounded"),
    "nonnegative": lambda: fsb.FeatureSpace(positive(), domain="nonnegative"),
}


def distances(space: fsb.FeatureSpace) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return every module as a function that gives no NaN."""
    flips = BoundaryDistance(space, source=1)
    return {
        "regions": BoundaryDistance(space),
        "source": lambda x: flips(x)[:, [0, 2, 3]],
        "hull": HullDistance(space, bank(space)),
        "class hulls": ClassHullDistance(space, bank(space)),
    }


@pytest.mark.parametrize("name", ["regions", "source", "hull", "class hulls"])
@pytest.mark.parametrize("domain", list(SPACES))
def test_first_and_second_derivatives(domain: str, name: str) -> None:
    distance = distances(SPACES[domain]())[name]
    x = images(3).requires_grad_()
    assert bool((distance(x) != 0).all())
    assert torch.autograd.gradcheck(distance, (x,), atol=1e-6)
    assert torch.autograd.gradgradcheck(distance, (x,), atol=1e-5, fast_mode=True)


def test_values_are_those_of_the_certified_functions() -> None:
    space = SPACES["nonnegative"]()
    x, points = images(), bank(space)
    batch = space.extract(x)
    regions = fsb.region_distances(space.head, batch.features)
    assert torch.equal(BoundaryDistance(space)(x), regions.distance)
    hull = fsb.hull_projection(points, batch.features).distance[:, None]
    torch.testing.assert_close(HullDistance(space, points)(x), hull, rtol=0, atol=1e-12)
    classes = fsb.class_hull_distances(points, batch.features)
    torch.testing.assert_close(ClassHullDistance(space, points)(x), classes, rtol=0, atol=1e-12)


def test_source_gives_flip_points() -> None:
    space = SPACES["nonnegative"]()
    x = images(12)
    batch = space.extract(x)
    flips = fsb.flip_points(space.head, batch.features, "all")
    for source in batch.predicted.unique().tolist():
        rows = batch.predicted == source
        found = BoundaryDistance(space, source=source)(x[rows])
        assert bool(torch.isnan(found[:, source]).all())
        wanted = flips.distance[rows]
        torch.testing.assert_close(found.gather(1, flips.target[rows]), wanted)


def test_closed_form_on_a_linear_body() -> None:
    model, body = linear()
    space = fsb.FeatureSpace(model, domain="unbounded")
    x = images(8)
    batch = space.extract(x)
    flips = fsb.flip_points(space.head, batch.features)
    target, source = flips.target[:, 0], flips.source
    # unbounded: the nearest boundary is a hyperplane, and the direction its normal
    normal = space.head.weight[source] - space.head.weight[target]
    normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    closed = (normal @ body).view_as(x)
    found = Saliency(BoundaryDistance(space)).attribute(
        x.requires_grad_(), target=source, abs=False
    )
    torch.testing.assert_close(found, closed, rtol=1e-6, atol=1e-6)
    times = InputXGradient(BoundaryDistance(space)).attribute(x, target=source)
    torch.testing.assert_close(times, closed * x.detach(), rtol=1e-6, atol=1e-6)
    ours = fsb.attr.BoundaryDirection(space).attribute(x)
    torch.testing.assert_close(ours, -closed, rtol=1e-6, atol=1e-6)


def test_rows_are_independent_and_one_is_enough() -> None:
    space = SPACES["nonnegative"]()
    for name, distance in distances(space).items():
        whole = distance(images())
        for row in range(len(whole)):
            one = distance(images()[row : row + 1])
            torch.testing.assert_close(one, whole[row : row + 1], rtol=1e-9, atol=1e-9, msg=name)


def test_under_no_grad_and_in_a_noise_tunnel() -> None:
    space = SPACES["unbounded"]()
    for distance in (BoundaryDistance(space), HullDistance(space, bank(space))):
        x = images()
        with torch.no_grad():
            assert not distance(x).requires_grad
        torch.manual_seed(0)
        out = NoiseTunnel(Saliency(distance)).attribute(x, nt_samples=3, stdevs=0.01, target=0)
        assert out.shape == x.shape
        assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision(dtype: torch.dtype) -> None:
    exact = fsb.FeatureSpace(smooth(), domain="unbounded")
    x = images()
    wanted = BoundaryDistance(exact)(x)
    space = fsb.FeatureSpace(smooth().to(dtype), domain="unbounded")
    points = bank(exact)
    leaf = x.to(dtype).requires_grad_()
    found = BoundaryDistance(space)(leaf)
    assert found.dtype == dtype
    few = 64 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), wanted, rtol=few, atol=few)
    (grad,) = torch.autograd.grad(found[:, 0].sum(), leaf)
    assert grad.dtype == dtype
    assert bool(torch.isfinite(grad).all())
    hull = HullDistance(space, fsb.FeatureBank(points.features))(leaf)
    assert hull.dtype == dtype


def test_zero_inside_a_hull_without_a_warning() -> None:
    space = SPACES["unbounded"]()
    features = space.extract(images(1)).features
    corners = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    x = images(1).requires_grad_()
    value = HullDistance(space, fsb.FeatureBank(features + corners))(x)
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert float(value.detach()) <= 1e-9
    assert bool((grad == 0).all())


def test_a_tie_gives_zeros_with_a_warning() -> None:
    model = smooth()
    space = fsb.FeatureSpace(model, domain="unbounded")
    x = images(1)
    with torch.no_grad():  # classes 0 and 1 alike at the image, and above the others
        model[3].weight[:2] = torch.tensor([[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]])
        model[3].bias[:] = torch.tensor([5.0, 5.0, -9.0, -9.0])
        model[1].weight[0] = 0.0
        model[1].bias[0] = 0.0
    x.requires_grad_()
    value = BoundaryDistance(space)(x)
    assert value[0, :2].tolist() == [0.0, 0.0]
    with pytest.warns(UserWarning, match="distance 0, a kink"):
        (grad,) = torch.autograd.grad(value[:, 0].sum(), x)
    assert bool((grad == 0).all())
    with pytest.warns(UserWarning, match="on the boundary"):
        out = fsb.attr.BoundaryDirection(space).attribute(x)
    assert bool((out == 0).all())


# a warning that is asserted comes with others
@pytest.mark.filterwarnings("ignore:the attribution is zero")
def test_a_flat_body_gives_zeros_with_a_warning() -> None:
    model = smooth()
    with torch.no_grad():
        model[1].weight.zero_()
    space = fsb.FeatureSpace(model, domain="unbounded")
    x = images().requires_grad_()
    with pytest.warns(UserWarning, match=r"do not react .* \(5 of 5 rows"):
        out = Saliency(BoundaryDistance(space)).attribute(x, target=0)
    assert bool((out == 0).all())
    with pytest.warns(UserWarning, match="the attribution is zero"):
        out = fsb.attr.BoundaryDirection(space).attribute(x)
    assert bool((out == 0).all())
    with pytest.warns(UserWarning, match="the attribution is zero"):
        out = fsb.attr.LayerBoundaryDirection(space, model[0]).attribute(x)
    assert bool((out == 0).all())
    inside = x.detach().sigmoid()  # within the bounds of a search for flip images
    for method in (
        fsb.attr.FlipImageAttribution(space),
        fsb.attr.BoundaryDirection(space, "integrated"),
    ):
        with pytest.warns(UserWarning, match="no flip image because the features do not react"):
            out = method.attribute(inside)
        assert bool((out == 0).all())


def test_rows_that_fail_are_nan_and_spoil_no_other() -> None:
    x = images(8)
    space = fsb.FeatureSpace(positive(), domain="nonnegative")
    x[0, 0, 0, 0] = torch.nan
    x.requires_grad_()
    value = BoundaryDistance(space)(x)
    assert bool(torch.isnan(value[0]).all())
    assert bool(torch.isfinite(value[1:]).all())
    with pytest.warns(UserWarning, match="no certified distance"):
        (grad,) = torch.autograd.grad(value[:, 2].sum(), x)
    assert bool(torch.isnan(grad[0]).all())
    assert bool(torch.isfinite(grad[1:]).all())


def test_an_unreachable_target_is_infinitely_far() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 1), nn.Linear(1, 3)).double().eval()
    with torch.no_grad():  # on a line: class 0, then 1, then 2; 0 and 2 never tie at the top
        model[2].weight[:] = torch.tensor([[-1.0], [0.0], [1.0]])
        model[2].bias[:] = torch.tensor([-1.0, 0.0, -1.0])
    space = fsb.FeatureSpace(model, head=model[2], domain="unbounded")
    x = images().requires_grad_()
    value = BoundaryDistance(space, source=0)(x)
    assert bool(torch.isposinf(value[:, 2]).all())
    assert bool(torch.isfinite(value[:, 1]).all())
    with pytest.warns(UserWarning, match="no such point exists"):
        (grad,) = torch.autograd.grad(value[:, 2].sum(), x)
    assert bool((grad == 0).all())


def test_the_same_after_a_deep_copy() -> None:
    distance = BoundaryDistance(SPACES["unbounded"]())
    wanted = distance(images())
    assert torch.equal(copy.deepcopy(distance)(images()), wanted)


def test_no_third_derivative() -> None:
    distance = HullDistance(SPACES["unbounded"](), bank(SPACES["unbounded"]()))
    x = images(1).requires_grad_()
    (first,) = torch.autograd.grad(distance(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third"):
        torch.autograd.grad(second.sum(), x)


@settings(max_examples=80, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(2, 9),
    d=st.integers(1, 4),
    kind=st.sampled_from(["unbounded", "nonnegative", "box"]),
)
def test_empty_regions_are_those_that_no_feature_reaches(
    seed: int, k: int, d: int, kind: str
) -> None:
    g = np.random.default_rng(seed)
    whole = bool(seed % 2)
    weight = g.integers(-1, 2, (k, d)) * 1.0 if whole else g.standard_normal((k, d))
    weight[k - 1] = weight[: k - 1].mean(axis=0)  # empty in about half of the heads
    bias = g.integers(-2, 3, k) * 1.0 if whole else g.standard_normal(k)
    head = fsb.LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), make_domain(kind, d))
    inside = head.domain.clip(torch.zeros(1, d, dtype=torch.float64))
    status = fsb.region_distances(head, inside).status[0]
    wanted = (status == fsb.Status.INFEASIBLE).nonzero()[:, 0].tolist()
    assert empty_regions(head, range(k)) == wanted
    some = list(range(0, k, 2))
    assert empty_regions(head, some) == [c for c in wanted if c in some]


def test_a_lead_within_rounding_is_no_witness() -> None:
    # class 0 is below class 1 everywhere, by less than the logits' last digit at large features
    weight = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
    head = fsb.LinearHead(weight, torch.tensor([0.0, 1e-12, 0.0], dtype=torch.float64))
    assert empty_regions(head, [0, 1, 2]) == [0]
