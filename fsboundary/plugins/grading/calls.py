"""Guarded calls of plugins, and private copies of what they answer.

A call may raise anything, and may leave torch's modes and random generators changed: an exception
becomes a :class:`~fsboundary.core.errors.PluginError`, and the process is put right. An answer may
have any type, and its plugin may write to it later: each field is read once, checked and copied.
"""

from __future__ import annotations

import contextlib
import random
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from fsboundary.core.errors import PluginError, PluginWarning
from fsboundary.core.heads import LinearHead
from fsboundary.modes import caller_level, flushes_subnormals
from fsboundary.threads import in_one_thread

_P = ParamSpec("_P")
_R = TypeVar("_R")

_AUTOCAST = ("cpu", "cuda")
_kept: list[Any] = []


def _set_inference_mode(on: bool) -> None:
    # a mode can only be entered: one that is never left replaces the plugin's for good
    mode = torch.inference_mode(on)
    mode.__enter__()
    _kept.append(mode)


def _default_device() -> str:
    # torch.get_default_device() of torch 2.6 raises after the device was reset to None
    return str(torch.empty(0).device)


def _set_default_device(device: str) -> None:
    torch.set_default_device(None if device == "cpu" else device)


def _autocast() -> list[bool]:
    return [torch.is_autocast_enabled(kind) for kind in _AUTOCAST]


def _set_autocast(on: list[bool]) -> None:
    for kind, enabled in zip(_AUTOCAST, on, strict=True):
        torch.set_autocast_enabled(kind, enabled)


def _torch_generators() -> list[torch.Generator]:
    return [
        torch.default_generator,
        *(torch.cuda.default_generators if torch.cuda.is_initialized() else ()),
    ]


def _set_torch_generators(states: list[Tensor]) -> None:
    # a generator that was initialised meanwhile has no earlier state
    for generator, state in zip(_torch_generators(), states, strict=False):
        generator.set_state(state)


_State = tuple[str, Callable[[], Any], Callable[[Any], object]]

_INFERENCE: _State = (
    "torch's inference mode",
    torch.is_inference_mode_enabled,
    _set_inference_mode,
)
_GRADIENTS: _State = (
    "whether gradients are recorded",
    torch.is_grad_enabled,
    torch.set_grad_enabled,
)
_RANDOM: tuple[_State, ...] = (
    (
        "torch's random generator",
        lambda: [generator.get_state() for generator in _torch_generators()],
        _set_torch_generators,
    ),
    ("Python's random generator", random.getstate, random.setstate),
    (
        "NumPy's random generator",
        lambda: np.random.get_state(legacy=False),
        np.random.set_state,
    ),
)

