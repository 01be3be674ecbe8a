"""Planes of pixels: cells against the model's own predictions, and the edge of the pixel bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import ArgumentError
from support.pictures import legend
from support.public_calls import world

RESOLUTION = 24


def images_of(ax: Axes, images: Tensor) -> tuple[Tensor, Any]:
    """Return the image at the centre of each cell, and the cells' colours, row by row."""
    shown = ax.images[0]
    left, right, bottom, top = shown.get_extent()
    table = np.asarray(shown.get_array())
    points = images.double().flatten(1)
    q, r = np.linalg.qr((points[1:] - points[0]).numpy().T)
    axes = torch.from_numpy(q * np.sign(np.diag(r))).T
    found = []
    for row in range(RESOLUTION):
        for column in range(RESOLUTION):
            x = left + (column + 0.5) / RESOLUTION * (right - left)
            y = bottom + (row + 0.5) / RESOLUTION * (top - bottom)
            found.append(points[0] + x * axes[0] + y * axes[1])
    return torch.stack(found), table.reshape(-1, 4)


def make_model() -> nn.Module:
    """Return a classifier of (B,1,4,4) whose curved boundaries meet near grey images."""
    g = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        for layer in (model[1], model[3]):
            layer.weight.copy_(2 * torch.randn(layer.weight.shape, generator=g))
            layer.bias.zero_()
        model[1].bias.sub_(model[1].weight.sum(dim=1) / 2)
    return model


def test_cells_are_the_predictions_of_the_model() -> None:
    model, images = make_model(), world().images[:3]
    ax = fsb.plot.plane_pixels(model, images, resolution=RESOLUTION)
    pixels, colours = images_of(ax, images)
    outside = (pixels.amin(dim=1) < 0) | (pixels.amax(dim=1) > 1)
    assert 0 < int(outside.sum()) < len(pixels)
    assert (colours[outside.numpy()] == 0).all()
    inside = pixels[~outside]
    with torch.no_grad():
        logits = model(inside.float().reshape(-1, 1, 4, 4))
    top = logits.sort(dim=1).values
    clear = top[:, -1] - top[:, -2] > 1e-4  # float32 rounds closer ties either way
    drawn: dict[tuple[float, ...], set[int]] = {}
    kept = colours[~outside.numpy()][clear.numpy()]
    for colour, k in zip(kept.tolist(), logits.argmax(dim=1)[clear].tolist(), strict=True):
        drawn.setdefault(tuple(colour), set()).add(k)
    assert all(len(classes) == 1 for classes in drawn.values())
    assert len(drawn) == len(set.union(*drawn.values())) > 1


def test_the_edge_of_the_bounds_is_exact() -> None:
    w = world()
    ax = fsb.plot.plane_pixels(w.model, w.images[:3], resolution=RESOLUTION)
    pixels, _ = images_of(ax, w.images[:3])
    outside = (pixels.amin(dim=1) < 0) | (pixels.amax(dim=1) > 1)
    [edge] = [p for p in ax.patches if isinstance(p, Polygon)]
    left, right, bottom, top = ax.images[0].get_extent()
    step = (np.arange(RESOLUTION) + 0.5) / RESOLUTION
    x, y = np.meshgrid(left + step * (right - left), bottom + step * (top - bottom))
    drawn = edge.get_path().contains_points(np.column_stack([x.ravel(), y.ravel()]))
    assert (drawn == ~outside.numpy()).all()
    assert "outside the pixel bounds" in legend(ax)


def test_names_stand_in_their_regions_and_images_are_marked() -> None:
    w = world()
    names = ["ant", "bee", "cat"]
    ax = fsb.plot.plane_pixels(w.space, w.images[:3], resolution=RESOLUTION, class_names=names)
    points = w.images[:3].double().flatten(1)
    q, r = np.linalg.qr((points[1:] - points[0]).numpy().T)
    axes = torch.from_numpy(q * np.sign(np.diag(r))).T
    predicted = w.space.extract(w.images[:3]).predicted.tolist()
    assert legend(ax)[:3] == [
        f"{word} image ({names[k]})"
        for word, k in zip(("first", "second", "third"), predicted, strict=True)
    ]
    marks = [line.get_xydata()[0] for line in ax.lines]  # type: ignore[index]
    wanted = (points - points[0]) @ axes.T
    for mark in marks:
        assert np.abs(wanted.numpy() - mark).max(axis=1).min() < 1e-9


def test_the_model_is_called_in_batches() -> None:
    w = world()
    sizes = []
    hook = w.model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    try:
        fsb.plot.plane_pixels(w.space, w.images[:3], resolution=RESOLUTION, batch_size=50)
    finally:
        hook.remove()
    assert max(sizes) <= 50


W = world()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": "net"}, "model: got 'net'"),
    "two images": ({"images": W.images[:2]}, "got 2 images; wanted 3 images"),
    "flat": ({"images": W.images[:3].flatten(1)}, "shape"),
    "pixels": ({"images": 9 * W.images[:3]}, "pass bounds="),
    "NaN": ({"images": W.images[:3] * torch.nan}, "finite"),
    "resolution": ({"resolution": 1}, "from 2 to 1000"),
    "batch": ({"batch_size": 0}, "at least 1"),
    "window": ({"window": "ball"}, "four numbers"),
    "bounds": ({"bounds": 1}, "bounds"),
    "names": ({"class_names": ["a"]}, "wanted 3 names"),
    "style": ({"style": ""}, "style"),
}


@pytest.mark.parametrize("case", WRONG)
def test_malformed_arguments_raise(case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(ArgumentError, match=message):
        fsb.plot.plane_pixels(**{"model": W.space, "images": W.images[:3]} | change)
