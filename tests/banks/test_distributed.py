"""Banks on a cluster give the same results as in memory, even if workers are lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed import Client

import fsboundary as fsb
from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.banks.cluster import distributed, workers
from fsboundary.banks.disk import layout
from fsboundary.banks.disk.folder import BankFolder, create
from fsboundary.banks.disk.writer import ChunkWriter, disk_threads
from fsboundary.banks.disk.zarr_store import ZarrStore
from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.protocols import MeasuredPointSet
from support.banks import oracle
from support.banks.cluster import start_cluster

ROWS = 70

LARGE_ROWS, WIDTH = 2**17, 256
"""Size of a bank of 128 MiB."""

GROWTH = 64
"""MiB by which the client may grow during the tasks."""

TIMEOUT = 600
"""Seconds after which a cluster is assumed to hang."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield a client of three workers that are threads of this process, because they start fast."""
    with start_cluster(3, 1, tmp_path_factory.mktemp("scratch")) as (_, connected):
        yield connected


def labels() -> torch.Tensor:
    return torch.arange(ROWS) % 5


@pytest.fixture(params=["memory", "disk", "view"])
def pair(
    request: pytest.FixtureRequest, client: Client, tmp_path: Path
) -> tuple[FeatureBank, FeatureBank]:
    """Return a bank in memory, with many ties, and the same distributed."""
    bank = FeatureBank(oracle.whole_numbers(ROWS, 3), labels())
    if request.param == "memory":
        return bank, bank.distribute(client)
    bank.save(tmp_path / "bank")
    stored = FeatureBank.open(tmp_path / "bank")
    if request.param == "disk":
        return bank, stored.distribute(client)
    chosen = [0, 2, 3, 4]
    return bank.subset(labels=chosen), stored.subset(labels=chosen).distribute(client)


