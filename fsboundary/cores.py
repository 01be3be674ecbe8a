"""Number of processor cores that this process may use, by its affinity and by quotas."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def num_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = quota_cores()
    return cores if quota is None else min(cores, quota)


def quota_cores(root: Path = Path("/")) -> int | None:
    """Return the whole cores that a container's quota leaves, at least 1; None without a quota.

    Reads ``cpu.max`` of control groups v2, and ``cpu.cfs_quota_us`` of v1, of this process's group
    and of those above it. Threads beyond the quota do not run at once: the kernel stops all threads
    of the group until the period ends, also those that others wait for. So a part of a core does
    not count.

    Parameters
    ----------
    root : Path
        Root of the file system, for tests.
    """
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return max(1, int(min(quotas))) if quotas else None


def _quotas_v2(root: Path) -> Iterator[float]:
    for path in _groups(root, ""):
        for folder in _upwards(root / "sys/fs/cgroup", path):
            words = _read(folder / "cpu.max").split()
            if len(words) == 2:
                yield from _cores(words[0], words[1])


def _quotas_v1(root: Path) -> Iterator[float]:
    for path in _groups(root, "cpu"):
        for mount in ("cpu", "cpu,cpuacct"):
            for folder in _upwards(root / "sys/fs/cgroup" / mount, path):
                quota = _read(folder / "cpu.cfs_quota_us").strip()
                period = _read(folder / "cpu.cfs_period_us").strip()
                yield from _cores(quota, period)


def _groups(root: Path, controller: str) -> Iterator[str]:
    """Yield the paths of this process's groups that have `controller`; "" is version 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and controller in controllers.split(","):
            yield path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and of each group above it, as far as they are visible.

    In a container, the path may be that on the host; the group of the container is then the mount.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _cores(quota: str, period: str) -> Iterator[float]:
    """Yield the quota in cores; nothing for "max", -1 or what is not a number."""
    if quota.isdecimal() and period.isdecimal() and int(period):
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, ValueError):
        return ""
