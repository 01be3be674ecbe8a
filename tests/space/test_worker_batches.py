"""Banks that the workers of a cluster extract are those of one process, file by file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import fsboundary as fsb
from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.banks.disk import layout
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.space import worker_batches
from support.banks.cluster import start_cluster
from support.banks.small import BATCH, CHUNK, ROWS, content, images, labels, loader, model, space

TIMEOUT = 600
"""Seconds after which a cluster is assumed to hang."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield a client of two workers with two threads each, in this process."""
    with start_cluster(2, 2, tmp_path_factory.mktemp("scratch")) as (_, connected):
        yield connected


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_ROWS", CHUNK)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of the bank of one process."""
    space().bank(loader(), tmp_path / "whole")
    return content(tmp_path / "whole")


def dataset() -> TensorDataset:
    return TensorDataset(images(), labels())


LOADERS: dict[str, Callable[[], Any]] = {
    "list": loader,
    "tuple": lambda: tuple(loader()),
    "DataLoader": lambda: DataLoader(dataset(), batch_size=BATCH),
    "sampler": lambda: DataLoader(dataset(), batch_sampler=torch.arange(ROWS).split(BATCH)),  # type: ignore[arg-type] # it iterates over lists of rows
    "batches": lambda: DataLoader(loader(), batch_size=None),  # type: ignore[arg-type] # a list has what is needed
    "empty": lambda: [(images()[:0], labels()[:0]), *loader(), (images()[:0], labels()[:0])],
}


@pytest.mark.parametrize("name", LOADERS)
def test_the_bank_is_that_of_one_process(
    tmp_path: Path, whole: dict[str, bytes], client: Client, name: str
) -> None:
    made = LOADERS[name]()
    if name == "sampler":
        made = DataLoader(dataset(), batch_sampler=[part.tolist() for part in made.batch_sampler])
    bank = space().bank(made, tmp_path / "bank", client=client)
    assert content(tmp_path / "bank") == whole
    assert torch.equal(bank.features, space().bank(loader()).features)
    space().bank(made, tmp_path / "bank", client=client)  # recognised
    space().bank(loader(), tmp_path / "bank")  # by one process too
    assert content(tmp_path / "bank") == whole


def test_in_memory_and_in_half_precision(tmp_path: Path, client: Client) -> None:
    for dtype in (None, torch.bfloat16):
        one = space().bank(loader(), dtype=dtype)
        other = space().bank(loader(), dtype=dtype, client=client)
        assert torch.equal(one.features, other.features)
        assert (one.dtype, one.info) == (other.dtype, other.info)
        assert one.labels is not None
        assert other.labels is not None
        assert torch.equal(one.labels, other.labels)
    half = fsb.FeatureSpace(model().bfloat16())
    pairs = [(x.bfloat16(), y) for x, y in loader()]
    assert torch.equal(half.bank(pairs, client=client).features, half.bank(pairs).features)


def test_batches_of_different_sizes(tmp_path: Path, client: Client) -> None:
    batches = images().split([3, 30, 14])
    space().bank(batches, tmp_path / "one")
    space().bank(batches, tmp_path / "other", client=client)
    assert content(tmp_path / "one") == content(tmp_path / "other")


@pytest.mark.parametrize("after", [1, 5, 9, 12])
def test_a_build_is_resumed_by_workers(
    tmp_path: Path, whole: dict[str, bytes], client: Client, after: int
) -> None:
    """One process begins, workers go on, and only what is missing is extracted."""

    def cut() -> Iterator[Any]:
        yield from loader()[:after]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        space().bank(cut(), tmp_path / "bank")
    space().bank(loader(), tmp_path / "bank", client=client)
    assert content(tmp_path / "bank") == whole


