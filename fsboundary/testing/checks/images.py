"""Conformance checks of image finders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.modes import seeded
from fsboundary.pixels import flip_images
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.space import FeatureSpace
from fsboundary.testing.invariants import (
    check_repr,
    make_instance,
    require_model_unchanged,
    require_unchanged,
)
from fsboundary.testing.problems import redraw, small_images
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

_ROWS = 4
_STEPS = 60
_FARTHER = 1.25
"""An image may be this many times as far as the nearest one: closest is not certified."""


@final
class ImageSubject:
    """An image finder, called directly or through the core."""

    def __init__(self, factory: Callable[[], ImageBoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> ImageBoundaryFinder:
        """Return a new finder."""
        finder: ImageBoundaryFinder = make_instance(self._factory, ImageBoundaryFinder)
        return finder

    def propose(self, model: nn.Module, images: Tensor, **options: Any) -> FlipImages:
        """Return the raw proposal of a finder."""
        settings: dict[str, Any] = {
            "targets": "nearest",
            "bounds": (0.0, 1.0),
            "norm": "l2",
            "max_steps": _STEPS,
        }
        with seeded(0):  # as in the core: finders may draw
            view = FeatureSpace(model, example=images)
            return self.new().find(view, images, **(settings | options))

    def grade(
        self,
        model: nn.Module | FeatureSpace,
        images: Tensor,
        targets: Literal["nearest"] | Tensor = "nearest",
        norm: Literal["l2", "linf"] = "l2",
        *,
        finder: ImageBoundaryFinder | None = None,
        max_steps: int = _STEPS,
    ) -> FlipImages:
        """Return the graded result."""
        finder = finder or self.new()
        return flip_images(model, images, targets, norm=norm, finder=finder, max_steps=max_steps)


def _small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a model of four classes, each of them reachable, and images."""
    with seeded(0):
        layers = nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4)
        model = nn.Sequential(_Centred(), *layers).eval()
    redraw(model, seed + 20)
    return model, small_images(_ROWS, seed + 1)


