"""Structures of tensors: mappings, tuples, lists and other pytrees, their leaves and devices."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fsboundary.core.rows import from_array


def map_leaves(function: Callable[[Any], Any], value: object) -> Any:
    """Return `value` with the function applied to everything that is not a container.

    Containers are mappings of any kind, and the pytrees of torch: tuples, lists and what else is
    registered. The order of the leaves is always the same.
    """

    def apply(leaf: Any) -> Any:
        if not isinstance(leaf, Mapping):
            return function(leaf)
        # torch takes a mapping of another kind, such as a UserDict of transformers, for a leaf
        changed = {key: map_leaves(function, part) for key, part in leaf.items()}
        if not isinstance(leaf, MutableMapping):
            return changed
        same_kind = copy.copy(leaf)
        same_kind.update(changed)
        return same_kind

    return apply(value) if isinstance(value, Tensor) else pytree.tree_map(apply, value)


def map_tensors(function: Callable[[Tensor], Tensor], value: object) -> Any:
    """Return `value` with the function applied to its tensors; see :func:`map_leaves`."""
    return map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, value)


def arrays_as_tensors(value: object) -> Any:
    """Return `value` with its arrays as tensors; `value` itself where it has none."""
    has_arrays = any(isinstance(leaf, np.ndarray) for leaf in leaves_of(value))
    return map_leaves(from_array, value) if has_arrays else value


def to_device(value: object, device: torch.device) -> Any:
    """Return `value` with its tensors on `device`."""
    return map_tensors(lambda tensor: tensor.to(device), value)


def leaves_of(value: object) -> list[Any]:
    """Return the leaves of `value` in the order of :func:`map_leaves`."""
    leaves: list[Any] = []
    map_leaves(leaves.append, value)
    return leaves


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of `model` by name, in the order of ``named_modules``.

    That takes ten times as long, and every batch needs this.
    """
    if type(model).named_modules is not nn.Module.named_modules:
        return dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    _add_modules("", model, found, set())
    return found


def _add_modules(name: str, module: nn.Module, found: dict[str, nn.Module], seen: set[int]) -> None:
    seen.add(id(module))
    found[name] = module
    for child_name, child in module._modules.items():
        if child is not None and id(child) not in seen:
            _add_modules(f"{name}.{child_name}" if name else child_name, child, found, seen)


def tensors_of(model: nn.Module, modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return all parameters and buffers of `model` with these modules, shared ones once per module.

    The modules are those of :func:`modules_of`, which every batch needs for other things too.
    """
    own = nn.Module.named_parameters, nn.Module.named_buffers
    if (type(model).named_parameters, type(model).named_buffers) != own:
        return [*model.parameters(), *model.buffers()]
    return [
        tensor
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    ]
