"""Conformance checks of bounds of bodies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from torch import Tensor, nn

from fsboundary.core.errors import HeadError
from fsboundary.modes import seeded
from fsboundary.plugins.interfaces import BodyBounds, LinearFunctions
from fsboundary.space import FeatureSpace
from fsboundary.testing.invariants import (
    check_repr,
    make_instance,
    require_model_unchanged,
    require_unchanged,
)
from fsboundary.testing.problems import redraw, small_images
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

Norm = Literal["linf", "l2"]

_NORMS: tuple[Norm, Norm] = ("linf", "l2")
_ROWS = 3
_SAMPLES, _ATTACK_STEPS = 64, 20
_RADII = (0.01, 0.05, 0.2)
_ROUNDING = 1e-9
"""Models of the suite are float64: values are off by far less, relative to 1 plus their size."""


@final
class BoundsSubject:
    """Bounds of bodies, called on the models of the suite."""

    def __init__(self, factory: Callable[[], BodyBounds]) -> None:
        self._factory = factory

    def new(self) -> BodyBounds:
        """Return a new instance."""
        made: BodyBounds = make_instance(self._factory, BodyBounds)
        return made

    def bound(
        self,
        model: nn.Module,
        images: Tensor,
        radius: float | Tensor,
        functions: LinearFunctions,
        norm: Norm = "linf",
    ) -> Tensor:
        """Return lower bounds (B,F)."""
        radii = torch.as_tensor(radius, dtype=torch.float64).expand(len(images)).clone()
        with torch.no_grad():
            return self.new().bound(
                FeatureSpace(model, example=images),
                images,
                radii,
                norm=norm,
                bounds=(0.0, 1.0),
                functions=functions,
            )


def _model(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a small convolutional network, float64, and images."""
    with seeded(seed):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(),
            nn.Linear(8, 4),
        )  # fmt: skip
    redraw(model, seed + 30)
    images = small_images(_ROWS, seed + 1)
    return model.double().eval().requires_grad_(False), images.double().clamp(0, 1)


def _linear() -> tuple[nn.Module, Tensor]:
    """Return a model that is linear in the pixels, float64, and grey images."""
    with seeded(1):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 3))
    redraw(model, 4)
    images = 0.5 + 0.1 * (small_images(_ROWS, 5).double().clamp(0, 1) - 0.5)
    return model.double().eval().requires_grad_(False), images


def _functions(model: nn.Module, images: Tensor) -> LinearFunctions:
    """Return the margins of the predicted class over every class, with itself."""
    head: nn.Linear = model[-1]  # type: ignore[index]  # a Sequential
    source = model(images).argmax(dim=1)
    weight = head.weight[source][:, None] - head.weight[None]
    offset = head.bias[source][:, None] - head.bias[None]
    return LinearFunctions(weight=weight, offset=offset, weight_error=torch.zeros_like(weight))


def _values(model: nn.Module, functions: LinearFunctions, images: Tensor) -> Tensor:
    body: nn.Module = model[:-1]  # type: ignore[index]  # a Sequential
    return functions.values(body(images))


def _into(images: Tensor, moved: Tensor, radius: float, norm: Norm) -> Tensor:
    """Return `moved` projected on the sets around `images`, (..., B,C,H,W)."""
    step = moved - images
    if norm == "linf":
        step = step.clamp(-radius, radius)
    else:
        length = torch.linalg.vector_norm(step, dim=(-3, -2, -1), keepdim=True)
        step = step * (radius / length.clamp_min(radius))
    # towards the centre, so that the point is inside after rounding
    return (images + (1 - 1e-12) * step).clamp(0, 1)