class _Centred(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 4 * (images - 0.5)


def _linear() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a model that is linear in the pixels, grey images, and the normals' difference."""
    with seeded(0):
        last = nn.Linear(192, 3)
    model = nn.Sequential(nn.Flatten(), last).eval()
    redraw(model, 3)
    with torch.no_grad():
        last.bias[2] = -20.0  # never on top
        last.bias[:2] -= (last.weight[:2] * 0.5).sum(dim=1)  # grey is a tie
    images = 0.5 + 0.1 * (small_images(_ROWS, 4) - 0.5)
    weight = last.weight.detach().double()
    return model, images, weight[0] - weight[1]


def _require_close(one: FlipImages, other: FlipImages, what: str) -> None:
    same = torch.equal(one.images.nan_to_num(), other.images.nan_to_num())
    require(same, f"images differ {what}")


def factory_makes_an_image_finder(subject: ImageSubject) -> None:
    """The factory works without options and returns an ImageBoundaryFinder."""
    subject.new()


def repr_tells_options(subject: ImageSubject) -> None:
    """The repr recreates the finder and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: ImageSubject) -> None:
    """Every field has the documented shape and dtype; images keep those of the input."""
    model, images = _small()
    for rows in (_ROWS, 1):
        result = subject.propose(model, images[:rows])
        require(isinstance(result, FlipImages), f"find returned a {type(result).__name__}")
        for name, value in result.to_dict().items():
            wanted = tuple(images[:rows].shape) if name == "images" else (rows,)
            require(tuple(value.shape) == wanted, f"{name} has shape {tuple(value.shape)}")
            require(value.device == images.device, f"{name} is on {value.device}")
        require(result.images.dtype == images.dtype, f"images are {result.images.dtype}")


def no_rows(subject: ImageSubject) -> None:
    """No images give an empty answer."""
    model, images = _small()
    space = FeatureSpace(model)
    space.extract(images)
    result = subject.grade(space, images[:0])
    require(result.images.shape == images[:0].shape, f"images have shape {result.images.shape}")


def images_lie_on_a_boundary(subject: ImageSubject) -> None:
    """The model itself confirms most of the images, and all are within bounds."""
    model, images = _small()
    result = subject.grade(model, images)
    require(int(result.ok.sum()) >= _ROWS - 1, f"statuses {result.status.tolist()}")
    valid_images = result.images[result.ok]
    require(bool(((valid_images >= 0) & (valid_images <= 1)).all()), "a pixel is out of bounds")


def known_answers(subject: ImageSubject) -> None:
    """Distances to a hyperplane are at most a quarter above the true ones, in both norms."""
    model, images, normal = _linear()
    logits = model(images).detach().double()
    margin = (logits[:, 0] - logits[:, 1]).abs()
    orders: dict[Literal["l2", "linf"], int] = {"l2": 2, "linf": 1}
    for norm, dual in orders.items():
        result = subject.grade(model, images, norm=norm, max_steps=300)
        require(bool(result.ok.all()), f"{norm}: statuses {result.status.tolist()}")
        ratio = result.distance * torch.linalg.vector_norm(normal, ord=dual) / margin
        valid = (ratio >= 1 - 1e-2) & (ratio <= _FARTHER)
        require(bool(valid.all()), f"{norm}: {ratio.tolist()} times the distance to the hyperplane")


def targets_are_reached(subject: ImageSubject) -> None:
    """A chosen class is the one that ties."""
    model, images = _small()
    logits = model(images).detach()
    targets = logits.argsort(dim=1)[:, -2]
    result = subject.grade(model, images, targets)
    require(torch.equal(result.target, targets), f"targets {result.target.tolist()}")
    require(int(result.ok.sum()) >= _ROWS - 1, f"statuses {result.status.tolist()}")


def unreachable_target_has_no_image(subject: ImageSubject) -> None:
    """A class that no image can reach gets no image."""
    model, images = _small()
    with torch.no_grad():
        model[-1].bias[0] = -1e3  # type: ignore[index]  # a Sequential
    result = subject.grade(model, images, torch.zeros(_ROWS, dtype=torch.int64))
    require(not bool(result.ok.any()), f"statuses {result.status.tolist()}")
    require(bool(result.images.isnan().all()), "an image was returned")


def inputs_and_process_are_left_alone(subject: ImageSubject) -> None:
    """Images, targets, default dtype, NumPy's and Python's generators and threads stay."""
    model, images = _small()
    targets = model(images).detach().argsort(dim=1)[:, -2]
    with require_unchanged(images=images, targets=targets):
        subject.propose(model, images, targets=targets)


def model_is_left_alone(subject: ImageSubject) -> None:
    """No hook, mode, gradient, weight or device of the model changes."""
    model, images = _small()
    with require_model_unchanged(model):
        subject.propose(model, images)


def same_answer_every_time(subject: ImageSubject) -> None:
    """The same seed gives the same images, bit for bit."""
    model, images = _small()
    _require_close(subject.grade(model, images), subject.grade(model, images), "from call to call")


def calls_do_not_remember(subject: ImageSubject) -> None:
    """A call with another model in between changes nothing."""
    (model, images), (other, others) = _small(), _small(1)
    finder = subject.new()
    subject.grade(other, others, finder=finder)
    result = subject.grade(model, images, finder=finder)
    _require_close(result, subject.grade(model, images), "after other calls")


def an_image_that_is_not_finite_fails_alone(subject: ImageSubject) -> None:
    """A NaN image gets NOT_FINITE; the results of the others are unchanged."""
    model, images = _small()
    spoiled = images.clone()
    spoiled[2] = torch.nan
    result = subject.grade(model, spoiled)
    require(int(result.status[2]) == Status.NOT_FINITE, Status(int(result.status[2])).name)
    others = [0, 1, 3]
    _require_close(result.take(others), subject.grade(model, images[others]), "beside a NaN image")


def one_step_is_enough_to_answer(subject: ImageSubject) -> None:
    """After one step it returns a result; images not found are NaN."""
    model, images = _small()
    result = subject.grade(model, images, max_steps=1)
    blank = result.images.isnan().flatten(1).all(dim=1)
    require(torch.equal(blank, ~result.ok), f"statuses {result.status.tolist()}")


IMAGE_CHECKS = (
    factory_makes_an_image_finder,
    repr_tells_options,
    shapes_dtypes_and_device,
    no_rows,
    images_lie_on_a_boundary,
    known_answers,
    targets_are_reached,
    unreachable_target_has_no_image,
    inputs_and_process_are_left_alone,
    model_is_left_alone,
    same_answer_every_time,
    calls_do_not_remember,
    an_image_that_is_not_finite_fails_alone,
    one_step_is_enough_to_answer,
)


def image_suite(
    factory: Callable[[], ImageBoundaryFinder],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Suite[ImageSubject]:
    """Return the checks of an image finder, for use without pytest."""
    return Suite(IMAGE_CHECKS, lambda: ImageSubject(factory), expected_failures)


def image_finder_tests(
    factory: Callable[[], ImageBoundaryFinder],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Callable[[str], None]:
    """Return a pytest function that checks an image finder against its contract.

    Parameters
    ----------
    factory : callable
        Function without arguments that creates the finder (hook ``register_boundary_finders``,
        capability "pixels").
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names an unknown check.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.testing import image_finder_tests
    >>> def make():
    ...     return fsb.plugins.create("boundary_finder", "ddn", capability="pixels")
    >>> test_mine = image_finder_tests(make)
    """
    return image_suite(factory, expected_failures).pytest_function()