@pytest.mark.parametrize("k", [1, 8, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prices_and_ties(pair: tuple[FeatureBank, FeatureBank], k: int, dtype: torch.dtype) -> None:
    bank, shared = pair
    directions = oracle.whole_numbers(11, 3, seed=1).to(dtype)
    directions[4, 1] = torch.nan
    exclude = torch.randint(-1, len(bank), (11, 4), generator=torch.Generator().manual_seed(0))
    for skip in (None, exclude, exclude[:, 0]):
        values, indices = shared.price(directions, k, skip)
        wanted = bank.price(directions, k, skip)
        assert values.dtype == dtype
        torch.testing.assert_close(values, wanted[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(indices, wanted[1])


def test_contents(pair: tuple[FeatureBank, FeatureBank]) -> None:
    bank, shared = pair
    assert isinstance(shared, MeasuredPointSet)
    assert repr(shared) == f"FeatureBank(n={len(bank)}, d=3, distributed)"
    assert shared.labels is not None
    assert torch.equal(shared.labels, bank.labels)
    assert torch.equal(shared.ids, bank.ids)
    assert torch.equal(shared.features, bank.features)
    assert shared.info == bank.info
    assert torch.equal(torch.stack(shared.range()), torch.stack(bank.range()))
    assert torch.equal(shared.digests(), bank.digests())
    mine, theirs = shared.moments(), bank.moments()
    assert mine.count == theirs.count
    assert mine.largest == theirs.largest
    torch.testing.assert_close(mine.mean, theirs.mean, rtol=0, atol=1e-15)
    torch.testing.assert_close(mine.sum_of_squares, theirs.sum_of_squares, rtol=1e-15, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 30)])
def test_take(pair: tuple[FeatureBank, FeatureBank], shape: tuple[int, ...]) -> None:
    bank, shared = pair
    indices = torch.randint(0, len(bank), shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shared.take(indices), bank.take(indices))


@pytest.mark.parametrize("chosen", [[3], [0, 2]])
def test_subsets(pair: tuple[FeatureBank, FeatureBank], chosen: list[int]) -> None:
    bank, shared = (one.subset(labels=chosen).subset(labels=chosen[0]) for one in pair)
    assert torch.equal(shared.ids, bank.ids)
    assert torch.equal(shared.features, bank.features)
    every = torch.arange(len(bank))
    assert torch.equal(shared.take(every), bank.take(every))
    directions = oracle.whole_numbers(6, 3, seed=2)
    assert torch.equal(shared.price(directions, 3)[1], bank.price(directions, 3)[1])


def test_it_can_be_saved_and_distributed_again(
    pair: tuple[FeatureBank, FeatureBank], client: Client, tmp_path: Path
) -> None:
    bank, shared = pair
    shared.save(tmp_path / "copy")
    assert torch.equal(FeatureBank.open(tmp_path / "copy").features, bank.features)
    again = shared.subset(labels=2).distribute(client)
    assert torch.equal(
        again.take(torch.arange(len(again))), bank.subset(labels=2).features.double()
    )


def test_shards_are_small_enough_and_cover_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_NUMBERS", 30)
    bank = FeatureBank(oracle.normal(ROWS, 3))
    shards = distributed.split_into_shards(bank._store, 3)
    assert max(len(shard.rows) for shard in shards) <= 10
    assert torch.equal(torch.cat([shard.rows for shard in shards]), torch.arange(ROWS))
    small = FeatureBank(oracle.normal(2, 3))
    shards = distributed.split_into_shards(small._store, 3)
    assert [len(shard.rows) for shard in shards] == [1, 1]


@pytest.mark.parametrize("options", [{}, {"labels": True}, {"leave_out": True}])
def test_hulls_are_those_of_the_bank_in_memory(client: Client, options: dict[str, bool]) -> None:
    points = torch.cat([oracle.normal(200, 5), oracle.normal(20, 5)])  # copies among the rows
    bank = FeatureBank(points, torch.arange(220) % 2)
    queries = torch.cat([points[:6].double(), 2 * oracle.normal(6, 5, seed=1).double()])
    given = {
        "labels": torch.arange(12) % 2,
        "leave_out": torch.arange(12).where(torch.arange(12) < 6, -1),
    }
    chosen = {name: given[name] for name in options}
    result = fsb.hull_projection(bank.distribute(client), queries, **chosen)
    wanted = fsb.hull_projection(bank, queries, **chosen)
    assert torch.equal(result.support, wanted.support)
    assert torch.equal(result.status, wanted.status)
    for name in ("distance", "lower_bound", "weights", "points"):
        mine, theirs = getattr(result, name), getattr(wanted, name)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)  # sums in another order


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_lost_shards_are_restored(client: Client, tmp_path: Path, kind: str) -> None:
    bank = FeatureBank(oracle.whole_numbers(ROWS, 3), labels())
    bank.save(tmp_path / "bank")
    given = bank if kind == "memory" else FeatureBank.open(tmp_path / "bank")
    shared = given.distribute(client)
    part = shared.subset(labels=1)
    for store in (shared._store, part._store):
        for shard in store.shards[1:]:  # type: ignore[attr-defined] # of a distributed store
            client.cancel(shard._future)
    directions = oracle.whole_numbers(4, 3, seed=1)
    for mine, theirs in ((shared, bank), (part, bank.subset(labels=1))):
        for got, wanted in zip(mine.price(directions, 5), theirs.price(directions, 5), strict=True):
            assert torch.equal(got, wanted)


def test_no_worker_is_an_error_until_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, directions = FeatureBank(oracle.normal(ROWS, 3)), oracle.normal(4, 3, seed=1)
    with start_cluster(1, 2, tmp_path) as (local, alone):
        shared = bank.distribute(alone)
        local.scale(0)
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "WORKER_TIMEOUT", 0.2)
            with pytest.raises(DataError, match=r"no worker for 0.2 seconds. Start workers"):
                shared.price(directions, 2)
            with pytest.raises(DataError, match=r"no worker for 0.2 seconds. Start workers"):
                bank.distribute(alone)
        local.scale(1)
        assert torch.equal(shared.price(directions, 2)[1], bank.price(directions, 2)[1])
    with pytest.raises(DataError, match="the client is closed"):
        shared.price(directions, 2)
    with pytest.raises(ArgumentError, match="client: got a client that is closed"):
        bank.distribute(alone)


def test_a_lost_scheduler_is_an_error(tmp_path: Path) -> None:
    with start_cluster(1, 1, tmp_path) as (local, alone):
        shared = FeatureBank(oracle.normal(ROWS, 3)).distribute(alone)
        local.close()
        with pytest.raises(DataError, match=r"the client is .* distribute the bank again"):
            shared.take(torch.arange(3))


def test_workers_that_never_answer_are_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = FeatureBank(oracle.normal(ROWS, 3)).distribute(client)
    monkeypatch.setattr(distributed.Cluster, "_collect", lambda *_: {})
    with pytest.raises(DataError, match="workers were lost in each of 10 attempts"):
        shared.range()


def test_many_directions_are_sent_without_a_warning(client: Client) -> None:
    bank, directions = FeatureBank(oracle.normal(ROWS, 3)), oracle.normal(600_000, 3).double()
    assert torch.equal(
        bank.distribute(client).price(directions, 1)[1], bank.price(directions, 1)[1]
    )


