"""Model calls: wrappers removed, compiled code run eagerly, logits extracted from the output."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fsboundary.core.errors import HeadError
from fsboundary.models.dispatch import OperationMode
from fsboundary.models.structures import modules_of

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and (Distributed)DataParallel wrappers."""
    while True:
        if isinstance(model, _PARALLEL):
            model = model.module
        elif _is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]  # an OptimizedModule stores it there
        else:
            return model


def _is_compiled(model: nn.Module) -> bool:
    # torch._dynamo takes seconds to import, and nothing is compiled before something imports it
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(model, dynamo.OptimizedModule)


@final
class _Eager:
    """Compiled functions run as plain Python while any thread is in a pass.

    Compiled code may skip forward hooks. The setting is that of the process, so the first thread
    changes it and the last one restores it: each on its own would restore that of another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes: Counter[int] = Counter()
        self._stance: contextlib.AbstractContextManager[Any] | None = None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Run compiled functions as plain Python."""
        if "torch._dynamo" not in sys.modules:  # nothing is compiled
            yield
            return
        me = threading.get_ident()
        with self._lock:
            if not self._passes:
                self._stance = torch.compiler.set_stance("force_eager")
                self._stance.__enter__()
            self._passes[me] += 1
        try:
            yield
        finally:
            with self._lock:
                self._leave(me)

    def forget_other_threads(self) -> None:
        """Forget the passes of threads that a forked process does not have."""
        self._lock = threading.Lock()  # another thread of the parent may hold it
        for other in self._passes.keys() - {threading.get_ident()}:
            self._passes[other] = 1
            self._leave(other)

    def _leave(self, thread: int) -> None:
        self._passes[thread] -= 1
        if not self._passes[thread]:
            del self._passes[thread]
        if not self._passes and self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


_eager = _Eager()


def run_eagerly(function: _Function) -> _Function:
    """Return `function`, which code compiled by ``torch.compile`` then calls as plain Python.

    Hooks and solvers cannot be compiled. The compiler is imported only where it runs already,
    because that takes seconds.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast("_Function", run)


@final
class _PassLock:
    """Lock of a model: passes share it, and hooks that must see no other pass hold it alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passes: Counter[int] = Counter()
        self._alone: Counter[int] = Counter()

    @contextlib.contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        """Wait until no other thread holds the lock alone, or, if `alone`, until none holds it."""
        me = threading.get_ident()
        held = self._alone if alone else self._passes

        def free() -> bool:
            others = self._alone.keys() | (self._passes.keys() if alone else set())
            return others <= {me}

        with self._changed:
            self._changed.wait_for(free)
            held[me] += 1
        try:
            yield
        finally:
            with self._changed:
                held[me] -= 1
                if not held[me]:
                    del held[me]
                    self._changed.notify_all()


_pass_locks: weakref.WeakKeyDictionary[nn.Module, _PassLock] = weakref.WeakKeyDictionary()
_pass_locks_lock = threading.Lock()


def _pass_lock(model: nn.Module) -> _PassLock:
    with _pass_locks_lock:
        return _pass_locks.setdefault(model, _PassLock())


def _forget_locks() -> None:
    global _pass_locks_lock  # another thread of the parent may hold it
    _pass_locks_lock = threading.Lock()
    _pass_locks.clear()
    _eager.forget_other_threads()


if hasattr(os, "register_at_fork"):  # systems that fork
    os.register_at_fork(after_in_child=_forget_locks)


