"""Modes of torch that change results, and the state in which this package computes.

Autocast, the flushing of subnormal numbers, inference mode and gradients belong to a thread; the
precision of float32 products, the default dtype and random generators belong to the process. Bounds
of rounding errors assume IEEE arithmetic with gradual underflow, so every public function computes
under :func:`in_standard_modes`, and every float32 product behind a bound asks
:func:`has_ieee_products`. What cannot be restored for the caller is never changed: the precision of
products and the default dtype also hold for all other threads.
"""

from __future__ import annotations

import contextvars
import functools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.errors import FsboundaryError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_IEEE = ("", "none", "ieee")
"""Names of IEEE precision in torch's settings; "none" inherits the default, which is IEEE."""

_SIZE = 32
"""Width of the products that are tried: the CPU's library rounds factors only of products of more
than 16 x 16 x 16 numbers."""


def product_precision(device: str, *, convolution: bool = False) -> str:
    """Return "tf32" or "bf16" if torch is set to round the factors of float32 products to it.

    Parameters
    ----------
    device : str
        Type of the device, such as "cpu" or "cuda".
    convolution : bool
        Whether the product is a convolution, which has its own setting.
    """
    backends: Any = torch.backends
    if device == "cuda":
        module = backends.cudnn if convolution else backends.cuda.matmul
    else:
        module = backends.mkldnn
    settings = getattr(module, "conv" if convolution else "matmul", module)
    precision = getattr(settings, "fp32_precision", None)
    if precision is None:  # torch before 2.9
        legacy = {"medium": "bf16", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "")
        precision = legacy if device != "cuda" else "tf32" if module.allow_tf32 else ""
    return "" if precision in _IEEE else str(precision)


def has_ieee_products(device: torch.device) -> bool:
    """Return whether float32 matrix products on `device` are those of IEEE arithmetic.

    Both torch's settings and a product whose factors need all 24 bits must say so: not every build
    or device has a setting.
    """
    if product_precision(device.type):
        return False
    unit = torch.eye(_SIZE, dtype=torch.float32, device=device)
    factor = unit * (1 + torch.finfo(torch.float32).eps)
    return torch.equal(torch.mm(factor, unit), factor) and torch.equal(
        torch.mm(unit, factor), factor
    )


def has_direct_convolutions(device: torch.device) -> bool:
    """Return whether float32 convolutions on `device` are sums of products in IEEE arithmetic.

    Both torch's settings and a convolution must say so. Algorithms of Winograd and Fourier mix
    pixels with weights of other pixels, so that huge pixels destroy sums in which they have the
    weight 0.
    """
    if product_precision(device.type, convolution=True):
        return False
    # as many images as some libraries need before they choose such an algorithm
    images = torch.ones(16, 8, 14, 14, device=device)
    images[:, :, 2::6, 2::6] = 2.0**30
    kernel = torch.ones(8, 8, 3, 3, device=device)
    kernel[:, :, 1, 1] = 0.0
    found = torch.conv2d(images, kernel, padding=1)
    exact = torch.conv2d(images.double(), kernel.double(), padding=1)
    small = exact < 2.0**20
    return torch.equal(found[small].double(), exact[small])


def float32_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product (B,n) of `a` (B,d) and `b` (d,n), float64.

    Both are rounded to float32. The product is off by at most γ_d of float32 times the sum of its
    absolute terms, and d times the smallest normal number: where float32 products are less precise
    than that, it is computed in float64.
    """
    a, b = a.to(torch.float32), b.to(torch.float32)
    if has_ieee_products(a.device):
        return torch.mm(a, b).to(torch.float64)
    return torch.mm(a.to(torch.float64), b.to(torch.float64))


_SMALL = sys.float_info.min
"""The smallest normal number; half of it is subnormal."""


def flushes_subnormals() -> bool:
    """Return whether the processor sets subnormal results or factors to zero in this thread."""
    half = _SMALL / 2
    return half == 0 or half * 2 == 0


_PROBE_COLUMNS = 2048
"""Numbers per row from which torch gives every row of :func:`torch.cdist` to its own thread."""


def workers_flush_subnormals() -> bool:
    """Return whether subnormal results become zero in a thread among which torch splits work.

    These threads keep the setting with which they began, whatever this thread's setting is now.
    """
    count = torch.get_num_threads()
    if count == 1:
        return False
    rows = torch.zeros(count, _PROBE_COLUMNS, dtype=torch.float64)
    rows[:, 0] = 1.5 * _SMALL
    smallest = torch.zeros(1, _PROBE_COLUMNS, dtype=torch.float64)
    smallest[:, 0] = _SMALL
    # one row per thread; the distance is half the smallest normal number
    return not bool((torch.cdist(rows, smallest, p=1.0) > 0).all())


_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


def _autocast_devices() -> list[str]:
    """Return the types of the devices on which autocast is on in this thread."""
    return [kind for kind in _AUTOCAST_DEVICES if torch.is_autocast_enabled(kind)]


_thread = threading.local()
"""``probed``: whether a function above this one has already looked at torch's worker threads."""


