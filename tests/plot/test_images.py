"""Pictures with images: the images, weights and classes shown are those of the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, StatusError, pixels
from support.public_calls import world

NAMES = ["ant", "bee", "cat"]


def arrays(figure: Figure) -> list[Any]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes]


def grey(image: Tensor) -> Any:
    return np.repeat(image.double().numpy()[0][:, :, None], 3, axis=2)


def test_supporters_are_those_with_the_largest_weights() -> None:
    w = world()
    z = w.far.clone()
    z[1] = torch.nan
    projection = fsb.hull_projection(w.bank, z)
    figure = fsb.plot.hull_support(
        projection, w.bank, w.train, w.images, num_supporters=2, class_names=NAMES
    )
    assert figure.get_suptitle() == "3 rows, 1 row left out (1 NOT_FINITE)"
    pictures, texts = arrays(figure), titles(figure)
    place = 0
    for row in (0, 2, 3):
        np.testing.assert_allclose(pictures[place], grey(w.images[row]))
        assert texts[place].startswith(f"row {row}, outside\ndistance ")
        place += 1
        mixture = {
            int(point): float(weight)
            for point, weight in zip(projection.support[row], projection.weights[row], strict=True)
            if weight > 0
        }
        for point in sorted(mixture, key=lambda p: -mixture[p])[:2]:
            np.testing.assert_allclose(pictures[place], grey(w.train[point]))
            name = NAMES[int(w.train_labels[point])]
            assert texts[place] == f"{name}\nweight {mixture[point]:.2f}"
            place += 1
    assert place == len(pictures)


def test_supporters_without_images_or_labels() -> None:
    w = world()
    bank = fsb.FeatureBank(w.bank.features)
    figure = fsb.plot.hull_support(fsb.hull_projection(bank, w.far[:1]), bank, w.train)
    assert titles(figure)[0].startswith("row 0, outside\npoint ")


def test_flip_images_stand_beside_their_images() -> None:
    w = world()
    images = w.images.clone()
    images[1] = torch.nan
    flips = pixels.flip_images(w.model, images, max_steps=10)
    figure = fsb.plot.flip_images(flips, images, class_names=NAMES)
    assert figure.get_suptitle() == "3 rows, 1 row left out (1 NOT_FINITE)"
    pictures, texts = arrays(figure), titles(figure)
    for place, row in enumerate((0, 2, 3)):
        change = flips.images[row, 0].double() - images[row, 0].double()
        np.testing.assert_allclose(pictures[3 * place], grey(images[row]))
        np.testing.assert_allclose(pictures[3 * place + 1], change)
        np.testing.assert_allclose(pictures[3 * place + 2], grey(flips.images[row]))
        assert texts[3 * place] == f"row {row}\n{NAMES[int(flips.source[row])]}"
        target = NAMES[int(flips.target[row])]
        wanted = f"tie with {target}\ndistance {float(flips.distance[row]):.3g}"
        assert texts[3 * place + 2] == wanted
        low, high = figure.axes[3 * place + 1].images[0].get_clim()
        assert high == -low == float(change.abs().max())


def test_nothing_to_draw_is_said() -> None:
    w = world()
    nothing = torch.full_like(w.images, torch.nan)
    figure = fsb.plot.flip_images(pixels.flip_images(w.space, nothing, max_steps=2), nothing)
    assert figure.get_suptitle() == "0 rows, 4 rows left out (4 NOT_FINITE)"
    assert not figure.axes
    projection = fsb.hull_projection(w.bank, w.far * torch.nan)
    assert not fsb.plot.hull_support(projection, w.bank, w.train).axes


def test_frames_and_margins_of_a_morph() -> None:
    w = world()
    found = pixels.morph(w.space, w.images[:2], w.images[2:], steps=13, max_steps=4)
    figure = fsb.plot.morph(found, 1, class_names=NAMES)
    frames = [0, 2, 3, 4, 6, 8, 9, 10, 12]
    pictures, texts = arrays(figure), titles(figure)
    for place, frame in enumerate(frames):
        np.testing.assert_allclose(pictures[place], grey(found.images[1, frame].clamp(0, 1)))
        np.testing.assert_allclose(pictures[place + 9], grey(found.blend[1, frame].clamp(0, 1)))
        assert texts[place] == NAMES[int(found.predicted[1, frame])]
        assert texts[place + 9] == NAMES[int(found.blend_predicted[1, frame])]
    start = int(found.predicted[1, 0])
    for line, logits in zip(
        figure.axes[-1].lines[::1],
        (found.logits[1], found.blend_logits[1]),
        strict=False,
    ):
        if len(np.asarray(line.get_xdata())) != 13:
            continue
        wanted = [
            row[start] - max(v for k, v in enumerate(row) if k != start) for row in logits.tolist()
        ]
        assert list(line.get_ydata()) == pytest.approx(wanted)  # type: ignore[arg-type]


def test_a_row_without_a_morph() -> None:
    w = world()
    start = w.images[:2].clone()
    start[1] = torch.nan
    found = pixels.morph(w.space, start, w.images[2:], steps=3, max_steps=2)
    with pytest.raises(StatusError, match="NOT_FINITE"):
        fsb.plot.morph(found, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels(channels: int) -> None:
    g = torch.Generator().manual_seed(channels)
    images = 2 * torch.rand(2, channels, 4, 4, generator=g) - 1
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * channels, 3)).eval()
    flips = pixels.flip_images(model, images, bounds=(-1, 1))
    first = arrays(fsb.plot.flip_images(flips, images, bounds=(-1, 1)))[0]
    scaled = (images[0].double() + 1) / 2
    wanted = scaled if channels == 3 else scaled.mean(dim=0).expand(3, -1, -1)
    np.testing.assert_allclose(first, wanted.permute(1, 2, 0))


W = world()
HULL = fsb.hull_projection(W.bank, W.far)
SUPPORT = {"projection": HULL, "bank": W.bank, "train_images": W.train}
FLIPS = {"flips": W.flips, "images": W.images}
MORPH = {"result": pixels.morph(W.space, W.images[:1], W.images[1:2], steps=3, max_steps=2)}
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no projection": (fsb.plot.hull_support, SUPPORT | {"projection": W.flips}, "HullProjection"),
    "no bank": (fsb.plot.hull_support, SUPPORT | {"bank": W.z}, "wanted a FeatureBank"),
    "other bank": (fsb.plot.hull_support, SUPPORT | {"bank": fsb.FeatureBank(W.z[:, :3])},
                   "got width 3; wanted width 6"),
    "few images": (fsb.plot.hull_support, SUPPORT | {"train_images": W.train[:9]},
                   "got 9 images; wanted 40"),
    "other rows": (fsb.plot.hull_support, SUPPORT | {"images": W.images[:3]}, "wanted 4 images"),
    "supporters": (fsb.plot.hull_support, SUPPORT | {"num_supporters": 0}, "from 1 to 12"),
    "names": (fsb.plot.hull_support, SUPPORT | {"class_names": ["a"]}, "got 1 names"),
    "rows": (fsb.plot.hull_support, SUPPORT | {"rows": [4]}, "from 0 to 3"),
    "flat images": (fsb.plot.flip_images, FLIPS | {"images": W.images.flatten(1)}, "shape"),
    "no flips": (fsb.plot.flip_images, FLIPS | {"flips": HULL}, "wanted FlipImages"),
    "other images": (fsb.plot.flip_images, FLIPS | {"images": W.images[:, :, :3]}, "shape"),
    "pixels": (fsb.plot.flip_images, FLIPS | {"images": 255 * W.images}, "pass bounds="),
    "bounds": (fsb.plot.flip_images, FLIPS | {"bounds": (1, 0)}, "the lower first"),
    "many rows": (fsb.plot.flip_images, FLIPS | {"rows": [0] * 9}, "1 to 8 rows"),
    "style": (fsb.plot.flip_images, FLIPS | {"style": 1}, "style"),
    "no morph": (fsb.plot.morph, {"result": HULL}, "wanted a Morph"),
    "row": (fsb.plot.morph, MORPH | {"row": 1}, "from 0 to 0"),
    "names of a morph": (fsb.plot.morph, MORPH | {"class_names": NAMES[:2]}, "wanted 3 names"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_malformed_arguments_raise(case: str) -> None:
    function, arguments, message = WRONG[case]
    with pytest.raises(ArgumentError, match=message):
        function(**arguments)
