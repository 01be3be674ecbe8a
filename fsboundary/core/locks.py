"""Locks of files and folders that only one process may write at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from fsboundary.core.errors import DataError

_flock: Callable[[int, int], None] | None = None
"""None on Windows, where only the existence of a file is the lock."""
_EXCLUSIVE = 0
with contextlib.suppress(ImportError):
    import fcntl

    _flock, _EXCLUSIVE = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

SUFFIX = ".fsboundary-lock"
"""Ending of the lock's name; distinct, so that no file of a user is taken for a lock."""

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _close_inherited() -> None:
    """Close the parent's locks in a forked child, which may outlive it and keep them."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # missing on Windows
    os.register_at_fork(after_in_child=_close_inherited)

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""Errors of ``flock`` on file systems that do not implement it."""


def lock_path(path: Path) -> Path:
    """Return the path of the lock of `path`: beside it, so that the two are on one disk."""
    path = Path(os.path.abspath(path))  # a relative path may end in "..", which has no name
    return path.with_name(path.name + SUFFIX)


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of `path` in the block; no other process or thread can hold it meanwhile.

    The block receives a function that raises DataError once the lock's file was deleted, for
    example by a user who took the process for dead, so that another one may write too.

    The operating system releases the lock of a process that ends, however it ends, so what a
    killed process leaves behind does not block the next one. Where the file system implements no
    ``flock``, an existing lock is refused, and the message says whether its process still runs.
    A lock that another machine left is refused too, because its ``flock`` may not reach this one.

    Parameters
    ----------
    path : Path
        File or folder to protect; its parent must exist, it need not.

    Raises
    ------
    DataError
        Another process or thread holds the lock, or the lock cannot be written.
    """
    lock, owner = lock_path(path), os.getpid()
    try:
        file = _acquire(path, lock)
    except OSError as error:
        raise DataError(
            f"{path}: its lock {lock} cannot be written ({error}). Choose a folder that this "
            "process may write to"
        ) from error

    def verify() -> None:
        if not _is_current(file, lock):
            raise DataError(
                f"{path}: its lock {lock} was deleted while this process was writing, so another "
                "one may write too. Make sure that only one does, and run again"
            )

    _held.add(file)
    try:
        yield verify
    finally:
        # a forked child has closed it, and must not release its parent's lock
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                if _is_current(file, lock):
                    lock.unlink()  # while it is held, so that it is never another process's lock
            _held.discard(file)
            os.close(file)


def _acquire(path: Path, lock: Path) -> int:
    """Return the descriptor of the lock, held."""
    while True:
        file, created = _open(lock)
        try:
            held = _lock_file(file)
            if not (held or (held is None and created)):
                raise DataError(_refusal(path, lock, certain=held is not None))
            if _is_current(file, lock):
                if not created and _is_of_another_machine(file):
                    raise DataError(_refusal(path, lock, certain=False))
                now = datetime.now(UTC).isoformat(timespec="seconds")
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
                holder["boot"] = _boot()
                os.ftruncate(file, 0)
                os.write(file, json.dumps(holder).encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed it in between


def _open(lock: Path) -> tuple[int, bool]:
    """Return a descriptor of the lock's file, and whether this call created the file."""
    # a link in place of the lock would let its target be overwritten
    mode = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(lock, mode | os.O_CREAT | os.O_EXCL, 0o644), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(lock, mode), False


def _lock_file(file: int) -> bool | None:
    """Return whether this process now holds the open `file`, None where ``flock`` is missing."""
    if _flock is None:
        return None
    try:
        _flock(file, _EXCLUSIVE)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _is_current(file: int, lock: Path) -> bool:
    """Return whether `lock` is still the name of the open `file`."""
    try:
        return os.path.samestat(os.fstat(file), lock.stat())
    except FileNotFoundError:
        return False


def _is_of_another_machine(file: int) -> bool:
    """Return whether the lock names a process of another machine, whose locks may not reach here.

    After a restart a machine has the same name, and a container has the same boot as its host.
    """
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        host, boot = holder["host"], holder["boot"]
    except (ValueError, TypeError, KeyError):
        return False  # killed before it wrote its name
    return bool(host != socket.gethostname() and (not boot or boot != _boot()))


def _boot() -> str:
    """Return what identifies the running kernel, "" where that is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _refusal(path: Path, lock: Path, certain: bool) -> str:
    """Return the message about a lock of another process, which exists or is `certain` to run."""
    try:
        holder = json.loads(lock.read_bytes())
        pid, host, since = int(holder["pid"]), str(holder["host"]), str(holder["since"])
        who = f"process {pid} on {host!r}, since {since}"
    except (OSError, ValueError, TypeError, KeyError):
        pid, host, who = 0, "", "another process"  # which is about to write its number
    if not certain and host == socket.gethostname() and not _runs(pid):
        return (
            f"{path} is locked by {who}, which no longer runs, and its file system does not "
            f"release locks by itself. Delete {lock} and run again"
        )
    unless = "" if certain else f", or delete {lock} if that process no longer runs"
    return (
        f"{path} is being written by {who}; only one may write to it at a time. Wait until that "
        f"process ends or choose another path{unless}"
    )


def _runs(pid: int) -> bool:
    """Return whether a process of this machine may be running."""
    if os.name != "posix":
        return True  # signal 0 would end the process on Windows
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True
