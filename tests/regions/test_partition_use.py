"""Calling partition: arguments, resuming, processes, methods of results, witnesses."""

from __future__ import annotations

import dataclasses
import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fsboundary as fsb
from fsboundary import Domain, Partition, Status
from fsboundary.core.errors import ArgumentError, DataError

NO_PAIRS = torch.zeros((0, 2), dtype=torch.int64)


def random_head(k: int, d: int, seed: int = 0, domain: Domain | None = None) -> fsb.LinearHead:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64)
    bias = torch.randn(k, generator=g, dtype=torch.float64)
    return fsb.LinearHead(weight, bias, Domain.unbounded() if domain is None else domain)


def assert_identical(got: Partition, want: Partition) -> None:
    for field in dataclasses.fields(Partition):
        one, other = getattr(got, field.name), getattr(want, field.name)
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other, field.name


def box(*lower: float, high: float = 1.0) -> Domain:
    return Domain.box(torch.tensor(lower), torch.full((len(lower),), high))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": "head"}, "head: got 'head'"),
        ({"within": (0, 1)}, "within: got a tuple"),
        ({"within": box(0, 0)}, "within: got a box of width 2"),
        ({"within": box(-3, -3, -3, high=-1)}, "does not meet the head's: feature 0 from 0.0 to"),
        ({"within": box(1, 1, 1)}, "within: got a domain of one point"),
        ({"pairs": "all"}, "pairs: got 'all'"),
        ({"pairs": torch.rand(1, 2)}, "pairs: got dtype"),
        ({"pairs": torch.tensor([0, 1])}, "pairs: got shape"),
        ({"pairs": torch.tensor([[0, 4]])}, "pairs: got classes from 0 to 4"),
        ({"pairs": torch.tensor([[1, 1]])}, r"pairs: got \[1, 1\] in row 0; wanted no repeats"),
        ({"n_jobs": 0}, "n_jobs: got 0"),
        ({"seed": "0"}, "seed: got '0'"),
        ({"resume": 3}, "resume: got 3"),
    ],
)
def test_bad_arguments(change: dict[str, object], words: str) -> None:
    arguments = {"head": random_head(4, 3, domain=Domain.nonnegative()), **change}
    with pytest.raises(ArgumentError, match=words):
        fsb.partition(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_bad_heads_and_boxes_cannot_be_made() -> None:
    with pytest.raises(ArgumentError, match="at least two classes"):
        fsb.LinearHead(torch.ones(1, 3), None)
    with pytest.raises(ArgumentError, match="NaN"):
        fsb.LinearHead(torch.tensor([[1.0], [torch.nan]]), None)
    with pytest.raises(ArgumentError, match="lower <= upper"):
        box(2)


def test_a_run_killed_anywhere_resumes_to_the_same_result(tmp_path: Path) -> None:
    head, file = random_head(5, 3), tmp_path / "run" / "partition.jsonl"
    want = fsb.partition(head, resume=file)
    whole = file.read_bytes()
    assert_identical(fsb.partition(head), want)
    for size in (0, 1, 40, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:size])
        assert_identical(fsb.partition(head, resume=file), want)
        assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_finished_programs_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, file = random_head(4, 3), tmp_path / "partition.jsonl"
    fsb.partition(head, resume=file, pairs=torch.tensor([[2, 1]]))
    run: list[object] = []
    module = import_module("fsboundary.regions.partition")
    solve_all = module.solve_all

    def watched(solver, tasks, n_jobs):  # type: ignore[no-untyped-def]  # passes all on
        run.extend(tasks)
        return solve_all(solver, tasks, n_jobs)

    monkeypatch.setattr(module, "solve_all", watched)
    fsb.partition(head, resume=file)
    assert sorted(run) == [("facet", i, j) for i in range(4) for j in range(i + 1, 4) if i + j != 3
                           or i == 0]  # fmt: skip
    run.clear()
    fsb.partition(head, resume=file)
    assert run == []


def test_files_of_other_runs_are_rejected(tmp_path: Path) -> None:
    head, file = random_head(3, 2), tmp_path / "partition.jsonl"
    fsb.partition(head, resume=file)
    before = file.read_bytes()
    for other, within in ((random_head(3, 2, seed=1), None), (head, box(0, 0))):
        with pytest.raises(ArgumentError, match=r"partition\.jsonl, which is of another head or"):
            fsb.partition(other, within, resume=file)
    assert file.read_bytes() == before
    file.write_text("something else\n")
    with pytest.raises(ArgumentError, match="which is something else"):
        fsb.partition(head, resume=file)
    with pytest.raises(ArgumentError, match="which is something else"):
        fsb.partition(head, resume=tmp_path)
    lines = before.splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        fsb.partition(head, resume=file)


@pytest.mark.parametrize("line", [2, 5, 13])
def test_a_radius_that_changed_on_disk_is_rejected(tmp_path: Path, line: int) -> None:
    head, file = random_head(4, 2), tmp_path / "partition.jsonl"
    want = fsb.partition(head, box(-4, -4, high=4), resume=file)
    lines = file.read_bytes().splitlines(keepends=True)
    number = min(line, len(lines)) - 1
    entry = json.loads(lines[number])
    wrong = json.dumps(entry | {"lower": 3.0, "upper": 3.0}).encode() + b"\n"
    file.write_bytes(b"".join([*lines[:number], wrong, *lines[number + 1 :]]))
    if number < len(lines) - 1:
        with pytest.raises(DataError, match=f"line {number + 1} is damaged"):
            fsb.partition(head, box(-4, -4, high=4), resume=file)
    else:  # like an incomplete last line: its program runs again
        assert_identical(fsb.partition(head, box(-4, -4, high=4), resume=file), want)