def hooks_alone(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a context in which no other thread runs a pass of `model`.

    A hook on a layer sees the passes of all threads, and keeps the numbers of the last one.
    """
    return _pass_lock(unwrap(model)).hold(alone=True)


def call(
    model: nn.Module,
    inputs: Any,
    additional: tuple[Any, ...] = (),
    keywords: Mapping[str, Any] | None = None,
) -> Any:
    """Call an unwrapped `model`; errors that a wrong dtype may have caused get a hint.

    A mapping given as `inputs` is passed as keyword arguments and a tuple as several positional
    ones, unless the model's ``forward`` takes it as one argument only.
    """
    args, named = call_arguments(model, inputs, additional, keywords or {})
    try:
        with _eager.hold(), _pass_lock(model).hold(alone=False):
            return model(*args, **named)
    except RuntimeError as error:
        leaves = pytree.tree_leaves((args, named))
        dtypes = [x.dtype for x in leaves if isinstance(x, Tensor)]
        given = next((d for d in dtypes if d.is_floating_point), next(iter(dtypes), None))
        wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), given)
        # token ids are integers rightly, so that only an error about types points to them
        suspect = given is not None and (given.is_floating_point or "type" in str(error))
        if given != wanted and suspect:
            error.add_note(
                f"fsboundary: the inputs are {given} and the model's first weights are "
                f"{wanted}; if that is the cause, pass inputs.to({wanted})"
            )
        raise


def call_arguments(
    model: nn.Module, inputs: Any, additional: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments with which `model` is called; see :func:`call`.

    The mapping or tuple is one argument where the signature of ``forward`` rejects the unpacked
    call and accepts the other.
    """
    named = dict(keywords)
    one = (inputs, *additional), named
    if isinstance(inputs, Mapping):
        several = additional, {**inputs, **named}
    elif isinstance(inputs, tuple):
        several = (*inputs, *additional), named
    else:
        return one
    return one if not accepts(model, *several) and accepts(model, *one) else several


def accepts(model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether the signature of the model's forward accepts the arguments, or is unknown."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # of a TorchScript module, for example
        return True
    try:
        signature.bind(*args, **named)
    except TypeError:
        return False
    return True


def require_eval_mode(
    module: nn.Module, what: str = "the model", modules: Iterable[nn.Module] | None = None
) -> None:
    """Raise HeadError if `module` or a submodule is in training mode, naming the first.

    `modules` are `module` and its submodules, if the caller has them.
    """
    if not any(m.training for m in modules or modules_of(module).values()):
        return
    if "eval" in vars(module):  # of torch.export: its graph is that of one mode, whatever it says
        return
    name, first = next((n, m) for n, m in module.named_modules() if m.training)
    where = f"its submodule {name!r} ({type(first).__name__})" if name else type(first).__name__
    raise HeadError(
        f"{what} is in training mode ({where}), so its features depend on chance and on the rest "
        f"of the batch. Call .eval() on {what} first; fsboundary never changes the mode itself"
    )


_MODE_DEPENDENT = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
)
"""Torch layers that compute something else in training mode."""


def require_deterministic(module: nn.Module, what: str) -> None:
    """Raise HeadError if a mode-dependent layer of `module` is in training mode.

    A preprocessing module without such layers, for example a normalisation by constants, gives
    the same output in both modes, and users rarely call ``.eval()`` on it.
    """
    for layer in module.modules():
        if layer.training and isinstance(layer, _MODE_DEPENDENT):
            require_eval_mode(layer, what)


def chance_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the states of torch's global generators that a model on `device` draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def restore_chance(states: tuple[Tensor, ...], device: torch.device) -> None:
    """Set torch's global generators to what :func:`chance_state` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def has_drawn(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> bool:
    """Return whether random numbers were drawn between two :func:`chance_state`."""
    return not all(map(torch.equal, before, after))


@final
class OperationNames(OperationMode):
    """Dispatch mode that collects operations that use chance, or statistics of the batch.

    Attributes
    ----------
    random, batch_norms : dict
        Names as keys, in the order of their first call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.random: dict[str, None] = {}
        self.batch_norms: dict[str, None] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = str(func).removeprefix("aten.").split(".")[0]
        tags = getattr(func, "tags", ())
        # attention and recurrent layers have the tag too, but draw only for their own dropout
        if torch.Tag.nondeterministic_seeded in tags and not name.startswith("_"):
            self.random[name] = None
        if "batch_norm" in name and any(a is True for a in args[5:6]):
            self.batch_norms[name] = None
        return func(*args, **(kwargs or {}))


def batch_statistics(model: nn.Module) -> list[str]:
    """Return the layers of `model` that use statistics of the batch in eval mode."""
    kind = nn.modules.batchnorm._BatchNorm
    return [
        f"{name!r} ({type(m).__name__}, track_running_stats=False)"
        for name, m in model.named_modules()
        if isinstance(m, kind) and m.running_mean is None
    ]
