"""What every finder of images on a boundary must hold to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from fsboundary.core.results import FlipImages
from fsboundary.core.status import Status
from fsboundary.pixels import flip_images
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.space import FeatureSpace
from fsboundary.testing.invariants import check_repr, left_alone, made_by, model_left_alone
from fsboundary.testing.problems import redraw, small_images
from fsboundary.testing.suite import NONE, Suite, require

_ROWS = 4
_STEPS = 60
_FARTHER = 1.25
"""A found image may be this many times as far as the nearest one: closest is not certified."""


@final
class ImageSubject:
    """An image finder, asked directly or through the core."""

    def __init__(self, factory: Callable[[], ImageBoundaryFinder]) -> None:
        self._factory = factory

    def new(self) -> ImageBoundaryFinder:
        """Return a new finder."""
        finder: ImageBoundaryFinder = made_by(self._factory, ImageBoundaryFinder)
        return finder

    def ask(self, model: nn.Module, images: Tensor, **options: Any) -> FlipImages:
        """Return what a finder says itself."""
        settings: dict[str, Any] = {
            "targets": "nearest",
            "bounds": (0.0, 1.0),
            "norm": "l2",
            "max_steps": _STEPS,
        }
        with torch.random.fork_rng(devices=[]):  # as in the core: finders may draw
            torch.manual_seed(0)
            return self.new().find(FeatureSpace(model), images, **(settings | options))

    def graded(
        self,
        model: nn.Module | FeatureSpace,
        images: Tensor,
        targets: Literal["nearest"] | Tensor = "nearest",
        norm: Literal["l2", "linf"] = "l2",
        *,
        finder: ImageBoundaryFinder | None = None,
        max_steps: int = _STEPS,
    ) -> FlipImages:
        """Return what the core makes of it."""
        finder = finder or self.new()
        return flip_images(model, images, targets, norm=norm, finder=finder, max_steps=max_steps)


def _small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a model of four classes, each of them within reach, and images."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4)
        model = nn.Sequential(_Centred(), *layers).eval()
    redraw(model, seed + 20)
    return model, small_images(_ROWS, seed + 1)


class _Centred(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 4 * (images - 0.5)


def _linear() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a model that is linear in the pixels, grey images, and the normals' difference."""
    with torch.random.fork_rng(devices=[]):
        last = nn.Linear(192, 3)
    model = nn.Sequential(nn.Flatten(), last).eval()
    redraw(model, 3)
    with torch.no_grad():
        last.bias[2] = -20.0  # never on top
        last.bias[:2] -= (last.weight[:2] * 0.5).sum(dim=1)  # grey is a tie
    images = 0.5 + 0.1 * (small_images(_ROWS, 4) - 0.5)
    weight = last.weight.detach().double()
    return model, images, weight[0] - weight[1]


def _same(one: FlipImages, other: FlipImages, what: str) -> None:
    same = torch.equal(one.images.nan_to_num(), other.images.nan_to_num())
    require(same, f"images differ {what}")


def factory_makes_an_image_finder(subject: ImageSubject) -> None:
    """The factory works without options and makes an ImageBoundaryFinder."""
    subject.new()


