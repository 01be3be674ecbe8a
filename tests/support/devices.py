"""A pretend device: tensors that raise where those of a GPU would, on a machine without one.

Its tensors wrap tensors of the CPU, whose kernels compute, so answers equal those of the CPU bit
for bit. What is checked is where tensors are, by the rules of CUDA: tensors of two devices meet
only in copies, as indices into a tensor of the device, and as 0-dim numbers in the operations that
take these. Speed, memory, shared storage, streams and the rounding of a GPU's kernels are not
simulated, and a composite operation may take another path for wrapped tensors (``svdvals`` does).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_T = TypeVar("_T")


class MixedDevicesError(RuntimeError):
    """Tensors of two devices in one operation; a RuntimeError, as torch raises for CUDA."""


DEVICE = torch.device("meta")
"""The pretend device. torch's own tensors without numbers are on it otherwise, so torch knows it in
every build, and passes backwards need no thread of its own. No such tensor exists in the mode."""


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device; `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        tensor: PretendTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({self.held})"

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().detach().numpy()
        raise TypeError("can't convert a pretend tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()


class PretendDevice(TorchDispatchMode):
    """Mode in which tensors can be made on the pretend device.

    Parameters
    ----------
    float64 : bool
        Whether the device has float64; without it conversions raise TypeError, as on MPS.

    Attributes
    ----------
    waits : Counter
        How often each operation made the host wait for the device, such as ``.item()``; these are
        slow on a GPU, but allowed.
    """

    def __init__(self, *, float64: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.float64 = float64
        self.waits: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> PretendDevice:
        self._stack.enter_context(_Constructors())
        self._stack.enter_context(mock.patch.object(torch, DEVICE.type, _Generators, create=True))
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        self._stack.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler, which takes a second

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {}, self)


class _Generators:
    """The functions of ``torch.cuda`` for random numbers; the CPU's generator draws them."""

    @staticmethod
    def device(device: torch.device) -> nullcontext[None]:
        return nullcontext()

    @staticmethod
    def get_rng_state(device: torch.device) -> Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: torch.device) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def manual_seed(seed: int) -> None:
        torch.default_generator.manual_seed(seed)


