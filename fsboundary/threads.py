"""Work on chunks of rows in threads that each use one thread of torch.

The arrays of a chunk fit in a cache. If torch splits each of the thousands of operations on them
among its own threads, these wait for each other after every one, and on cores that other work keeps
busy a call takes ten times as long or more. Chunks share nothing, so they are split instead, and
what is done between them runs in such a thread too.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, final

import torch

from fsboundary.core.errors import FsboundaryError
from fsboundary.cores import quota_cores
from fsboundary.modes import FLUSHES, flushes_subnormals

_P = ParamSpec("_P")
_R = TypeVar("_R")


@final
@dataclass(slots=True)
class _Call:
    """One call of a function that runs in a thread of the pool.

    Attributes
    ----------
    count : int
        Threads of torch of the calling thread.
    stopped : Event
        Set when the calling thread no longer waits for the result.
    """

    count: int
    stopped: threading.Event = field(default_factory=threading.Event)


@final
class _StoppedError(Exception):
    """Nobody waits for the result."""


_thread = threading.local()
"""``call``: the :class:`_Call` that this thread of the pool runs."""


def in_one_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `function`, run in a thread of the pool, so that torch splits no operation in it.

    Only what :func:`map_in_threads` splits uses more threads. For functions that run no model and
    no plugin of others, which may depend on the thread that calls them. Arguments on another device
    are computed in the calling thread, which knows the stream in use.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        count = torch.get_num_threads()
        # one thread was chosen by the user, or this is a thread of the pool
        if count == 1 or not all(map(_is_on_cpu, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        call, modes = _Call(_within_quota(count)), _modes()
        context = contextvars.copy_context()

        def work() -> _R:
            _thread.call = call
            try:
                with modes():
                    return context.run(function, *args, **kwargs)
            finally:
                _thread.call = None

        running = _thread_pool(call.count).submit(work)
        try:
            return running.result()
        finally:
            call.stopped.set()  # an interrupt must not leave the work running

    return run


def _is_on_cpu(argument: object) -> bool:
    device = getattr(argument, "device", None)
    return not isinstance(device, torch.device) or device.type == "cpu"


def _modes() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return the modes of this thread that matter in others."""
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    @contextlib.contextmanager
    def modes() -> Iterator[None]:
        # a tensor of inference mode may not be changed outside
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            if flushes_subnormals():
                raise FsboundaryError(FLUSHES)
            yield

    return modes


def num_threads() -> int:
    """Return how many threads :func:`map_in_threads` uses here."""
    call: _Call | None = getattr(_thread, "call", None)
    return _within_quota(torch.get_num_threads()) if call is None else call.count


@functools.cache
def _quota() -> int | None:
    return quota_cores()


def _within_quota(count: int) -> int:
    """Return the number of threads of which a container's quota lets all run at once."""
    quota = _quota()
    return count if quota is None else min(count, quota)


def map_in_threads(
    device: torch.device, function: Callable[..., _R], *items: list[Any]
) -> list[_R]:
    """Return what `function` returns for the items of one or more lists, like map.

    On the CPU as many calls run at once as torch may use threads, and a container's quota allows;
    another device has its own.
    """
    call: _Call | None = getattr(_thread, "call", None)
    own = call is not None  # this thread uses one thread of torch, so it takes items too
    call = call or _Call(num_threads())
    todo = deque(enumerate(zip(*items, strict=True)))
    found: dict[int, _R] = {}

    def take() -> None:
        while not call.stopped.is_set():
            try:
                number, item = todo.popleft()
            except IndexError:
                return
            try:
                found[number] = function(*item)
            except BaseException:
                todo.clear()  # nothing new begins
                raise

    split = call.count > 1 and device.type == "cpu"
    helpers = min(call.count - own, len(todo) - own) if split else 0
    modes = _modes()

    def help_out() -> None:
        with modes():
            take()

    pool = _thread_pool(call.count) if helpers > 0 else None
    running = [] if pool is None else [pool.submit(help_out) for _ in range(helpers)]
    try:
        if own or pool is None:
            take()
        for one in running:
            # a helper that has not begun while all items were taken is not needed
            if not (own and one.cancel()):
                one.result()  # re-raises what a call raised
    finally:
        todo.clear()  # nor after an interrupt
    if call.stopped.is_set():
        raise _StoppedError
    return [found[number] for number in range(len(found))]


_pools: list[tuple[int, ThreadPoolExecutor]] = []
"""The pool and its size, once there is one."""

_pool_lock, _start_lock = threading.Lock(), threading.Lock()


def _forget_pool() -> None:
    """Begin anew in a forked process: no thread survives, and one may have held a lock."""
    global _pool_lock, _start_lock
    _pool_lock, _start_lock = threading.Lock(), threading.Lock()
    _pools.clear()
    _thread.call = None


if hasattr(os, "register_at_fork"):  # systems that fork
    os.register_at_fork(after_in_child=_forget_pool)


def _thread_pool(count: int) -> ThreadPoolExecutor:
    """Return at least `count` threads that each use one thread of torch, kept between calls."""
    with _pool_lock:
        size, pool = _pools[0] if _pools else (0, None)
        if pool is None or size < count:
            # the smaller pool ends when its last user has finished
            pool = ThreadPoolExecutor(count, "fsboundary", initializer=_use_one_thread)
            _pools[:] = [(count, pool)]
        return pool


def _use_one_thread() -> None:
    """Let this thread use one thread of torch, and no other.

    torch also gives the last setting of any thread to threads that use it for the first time
    later, so another thread restores that default at once. Threads of the pool are started once per
    process, not per call, because in between the default is 1.
    """
    with _start_lock:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.set_flush_denormal(False)  # which a thread has from the one that starts it
        restore = threading.Thread(target=torch.set_num_threads, args=(default,))
        restore.start()
        restore.join()
