"""Conformance checks of feature extractors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.modes import seeded
from fsboundary.plugins.interfaces import FeatureExtractor
from fsboundary.space import FeatureSpace
from fsboundary.testing.invariants import (
    check_repr,
    make_instance,
    require_model_unchanged,
    require_unchanged,
)
from fsboundary.testing.problems import small_images, small_model
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite, require

_ROWS = 5
_FITTED = 60
"""Number of images that surrogates are fitted on, a fifth of them held out."""


@final
class ExtractorSubject:
    """An extractor, with the model and the images of its checks."""

    def __init__(self, factory: Callable[[], FeatureExtractor]) -> None:
        self._factory = factory

    def new(self) -> FeatureExtractor:
        """Return a new extractor, not fitted."""
        extractor: FeatureExtractor = make_instance(self._factory, FeatureExtractor)
        return extractor

    def example(self, rows: int = _ROWS, seed: int = 0) -> tuple[nn.Module, Tensor]:
        """Return a model and images; both depend on the seed."""
        # creating a model draws random numbers, which is not an error of the extractor
        with seeded(seed):
            example = self.new().example(rows, seed)
            return example or (small_model(seed), small_images(rows, seed + 1))

    def ready(self, model: nn.Module) -> FeatureExtractor:
        """Return a new extractor; a surrogate is fitted to `model`."""
        extractor = self.new()
        return extractor.fit(model, self.loader()) if extractor.surrogate else extractor

    def space(self, model: nn.Module) -> FeatureSpace:
        """Return a feature space over a new extractor; a surrogate is fitted."""
        space = FeatureSpace(model, extractor=self.new())
        return space.fit(self.loader()) if space.surrogate else space

    def loader(self) -> list[Tensor]:
        """Return batches to fit on."""
        return list(self.example(_FITTED, 7)[1].split(20))


def _require_close(one: Tensor, other: Tensor, what: str) -> None:
    # batches of different sizes differ by float32 rounding through the model's layers
    one, other = one.detach(), other.detach()
    size, worst = float(other.abs().max()), float((one - other).abs().max())
    require(worst <= 1e-4 * size + 1e-6, f"{what}: they differ by {worst:.3g} of {size:.3g}")


def _logits_of(output: Any) -> Tensor:
    """Return the logits of a model's own output."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def factory_makes_a_feature_extractor(subject: ExtractorSubject) -> None:
    """The factory works without options and returns a FeatureExtractor."""
    subject.new()


def repr_tells_options(subject: ExtractorSubject) -> None:
    """The repr recreates the extractor and differs where options do."""
    check_repr(subject.new())


def head_is_unknown_or_linear(subject: ExtractorSubject) -> None:
    """Before the first batch the head is None or already a LinearHead; after it, a LinearHead."""
    model, images = subject.example()
    extractor = subject.new()
    before = extractor.head(model)
    require(before is None or isinstance(before, LinearHead), f"head is a {type(before).__name__}")
    extractor = subject.ready(model)
    extractor.features(model, images)
    after = extractor.head(model)
    require(isinstance(after, LinearHead), f"head is a {type(after).__name__} after a batch")


def shapes_dtypes_and_device(subject: ExtractorSubject) -> None:
    """Features (B,d) and logits (B,K) fit the head, in floating point, on the images' device."""
    model, images = subject.example()
    extractor = subject.ready(model)
    for rows in (_ROWS, 1):
        features, logits = extractor.features(model, images[:rows])
        head = extractor.head(model)
        assert head is not None  # guaranteed by another check
        wanted = {"features": (rows, head.num_features), "logits": (rows, head.num_classes)}
        for name, value in (("features", features), ("logits", logits)):
            got = tuple(value.shape)
            require(got == wanted[name], f"{name} have shape {got}; wanted {wanted[name]}")
            require(value.is_floating_point(), f"{name} are {value.dtype}")
            require(value.device == images.device, f"{name} are on {value.device}")