def _lowest(
    model: nn.Module, functions: LinearFunctions, images: Tensor, radius: float, norm: Norm
) -> Tensor:
    """Return the lowest values (B,F) at sampled and attacked points of the sets."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(_SAMPLES, *images.shape, generator=generator, dtype=torch.float64)
    starts = _into(images, images + 10 * radius * noise, radius, norm)
    lowest = torch.stack([_values(model, functions, x) for x in starts]).amin(dim=0)
    for f in range(lowest.shape[1]):
        x = starts[0]
        for _ in range(_ATTACK_STEPS):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = _values(model, functions, x)[:, f]
                (gradient,) = torch.autograd.grad(value.sum(), x)
            if norm == "linf":
                gradient = gradient.sign()
            else:
                size = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
                gradient = gradient / size.clamp_min(1e-300)
            x = _into(images, x.detach() - radius / 2 * gradient, radius, norm)
            lowest = torch.minimum(lowest, _values(model, functions, x))
    return lowest


def _require_below(lower: Tensor, value: Tensor, what: str) -> None:
    excess = float((lower - value - _ROUNDING * (1 + value.abs())).amax())
    require(excess <= 0, f"a bound exceeds the value {what} by {excess:g}")


def factory_makes_body_bounds(subject: BoundsSubject) -> None:
    """The factory works without options and returns a BodyBounds."""
    subject.new()


def repr_tells_options(subject: BoundsSubject) -> None:
    """The repr recreates the instance and differs where options do."""
    check_repr(subject.new())


def shapes_dtypes_and_device(subject: BoundsSubject) -> None:
    """Bounds are float64, one per image and function, on the device of the images."""
    model, images = _model()
    for rows in (_ROWS, 1):
        lower = subject.bound(model, images[:rows], 0.01, _functions(model, images[:rows]))
        require(isinstance(lower, Tensor), f"bound returned a {type(lower).__name__}")
        require(tuple(lower.shape) == (rows, 4), f"bounds have shape {tuple(lower.shape)}")
        require(lower.dtype == torch.float64, f"bounds are {lower.dtype}")
        require(lower.device == images.device, f"bounds are on {lower.device}")


def no_point_is_below(subject: BoundsSubject) -> None:
    """No sampled and no attacked point of a set has a value below the bound."""
    model, images = _model()
    functions = _functions(model, images)
    for norm in _NORMS:
        for radius in _RADII:
            lower = subject.bound(model, images, radius, functions, norm)
            lowest = _lowest(model, functions, images, radius, norm)
            _require_below(lower, lowest, f"of a point within {radius} in {norm}")


def linear_bodies(subject: BoundsSubject) -> None:
    """A bound on a body that is linear never exceeds the minimum, which is known."""
    model, images = _linear()
    functions = _functions(model, images)
    body: nn.Linear = model[1]  # type: ignore[index]  # a Sequential
    row = functions.weight @ body.weight
    orders: dict[Norm, int] = {"linf": 1, "l2": 2}
    for norm, dual in orders.items():
        minimum = _values(model, functions, images)
        minimum = minimum - 0.1 * torch.linalg.vector_norm(row, ord=dual, dim=2)
        lower = subject.bound(model, images, 0.1, functions, norm)
        _require_below(lower, minimum, f"of the minimum in {norm}")


def radius_0_gives_the_value(subject: BoundsSubject) -> None:
    """At radius 0 the bound is the value at the image, to within rounding."""
    model, images = _model()
    functions = _functions(model, images)
    value = _values(model, functions, images)
    for norm in _NORMS:
        lower = subject.bound(model, images, 0.0, functions, norm)
        worst = float((value - lower).abs().amax())
        require(worst <= 1e-8 * (1 + float(value.abs().amax())), f"{norm}: off by {worst:g}")


def larger_sets_have_lower_bounds(subject: BoundsSubject) -> None:
    """The bounds of a larger radius are not above those of half of it, in sum over functions."""
    model, images = _model()
    functions = _functions(model, images)
    for norm in _NORMS:
        sums = [
            float(subject.bound(model, images, r, functions, norm).sum())
            for r in (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2)
        ]
        falls = all(
            b == -torch.inf or b <= a + _ROUNDING * (1 + abs(a))
            for a, b in itertools.pairwise(sums)
        )
        require(falls, f"{norm}: sums of bounds {sums}")


def images_do_not_affect_each_other(subject: BoundsSubject) -> None:
    """A batch with different radii gives what single images give."""
    model, images = _model()
    functions = _functions(model, images)
    radii = torch.tensor([0.0, 0.03, 0.1], dtype=torch.float64)
    for norm in _NORMS:
        together = subject.bound(model, images, radii, functions, norm)
        for row in range(_ROWS):
            part = slice(row, row + 1)
            alone = subject.bound(model, images[part], radii[part], functions.take(part), norm)
            close = torch.allclose(alone, together[part], rtol=1e-9, atol=1e-9)
            require(
                close, f"{norm}: image {row} has {alone.tolist()}, not {together[part].tolist()}"
            )


def weight_errors_count(subject: BoundsSubject) -> None:
    """A bound holds for all weights within ``weight_error``."""
    model, images = _model()
    given = _functions(model, images)
    error = torch.full_like(given.weight, 0.5)
    functions = LinearFunctions(weight=given.weight, offset=given.offset, weight_error=error)
    lower = subject.bound(model, images, 0.0, functions)
    body: nn.Module = model[:-1]  # type: ignore[index]  # a Sequential
    lowest = _values(model, given, images) - 0.5 * body(images).abs().sum(dim=1, keepdim=True)
    _require_below(lower, lowest, "with other weights")


class _Mean(nn.Module):
    """A body whose rows depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 3)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        out: Tensor = self.head(torch.relu(flat - flat.mean(dim=0)))
        return out