class _Constructors(TorchFunctionMode):
    """Constructors from Python numbers, which never reach the dispatcher of operations."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], tree_map(_as_index, args[1], is_leaf=_is_list), *args[2:])
        if func is torch.Tensor.new_tensor:
            like = {"dtype": args[0].dtype, "device": args[0].device}
            func, args, kwargs = torch.tensor, args[1:], like | kwargs
        if func not in (torch.tensor, torch.as_tensor, torch.asarray):
            return func(*args, **kwargs)
        data, place = args[0], kwargs.pop("device", None)
        if isinstance(data, Tensor):
            dtype = kwargs.get("dtype") or (args[1] if len(args) > 1 else data.dtype)
            found = data.to(place or data.device, dtype, copy=func is torch.tensor)
        else:
            found = func(_numbers(data), *args[1:], **kwargs)
            found = found if place is None else found.to(place)
        return found


def _is_list(index: Any) -> bool:
    return isinstance(index, list)


def _as_index(index: Any) -> Any:
    """Return a list of an index as a tensor, which torch would make without this mode."""
    return torch.tensor(index) if _is_list(index) and index else index


def _numbers(data: Any) -> Any:
    """Return nested lists with their 0-dim tensors of the device read, as torch reads them."""
    if isinstance(data, list | tuple):
        return [_numbers(one) for one in data]
    return data.item() if isinstance(data, PretendTensor) else data


# operations whose result has a size, or is a number, that only the device knows
_WAITS = {
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2",
    "unique_consecutive", "repeat_interleave", "bincount",
}  # fmt: skip
_COPIES = {"copy_", "_to_copy"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# one 0-dim tensor may be elsewhere: torch reads it as a number, or copies it
_TAKE_NUMBERS = {"fill", "fill_", "masked_fill", "masked_fill_", "where"}
# these are elementwise too, but take no number of the CPU
_TAKE_NO_NUMBERS = {"clamp"}


def _run(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: PretendDevice | None = None
) -> Any:
    """Run an operation on the wrapped tensors, after the checks, and wrap what it returns."""
    tensors = [t for one in (*args, *kwargs.values()) for t in _tensors_in(one)]
    ours = [t for t in tensors if isinstance(t, PretendTensor)]
    if any(t.is_meta and not isinstance(t, PretendTensor) for t in tensors):
        raise AssertionError(f"{func} of a tensor on the device that was not made in the mode")
    place = kwargs.get("device")
    here = bool(ours) if place is None else torch.device(place).type == DEVICE.type
    if not here and not ours:
        return func(*args, **kwargs)
    name = func._schema.name.removeprefix("aten::")
    if ours and len(ours) < len(tensors):
        _check_devices(func, name, args, tensors)
    if here and isinstance(kwargs.get("generator"), torch.Generator):
        raise MixedDevicesError("Expected a 'meta' device type for generator but found 'cpu'")
    if ours and mode is not None:
        reads = name in _WAITS or (name in _COPIES and not _stays(name, args, here))
        masks = name in _INDEXED and any(t is not None and t.dtype == torch.bool for t in args[1])
        if reads or masks:
            mode.waits[name] += 1
    on_cpu = {} if place is None else {"device": torch.device("cpu")}
    held = {key: _change(_held, value) for key, value in kwargs.items()} | on_cpu
    returned = func(*(_change(_held, one) for one in args), **held)
    given = {id(_held(t)): t for t in tensors}

    def wrap(value: Tensor) -> Tensor:
        if id(value) in given or not here:
            return given.get(id(value), value)
        if mode is not None and not mode.float64 and value.dtype == torch.float64:
            raise TypeError("Cannot convert a pretend tensor to float64: the device has none")
        return PretendTensor(value)

    if any(tensor.shape != tensor.held.shape for tensor in ours):  # such as squeeze_()
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    return _change(wrap, returned)


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, list | tuple) else []


def _change(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a tensor, or a list or tuple of some, with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(change(one) if isinstance(one, Tensor) else one for one in value)
    return value


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _stays(name: str, args: tuple[Any, ...], here: bool) -> bool:
    """Return whether a copy is from the device to the device."""
    both = args[:2] if name == "copy_" else args[:1]
    return here and all(isinstance(one, PretendTensor) for one in both)


def _check_devices(func: Any, name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise MixedDevicesError unless CUDA allows these tensors of two devices to meet."""
    if name in _COPIES:
        return
    first = isinstance(args[0], PretendTensor)
    if name in _INDEXED:
        indices = [t for t in args[1] if t is not None]
        if not first and any(isinstance(t, PretendTensor) for t in indices):
            raise MixedDevicesError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        rest = [t for t in args[2:3] if isinstance(t, Tensor) and t.dim() > 0]
        allowed = all(isinstance(t, PretendTensor) == first for t in rest)
    elif name in _TAKE_NUMBERS:
        place = {isinstance(t, PretendTensor) for t in tensors if t.dim() > 0}
        allowed = len(place) < 2 and (name == "where" or first in place or not place)
    else:
        numbers = [t for t in tensors if not isinstance(t, PretendTensor)]
        allowed = (
            torch.Tag.pointwise in func.tags
            and len(tensors) == 2
            and name not in _TAKE_NO_NUMBERS
            and all(t.dim() == 0 for t in numbers)
            and (first or not name.endswith("_"))
        )
    if not allowed:
        found = ", ".join(f"{t.device}{tuple(t.shape)}" for t in tensors)
        raise MixedDevicesError(
            "Expected all tensors to be on the same device, but found at least two devices: "
            f"{name} of {found}"
        )


def to_pretend(value: _T) -> _T:
    """Return a copy of a tensor, result or module on the pretend device."""
    if isinstance(value, nn.Module):
        found = copy.deepcopy(value)
        for module in found.modules():
            for key, p in module._parameters.items():
                if p is not None:
                    held = PretendTensor(p.detach())
                    module._parameters[key] = nn.Parameter(held, requires_grad=p.requires_grad)
            for key, b in module._buffers.items():
                module._buffers[key] = None if b is None else PretendTensor(b)
        return found
    if isinstance(value, Tensor):
        return PretendTensor(value.detach().clone())  # type: ignore[return-value]
    return value.to(DEVICE)  # type: ignore[attr-defined, no-any-return]


def to_cpu(value: dict[str, Any]) -> dict[str, Any]:
    """Return named values with their tensors on the CPU."""
    return {name: t.cpu() if isinstance(t, Tensor) else t for name, t in value.items()}
