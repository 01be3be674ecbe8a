"""The cores that a process may use: affinity, and the quotas of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsboundary import cores
from fsboundary.cores import num_cores, quota_cores


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        # version 2
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "150000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "800000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "1 0\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{GROUP}/a/b/cpu.max": "max 100000\n",
                f"{GROUP}/a/cpu.max": "300000 100000\n",
                f"{GROUP}/cpu.max": "900000 100000\n",
            },
            3,
        ),
        # the path is that on the host
        ({"proc/self/cgroup": "0::/../../x\n", f"{GROUP}/cpu.max": "200000 100000\n"}, 2),
        # version 1
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/x\n",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/x\n",
                f"{GROUP}/cpu/x/cpu.cfs_quota_us": "250000\n",
                f"{GROUP}/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                f"{GROUP}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        # damaged
        ({"proc/self/cgroup": "0\n:\n", f"{GROUP}/cpu.max": "\u00e4 1"}, None),
    ],
)
def test_quotas(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    assert quota_cores(system(tmp_path, files)) == expected


def test_the_smaller_of_affinity_and_quota_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    for quota, expected in ((None, 3), (2, 2), (8, 3)):
        monkeypatch.setattr(cores, "quota_cores", lambda quota=quota: quota)
        assert num_cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_cores() == 1