def test_a_damaged_chunk_is_named(client: Client, tmp_path: Path) -> None:
    FeatureBank(oracle.normal(ROWS, 3)).save(tmp_path / "bank")
    (chunk,) = (
        file for file in (tmp_path / "bank" / "features" / "c").rglob("*") if file.is_file()
    )
    raw = bytearray(chunk.read_bytes())
    raw[0] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(DataError, match=r"array 'features', chunk 0 \(rows 0 to 69\) is damaged"):
        FeatureBank.open(tmp_path / "bank").distribute(client)


def test_a_worker_that_sees_other_files_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    FeatureBank(oracle.normal(5, 3)).save(path)
    location = ZarrStore(path).locate(torch.arange(1, 4))
    assert location.rows == range(1, 4)
    shutil.rmtree(path)
    with pytest.raises(DataError, match=r"a worker cannot open its shard: .*file system"):
        workers.read_rows(location)
    for other in (oracle.normal(4, 3), oracle.normal(5, 2), oracle.normal(5, 3, seed=1)):
        FeatureBank(other).save(path)
        with pytest.raises(DataError, match=r"a worker finds another bank there. .*file system"):
            workers.read_rows(location)
        shutil.rmtree(path)


def test_other_errors_of_a_worker_name_the_rows(client: Client) -> None:
    shared = FeatureBank(oracle.normal(ROWS, 3)).distribute(client)
    with pytest.raises(DataError, match=r"a worker failed on rows 0 to 23: ZeroDivisionError"):
        shared._store.cluster.map_shards(_failing, shared._store.shards)  # type: ignore[attr-defined] # of a distributed store


def _failing(shard: object, start: int) -> float:
    return 1 / start


def test_a_missing_client_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = FeatureBank(oracle.normal(5, 3))
    with pytest.raises(ArgumentError, match=r"client: got 'tcp:.*'; wanted a connected dask"):
        bank.distribute("tcp://127.0.0.1:8786")  # type: ignore[arg-type] # the wrong type is the point
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(
        sys.modules, "fsboundary.banks.cluster.distributed"
    )  # as in a fresh process
    with pytest.raises(
        ArgumentError, match=r"not installed.*pip install 'fsboundary\[distributed\]'"
    ):
        bank.distribute("tcp://127.0.0.1:8786")  # type: ignore[arg-type] # as above


def test_other_banks_need_no_dask(root: Path) -> None:
    code = "import sys; sys.modules['distributed'] = sys.modules['dask'] = None; import fsboundary"
    code += "; import torch; fsboundary.FeatureBank(torch.eye(2)).price(torch.eye(2), 1)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_an_asynchronous_client_is_rejected(client: Client) -> None:
    async def attempt() -> None:
        async with Client(client.scheduler.address, asynchronous=True) as other:
            FeatureBank(oracle.normal(5, 3)).distribute(other)

    with pytest.raises(ArgumentError, match="client: got an asynchronous client"):
        client.sync(attempt)


def test_another_client_may_be_the_current_one(client: Client) -> None:
    bank, directions = FeatureBank(oracle.normal(ROWS, 3)), oracle.normal(4, 3, seed=1)
    shared = bank.distribute(client)
    with Client(client.scheduler.address) as other, other.as_current():
        assert torch.equal(shared.price(directions, 2)[1], bank.price(directions, 2)[1])
        assert torch.equal(
            bank.distribute(client).take(torch.arange(5)), bank.take(torch.arange(5))
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with a labelled bank `large`, written in pieces."""
    path, pieces = tmp_path / "large", 16
    written = layout.Layout(WIDTH, "float32", 1024, True, BankInfo())
    create(path, written)
    with disk_threads() as threads:
        writer = ChunkWriter(BankFolder(path, written), threads)
        for piece in range(pieces):
            ids = torch.arange(LARGE_ROWS // pieces) + piece * (LARGE_ROWS // pieces)
            writer.add(oracle.normal(len(ids), WIDTH, seed=piece), ids % 3, ids)
        writer.finish()
    yield tmp_path
    shutil.rmtree(path)  # pytest would keep it for three more sessions


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux")
def test_three_processes_of_which_one_is_killed(folder: Path, root: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("on_cluster.py")), str(folder)]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    large = report["large"]
    assert large["rows"] == sum(large["held"]) == LARGE_ROWS
    assert max(large["held"]) - min(large["held"]) <= 1
    assert large["failed"] == 0
    assert 0 <= large["grown"] < GROWTH
    assert report["killed"] == 1
    assert len(report["differences"]) == 4
    for difference in report["differences"].values():
        assert (difference["failed"], difference["supports"]) == (0, 0)
        assert difference["distances"] <= 1e-9