def no_rows(subject: ExtractorSubject) -> None:
    """No images give an empty batch of the right width."""
    model, images = subject.example()
    space = subject.space(model)
    width = space.extract(images).features.shape[1]
    result = space.extract(images[:0])
    require(result.features.shape == (0, width), f"features have shape {result.features.shape}")


def batch_equals_loop(subject: ExtractorSubject) -> None:
    """A batch gets the features and logits of its single images."""
    model, images = subject.example()
    extractor = subject.ready(model)
    together = extractor.features(model, images)
    single = [extractor.features(model, image[None]) for image in images]
    for index, name in enumerate(("features", "logits")):
        _require_close(
            torch.cat([a[index] for a in single]), together[index], f"{name}, single and in a batch"
        )


def order_of_rows(subject: ExtractorSubject) -> None:
    """Results follow their images in any order."""
    model, images = subject.example()
    extractor, order = subject.ready(model), torch.tensor([3, 0, 4, 1, 2])
    permuted = extractor.features(model, images[order])[0]
    _require_close(permuted, extractor.features(model, images)[0][order], "images reordered")


def logits_are_the_models(subject: ExtractorSubject) -> None:
    """The logits are those that the model itself computes."""
    model, images = subject.example()
    with torch.no_grad():
        want = _logits_of(model(images))
        got = subject.ready(model).features(model, images)[1]
    _require_close(got, want, "logits against the model's own")


def head_gives_the_logits(subject: ExtractorSubject) -> None:
    """W z + b is the model's logits; a surrogate's head agrees with the model far above chance."""
    model, images = subject.example()
    space = subject.space(model)
    result = space.extract(images)
    if not space.surrogate:
        _require_close(
            space.head.logits(result.features), result.logits.double(), "W z + b against logits"
        )
        return
    fidelity = space.fidelity
    require(fidelity is not None and 0 <= fidelity <= 1, f"fidelity is {fidelity}")
    assert fidelity is not None  # required above
    chance = 1 / space.head.num_classes
    require(fidelity > chance, f"fidelity {fidelity:.3g} is no better than chance, {chance:.3g}")


def graph_is_kept(subject: ExtractorSubject) -> None:
    """Features and logits can be differentiated; the logits' gradient is the model's own."""
    model, images = subject.example()
    extractor = subject.ready(model)
    leaf = images.clone().requires_grad_()
    features, logits = extractor.features(model, leaf)
    for name, value in (("features", features), ("logits", logits)):
        require(value.requires_grad, f"{name} are detached from the images")
    [slope] = torch.autograd.grad(features.square().sum(), leaf, retain_graph=True)
    require(bool(slope.abs().sum() > 0), "the features' gradient is 0")
    [got] = torch.autograd.grad(logits.square().sum(), leaf)
    [want] = torch.autograd.grad(_logits_of(model(leaf)).square().sum(), leaf)
    _require_close(got, want, "gradients of the logits")


def model_is_left_alone(subject: ExtractorSubject) -> None:
    """No hook, mode, gradient, weight or device of the model changes, even if it raises."""
    model, images = subject.example()
    with require_model_unchanged(model):
        extractor = subject.ready(model)
        extractor.features(model, images)
        extractor.head(model)
        extractor.domain(model)
        extractor.notes(model)
    extractor = subject.ready(model)
    with require_model_unchanged(model):
        try:
            extractor.features(model, images[:, :, :1, :1][:, :1])
        except Exception:
            return  # any error is allowed; the model is compared afterwards


def inputs_and_process_are_left_alone(subject: ExtractorSubject) -> None:
    """Images, default dtype, random generators and threads stay as they were."""
    model, images = subject.example()
    with require_unchanged(images=images):
        subject.ready(model).features(model, images)


