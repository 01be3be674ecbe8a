"""Invariants that every kind of plugin keeps: constructor, repr, inputs, process and model."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsboundary.modes import flushes_subnormals
from fsboundary.plugins import identify
from fsboundary.testing.suite import require


def make_instance(factory: Callable[..., Any], wanted: type[Any]) -> Any:
    """Return the instance of `wanted` that `factory` creates without options."""
    made = factory()
    kind = type(made).__name__
    require(isinstance(made, wanted), f"the factory returned a {kind}; wanted a {wanted.__name__}")
    return made


def check_repr(plugin: Any) -> None:
    """Require that a plugin's repr recreates it, and differs for other options.

    The core caches prepared states by repr, and reports print it.
    """
    kind, text = type(plugin), repr(plugin)
    try:
        again = eval(text, {kind.__name__: kind})
    except Exception as error:
        require(False, f"repr {text} does not recreate it: {type(error).__name__}: {error}")
    require(repr(again) == text, f"repr {text} creates another: {again!r}")
    options = identify(plugin).options
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            other = repr(kind(**{**options, name: 2 * value + 1}))
        except Exception:
            continue  # the constructor rejects the other value
        require(other != text, f"repr {text} omits the option {name!r}")


_PROCESS: dict[str, Callable[[], Any]] = {
    "torch's default dtype": torch.get_default_dtype,
    # torch.get_default_device() of torch 2.6 raises after the device was reset to None
    "torch's default device": lambda: str(torch.empty(0).device),
    "torch's random generator": lambda: torch.get_rng_state().numpy().tobytes(),
    "NumPy's random generator": lambda: repr(np.random.get_state(legacy=False)),
    "Python's random generator": random.getstate,
    "the number of torch's threads": torch.get_num_threads,
    "whether gradients are recorded": torch.is_grad_enabled,
    "torch's inference mode": torch.is_inference_mode_enabled,
    "torch's autocast": lambda: torch.is_autocast_enabled("cpu"),
    "torch's anomaly detection": torch.is_anomaly_enabled,
    "whether subnormal numbers become zero": flushes_subnormals,
    "torch's precision of products": torch.get_float32_matmul_precision,
    "torch's deterministic mode": torch.are_deterministic_algorithms_enabled,
    "NumPy's handling of floating-point errors": np.geterr,
}


def content(tensor: Tensor) -> tuple[Any, ...]:
    """Return dtype, shape, device and bytes of a tensor; equal contents compare equal."""
    data = tensor.detach().cpu().contiguous().reshape(-1)
    return tensor.dtype, tensor.shape, tensor.device, data.view(torch.uint8).numpy().tobytes()


@contextlib.contextmanager
def require_unchanged(**given: Tensor) -> Iterator[None]:
    """Require that the block changes neither the `given` tensors nor the process."""
    process = {name: read() for name, read in _PROCESS.items()}
    tensors = {name: content(tensor) for name, tensor in given.items()}
    yield
    for name, read in _PROCESS.items():
        require(read() == process[name], f"it changed {name}")
    for name, tensor in given.items():
        require(content(tensor) == tensors[name], f"it changed its input {name!r}")


@contextlib.contextmanager
def require_model_unchanged(model: nn.Module) -> Iterator[None]:
    """Require that the block changes no hooks, modes, attributes, weights or gradients."""
    before = _state(model)
    yield
    after = _state(model)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    require(not changed, f"it changed the model: {', '.join(changed)}")


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        where = name or "(the model)"
        state[f"mode of {where}"] = module.training
        state[f"attributes of {where}"] = sorted(vars(module))
        for key, value in vars(module).items():
            if "hook" in key:
                state[f"{key} of {where}"] = len(value) if hasattr(value, "__len__") else value
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"values or device of {name}"] = content(tensor)
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"gradient of {name}"] = None if tensor.grad is None else content(tensor.grad)
    return state
