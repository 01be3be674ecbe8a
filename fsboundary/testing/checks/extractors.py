"""What every feature extractor must hold to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.boundaries import flip_points
from fsboundary.core.heads import LinearHead
from fsboundary.core.status import Status
from fsboundary.plugins.interfaces import FeatureExtractor
from fsboundary.space import FeatureSpace
from fsboundary.testing.invariants import check_repr, left_alone, made_by, model_left_alone
from fsboundary.testing.problems import small_images, small_model
from fsboundary.testing.suite import NONE, Suite, require

_ROWS = 5
_FITTED = 60
"""Images that surrogates are fitted on, a fifth of them held out."""


@final
class ExtractorSubject:
    """An extractor, with the model and the images that it is asked about."""

    def __init__(self, factory: Callable[[], FeatureExtractor]) -> None:
        self._factory = factory

    def new(self) -> FeatureExtractor:
        """Return a new extractor, not fitted."""
        extractor: FeatureExtractor = made_by(self._factory, FeatureExtractor)
        return extractor

    def example(self, rows: int = _ROWS, seed: int = 0) -> tuple[nn.Module, Tensor]:
        """Return a model and images; both depend on the seed."""
        # making a model draws numbers, which is no fault of the extractor
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            own = self.new().example(rows, seed)
            return own or (small_model(seed), small_images(rows, seed + 1))

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


def _same(one: Tensor, other: Tensor, what: str) -> None:
    # of numbers of one model, in batches of different sizes: float32 rounding through its layers
    one, other = one.detach(), other.detach()
    size, worst = float(other.abs().max()), float((one - other).abs().max())
    require(worst <= 1e-4 * size + 1e-6, f"{what}: they differ by {worst:.3g} of {size:.3g}")


def _logits_of(output: Any) -> Tensor:
    """Return the logits of a model's own output."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def factory_makes_a_feature_extractor(subject: ExtractorSubject) -> None:
    """The factory works without options and makes a FeatureExtractor."""
    subject.new()


def repr_tells_options(subject: ExtractorSubject) -> None:
    """The repr makes the extractor again and differs where options do."""
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
        assert head is not None  # held by another check
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
    found = space.extract(images[:0])
    require(found.features.shape == (0, width), f"features have shape {found.features.shape}")


def batch_equals_loop(subject: ExtractorSubject) -> None:
    """Images together get the features and logits that each gets alone."""
    model, images = subject.example()
    extractor = subject.ready(model)
    together = extractor.features(model, images)
    alone = [extractor.features(model, image[None]) for image in images]
    for index, name in enumerate(("features", "logits")):
        _same(torch.cat([a[index] for a in alone]), together[index], f"{name}, alone and together")


def order_of_rows(subject: ExtractorSubject) -> None:
    """Answers go with their images, whatever the order."""
    model, images = subject.example()
    extractor, order = subject.ready(model), torch.tensor([3, 0, 4, 1, 2])
    turned = extractor.features(model, images[order])[0]
    _same(turned, extractor.features(model, images)[0][order], "images reordered")


def logits_are_the_models(subject: ExtractorSubject) -> None:
    """The logits are those that the model itself computes."""
    model, images = subject.example()
    with torch.no_grad():
        want = _logits_of(model(images))
        got = subject.ready(model).features(model, images)[1]
    _same(got, want, "logits against the model's own")


def head_gives_the_logits(subject: ExtractorSubject) -> None:
    """W z + b is the model's logits; a surrogate's head agrees with the model far above chance."""
    model, images = subject.example()
    space = subject.space(model)
    found = space.extract(images)
    if not space.surrogate:
        _same(space.head.logits(found.features), found.logits.double(), "W z + b against logits")
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
        require(value.requires_grad, f"{name} are cut off from the images")
    [slope] = torch.autograd.grad(features.square().sum(), leaf, retain_graph=True)
    require(bool(slope.abs().sum() > 0), "the features' gradient is 0")
    [got] = torch.autograd.grad(logits.square().sum(), leaf)
    [want] = torch.autograd.grad(_logits_of(model(leaf)).square().sum(), leaf)
    _same(got, want, "gradients of the logits")


def model_is_left_alone(subject: ExtractorSubject) -> None:
    """No hook, mode, gradient, weight or device of the model changes, nor when it raises."""
    model, images = subject.example()
    with model_left_alone(model):
        extractor = subject.ready(model)
        extractor.features(model, images)
        extractor.head(model)
        extractor.domain(model)
        extractor.notes(model)
    extractor = subject.ready(model)
    with model_left_alone(model):
        try:
            extractor.features(model, images[:, :, :1, :1][:, :1])
        except Exception:
            return  # whatever it raises: what is left behind is looked at


def inputs_and_process_are_left_alone(subject: ExtractorSubject) -> None:
    """Images, default dtype, random generators and threads stay as they were."""
    model, images = subject.example()
    with left_alone(images=images):
        subject.ready(model).features(model, images)


def same_answer_every_time(subject: ExtractorSubject) -> None:
    """Two extractors with the same options give the same features, bit for bit."""
    model, images = subject.example()
    first, second = (subject.ready(model).features(model, images) for _ in range(2))
    for one, other, name in zip(first, second, ("features", "logits"), strict=True):
        require(torch.equal(one, other), f"{name} differ from call to call")


def calls_do_not_remember(subject: ExtractorSubject) -> None:
    """Another model of the same shape, asked in between, changes nothing."""
    model, images = subject.example()
    other, others = subject.example(seed=1)
    extractor = subject.new()
    asked = [(model, images), (other, others), (model, others), (model, images)]
    if extractor.surrogate:
        for each in (model, other):
            extractor.fit(each, subject.loader())
    for each, batch in asked:
        found, fresh = extractor.features(each, batch), subject.ready(each).features(each, batch)
        _same(found[0], fresh[0], "features after other calls")
        _same(found[1], fresh[1], "logits after other calls")
        heads = extractor.head(each), subject.ready(each).head(each)
        if heads[0] is not None and heads[1] is not None:
            _same(heads[0].weight, heads[1].weight, "head after other calls")


def an_image_that_is_not_finite_fails_alone(subject: ExtractorSubject) -> None:
    """A NaN image gets NOT_FINITE; the others' features stand."""
    model, images = subject.example()
    space = subject.space(model)
    want, spoilt = space.extract(images), images.clone()
    spoilt[2] = torch.nan
    found = space.extract(spoilt)
    require(int(found.status[2]) == Status.NOT_FINITE, Status(int(found.status[2])).name)
    kept = [0, 1, 3, 4]
    _same(found.features[kept], want.features[kept], "beside a NaN image")


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
    found = flip_points(space.head, features)
    require(bool(found.ok.all()), f"statuses {found.status.tolist()}")


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
    factory: Callable[[], FeatureExtractor], expected_failures: Mapping[str, str] = NONE
) -> Suite[ExtractorSubject]:
    """Return the checks of a feature extractor, to be run without pytest."""
    return Suite(EXTRACTOR_CHECKS, lambda: ExtractorSubject(factory), expected_failures)


def feature_extractor_tests(
    factory: Callable[[], FeatureExtractor], expected_failures: Mapping[str, str] = NONE
) -> Callable[[str], None]:
    """Return a pytest function that holds a feature extractor to its contract.

    The model and the images are the suite's own, a small network of convolutions, unless the
    extractor offers others by :meth:`fsboundary.FeatureExtractor.example`.

    Parameters
    ----------
    factory : callable
        Makes the extractor, without arguments.
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
    return extractor_suite(factory, expected_failures).pytest_function()
