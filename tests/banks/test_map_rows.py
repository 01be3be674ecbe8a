"""Functions of rows, streamed: the same results as of one call, here and on workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import torch
from distributed import Client

import fsboundary as fsb
from fsboundary.banks import FeatureBank
from fsboundary.banks.cluster import distributed, rows
from fsboundary.banks.cluster.distributed import Shard
from fsboundary.core.errors import ArgumentError, DataError
from support.banks import oracle
from support.banks.cluster import start_cluster
from support.flips.case import arrays

ROWS, WIDTH, BATCH = 70, 5, 16
HEAD = fsb.LinearHead(oracle.normal(4, WIDTH, seed=1), oracle.normal(4, seed=2))
REACH = fsb.FeatureBank(oracle.normal(300, WIDTH, seed=3))


def points() -> torch.Tensor:
    return oracle.normal(ROWS, WIDTH)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield a client of two workers with two threads each, in this process."""
    with start_cluster(2, 2, tmp_path_factory.mktemp("scratch")) as (_, connected):
        yield connected


def _disk(folder: Path) -> FeatureBank:
    FeatureBank(points()).save(folder / "bank")
    return FeatureBank.open(folder / "bank")


SOURCES: dict[str, Callable[[Path, Client], Any]] = {
    "tensor": lambda *_: points(),
    "array": lambda *_: points().numpy(),
    "memory": lambda *_: FeatureBank(points()),
    "disk": lambda folder, _: _disk(folder),
    "sent": lambda _, client: FeatureBank(points()).distribute(client),
    "read": lambda folder, client: _disk(folder).distribute(client),
    "half": lambda _, client: FeatureBank(points(), dtype=torch.bfloat16).distribute(client),
    "blocks": lambda *_: dask.array.from_array(points().numpy(), chunks=(23, 2)),
}
CALLS: dict[str, tuple[Callable[..., Any], Any, dict[str, Any]]] = {
    "flips": (fsb.flip_points, HEAD, {}),
    "all flips": (fsb.flip_points, HEAD, {"targets": "all"}),
    "balls": (fsb.guaranteed_balls, HEAD, {}),
    "cubes": (fsb.guaranteed_balls, HEAD, {"norm": "linf"}),
    "boxes": (fsb.guaranteed_boxes, HEAD, {}),
    "regions": (fsb.region_distances, HEAD, {}),
    "hull": (fsb.hull_projection, REACH, {}),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("source", SOURCES)
def test_results_are_those_of_one_call(
    tmp_path: Path, client: Client, source: str, name: str
) -> None:
    function, reference, options = CALLS[name]
    given = SOURCES[source](tmp_path, client)
    local = source in ("tensor", "array", "memory", "disk")
    whole = points().bfloat16().double() if source == "half" else points()
    want = arrays(function(reference, whole, **options))
    for cluster in (None, client) if local else (None,):
        results = fsb.map_rows(
            function, reference, given, client=cluster, batch_size=BATCH, **options
        )
        found = list(results)
        starts = [start for start, _ in found]
        assert starts == sorted(starts)
        assert starts[0] == 0
        joined = {
            key: np.concatenate([arrays(part)[key] for _, part in found])
            for key in ("status", "distance", "radius", "source", "lower", "upper")
            if key in want
        }
        for key, values in joined.items():
            # the products of a batch depend on its size in their last bits
            np.testing.assert_allclose(values, want[key], rtol=1e-12, atol=1e-12)


def test_a_distributed_bank_needs_no_client(client: Client) -> None:
    shared = FeatureBank(points()).distribute(client)
    (start, first), *_ = fsb.map_rows(fsb.guaranteed_balls, HEAD, shared)
    assert start == 0
    want = fsb.guaranteed_balls(HEAD, points()[: len(first.radius)])
    torch.testing.assert_close(first.radius, want.radius, rtol=1e-12, atol=0)


def test_a_lost_shard_is_restored(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that were sent to a worker vanish before each second batch."""
    monkeypatch.setattr(distributed, "_TICK", 0.05)
    shared = FeatureBank(points()).distribute(client)
    real, count = Shard.submit_options, [0]

    def losing(self: Shard) -> dict[str, Any]:
        count[0] += 1
        if count[0] % 2:
            assert self._future is not None
            self._future.cancel()
        return real(self)

    monkeypatch.setattr(Shard, "submit_options", losing)
    found = list(fsb.map_rows(_radius, HEAD, shared, batch_size=BATCH))
    want = fsb.guaranteed_balls(HEAD, points()).radius
    torch.testing.assert_close(torch.cat([one for _, one in found]), want, rtol=1e-12, atol=0)
    assert count[0] > len(found)


def _radius(head: fsb.LinearHead, rows: torch.Tensor) -> torch.Tensor:
    """Keep one field, which is less to send."""
    return fsb.guaranteed_balls(head, rows).radius


def test_few_batches_are_computed_ahead(client: Client) -> None:
    computed = list[int]()

    def note(_: object, rows: torch.Tensor) -> int:
        computed.append(len(rows))
        return len(rows)

    results = fsb.map_rows(note, HEAD, points(), batch_size=1)
    assert [next(results) for _ in range(3)] == [(0, 1), (1, 1), (2, 1)]
    assert len(computed) == 3
    many = oracle.normal(500, WIDTH)
    streamed = fsb.map_rows(note, HEAD, many, client=client, batch_size=1)
    assert next(streamed) == (0, 1)
    streamed.close()  # type: ignore[attr-defined] # a generator
    assert len(computed) < 100


BAD: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("balls", HEAD, torch.zeros(3, WIDTH)), {}, "function: got 'balls'; wanted a function"),
    ((_radius, HEAD, torch.zeros(3)), {}, r"features: got shape \(3,\); wanted .*\(n, d\)"),
    ((_radius, HEAD, [[1.0]]), {}, "features: got a list; wanted"),
    ((_radius, HEAD, torch.zeros(3, WIDTH)), {"batch_size": 0}, "batch_size: got 0"),
    ((_radius, HEAD, torch.zeros(3, WIDTH)), {"client": 3}, "client: got 3; wanted a connected"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), BAD)
def test_bad_arguments_raise_before_the_first_result(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        fsb.map_rows(*arguments, **options)


def test_dask_arrays_that_are_no_rows(client: Client) -> None:
    zeros, known = dask.array.zeros((4, 2)), dask.array.from_array(points().numpy())
    for array, message in [
        (dask.array.zeros(3), r"features: got shape \(3,\) and dtype float64"),
        (zeros.astype(int), "dtype int64; wanted a float array"),
        (known[known[:, 0] > 0], r"an array of unknown size; .*compute_chunk_sizes\(\)"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            fsb.map_rows(_radius, HEAD, array, client=client)


def test_a_dask_array_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Client:
        raise ValueError

    monkeypatch.setattr(rows, "default_client", none)
    with pytest.raises(ArgumentError, match="client: got None, and there is no current one"):
        fsb.map_rows(_radius, HEAD, dask.array.zeros((3, WIDTH)))


def _fails(head: fsb.LinearHead, rows: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError


def test_what_a_function_raises(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        next(fsb.map_rows(_fails, HEAD, points()))
    with pytest.raises(DataError, match=r"a worker failed on part 0: ZeroDivisionError"):
        next(fsb.map_rows(_fails, HEAD, points(), client=client))
    with pytest.raises(ArgumentError, match="norm: got 'l3'"):
        next(fsb.map_rows(fsb.guaranteed_balls, HEAD, points(), client=client, norm="l3"))


def test_dask_is_needed_only_for_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.array", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "fsboundary.banks.cluster.rows", raising=False)
    assert next(fsb.map_rows(_radius, HEAD, points()))[0] == 0
    with pytest.raises(ArgumentError, match=r"pip install 'fsboundary\[distributed\]'"):
        fsb.map_rows(_radius, HEAD, points(), client=object())  # type: ignore[arg-type] # as a user might
