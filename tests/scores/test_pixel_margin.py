"""Pixel margins against closed forms and one gradient at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fsboundary import ArgumentError, FeatureSpace, Status, region_distances
from fsboundary.scores import pixel_margin

G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(6, 1, 4, 4, generator=G, dtype=torch.float64)


def network(activation: nn.Module) -> nn.Sequential:
    layers = nn.Linear(16, 8), activation, nn.Linear(8, 4)
    net = nn.Sequential(nn.Flatten(), *layers).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=G, dtype=torch.float64))
    return net


def test_it_is_the_smallest_quotient_of_distance_and_gradient() -> None:
    net = network(nn.Softplus())
    space = FeatureSpace(net)
    found = pixel_margin(space, IMAGES, batch_size=4)
    for row in range(6):
        x = IMAGES[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(net[:3], x)[0, :, 0].flatten(1)
        regions = region_distances(space.head, net[:3](x).detach())
        margins = {
            k: float(regions.distance[0, k].abs() / (regions.gradient[0, k] @ jacobian).norm())
            for k in range(4)
            if k != int(regions.source)
        }
        other = min(margins, key=margins.__getitem__)
        assert float(found.value[row]) == pytest.approx(margins[other], rel=1e-9)
        assert float(found.score[row]) == pytest.approx(1 / margins[other], rel=1e-9)
        assert found.other[row] == other
        assert found.label[row] == regions.source
    assert found.lower.isnan().all()
    assert set(found.verdicts) == {"open: no threshold"}


def test_for_a_linear_model_it_is_the_distance_of_the_nearest_class_in_pixels() -> None:
    layer = nn.Linear(16, 2, dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), layer).eval()
    found = pixel_margin(FeatureSpace(net, domain="unbounded"), IMAGES)
    step = layer.weight[0] - layer.weight[1]
    want = (net(IMAGES).diff(dim=1)[:, 0].abs() / step.norm()).detach()
    torch.testing.assert_close(found.value, want)


def test_thresholds_and_rows_that_fail_alone() -> None:
    space = FeatureSpace(network(nn.ReLU()))
    images = IMAGES.clone()
    images[2, 0, 1, 1] = torch.nan
    right, found = pixel_margin(space, IMAGES), pixel_margin(space, images, threshold=1.0)
    fine = torch.arange(6) != 2
    torch.testing.assert_close(found.score[fine], right.score[fine])
    assert found.status[2] == Status.NOT_FINITE
    assert found.score[2].isnan()
    assert torch.equal(found.verdict[fine] == 1, found.score[fine] > 1)
    assert found.verdicts[2] == "not scored (NOT_FINITE)"
    before = [p.grad for p in space.model.parameters()]
    assert before == [None] * len(before)


def test_an_image_that_changes_nothing_has_no_margin() -> None:
    net = network(nn.ReLU())
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(1.0)
    found = pixel_margin(FeatureSpace(net), IMAGES)
    assert (found.status == Status.UNBOUNDED).all()
    assert (found.score == 0).all()
    assert (found.value == torch.inf).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.long(), r"images: got dtype torch\.int64"),
        (IMAGES[:0], "not empty"),
        ([1.0], "images: got a list"),
    ],
)
def test_what_is_refused(images: object, message: str) -> None:
    space = FeatureSpace(network(nn.ReLU()))
    with pytest.raises(ArgumentError, match=message):
        pixel_margin(space, images)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="space: got a Sequential"):
        pixel_margin(space.model, IMAGES)  # type: ignore[arg-type]