def same_answer_every_time(subject: ExtractorSubject) -> None:
    """Two extractors with the same options give the same features, bit for bit."""
    model, images = subject.example()
    first, second = (subject.ready(model).features(model, images) for _ in range(2))
    for one, other, name in zip(first, second, ("features", "logits"), strict=True):
        require(torch.equal(one, other), f"{name} differ from call to call")


def calls_do_not_remember(subject: ExtractorSubject) -> None:
    """A call with another model of the same shape in between changes nothing."""
    model, images = subject.example()
    other, others = subject.example(seed=1)
    extractor = subject.new()
    calls = [(model, images), (other, others), (model, others), (model, images)]
    if extractor.surrogate:
        for each in (model, other):
            extractor.fit(each, subject.loader())
    for each, batch in calls:
        result, fresh = extractor.features(each, batch), subject.ready(each).features(each, batch)
        _require_close(result[0], fresh[0], "features after other calls")
        _require_close(result[1], fresh[1], "logits after other calls")
        heads = extractor.head(each), subject.ready(each).head(each)
        if heads[0] is not None and heads[1] is not None:
            _require_close(heads[0].weight, heads[1].weight, "head after other calls")


def an_image_that_is_not_finite_fails_alone(subject: ExtractorSubject) -> None:
    """A NaN image gets NOT_FINITE; the features of the others are unchanged."""
    model, images = subject.example()
    space = subject.space(model)
    want, spoiled = space.extract(images), images.clone()
    spoiled[2] = torch.nan
    result = space.extract(spoiled)
    require(int(result.status[2]) == Status.NOT_FINITE, Status(int(result.status[2])).name)
    finite = [0, 1, 3, 4]
    _require_close(result.features[finite], want.features[finite], "beside a NaN image")


def domain_is_respected(subject: ExtractorSubject) -> None:
    """Features lie in the domain that the extractor claims."""
    model, _ = subject.example()
    _, images = subject.example(50)
    space = subject.space(model)
    features = space.extract(images).features
    inside = space.domain.contains(features.double(), atol=1e-6)
    require(bool(inside.all()), f"{int((~inside).sum())} features lie outside the domain")


def flip_points_are_certified(subject: ExtractorSubject) -> None:
    """The core finds certified flip points of the features."""
    model, images = subject.example()
    space = subject.space(model)
    features = space.extract(images).features
    result = flip_points(space.head, features)
    require(bool(result.ok.all()), f"statuses {result.status.tolist()}")


EXTRACTOR_CHECKS = (
    factory_makes_a_feature_extractor,
    repr_tells_options,
    head_is_unknown_or_linear,
    shapes_dtypes_and_device,
    no_rows,
    batch_equals_loop,
    order_of_rows,
    logits_are_the_models,
    head_gives_the_logits,
    graph_is_kept,
    model_is_left_alone,
    inputs_and_process_are_left_alone,
    same_answer_every_time,
    calls_do_not_remember,
    an_image_that_is_not_finite_fails_alone,
    domain_is_respected,
    flip_points_are_certified,
)


def extractor_suite(
    factory: Callable[[], FeatureExtractor],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Suite[ExtractorSubject]:
    """Return the checks of a feature extractor, for use without pytest."""
    return Suite(EXTRACTOR_CHECKS, lambda: ExtractorSubject(factory), expected_failures)


def feature_extractor_tests(
    factory: Callable[[], FeatureExtractor],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
) -> Callable[[str], None]:
    """Return a pytest function that checks a feature extractor against its contract.

    The model and the images are the suite's own, a small convolutional network, unless the
    extractor provides others with :meth:`fsboundary.FeatureExtractor.example`.

    Parameters
    ----------
    factory : callable
        Function without arguments that creates the extractor.
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
    >>> from fsboundary.testing import feature_extractor_tests
    >>> def make():
    ...     return fsb.plugins.create("feature_extractor", "head_input")
    >>> test_mine = feature_extractor_tests(make)
    """
    return extractor_suite(factory, expected_failures).pytest_function()
