"""Extraction that is killed at random moments gives the same bank, file by file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fsboundary.banks import FeatureBank
from support.banks.small import ROWS, content, loader, space

TIMES = 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork and no SIGKILL")
def test_twenty_killed_extractions_give_the_uninterrupted_bank(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path), "0"]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [*command, str(TIMES)], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    first, while_resuming = map(int, process.stdout.split())
    assert first >= TIMES // 2  # others ended before their moment came
    assert while_resuming > 0
    whole = content(tmp_path / "whole")
    for number in range(TIMES):
        assert content(tmp_path / str(number)) == whole, f"round {number}"
    assert [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    bank = FeatureBank.open(tmp_path / "0")
    assert len(bank) == ROWS
    assert torch.equal(bank.features, space().bank(loader()).features)