def test_an_interrupted_client_is_continued_by_one_process(
    tmp_path: Path, whole: dict[str, bytes], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = worker_batches.WorkerSource.features, [0]

    def interrupted(self: worker_batches.WorkerSource, batch: Any) -> torch.Tensor:
        count[0] += 1
        if count[0] > 7:
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(worker_batches.WorkerSource, "features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            space().bank(loader(), tmp_path / "bank", client=client)
    with pytest.raises(DataError, match=r"an unfinished bank \(24 rows so far\)"):
        FeatureBank.open(tmp_path / "bank")
    again = model()
    fsb.FeatureSpace(again).bank(loader(), tmp_path / "bank")
    assert again.seen < ROWS
    assert content(tmp_path / "bank") == whole


def test_a_dataset_is_read_in_batches(tmp_path: Path, client: Client) -> None:
    whole = space().bank(DataLoader(dataset(), batch_size=256), tmp_path / "loader")
    for options in ({}, {"client": client}):
        path = tmp_path / f"dataset{len(options)}"
        assert space().bank(dataset(), path, **options).seal == whole.seal


def test_other_examples_are_refused(tmp_path: Path, client: Client) -> None:
    space().bank(loader(), tmp_path / "bank")
    other = loader()
    other[2], other[3] = other[3], other[2]
    with pytest.raises(DataError, match=r"batch 2 of the loader \(rows 8 to 11\) is not the one"):
        space().bank(other, tmp_path / "bank", client=client)
    with pytest.raises(DataError, match="a bank of another head"):
        fsb.FeatureSpace(model(seed=1)).bank(loader(), tmp_path / "bank", client=client)
    with pytest.raises(DataError, match="the loader ended after 2 batches"):
        space().bank(loader()[:2], tmp_path / "bank", client=client)


def _spoilt() -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = [(part.clone(), classes) for part, classes in loader()]
    batches[6][0][1] = torch.nan
    return batches


class _Stream(IterableDataset[Any]):
    """A dataset without numbers of its examples."""

    def __iter__(self) -> Iterator[Any]:
        return iter(loader())


def _mixed() -> list[Any]:
    return [*loader()[:3], loader()[3][0]]


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: iter(loader()), ArgumentError, "loader: got a list_iterator; wanted .*any order"),
    (lambda: DataLoader(_Stream()), ArgumentError, "loader: got a DataLoader of an IterableData"),
    (_spoilt, DataError, r"NaN or infinite features of 1 examples, at rows 25 "),
    (_mixed, ArgumentError, "loader: got a change at row 12; wanted labels with every batch"),
    (lambda: [(images(), labels() + 5)], ArgumentError, "labels: got labels from 5 to 7"),
    (lambda: [(images(), labels()[:5])], ArgumentError, r"labels: got shape \(5,\)"),
    (list, ArgumentError, "loader: got no examples"),
    (lambda: [{"image": "cat.png"}], ArgumentError, "inputs: got no tensors"),
    (lambda: DataLoader(dataset(), shuffle=True), ArgumentError, "a DataLoader with a RandomSam"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_errors_are_those_of_one_process(
    tmp_path: Path, client: Client, make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        space().bank(make(), tmp_path / "bank", client=client)


def test_clients_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"client: got 'tcp://x'; wanted a connected dask"):
        space().bank(loader(), tmp_path / "bank", client="tcp://x")  # type: ignore[arg-type] # as a user might
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    for name in ("fsboundary.space.worker_batches", "fsboundary.banks.cluster.distributed"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ArgumentError, match=r"pip install 'fsboundary\[distributed\]'"):
        space().bank(loader(), tmp_path / "bank", client=object())  # type: ignore[arg-type] # as above
    assert list(tmp_path.iterdir()) == []


def test_workers_with_different_heads_are_refused(client: Client) -> None:
    source = worker_batches.WorkerSource(
        worker_batches.FeatureSource(space()), loader(), client, False
    )
    batches = list(source.batches(0))
    source.features(batches[0])
    source._info = BankInfo(fingerprint="another")
    with pytest.raises(DataError, match="workers found different heads"):
        source.features(batches[1])


def test_three_processes_of_which_one_is_killed(tmp_path: Path, root: Path) -> None:
    """The script asserts that the files are those of one process."""
    command = [sys.executable, str(Path(__file__).with_name("on_workers.py")), str(tmp_path)]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    process = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["killed"] == 1
    assert report["workers"] >= 2
    assert report["same"]
