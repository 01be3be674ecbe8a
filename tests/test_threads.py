"""Chunks in threads: the same results, and torch's threads as they were."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import threads
from fsboundary.geometry.batching import map_chunks
from fsboundary.threads import in_one_thread, map_in_threads
from support.flips.case import arrays
from support.modes import num_threads

CPU = torch.device("cpu")
K, D, B = 12, 300, 700


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with num_threads(3):
        yield


def problem() -> tuple[fsb.LinearHead, Tensor]:
    g = torch.Generator().manual_seed(0)
    head = fsb.LinearHead(
        torch.randn(K, D, generator=g), torch.randn(K, generator=g), fsb.Domain.nonnegative()
    )
    return head, torch.randn(B, D, generator=g).abs()


def labels_of(head: fsb.LinearHead) -> fsb.MultiLabelHead:
    return fsb.MultiLabelHead(head.weight, head.bias, head.domain)


FUNCTIONS: dict[str, Callable[[fsb.LinearHead, Tensor], Any]] = {
    "flip_points": lambda h, z: fsb.flip_points(h, z, "all"),
    "nearest": lambda h, z: fsb.flip_points(h, z),
    "tie_points": lambda h, z: fsb.tie_points(h, z, torch.tensor([0, 1, 2])),
    "region_distances": lambda h, z: fsb.region_distances(h, z[:200]),
    "class_path": lambda h, z: fsb.class_path(h, z, z.flip(0)),
    "guaranteed_balls": fsb.guaranteed_balls,
    "guaranteed_balls linf": lambda h, z: fsb.guaranteed_balls(h, z, "linf"),
    "guaranteed_boxes": lambda h, z: fsb.guaranteed_boxes(h, z[:200]),
    "label_flips": lambda h, z: fsb.label_flips(labels_of(h), z),
    "label_balls": lambda h, z: fsb.label_balls(labels_of(h), z),
    "hull_projection": lambda h, z: fsb.hull_projection(fsb.FeatureBank(z[80:]), 1.2 * z[:80]),
    "leave_one_out": lambda h, z: fsb.leave_one_out_distances(fsb.FeatureBank(z[:90]), sample=50),
    "hull_vertices": lambda h, z: fsb.hull_vertices(fsb.FeatureBank(z[:200, :6])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    head, z = problem()
    found = {}
    for count in (1, 2, 3):
        with num_threads(count):
            found[count] = arrays(FUNCTIONS[name](head, z))
    for field, one in found[1].items():
        for count in (2, 3):
            assert one.tobytes() == found[count][field].tobytes(), (field, count)


def seen(part: slice) -> tuple[int, int, int, bool]:
    return part.start, part.stop, torch.get_num_threads(), torch.is_grad_enabled()


def test_chunks_come_in_order_and_each_has_one_thread_of_torch() -> None:
    with torch.no_grad():
        found = map_chunks(seen, 5000, 2000, CPU)
    assert [start for start, *_ in found] == [0, *(stop for _, stop, *_ in found[:-1])]
    assert found[-1][1] == 5000
    assert {one[2:] for one in found} == {(1, False)}
    assert map_chunks(seen, 0, 2000, CPU) == []


@pytest.mark.parametrize("quota", [1, 2])
def test_no_more_threads_than_a_quota_allows(quota: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    with num_threads(4):
        assert threads.num_threads() == quota

        def note(_: int) -> tuple[int, int]:
            time.sleep(0.02)
            return threading.get_ident(), torch.get_num_threads()

        run = in_one_thread(lambda: map_in_threads(torch.device("cpu"), note, list(range(12))))
        found = run()
    assert len({thread for thread, _ in found}) == quota
    assert {count for _, count in found} == {1}


def test_inside_one_thread_chunks_still_run_at_once() -> None:
    barrier = threading.Barrier(3, timeout=60)  # passed only by three threads together

    @in_one_thread
    def work() -> list[int]:
        assert torch.get_num_threads() == 1
        return map_in_threads(CPU, lambda i: barrier.wait() * 0 + i, [1, 2, 3])

    assert work() == [1, 2, 3]
    assert torch.get_num_threads() == 3


def test_many_calls_inside_calls_end() -> None:
    """Each call holds a thread of the pool, and none is left for what is split inside."""

    @in_one_thread
    def work(number: int) -> int:
        return sum(map_in_threads(CPU, lambda i: i * number, list(range(5))))

    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(work, range(40))) == [10 * i for i in range(40)]


def test_an_interrupt_stops_the_work() -> None:
    begun, ended = threading.Event(), []

    def item(number: int) -> None:
        begun.set()
        threading.Event().wait(0.01)
        ended.append(number)

    @in_one_thread
    def work() -> None:
        map_in_threads(CPU, item, list(range(10_000)))

    def interrupt() -> None:
        begun.wait()
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    # whatever ran before in this process may have left another handler
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    in_one_thread(lambda: None)()  # the pool is free again
    assert len(ended) < 9000


def default_of_new_threads() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_the_threads_of_torch_are_left_as_they_were() -> None:
    inside = []

    @in_one_thread
    def work(*, fails: bool) -> None:
        inside.append(default_of_new_threads())
        if fails:
            raise ValueError("no more")

    work(fails=False)
    with pytest.raises(ValueError, match="no more"):
        work(fails=True)
    assert inside == [3, 3]
    assert (torch.get_num_threads(), default_of_new_threads()) == (3, 3)


def test_a_user_who_wants_one_thread_gets_one() -> None:
    with num_threads(1):
        threads = in_one_thread(
            lambda: map_in_threads(CPU, lambda _: threading.get_ident(), [1, 2])
        )()
    assert set(threads) == {threading.get_ident()}


def test_after_an_error_nothing_new_begins() -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("the first fails")
        threading.Event().wait(0.01)

    with pytest.raises(ValueError, match="the first fails"):
        map_in_threads(CPU, work, list(range(1000)))
    assert len(begun) < 900


def test_calls_from_many_threads_at_once_agree() -> None:
    head, z = problem()
    expected = fsb.flip_points(head, z[:60], "all").distance
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fsb.flip_points(head, z[:60], "all").distance, range(12)))
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {3}
    assert all(torch.equal(one, expected) for one in found)


def in_child(queue: Any) -> None:
    head, z = problem()
    queue.put(fsb.flip_points(head, z[:60], "all").distance.sum().item())


def test_a_forked_process_has_threads_of_its_own() -> None:
    head, z = problem()
    expected = fsb.flip_points(head, z[:60], "all").distance.sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with num_threads(1):  # OpenMP's own threads do not survive a fork
        child = context.Process(target=in_child, args=(queue,))
        child.start()
    child.join(120)
    assert child.exitcode == 0
    assert queue.get() == expected


def test_passes_over_a_bank_on_disk_at_once_do_not_share_memory(tmp_path: Path) -> None:
    """Blocks are read to memory that is used again: by one pass at a time."""
    g = torch.Generator().manual_seed(1)
    memory = fsb.FeatureBank(torch.randn(9000, 40, generator=g))
    memory.save(tmp_path / "bank")
    bank = fsb.FeatureBank.open(tmp_path / "bank")
    queries = [1.5 * torch.randn(6, 40, generator=g) for _ in range(12)]
    expected = [fsb.hull_projection(memory, part) for part in queries]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda part: fsb.hull_projection(bank, part), queries))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.membership, other.membership)
        torch.testing.assert_close(one.distance, other.distance, rtol=1e-9, atol=0)
        torch.testing.assert_close(one.lower_bound, other.lower_bound, rtol=1e-6, atol=0)