def in_standard_modes(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `function`, called without the modes of the calling thread that change its result.

    Autocast, inference mode and the flushing of subnormal numbers are off inside, and as they were
    afterwards. In inference mode gradients stay off. Arguments that were made in inference mode are
    copied, and what is computed is ordinary tensors, which may be kept and used later. If torch's
    worker threads flush, a new thread, which has workers of its own, makes the call.

    Raises
    ------
    FsboundaryError
        The processor flushes subnormal numbers, and this cannot be switched off.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if getattr(_thread, "probed", False):
            with _standard_modes():
                return function(*_ordinary(args), **_ordinary(kwargs))
        with _standard_modes():
            args, kwargs = _ordinary(args), _ordinary(kwargs)
            if workers_flush_subnormals():
                return _call_in_new_thread(functools.partial(function, *args, **kwargs))
            _thread.probed = True
            try:
                return function(*args, **kwargs)
            finally:
                _thread.probed = False

    return run


def _is_standard() -> bool:
    return not (torch.is_inference_mode_enabled() or flushes_subnormals() or _autocast_devices())


@contextmanager
def _standard_modes() -> Iterator[None]:
    """Switch off autocast, inference mode and flushing in this thread, and restore them."""
    if _is_standard():
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            # leaving inference mode switches gradients on
            stack.enter_context(torch.no_grad())
        for kind in _autocast_devices():
            stack.enter_context(torch.autocast(kind, enabled=False))
        if flushes_subnormals():
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
            if flushes_subnormals():
                raise FsboundaryError(FLUSHES)
        yield


FLUSHES = (
    "subnormal numbers are set to zero on this machine and torch.set_flush_denormal(False) does "
    "not change that; bounds would be false. Call it before other work, or use another build of "
    "torch"
)


def _call_in_new_thread(function: Callable[[], _R]) -> _R:
    """Return what `function` returns in a new thread, whose workers begin without flushing."""
    gradients, context = torch.is_grad_enabled(), contextvars.copy_context()

    def call() -> _R:
        if flushes_subnormals() or workers_flush_subnormals():
            raise FsboundaryError(FLUSHES)
        _thread.probed = True
        with torch.set_grad_enabled(gradients):
            return context.run(function)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def _ordinary(arguments: Any) -> Any:
    """Return the tuple or dict with copies of the tensors that were made in inference mode."""
    if isinstance(arguments, dict):
        return {name: _copy_inference(value) for name, value in arguments.items()}
    return tuple(_copy_inference(value) for value in arguments)


def _copy_inference(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def caller_level() -> int:
    """Return the ``stacklevel`` with which the calling function warns at the user's own line.

    That is the first frame outside of this package, torch and what wraps functions.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and not _name(frame).startswith("fsboundary."):
        frame = frame.f_back  # a type checker around this function, which counts for nothing
    while frame.f_back is not None and _name(frame).startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    return level


def _name(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


_INSIDE = ("fsboundary.", "torch.", "contextlib", "concurrent.", "threading", "jaxtyping")


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators of torch (CPU and `device`), NumPy and Python, and restore them after.

    Parameters
    ----------
    seed : int
        Seed; any integer that torch takes.
    device : torch.device, optional
        Device whose generator is used besides the CPU's.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state, restore = torch.get_rng_state(), _seed_device(seed, device)
    try:
        # torch.manual_seed would also seed the generators of all other devices
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        restore()


def _seed_device(seed: int, device: torch.device | None) -> Callable[[], None]:
    """Seed the generator of an accelerator and return what restores it."""
    if device is None or device.type == "cpu":
        return lambda: None
    module: Any = getattr(torch, device.type)
    if device.type == "mps":  # it has one device, and its functions take none
        state = module.get_rng_state()
        module.manual_seed(seed)
        return lambda: module.set_rng_state(state)
    state = module.get_rng_state(device)
    with module.device(device):
        module.manual_seed(seed)
    return lambda: module.set_rng_state(state, device)
