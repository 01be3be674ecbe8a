"""Every plot with arrays, under the modes of torch, on another device, on given axes, and dark."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import fsboundary as fsb
from fsboundary import attr, pixels, plot
from fsboundary.core.results import Result
from fsboundary.testing.invariants import require_unchanged
from support.devices import PretendDevice, to_pretend
from support.modes import default_dtype
from support.pictures import figure_of, saved, shown
from support.public_calls import world

Options = dict[str, Any]
Call = Callable[[SimpleNamespace, Options], Axes | Figure]


@functools.cache
def inputs() -> SimpleNamespace:
    """Return the model, rows and results that all plots are called with."""
    w = world()
    return SimpleNamespace(
        **vars(w),
        nearest=fsb.flip_points(w.head, w.z),
        every=fsb.flip_points(w.head, w.z, "all"),
        part=fsb.partition(w.head, w.box),
        hull=fsb.hull_projection(w.bank, w.far),
        path=fsb.class_path(w.head, w.z, w.z.flip(0)),
        film=pixels.morph(w.space, w.images[:1], w.images[1:2], steps=3, max_steps=4),
        agreement=attr.compare(
            w.images, {"one": w.images}, space=w.space, flips=w.flips, steps=3, resamples=9
        ),
        wrong=torch.tensor([True, False, False, True]),
        distance=fsb.flip_points(w.head, w.z).distance[:, 0],
    )


CALLS: dict[str, Call] = {
    "plane": lambda w, o: plot.plane(w.head, w.z[:1], w.bank, **o),
    "plane of three": lambda w, o: plot.plane(w.space, w.z[:3], **o),
    "plane_pixels": lambda w, o: plot.plane_pixels(w.space, w.images[:3], resolution=8, **o),
    "robustness_curve": lambda w, o: plot.robustness_curve({"a": w.nearest, "b": w.distance}, **o),
    "distances": lambda w, o: plot.distances(w.distance, wrong=w.wrong, **o),
    "distances_by_class": lambda w, o: plot.distances_by_class(w.nearest, w.labels, **o),
    "class_matrix": lambda w, o: plot.class_matrix(w.every, **o),
    "neighbours": lambda w, o: plot.neighbours(w.part, w.nearest, **o),
    "class_path": lambda w, o: plot.class_path(w.path, **o),
    "hull_support": lambda w, o: plot.hull_support(w.hull, w.bank, w.train, w.images, **o),
    "flip_images": lambda w, o: plot.flip_images(w.flips, w.images, **o),
    "morph": lambda w, o: plot.morph(w.film, **o),
    "comparison": lambda w, o: plot.comparison(w.agreement, **o),
}


@functools.cache
def right(name: str) -> list[Any]:
    return shown(CALLS[name](inputs(), {}))


def converted(w: SimpleNamespace, change: Callable[[Tensor], Any]) -> SimpleNamespace:
    """Return the inputs with their tensors, but not those of results, changed."""
    return SimpleNamespace(
        **{k: change(v) if isinstance(v, Tensor) else v for k, v in vars(w).items()}
    )


def test_every_public_plot_is_called() -> None:
    assert {name.split()[0] for name in CALLS} == set(plot.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_taken(name: str) -> None:
    w = converted(inputs(), lambda t: t.numpy())
    assert shown(CALLS[name](w, {})) == right(name)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_that_cannot_be_written_to_are_taken(name: str) -> None:
    def frozen(tensor: Tensor) -> Any:
        array = np.ascontiguousarray(tensor.numpy()).copy()
        array.flags.writeable = False
        return array

    assert shown(CALLS[name](converted(inputs(), frozen), {})) == right(name)


@contextlib.contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


MODES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": autocast,
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_the_picture_is_that_without_the_mode(name: str, mode: str) -> None:
    wanted, w = right(name), inputs()
    with MODES[mode](), require_unchanged(images=w.images, features=w.z):
        got = shown(CALLS[name](w, {}))
    assert got == wanted


@pytest.mark.parametrize("name", CALLS)
def test_rows_on_another_device_are_drawn_from_the_cpu(name: str) -> None:
    wanted = right(name)
    with PretendDevice():
        w = SimpleNamespace(
            **{
                k: to_pretend(v) if isinstance(v, Tensor | Result) else v
                for k, v in vars(inputs()).items()
            }
        )
        assert shown(CALLS[name](w, {})) == wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features_of_any_dtype(dtype: torch.dtype) -> None:
    w = inputs()
    rounded = w.z[:3].to(dtype)
    assert shown(plot.plane(w.head, rounded)) == shown(plot.plane(w.head, rounded.double()))
    values = w.distance.to(dtype)
    assert shown(plot.distances(values)) == shown(plot.distances(values.double()))


@pytest.mark.parametrize("name", CALLS)
def test_dark_pictures_show_the_same(name: str) -> None:
    picture = CALLS[name](inputs(), {"style": "dark"})
    wanted = shown(CALLS[name](inputs(), {}), colours=False)
    assert shown(picture, colours=False) == wanted
    assert figure_of(picture).get_facecolor()[:3] < (0.2, 0.2, 0.2)


@pytest.mark.parametrize("name", CALLS)
def test_given_axes_get_the_same(name: str) -> None:
    function = getattr(plot, name.split()[0])
    if "ax" not in inspect.signature(function).parameters:
        assert isinstance(CALLS[name](inputs(), {}), Figure)
        return
    ax = Figure().subplots()
    assert CALLS[name](inputs(), {"ax": ax}) is ax
    assert shown(ax) == right(name)


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_gives_the_same_file(name: str) -> None:
    first, second = (saved(CALLS[name](inputs(), {}), "png") for _ in range(2))
    assert first == second