def repr_tells_options(subject: ImageSubject) -> None:
    """The repr makes the finder again and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: ImageSubject) -> None:
    """Every field has the documented shape and dtype; images keep those of the input."""
    model, images = _small()
    for rows in (_ROWS, 1):
        found = subject.ask(model, images[:rows])
        require(isinstance(found, FlipImages), f"find returned a {type(found).__name__}")
        for name, value in found.to_dict().items():
            wanted = tuple(images[:rows].shape) if name == "images" else (rows,)
            require(tuple(value.shape) == wanted, f"{name} has shape {tuple(value.shape)}")
            require(value.device == images.device, f"{name} is on {value.device}")
        require(found.images.dtype == images.dtype, f"images are {found.images.dtype}")


def no_rows(subject: ImageSubject) -> None:
    """No images give an empty answer."""
    model, images = _small()
    space = FeatureSpace(model)
    space.extract(images)
    found = subject.graded(space, images[:0])
    require(found.images.shape == images[:0].shape, f"images have shape {found.images.shape}")


def images_lie_on_a_boundary(subject: ImageSubject) -> None:
    """The model itself confirms most of the images, and all are within bounds."""
    model, images = _small()
    found = subject.graded(model, images)
    require(int(found.ok.sum()) >= _ROWS - 1, f"statuses {found.status.tolist()}")
    held = found.images[found.ok]
    require(bool(((held >= 0) & (held <= 1)).all()), "a pixel is out of bounds")


def known_answers(subject: ImageSubject) -> None:
    """Distances to a hyperplane are at most a quarter above the true ones, in both norms."""
    model, images, normal = _linear()
    logits = model(images).detach().double()
    margin = (logits[:, 0] - logits[:, 1]).abs()
    orders: dict[Literal["l2", "linf"], int] = {"l2": 2, "linf": 1}
    for norm, dual in orders.items():
        found = subject.graded(model, images, norm=norm, max_steps=300)
        require(bool(found.ok.all()), f"{norm}: statuses {found.status.tolist()}")
        ratio = found.distance * torch.linalg.vector_norm(normal, ord=dual) / margin
        fine = (ratio >= 1 - 1e-2) & (ratio <= _FARTHER)
        require(bool(fine.all()), f"{norm}: {ratio.tolist()} times the distance to the hyperplane")


def targets_are_reached(subject: ImageSubject) -> None:
    """A chosen class is the one that ties."""
    model, images = _small()
    logits = model(images).detach()
    targets = logits.argsort(dim=1)[:, -2]
    found = subject.graded(model, images, targets)
    require(torch.equal(found.target, targets), f"targets {found.target.tolist()}")
    require(int(found.ok.sum()) >= _ROWS - 1, f"statuses {found.status.tolist()}")


def unreachable_target_has_no_image(subject: ImageSubject) -> None:
    """A class that no image comes near gets no image."""
    model, images = _small()
    with torch.no_grad():
        model[-1].bias[0] = -1e3  # type: ignore[index]  # a Sequential
    found = subject.graded(model, images, torch.zeros(_ROWS, dtype=torch.int64))
    require(not bool(found.ok.any()), f"statuses {found.status.tolist()}")
    require(bool(found.images.isnan().all()), "an image was returned")


def inputs_and_process_are_left_alone(subject: ImageSubject) -> None:
    """Images, targets, default dtype, NumPy's and Python's generators and threads stay."""
    model, images = _small()
    targets = model(images).detach().argsort(dim=1)[:, -2]
    with left_alone(images=images, targets=targets):
        subject.ask(model, images, targets=targets)


def model_is_left_alone(subject: ImageSubject) -> None:
    """No hook, mode, gradient, weight or device of the model changes."""
    model, images = _small()
    with model_left_alone(model):
        subject.ask(model, images)


def same_answer_every_time(subject: ImageSubject) -> None:
    """The same seed gives the same images, bit for bit."""
    model, images = _small()
    _same(subject.graded(model, images), subject.graded(model, images), "from call to call")


def calls_do_not_remember(subject: ImageSubject) -> None:
    """Another model, asked in between, changes nothing."""
    (model, images), (other, others) = _small(), _small(1)
    finder = subject.new()
    subject.graded(other, others, finder=finder)
    found = subject.graded(model, images, finder=finder)
    _same(found, subject.graded(model, images), "after other calls")


def an_image_that_is_not_finite_fails_alone(subject: ImageSubject) -> None:
    """A NaN image gets NOT_FINITE; the others' answers stand."""
    model, images = _small()
    spoilt = images.clone()
    spoilt[2] = torch.nan
    found = subject.graded(model, spoilt)
    require(int(found.status[2]) == Status.NOT_FINITE, Status(int(found.status[2])).name)
    kept = [0, 1, 3]
    _same(found.take(kept), subject.graded(model, images[kept]), "beside a NaN image")


def one_step_is_enough_to_answer(subject: ImageSubject) -> None:
    """Stopped after one step, it answers; what it has not found is NaN."""
    model, images = _small()
    found = subject.graded(model, images, max_steps=1)
    blank = found.images.isnan().flatten(1).all(dim=1)
    require(torch.equal(blank, ~found.ok), f"statuses {found.status.tolist()}")


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
    factory: Callable[[], ImageBoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Suite[ImageSubject]:
    """Return the checks of a finder of images on a boundary, to be run without pytest."""
    return Suite(IMAGE_CHECKS, lambda: ImageSubject(factory), expected_failures)


def image_finder_tests(
    factory: Callable[[], ImageBoundaryFinder], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a finder of images on a boundary to its contract.

    Parameters
    ----------
    factory : callable
        Makes the finder (hook ``register_boundary_finders``, capability "pixels"), without
        arguments.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.

    Returns
    -------
    callable
        As in :func:`hull_solver_tests`.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names a check that there is not.
    """
    return image_suite(factory, expected_failures).pytest_function()