_STATES: tuple[_State, ...] = (
    # in this order, because entering the first sets the second
    _INFERENCE,
    _GRADIENTS,
    ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("torch's default device", _default_device, _set_default_device),
    ("the number of torch's threads", torch.get_num_threads, torch.set_num_threads),
    ("torch's autocast mode", _autocast, _set_autocast),
    (
        "torch's deterministic mode",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    (
        "torch's precision of products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    # torch cannot be asked, but arithmetic can
    ("the flushing of denormals", flushes_subnormals, torch.set_flush_denormal),
    ("NumPy's handling of errors", np.geterr, lambda state: np.seterr(**state)),
    *_RANDOM,
)
"""What a plugin may not leave changed: a name, and functions that read and write it."""


def _equal(one: Any, other: Any) -> bool:
    """Return whether two states are equal; they are nested, and arrays are compared by content."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return all(map(_equal, one, other))
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else one == other


@final
class _Process:
    """The modes and random generators of this process, as a plugin found them."""

    def __init__(self, *, draws: bool) -> None:
        states = [state for state in _STATES if not (draws and state in _RANDOM)]
        self._before = [(state, state[1]()) for state in states]
        self._gradients = torch.is_grad_enabled()

    def restore(self) -> list[str]:
        """Put back what is different; return the names of it."""
        changed = [
            (state, before) for state, before in self._before if not _equal(before, state[1]())
        ]
        for (_, _, write), before in changed:
            write(before)
        if any(state is _INFERENCE for state, _ in changed):
            torch.set_grad_enabled(self._gradients)
        return [name for (name, _, _), _ in changed]


@final
class _Model:
    """The parameters and modes of a user's model, as a plugin found them.

    Values are recognised by torch's counters of in-place writes, so none is read. Buffers are not
    watched, because a model may write to its own.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(name, module, module.training) for name, module in model.named_modules()]
        self._parameters = [
            (name, p, p.requires_grad, p.grad, _version(p), _version(p.grad))
            for name, p in model.named_parameters()
            if not nn.parameter.is_lazy(p)
        ]

    def restore(self) -> list[str]:
        """Put back modes and gradients; return the names of what was different."""
        changed = []
        for name, module, training in self._modes:
            if module.training != training:
                module.training = training
                changed.append(f"the mode of {name or 'the model'}")
        for name, parameter, requires_grad, gradient, _, _ in self._parameters:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
                changed.append(f"requires_grad of {name}")
            if parameter.grad is not gradient:
                parameter.grad = gradient
                changed.append(f"the gradient of {name}")
        return changed

    def verify_unwritten(self, label: str) -> None:
        """Raise PluginError for a parameter, or its gradient, whose numbers were overwritten."""
        for name, parameter, _, gradient, version, gradient_version in self._parameters:
            if _version(parameter) != version or _version(gradient) != gradient_version:
                raise PluginError(
                    f"{label} wrote to {name!r} of the model or to its gradient, which cannot be "
                    "undone: load the model's weights again, and report it to the plugin's author"
                )


def _version(tensor: Tensor | None) -> int:
    # inference tensors have no counter
    return -1 if tensor is None or tensor.is_inference() else tensor._version


def label_of(kind: str, plugin: object) -> str:
    """Return how messages name a plugin: its kind and class."""
    return f"{kind} {type(plugin).__name__}"


def is_built_in(plugin: object) -> bool:
    """Return whether the class of `plugin` is one of this package."""
    return type(plugin).__module__.startswith("fsboundary.builtin.")


def in_thread_for(plugin: object, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `function`, which calls `plugin`, run in a thread of the pool if that is built in.

    A plugin of others may depend on the thread that calls it.
    """
    return in_one_thread(function) if is_built_in(plugin) else function


@final
class plugin_call:  # noqa: N801  # named as the verb it is in a with statement
    """A block that is code of a plugin; the process is put right after it.

    Parameters
    ----------
    label : str
        Kind and name of the plugin, for messages.
    trusted : bool
        Whether the plugin is one of this package. Reading all states takes a fraction of a
        millisecond, and the suites of the built-in plugins hold that these change none.
    passes : tuple of type
        Exceptions that are not the plugin's fault, or whose type callers rely on: raised
        unchanged, with a note that names the plugin.
    draws : bool
        Whether the random generators were seeded for the plugin, and are restored by the caller.
    model : object
        The user's model that the plugin can reach; ignored unless it is a module.

    Raises
    ------
    PluginError
        The block raised, also ``SystemExit`` and any other ``BaseException``: a plugin does not
        decide when its host ends. ``KeyboardInterrupt`` is the user's and is raised unchanged, as
        is whatever a signal handler of the host raises meanwhile. Or it wrote to the model.

    Warns
    -----
    PluginWarning
        A mode or a random generator was left changed; it was restored.
    """

    # a class, because a generator's context confuses StopIteration with its own end

    def __init__(
        self,
        label: str,
        *,
        trusted: bool = False,
        passes: tuple[type[Exception], ...] = (),
        draws: bool = False,
        model: object = None,
    ) -> None:
        self._label = label
        self._passes: tuple[type[BaseException], ...] = (KeyboardInterrupt, *passes)
        self._process = None if trusted else _Process(draws=draws)
        watched = isinstance(model, nn.Module) and not trusted
        self._model = _Model(model) if watched else None  # type: ignore[arg-type]  # a module

    def __enter__(self) -> None:
        """Do nothing: the states were read when this was created."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Put the process right, and raise or warn."""
        changed = [] if self._process is None else self._process.restore()
        if self._model is not None:
            changed += self._model.restore()
        if error is not None:
            _note(error, self._label, changed)
            if isinstance(error, self._passes) or _is_from_signal(error):
                return
            raise PluginError(f"{self._label} raised {type(error).__name__}: {error}") from error
        if self._model is not None:
            self._model.verify_unwritten(self._label)
        if changed:
            warn_changed(self._label, changed)


def warn(message: str) -> None:
    """Warn of what a plugin did, at the line that called this package."""
    report = f"{message}. Report it to the plugin's author"
    warnings.warn(report, PluginWarning, stacklevel=caller_level())


def warn_changed(label: str, names: list[str]) -> None:
    """Warn that a plugin left something changed that is not its own."""
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    shown = ", ".join(names[:3] if more else names)
    warn(f"{label} changed {shown}{more}, which was restored")


@contextlib.contextmanager
def restored(changed: list[str]) -> Iterator[None]:
    """Put the process right after the block; append the names of what it had changed."""
    process = _Process(draws=False)
    try:
        yield
    finally:
        changed += process.restore()


def _note(error: BaseException, label: str, changed: list[str]) -> None:
    """Add to `error` in which plugin it was raised, and what the plugin left changed."""
    text = f"{label} ran when this was raised"
    if changed:
        text += f"; it had changed {', '.join(changed)}, which was restored"
    error.add_note(text)


def _is_from_signal(error: BaseException) -> bool:
    """Return whether a signal handler, such as the host's for SIGTERM, raised `error`."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [getattr(getattr(h, "__func__", h), "__code__", None) for h in handlers]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


_handed: weakref.WeakKeyDictionary[LinearHead, LinearHead] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def handed_head(label: str, head: LinearHead, *, own: bool) -> Iterator[LinearHead]:
    """Yield the head that a finder gets: a copy, because grading uses `head` itself.

    The copy is kept, so that norms are computed once, until a finder writes to it.

    Parameters
    ----------
    label : str
        Kind and name of the finder, for messages.
    head : LinearHead
        The head that answers are graded with.
    own : bool
        Whether the finder is one of this package: it gets `head`.

    Warns
    -----
    PluginWarning
        The finder wrote to its copy.
    """
    if own:
        yield head
        return
    if head not in _handed:
        _handed[head] = LinearHead(head._weight, head._bias, head.domain)
    copy = _handed[head]
    try:
        yield copy
    finally:
        if not (torch.equal(copy._weight, head._weight) and torch.equal(copy._bias, head._bias)):
            _handed.pop(head, None)
            warn(f"{label} wrote to its copy of the head; the head itself graded its answer")


_PLAIN = (Tensor, nn.Parameter)


def plain_tensor(label: str, field: str, value: object) -> Tensor:
    """Return `value` as a dense tensor of torch's own class, or raise PluginError.

    A subclass decides itself what its comparisons return, so it is replaced by its numbers.
    """

    def wrong(got: str, wanted: str = "a torch.Tensor") -> PluginError:
        return PluginError(f"{label}: {field} {got}; wanted {wanted}")

    kind = type(value)
    if not isinstance(value, Tensor) or not issubclass(kind, Tensor):
        raise wrong(f"is {'None' if value is None else f'of type {kind.__name__}'}")
    if kind not in _PLAIN:
        if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise wrong(f"is of type {kind.__name__}", "a plain torch.Tensor")
        with torch._C.DisableTorchFunctionSubclass():
            value = value.as_subclass(Tensor)
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise wrong(f"is {layout}", "a dense tensor")
    return value


@final
class Answer:
    """The answer of a plugin, whose fields are read once, checked and copied.

    Parameters
    ----------
    label : str
        Kind and name of the plugin, for messages.
    answer : object
        What it returned.
    wanted : type
        The result class that its interface asks for.
    device : torch.device
        Device of the inputs.
    own : bool
        Whether a plugin of this package made it, which keeps no reference: then nothing is copied.

    Raises
    ------
    PluginError
        The answer is not of that class.
    """

    def __init__(
        self, label: str, answer: object, wanted: type, device: torch.device, *, own: bool = False
    ) -> None:
        if not isinstance(answer, wanted):
            raise PluginError(f"{label} returned {type(answer).__name__}; wanted {wanted.__name__}")
        self._label, self._answer, self._device, self._own = label, answer, device, own

    def floats(self, field: str, *shape: int | str) -> Tensor:
        """Return a copy of a field of real floating-point numbers, or raise PluginError.

        Sizes in `shape` are numbers, or a name such as "S" for any number that is at least 1.
        """
        return self._read(field, shape, "floating-point numbers")

    def integers(self, field: str, *shape: int | str) -> Tensor:
        """Return a copy of an int64 field, or raise PluginError; see :meth:`floats`."""
        return self._read(field, shape, "torch.int64")

    def counts(self, field: str, *shape: int | str) -> Tensor:
        """Return a copy of an int64 field without negative numbers, or raise PluginError."""
        values = self._read(field, shape, "torch.int64")
        if bool((values < 0).any()):
            raise self._wrong(field, f"has the negative number {int(values.min())}", "counts")
        return values

    def _wrong(self, field: str, got: str, wanted: str) -> PluginError:
        return PluginError(f"{self._label}: {field} {got}; wanted {wanted}")

    def _read(self, field: str, shape: tuple[int | str, ...], dtype: str) -> Tensor:
        try:
            value = plain_tensor(self._label, field, getattr(self._answer, field))
            if value.device != self._device:
                raise self._wrong(field, f"is on {value.device}", str(self._device))
            fits = value.is_floating_point() if dtype[0] == "f" else value.dtype == torch.int64
            if not fits:
                raise self._wrong(field, f"has dtype {value.dtype}", dtype)
            sizes = tuple(value.shape)
            same = len(sizes) == len(shape) and all(
                n == want if isinstance(want, int) else n >= 1
                for n, want in zip(sizes, shape, strict=True)
            )
            if not same:
                raise self._wrong(field, f"has shape {sizes}", _format(shape))
            return value.detach() if self._own else value.detach().clone()
        except PluginError:
            raise
        except Exception as error:  # properties, and tensors without memory
            got = f"cannot be read ({type(error).__name__}: {error})"
            raise self._wrong(field, got, "a torch.Tensor") from error


def _format(shape: tuple[int | str, ...]) -> str:
    text = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    free = [f"{size} >= 1" for size in shape if isinstance(size, str)]
    return ", ".join([f"({text})", *free])