def dependent_rows_are_refused(subject: BoundsSubject) -> None:
    """A body whose rows depend on each other gets no bound: HeadError, or -inf."""
    images = small_images(_ROWS, 3).double().clamp(0, 1)
    weight = torch.ones(_ROWS, 1, 192, dtype=torch.float64)
    zero = torch.zeros(_ROWS, 1, dtype=torch.float64)
    functions = LinearFunctions(weight=weight, offset=zero, weight_error=0 * weight)
    try:
        with seeded(0):
            lower = subject.bound(_Mean().double().eval(), images, 0.01, functions)
    except HeadError:
        return
    require(bool((lower == -torch.inf).all()), f"bounds {lower.tolist()}")


def inputs_and_process_are_left_alone(subject: BoundsSubject) -> None:
    """Images, functions, default dtype, NumPy's and Python's generators and threads stay."""
    model, images = _model()
    functions = _functions(model, images)
    given = {"images": images, "weight": functions.weight, "offset": functions.offset}
    with require_unchanged(**given), require_model_unchanged(model):
        subject.bound(model, images, 0.01, functions)


def same_answer_every_time(subject: BoundsSubject) -> None:
    """The same call gives the same bounds, bit for bit, also after another model."""
    model, images = _model()
    functions = _functions(model, images)
    first = subject.bound(model, images, 0.05, functions)
    other, others = _model(1)
    subject.bound(other, others, 0.05, _functions(other, others))
    again = subject.bound(model, images, 0.05, functions)
    require(torch.equal(first, again), "bounds differ from call to call")


BOUNDS_CHECKS = (
    factory_makes_body_bounds,
    repr_tells_options,
    shapes_dtypes_and_device,
    no_point_is_below,
    linear_bodies,
    radius_0_gives_the_value,
    larger_sets_have_lower_bounds,
    images_do_not_affect_each_other,
    weight_errors_count,
    dependent_rows_are_refused,
    inputs_and_process_are_left_alone,
    same_answer_every_time,
)


def bounds_suite(
    factory: Callable[[], BodyBounds],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Suite[BoundsSubject]:
    """Return the checks of bounds of bodies, for use without pytest."""
    return Suite(BOUNDS_CHECKS, lambda: BoundsSubject(factory), expected_failures)


def body_bounds_tests(
    factory: Callable[[], BodyBounds],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Callable[[str], None]:
    """Return a pytest function that checks bounds of bodies against their contract.

    Parameters
    ----------
    factory : callable
        Function without arguments that creates the plugin (hook ``register_body_bounds``).
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
    >>> from fsboundary.testing import body_bounds_tests
    >>> test_mine = body_bounds_tests(lambda: fsb.plugins.create("body_bound", "interval"))
    """
    return bounds_suite(factory, expected_failures).pytest_function()
