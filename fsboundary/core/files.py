"""Locks of files and folders, and output files that are written without losing what was there.

Only one process may hold a lock at a time. An output file is checked before the work, written
beside its target, flushed to the disk and moved into place, so that a full disk or an interruption
leaves the old file as it was. This module imports nothing heavy, because the command line uses it
before any other import.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from fsboundary.core.errors import ArgumentError, DataError

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


GENERATOR = "fsboundary report"
"""Mark by which a report, and its JSON file, are recognised: what has it may be replaced."""

_MARK_WITHIN = 1024
"""Number of bytes at the start of a file in which the mark is searched."""

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Invisible characters that names in some scripts, and emoji, need."""


def printable(text: str) -> str:
    """Return `text` with control and invisible characters, and bytes that are not UTF-8, escaped.

    A name with a right-to-left override, a line break or a terminal's escape sequence would change
    how the text around it looks, and bytes of a file name that are not UTF-8 cannot be written.

    Parameters
    ----------
    text : str
        Name of a class, file or plugin, or a message.

    Returns
    -------
    str
        Text that can be encoded as UTF-8 and reads in the order in which it is stored.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not hidden or character in _JOINERS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python stores it in file names
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def is_foreign(path: Path) -> bool:
    """Return whether `path` is a file whose content would be lost: not empty, and not our own.

    A report, its JSON file or certificates that fsboundary wrote are recognised by a mark at their
    start. Pipes and devices have no content to lose.
    """
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(_MARK_WITHIN)
    page = f'<meta name="generator" content="{GENERATOR}">'.encode()
    numbers = f'{{\n "generator": "{GENERATOR}"'.encode()
    marks = numbers, b'{"format":"fsboundary certificates"'
    own = (start.startswith(b"<!doctype html>") and page in start) or start.startswith(marks)
    return not own and start != b""


def check_outputs(
    outputs: Mapping[str, Path | None], *, inputs: Iterable[Path] = (), force: bool = False
) -> None:
    """Raise ArgumentError unless all outputs can be written without losing anything.

    Parameters
    ----------
    outputs : dict of str to Path or None
        Files by the name of their argument; None is skipped. Links are followed.
    inputs : iterable of Path
        Files that no output may replace, not even with `force`; read only if an output exists.
    force : bool
        Whether files that fsboundary did not write may be replaced.

    Raises
    ------
    ArgumentError
        An output cannot be written, is an input or another output, or contains something else and
        `force` is False.
    """
    names: dict[tuple[int, int, str], str] = {}
    found: dict[str, os.stat_result] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        target, state = _locate(name, path)
        if state is not None and not stat.S_ISREG(state.st_mode):
            continue  # a pipe or a device: nothing is replaced
        folder = target.parent.stat()
        # names that differ in case or in the form of their accents are one file on some systems
        folded = unicodedata.normalize("NFC", target.name).casefold()
        other = names.setdefault((folder.st_dev, folder.st_ino, folded), name)
        for earlier, known in found.items():
            other = earlier if state is not None and os.path.samestat(state, known) else other
        if other != name:
            got = f"{path}, which is also {other}"
            raise ArgumentError(name, got, "another file for each output", "name another file")
        if state is not None:
            found[name] = state
    _check_replaceable({name: (outputs[name], found[name]) for name in found}, inputs, force)


def _locate(name: str, path: Path) -> tuple[Path, os.stat_result | None]:
    """Return where `path` leads, and its state if it exists, or raise unless it can be written."""
    wanted = "a file in a folder that exists"
    state, reachable = None, True
    try:
        target = Path(os.path.realpath(path))
        reachable = target.parent.is_dir()
        state = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or has a NUL
        got = f"{path} ({getattr(error, 'strerror', None) or error})"
        raise ArgumentError(name, got, wanted, "name another file") from error
    if not reachable:
        raise ArgumentError(name, f"{path}", wanted, f"create {target.parent} first")
    if state is not None and stat.S_ISDIR(state.st_mode):
        raise ArgumentError(name, f"the folder {path}", "a file", "name a file in this folder")
    if state is not None and not stat.S_ISREG(state.st_mode):
        return target, state  # a pipe or a device
    wanted = "a file that can be written"
    if state is not None and not os.access(target, os.W_OK):
        got = f"{path}, which is write-protected"
        raise ArgumentError(name, got, wanted, "change its permissions, or name another file")
    try:
        _stage(target, b"").unlink()
    except OSError as error:
        got = f"{path}, but no file can be created in {target.parent} ({error.strerror})"
        raise ArgumentError(name, got, wanted, "name a file in another folder") from error
    return target, state


def _check_replaceable(
    found: Mapping[str, tuple[Path | None, os.stat_result]], inputs: Iterable[Path], force: bool
) -> None:
    """Raise ArgumentError if an output that exists is an input, or contains something else."""
    if not found:
        return
    protected = {}
    for file in inputs:
        with contextlib.suppress(OSError, ValueError):  # missing inputs are reported elsewhere
            state = file.stat()
            protected[state.st_dev, state.st_ino] = file
    for name, (path, state) in found.items():
        source = protected.get((state.st_dev, state.st_ino))
        if source is not None:
            got = f"{path}, which is the input {source}"
            raise ArgumentError(name, got, "a file that is not an input", "name another file")
        if path is not None and not force and is_foreign(path):
            got = f"{path}, which exists and was not written by fsboundary"
            fix = "name another file, or add --force (force=True) to replace it"
            raise ArgumentError(name, got, "a new file or an earlier report", fix)


def write_file(path: str | PathLike[str], content: bytes) -> None:
    """Write one file as :func:`write_files` does, replacing what is there."""
    write_files({Path(path): content}, force=True)


def write_files(contents: Mapping[Path, bytes | Iterable[bytes]], *, force: bool = False) -> None:
    """Write files beside their targets, then move all of them into place.

    The permissions of a file that is replaced are kept, and its owner where the system allows it.
    Other names of it (hard links) keep the old content; symbolic links are followed.

    Parameters
    ----------
    contents : dict of Path to bytes or iterable of bytes
        Whole contents, or parts of them, which are written as they come.
    force : bool
        Whether files that fsboundary did not write may be replaced.

    Raises
    ------
    DataError
        A file could not be written; all targets are unchanged. Or a finished file could not be
        moved into place; the message says where it is.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, content in contents.items():
            target = Path(os.path.realpath(path))
            if target.exists() and not target.is_file():
                with target.open("wb") as stream:  # a pipe or a device
                    _write_parts(stream, content)
            else:
                staged.append((_stage(target, content), target))
    except BaseException as error:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); what was there is unchanged. Free "
            "space, or name a file elsewhere"
        ) from error
    for temporary, target in staged:
        _move(temporary, target, force)


def _write_parts(stream: BinaryIO, content: bytes | Iterable[bytes]) -> None:
    for part in [content] if isinstance(content, bytes) else content:
        stream.write(part)


def _stage(target: Path, content: bytes | Iterable[bytes]) -> Path:
    """Write `content` to a new file in the folder of `target`, flush it, and return its path."""
    temporary = target.with_name(f".fsboundary-{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)  # less the umask, as for any new file
    try:
        with open(descriptor, "wb") as stream:
            _write_parts(stream, content)
            stream.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileNotFoundError):
            old = target.stat()
            with contextlib.suppress(OSError, AttributeError):  # only root may give files away
                os.chown(temporary, old.st_uid, old.st_gid)
            temporary.chmod(stat.S_IMODE(old.st_mode))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _move(temporary: Path, target: Path, force: bool) -> None:
    """Move a finished file into place, or raise DataError that says where it is."""
    try:
        if not force and is_foreign(target):
            raise FileExistsError(None, "another program has written it meanwhile")
        temporary.replace(target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be replaced ({error.strerror}). The finished file is {temporary}; "
            "move it where you want it"
        ) from error
    with contextlib.suppress(OSError):  # not every system can flush a folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
