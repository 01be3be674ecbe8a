"""Every public function under every mode of torch: the same answer, and the mode as it was."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import analysis, attr, pixels
from fsboundary.core.results import FlipImages
from fsboundary.modes import seeded
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.testing.invariants import require_unchanged
from support.modes import default_dtype, matmul_precision, num_threads


@functools.cache
def world() -> SimpleNamespace:
    """Return a small model and the inputs of all calls, made without any mode."""
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.7)
    space = fsb.FeatureSpace(model)
    images = torch.rand(4, 1, 4, 4, generator=g)
    train = torch.rand(40, 1, 4, 4, generator=g)
    train_labels = torch.arange(40) % 3
    z = space.extract(images).features
    bank = fsb.FeatureBank(space.extract(train).features, train_labels)
    flips = pixels.flip_images(model, images, max_steps=10)
    nonlinear = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        for p in nonlinear.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return SimpleNamespace(
        model=model,
        nonlinear=nonlinear,
        space=space,
        images=images,
        train=train,
        train_labels=train_labels,
        labels=torch.tensor([0, 1, 2, 0]),
        z=z,
        far=z + 2.0,
        bank=bank,
        flips=flips,
        head=space.head,
        labels_head=fsb.MultiLabelHead(space.head.weight, space.head.bias, space.head.domain),
        box=fsb.Domain.box(torch.zeros(6), torch.full((6,), 2.0)),
        balls=fsb.guaranteed_hulls(space.head, bank),
        batch=space.extract(images),
    )


Call = Callable[[SimpleNamespace], Any]


def _hulls(solver: str) -> Call:
    return lambda w: fsb.hull_projection(w.bank, w.far, solver=solver, labels=w.labels)


def _flips(finder: str) -> Call:
    return lambda w: fsb.flip_points(w.head, w.z, "all", finder=finder)


def _images(finder: str) -> Call:
    return lambda w: pixels.flip_images(w.model, w.images[:2], finder=finder, max_steps=4)


def _gradient(make: Callable[[SimpleNamespace], nn.Module]) -> Call:
    """Return a call of the gradient of a distance module, for which gradients must be on."""

    def call(w: SimpleNamespace) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = w.images.detach().clone().requires_grad_()
            total = make(w)(x).sum()
            with torch.autocast("cpu", enabled=False):  # as torch asks for of backward passes
                gradient: Tensor = torch.autograd.grad(total, x)[0]
        return gradient

    return call


DISTANCES: dict[str, Callable[[SimpleNamespace], nn.Module]] = {
    "BoundaryDistance": lambda w: attr.BoundaryDistance(w.space),
    "HullDistance": lambda w: attr.HullDistance(w.space, w.bank),
    "ClassHullDistance": lambda w: attr.ClassHullDistance(w.space, w.bank),
}


def _value(make: Callable[[SimpleNamespace], nn.Module]) -> Call:
    return lambda w: make(w)(w.images).detach()


CALLS: dict[str, Call] = {
    "affine_rank": lambda w: fsb.affine_rank(w.bank),
    "affine_residuals": lambda w: fsb.affine_residuals(w.bank, w.far),
    "ambiguity": lambda w: fsb.ambiguity(w.head, w.z, 2, w.bank),
    "class_hull_distances": lambda w: fsb.class_hull_distances(w.bank, w.far),
    "class_path": lambda w: fsb.class_path(w.head, w.z, w.z.flip(0)),
    "coverage": lambda w: fsb.coverage(w.head, w.bank, w.z),
    "coverage_fractions": lambda w: fsb.coverage_fractions(
        fsb.coverage(w.head, w.bank, w.z, w.labels)
    ),
    "extrapolation": lambda w: fsb.extrapolation(
        fsb.hull_projection(w.bank, w.far), fsb.leave_one_out_distances(w.bank, 9)
    ),
    "feature_fractions": lambda w: fsb.feature_fractions(w.head, w.z),
    **{f"flip_points {f}": _flips(f) for f in ("dual_newton", "cvxpy", "closed_form")},
    "flip_points nonlinear": lambda w: fsb.flip_points(
        w.nonlinear, w.z, finder="linearised", max_steps=3
    ),
    "guaranteed_balls": lambda w: fsb.guaranteed_balls(w.head, w.z),
    "guaranteed_balls linf": lambda w: fsb.guaranteed_balls(w.head, w.z, "linf"),
    "guaranteed_boxes": lambda w: fsb.guaranteed_boxes(w.head, w.z),
    "guaranteed_hulls": lambda w: fsb.guaranteed_hulls(w.head, w.bank),
    "GuaranteedHulls.check": lambda w: w.balls.check(w.z),
    "GuaranteedHulls.certify": lambda w: w.balls.certify(w.z),
    "GuaranteedHulls.inflated": lambda w: w.balls.inflated(),
    **{
        f"hull_projection {s}": _hulls(s)
        for s in ("active_set", "away_steps", "cvxpy", "interior_point", "nnls")
    },
    "hull_separation": lambda w: fsb.hull_separation(w.bank, 0, 1),
    "hull_vertices": lambda w: fsb.hull_vertices(w.bank),
    "label_flips": lambda w: fsb.label_flips(w.labels_head, w.z),
    "label_flips all": lambda w: fsb.label_flips(w.labels_head, w.z, "all"),
    "label_flips set": lambda w: fsb.label_flips(w.labels_head, w.z, w.z[:, :3] > 1),
    "label_balls": lambda w: fsb.label_balls(w.labels_head, w.z),
    "label_balls linf": lambda w: fsb.label_balls(w.labels_head, w.z, "linf"),
    "largest_ties": lambda w: fsb.largest_ties(w.head, w.z),
    "leave_one_out_distances": lambda w: fsb.leave_one_out_distances(w.bank, 9),
    "logistic_head": lambda w: fsb.logistic_head(w.bank.features, w.train_labels, 3),
    "nearest_hulls": lambda w: fsb.nearest_hulls(w.bank, w.far),
    "normal_angles": lambda w: fsb.normal_angles(w.head, 0),
    "partition": lambda w: fsb.partition(w.head, w.box),
    "region_distances": lambda w: fsb.region_distances(w.head, w.z),
    "region_faces": lambda w: fsb.region_faces(w.head, 0, w.box),
    "region_fractions": lambda w: fsb.region_fractions(w.head, w.box, samples=999),
    "tie_points": lambda w: fsb.tie_points(w.head, w.z, torch.tensor([[0, 1, 2]] * 4)),
    "two_class_head": lambda w: (
        fsb.two_class_head(
            nn.Linear(6, 1, device="meta", dtype=torch.float32).to_empty(device="cpu")
        ).weight.shape
    ),
    "LinearHead": lambda w: vars(fsb.LinearHead(w.z[:3], w.z[0, :3])) and None,
    "LinearHead.from_torch": lambda w: fsb.LinearHead.from_torch(w.model[3]).fingerprint,
    "MultiLabelHead": lambda w: fsb.MultiLabelHead(w.z[:3], w.z[0, :3]).fingerprint,
    "FeatureBank": lambda w: fsb.FeatureBank(w.z, w.labels),
    "FeatureBank.price": lambda w: w.bank.price(w.far, 3),
    "FeatureBank.take": lambda w: w.bank.take(torch.tensor([3, 1])),
    "FeatureBank.moments": lambda w: w.bank.moments(),
    "FeatureBank.range": lambda w: w.bank.range(),
    "FeatureBank.digests": lambda w: w.bank.digests(),
    "FeatureBank.subset": lambda w: w.bank.subset(labels=[0, 2]),
    "FeatureBank.select": lambda w: w.bank.select(torch.tensor([5, 2])),
    "FeatureSpace.extract": lambda w: fsb.FeatureSpace(w.model).extract(w.images),
    "FeatureSpace.extract no images": lambda w: w.space.extract(w.images[:0]),
    "FeatureSpace.features": lambda w: w.space.features(w.images).detach(),
    "FeatureSpace.logits": lambda w: w.space.logits(w.images).detach(),
    "FeatureSpace.bank": lambda w: w.space.bank([(w.images, w.labels)]),
    "amplification": lambda w: pixels.amplification(
        w.space, w.images, radius=0.5, directions=3, max_steps=3, flips=w.flips.images
    ),
    "vulnerability_by_class": lambda w: pixels.vulnerability_by_class(
        pixels.amplification(w.space, w.images, radius=0.5, directions=3, max_steps=3)
    ),
    "check_accuracy": lambda w: pixels.check_accuracy(w.model, w.train, _classes(w)),
    "crossed_images": lambda w: pixels.crossed_images(w.model, w.flips, margin=0.01),
    "film_strip": lambda w: np.asarray(pixels.film_strip(w.images)).copy(),
    "flip_images": _images("feature_guided"),
    "flip_images ddn": _images("ddn"),
    "flip_images line_search": _images("line_search"),
    "inverse_images": lambda w: pixels.inverse_images(w.space, w.z, (2, 1, 4, 4), max_steps=4),
    "morph": lambda w: pixels.morph(w.space, w.images[:1], w.images[1:2], steps=3, max_steps=4),
    "two_spaces": lambda w: analysis.two_spaces(
        w.space,
        w.images,
        w.batch.predicted,
        w.train[:9],
        w.train_labels[:9],
        flips=2,
        pairs=3,
        points=3,
    ).to_dict(),
    **{name: _value(make) for name, make in DISTANCES.items()},
    **{f"{name} gradient": _gradient(make) for name, make in DISTANCES.items()},
    "BoundaryDirection": lambda w: attr.BoundaryDirection(w.space).attribute(w.images),
    "FlipImageAttribution": lambda w: attr.FlipImageAttribution(
        w.space, finder=lambda images, target: w.flips.images
    ).attribute(w.images, perturbations_per_eval=4),
    "LayerBoundaryDirection": lambda w: attr.LayerBoundaryDirection(w.space, w.model[1]).attribute(
        w.images
    ),
    "HullInfluence": lambda w: attr.HullInfluence(w.space, w.bank).influence(w.images),
    "HullClassifier": lambda w: attr.HullClassifier().train_and_eval(
        [(torch.cat([w.z, w.z + 9.0]), torch.arange(8) // 4)]
    ),
    "BoundaryPush": lambda w: attr.BoundaryPush(w.space, steps=2).perturb(w.images, 0.1),
    "attribute_methods": lambda w: attr.attribute_methods(
        w.space, w.images, {"saliency": Saliency}
    ),
    "compare": lambda w: attr.compare(
        w.images,
        {"boundary": w.images, "other": w.images.flip(0)},
        space=w.space,
        flips=w.flips,
        steps=3,
        resamples=9,
    ),
    "compare_methods": lambda w: attr.compare_methods(
        w.space,
        w.images,
        {"boundary": Saliency, "other": Saliency},
        metrics=("cosine",),
        flips=w.flips,
        steps=3,
        resamples=9,
    ),
}

WITHOUT_MODES = {
    "draw_attributions": "draws; computes nothing",
    "write_gif": "writes what film_strip returns",
    "Supports": "a result",
}


def _classes(w: SimpleNamespace) -> Tensor:
    return w.space.extract(w.train).predicted


def test_every_public_function_and_module_is_called() -> None:
    called = {name.split()[0].split(".")[0] for name in CALLS}
    public = {name for m in (fsb, pixels, attr, analysis) for name in m.__all__}
    functions = {
        name
        for m in (fsb, pixels, attr, analysis)
        for name in m.__all__
        if inspect.isfunction(getattr(m, name)) or m is attr
    }
    assert functions - set(WITHOUT_MODES) - called == set()
    assert called <= public


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def anomaly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the mode is slow
        mode = torch.autograd.detect_anomaly(check_nan=False)
    with mode:
        yield


@contextmanager
def flushed() -> Iterator[None]:
    assert torch.set_flush_denormal(True), "this processor cannot flush"
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def inference_with_two_threads() -> Iterator[None]:
    with num_threads(2), torch.inference_mode():
        yield


MODES: dict[str, Callable[[], Any]] = {
    "inference mode": torch.inference_mode,
    "inference mode, two threads": inference_with_two_threads,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "one thread": lambda: num_threads(1),
    "two threads": lambda: num_threads(2),
    "deterministic algorithms": deterministic,
    "anomaly detection": anomaly,
    "products in TF32": lambda: matmul_precision("high"),
    "products in bfloat16": lambda: matmul_precision("medium"),
    "flushed subnormal numbers": flushed,
}


def parts(value: Any, name: str = "answer") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and tensors of an answer, with their paths."""
    # these hand out copies, which are those of the mode in which they are read
    if isinstance(value, fsb.FeatureBank):
        value = {"features": value.features, "labels": value.labels}
    elif isinstance(value, fsb.LinearHead):
        value = {"weight": value.weight, "bias": value.bias}
    elif isinstance(value, fsb.GuaranteedHulls):
        value = {"clearance": value.clearance, "generators": value.generators}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from parts(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from parts(one, f"{name}[{index}]")
    elif isinstance(value, np.ndarray):
        yield name, torch.from_numpy(value)
    elif isinstance(value, Tensor | float | int | str | None):
        yield name, value


def require_same(got: Any, wanted: Any, rtol: float) -> None:
    one, other = dict(parts(got)), dict(parts(wanted))
    assert one.keys() == other.keys()
    for name, want in other.items():
        have = one[name]
        if isinstance(want, Tensor):
            assert not have.is_inference(), f"{name} cannot be used outside of the mode"
            assert not have.requires_grad, f"{name} keeps a graph"
            assert have.dtype == want.dtype, name
        if isinstance(want, Tensor) and want.is_floating_point():
            torch.testing.assert_close(
                have,
                want,
                rtol=rtol,
                atol=rtol,
                equal_nan=True,
                msg=f"{name}: {have} is not {want}",
            )
        elif isinstance(want, Tensor):
            assert torch.equal(have, want), name
        elif isinstance(want, float):
            assert have == pytest.approx(want, rel=rtol, abs=rtol, nan_ok=True), name
        else:
            assert have == want, name


@functools.cache
def without_modes(name: str) -> Any:
    return CALLS[name](world())


SPLIT = {"one thread", "two threads", "inference mode, two threads", "flushed subnormal numbers"}
"""Modes in which sums are split among threads otherwise, so that their rounding differs."""


def rounding(mode: str, name: str) -> float:
    """Return by how much answers may differ: not at all, except for the rounding of sums."""
    if name == "FeatureBank.price" and mode.startswith("products"):
        return 1e-6  # computed in float64 then
    if "cvxpy" in name:
        return 1e-9  # its second call starts from the solution of the first
    return 1e-5 if mode in SPLIT else 0.0


SLOW = "two_spaces"  # calls the functions above, so a few modes are enough
CASES = [
    (mode, name)
    for mode in MODES
    for name in CALLS
    if name != SLOW or mode in ("inference mode", "autocast", "default dtype bfloat16")
]

pytestmark = [
    pytest.mark.filterwarnings("ignore:columns.*cannot be targets"),  # of distance modules
    pytest.mark.filterwarnings("ignore:no certified distance|inside or outside|.*distance 0"),
]


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_the_answer_is_that_without_the_mode(mode: str, name: str) -> None:
    w, wanted = world(), without_modes(name)
    with MODES[mode](), require_unchanged(images=w.images, features=w.z):
        got = CALLS[name](w)
    require_same(got, wanted, rounding(mode, name))


@pytest.mark.parametrize("name", [name for name in CALLS if name != SLOW])
def test_inputs_that_require_gradients_or_were_made_in_inference_mode(name: str) -> None:
    w, wanted = world(), without_modes(name)
    inputs = {key: value for key, value in vars(w).items() if isinstance(value, Tensor)}
    with torch.inference_mode():
        made = {key: value.clone() for key, value in inputs.items()}
    require_same(CALLS[name](SimpleNamespace(**vars(w) | made)), wanted, rounding("", name))
    leaves = {
        key: value.clone().requires_grad_()
        for key, value in inputs.items()
        if value.is_floating_point()
    }
    require_same(CALLS[name](SimpleNamespace(**vars(w) | leaves)), wanted, rounding("", name))


@pytest.mark.parametrize("name", [name for name in CALLS if name != SLOW])
def test_another_thread_gets_the_same_answer(name: str) -> None:
    w, wanted, got = world(), without_modes(name), []
    thread = threading.Thread(target=lambda: got.append(CALLS[name](w)))
    thread.start()
    thread.join()
    require_same(got[0], wanted, 1e-5)


def test_a_head_made_in_inference_mode_passes_gradients() -> None:
    w = world()
    with torch.inference_mode():
        head = fsb.LinearHead(w.z[:3], w.z[0, :3])
        box = fsb.Domain.box(w.z[0] - 1, w.z[0] + 1)
    z = w.z.clone().requires_grad_()
    head.logits(z).sum().backward()
    assert z.grad is not None
    box.clip(z).sum().backward()


class Drawing(ImageBoundaryFinder):
    """A finder that returns nothing and keeps what it draws from every global generator."""

    capabilities = frozenset({"pixels"})

    def __init__(self) -> None:
        self.drawn: list[tuple[float, float, float]] = []

    def find(self, model: Any, images: Tensor, **options: Any) -> FlipImages:
        draws = float(torch.rand(())), float(np.random.random()), random.random()
        self.drawn.append(draws)
        none = torch.full_like(images[:, 0, 0, 0], torch.nan).double()
        zero = torch.zeros(len(images), dtype=torch.int64)
        return FlipImages(
            images=torch.full_like(images, torch.nan),
            distance=none,
            residual=none,
            source=zero,
            target=zero,
            status=zero,
            num_backwards=zero,
            num_forwards=zero,
        )


def test_finders_draw_by_the_seed_and_no_other_generator_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("this seeds the generators of all devices")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    w, finder = world(), Drawing()
    for seed, state in ((0, 1), (0, 2), (5, 3)):
        torch.default_generator.manual_seed(state)
        # the finder draws from Python and NumPy too, which flip_images seeds and restores
        with require_unchanged():
            pixels.flip_images(w.model, w.images, finder=finder, seed=seed)
    assert finder.drawn[0] == finder.drawn[1] != finder.drawn[2]


class FakeCuda:
    """Generators of two pretended devices."""

    def __init__(self) -> None:
        self.states, self.current = {0: 10, 1: 11}, 0

    def get_rng_state(self, device: torch.device) -> int:
        return self.states[device.index]

    def set_rng_state(self, state: int, device: torch.device) -> None:
        self.states[device.index] = state

    def manual_seed(self, seed: int) -> None:
        self.states[self.current] = seed

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.current, before = device.index, self.current
        try:
            yield
        finally:
            self.current = before


def test_only_the_generator_of_the_device_in_use_is_seeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda()
    monkeypatch.setattr(torch, "cuda", fake)
    with contextlib.suppress(ValueError), seeded(7, torch.device("cuda", 1)):
        assert fake.states == {0: 10, 1: 7}
        raise ValueError  # after an exception too, the state is the old one
    assert fake.states == {0: 10, 1: 11}


def test_no_module_seeds_a_global_generator() -> None:
    seeding = {"manual_seed", "manual_seed_all", "seed", "set_rng_state", "set_state", "setstate"}
    package = Path(fsb.__file__).parent
    for path in package.rglob("*.py"):
        if path.name in ("modes.py", "calls.py"):  # calls.py restores what a plugin left changed
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr not in seeding:
                    continue
                assert owner.startswith("torch.Generator("), f"{path}:{node.lineno}: {owner}"


def test_threads_of_the_process_see_no_changed_precision_or_dtype() -> None:
    # both hold for all threads, so no function may change them even for a moment
    package = Path(fsb.__file__).parent
    changing = {"set_float32_matmul_precision", "set_default_dtype", "set_default_device"}
    for path in package.rglob("*.py"):
        if path.name == "calls.py":  # restores what a plugin left changed, for all threads
            continue
        assert not any(f"{name}(" in path.read_text("utf-8") for name in changing), path