def test_processes_and_the_progress_bar_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    head = random_head(4, 3)
    state = torch.get_rng_state()
    want = fsb.partition(head)
    assert_identical(fsb.partition(head, n_jobs=2, show_progress=True), want)
    assert "10/10" in capsys.readouterr().err
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_a_partition() -> None:
    head = random_head(8, 3)
    found = fsb.partition(head, box(-4, -4, -4, high=4))
    for i in range(8):
        near = found.neighbours(i)
        assert sorted(near.tolist()) == found.adjacency[i].nonzero()[:, 0].tolist()
        assert (found.facet_radius[i, near].diff() <= 0).all()
    thin = found.thinnest(3)
    radii = found.facet_radius[found.facet_pairs[:, 0], found.facet_pairs[:, 1]]
    torch.testing.assert_close(found.facet_radius[thin[:, 0], thin[:, 1]], radii.sort().values[:3])
    narrow = found.narrowest(100)
    assert len(narrow) == found.nonempty.sum()
    assert (found.chebyshev_radius[narrow].diff() >= 0).all()
    few = found.take([5, 2])
    assert few.adjacency[0, 1] == found.adjacency[5, 2]
    assert torch.equal(few.facet_radius.isnan(), found.facet_radius[[5, 2]][:, [5, 2]].isnan())
    assert len(few.facet_pairs) == len(few.facet_centre) == int(few.adjacency.sum()) // 2
    assert found.to("cpu").raise_for_status() is not found


def test_a_point_of_each_facet_is_where_two_classes_tie_above_the_rest() -> None:
    head = random_head(6, 4, domain=Domain.nonnegative())
    found = fsb.partition(head)
    assert len(found.facet_pairs) > 5
    top = head.logits(found.facet_centre).topk(3)
    assert torch.equal(top.indices[:, :2].sort().values, found.facet_pairs)
    assert (top.values[:, 0] - top.values[:, 1] < 1e-9).all()
    assert (top.values[:, 1] - top.values[:, 2] > 1e-9).all()
    assert (found.facet_centre > 0).all()
    assert torch.equal(head.predict(found.chebyshev_centre[found.nonempty]),
                       found.nonempty.nonzero()[:, 0])  # fmt: skip


@pytest.fixture(scope="module")
def many() -> tuple[fsb.LinearHead, Domain, Partition]:
    """A head of 250 classes in a box, its facets proved by witnesses only."""
    head, domain = random_head(250, 6), box(*[-2.0] * 6, high=2.0)
    return head, domain, fsb.partition(head, domain, pairs=NO_PAIRS)


def test_witnesses_against_exact_programs(many: tuple[fsb.LinearHead, Domain, Partition]) -> None:
    head, domain, alone = many
    both = torch.combinations(alone.nonempty.nonzero()[:, 0])
    drawn = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))[:150]]
    exact = fsb.partition(head, domain, pairs=drawn)
    i, j = drawn.unbind(dim=1)
    assert torch.isin(exact.status[i, j], torch.tensor([0, 1])).all()
    seen = alone.adjacency[i, j]
    assert seen.any()
    # the program confirms what a point proved, with a ball that is not smaller
    assert (exact.status[i, j][seen] == Status.CONVERGED).all()
    assert (exact.facet_radius[i, j] >= alone.facet_radius[i, j])[seen].all()
    assert (alone.facet_upper[i, j] >= exact.facet_radius[i, j].nan_to_num(0.0)).all()
    # and points find most facets
    assert seen.sum() > 0.75 * exact.adjacency[i, j].sum()


def test_witnessed_pairs_and_the_rest(many: tuple[fsb.LinearHead, Domain, Partition]) -> None:
    _, _, found = many
    assert torch.equal(found.witnessed, found.adjacency)
    assert (found.status[found.adjacency] == Status.INACCURATE).all()
    empty = found.region_status == Status.INFEASIBLE
    rest = ~found.adjacency & ~empty & ~empty[:, None] & ~torch.eye(250).bool()
    assert (found.status[rest] == Status.UNDECIDED).all()
    assert (found.facet_upper[rest] <= 2.2).all()  # the box is 4 wide
    assert found.fraction_witnessed > 0
    assert found.fraction_undecided == pytest.approx(float(rest.sum()) / (250 * 249))


def test_auto_samples_pairs_of_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("fsboundary.regions.partition"), "FEW_CLASSES", 19)
    head, domain = random_head(20, 3), box(-2, -2, -2, high=2)
    alone, every = fsb.partition(head, domain, pairs=NO_PAIRS), fsb.partition(head, domain)
    undecided = int((alone.status == Status.UNDECIDED).triu(1).sum())
    assert undecided > 12
    assert not (every.status == Status.UNDECIDED).any()
    monkeypatch.setattr(import_module("fsboundary.regions.partition"), "SAMPLED", 12)
    found = fsb.partition(head, domain)
    # pairs without a witness come first
    assert (found.status == Status.UNDECIDED).triu(1).sum() == undecided - 12
    assert not torch.equal(fsb.partition(head, domain, seed=1).status, found.status)
    monkeypatch.setattr(import_module("fsboundary.regions.partition"), "SAMPLED", undecided + 5)
    found = fsb.partition(head, domain)
    assert (found.status == Status.INACCURATE).triu(1).sum() == alone.witnessed.triu(1).sum() - 5
    assert torch.equal(found.adjacency, every.adjacency)
