"""Every public function under every mode of torch: the same answer, and the mode as it was."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import analysis, attr, pixels, scores
from fsboundary.core.results import FlipImages
from fsboundary.modes import seeded
from fsboundary.plugins.interfaces import ImageBoundaryFinder
from fsboundary.testing.invariants import require_unchanged
from support.modes import default_dtype, matmul_precision, num_threads
from support.public_calls import CALLS, NO_COMPUTATION, require_same, world


def test_every_public_function_and_module_is_called() -> None:
    called = {name.split()[0].split(".")[0] for name in CALLS}
    public = {name for m in (fsb, pixels, attr, analysis, scores) for name in m.__all__}
    functions = {
        name
        for m in (fsb, pixels, attr, analysis, scores)
        for name in m.__all__
        if inspect.isfunction(getattr(m, name)) or m is attr
    }
    assert functions - set(NO_COMPUTATION) - called == set()
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
    # calls.py restores what a plugin left changed, calling.py what a pass drew that is run again
    restoring = ("modes.py", "calls.py", "calling.py")
    for path in package.rglob("*.py"):
        if path.name in restoring:
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
