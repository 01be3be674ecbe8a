"""The state of a model, which extraction must not change."""

from __future__ import annotations

from typing import Any

from torch import nn


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return modes, hooks, attributes, and the identity of each parameter and buffer."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        state[name, "mode"] = module.training
        state[name, "attributes"] = sorted(vars(module))
        for key, value in vars(module).items():
            if "hook" in key:
                state[name, key] = len(value) if hasattr(value, "__len__") else value
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = (
            tensor.requires_grad,
            tensor.grad,
            tensor.device,
            tensor.dtype,
            tensor.data_ptr(),
            tensor._version,
        )
    return state
