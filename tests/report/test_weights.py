"""Weights in files of torch, and names that carry or lack a prefix."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fsboundary.core.errors import DataError
from fsboundary.report.inputs.weights import load_weights


def model(seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return made


WANTED = model(1).state_dict()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".PT"])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_of_torch_is_loaded(ending: str, key: str | None, tmp_path: Path) -> None:
    path = tmp_path / f"weights{ending}"
    content = WANTED if key is None else {"epoch": 3, key: WANTED, "optimizer": {"lr": 0.1}}
    torch.save(content, path)
    loaded = model()
    load_weights(loaded, path)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, WANTED[name])


class _Runs:
    """An object whose pickle runs a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_file_of_torch_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    for content in (WANTED | {"extra": _Runs()}, model(), _Runs()):
        torch.save(content, path)
        with pytest.raises(DataError, match="cannot be read without running code"):
            load_weights(model(), path)
    path.write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(DataError, match="cannot be read without running code"):
        load_weights(model(), path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"w": 1}, torch.ones(2), {"state_dict": {}}])
def test_a_file_of_torch_without_tensors_by_name_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="wanted tensors by name"):
        load_weights(model(), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["missing.pt", "pipe.pt", "empty.pt", "cut.pt"])
def test_a_file_of_torch_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "pipe.pt":
        os.mkfifo(path)
    elif name != "missing.pt":
        torch.save(WANTED, path)
        path.write_bytes(path.read_bytes()[: 0 if name == "empty.pt" else 500])
    with pytest.raises(DataError, match=r"cannot be read.*Save torch\.save"):
        load_weights(model(), path)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("prefix", ["module.", "backbone.net.", "0."])
def test_a_prefix_is_explained(ending: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{ending}"
    save = torch.save if ending == "pt" else save_file
    save({prefix + name: value for name, value in WANTED.items()}, path)
    with pytest.raises(DataError, match=f"names carry the prefix '{prefix}'.*inner model"):
        load_weights(model(), path)
    save(WANTED, path)
    outer = nn.Module()
    part = outer
    for name in prefix.rstrip(".").split(".")[:-1]:
        part.add_module(name, nn.Module())
        part = getattr(part, name)
    part.add_module(prefix.rstrip(".").split(".")[-1], model())
    with pytest.raises(DataError, match=f"names lack the prefix '{prefix}'.*whole model"):
        load_weights(outer, path)


def test_a_prefix_of_only_some_names_is_not_the_reason(tmp_path: Path) -> None:
    names = list(WANTED)
    state = {("m." if name == names[0] else "") + name: WANTED[name] for name in names}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"lacks 0\.weight; has but the model does not m\.0\.weigh"):
        load_weights(model(), tmp_path / "w.pt")


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save(WANTED | {"0.bias": torch.ones(3, dtype=torch.complex64)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"0\.bias contains complex numbers \(torch.complex64\)"):
        load_weights(model(), tmp_path / "w.pt")
    large = torch.full((3,), 1e300, dtype=torch.float64)
    torch.save(WANTED | {"0.bias": large}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"0\.bias are too large"):
        load_weights(model(), tmp_path / "w.pt")
    torch.save(WANTED | {"0.bias": torch.ones(9)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"size mismatch for 0\.bias"):
        load_weights(model(), tmp_path / "w.pt")
