"""Results that were saved load again: every class, every field, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fsboundary.core.results import Result
from support.results import CLASSES, assert_equal, example, values


def saved(thing: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return file


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": lambda x: torch.load(saved(x), weights_only=False),
    "weights only": lambda x: torch.load(saved(x), weights_only=True),
    "dictionary": lambda x: type(x)(**torch.load(saved(values(x)), weights_only=True)),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_saved_result_loads_again(kind: type[Any], way: str) -> None:
    result = example(kind)
    again = COPIES[way](result)
    assert_equal(again, result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(again, dataclasses.fields(kind)[0].name, None)
    if isinstance(result, Result):
        assert torch.equal(again.ok, result.ok)


def test_a_result_loads_in_another_process(tmp_path: Path) -> None:
    torch.save([example(kind) for kind in CLASSES], tmp_path / "results.pt")
    code = (
        "import sys, torch, fsboundary.core.results\n"
        "print(*(type(x).__name__ for x in torch.load(sys.argv[1], weights_only=True)))"
    )
    names = subprocess.check_output(
        [sys.executable, "-c", code, tmp_path / "results.pt"], text=True
    )
    assert names.split() == [kind.__name__ for kind in CLASSES]
