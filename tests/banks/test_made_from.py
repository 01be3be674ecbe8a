"""Banks made from files, arrays and other banks, and in other dtypes, equal those in memory."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import fsboundary as fsb
from fsboundary.banks import BankInfo, FeatureBank, tables
from fsboundary.banks.disk import layout
from fsboundary.core.errors import ArgumentError, DataError, HeadMismatchError
from fsboundary.core.files import hold_lock
from support.banks import oracle
from support.banks.small import content, images, loader, space
from support.flips.case import arrays
from support.hulls.case import HullCase
from support.hulls.checker import check_hulls

ROWS, WIDTH = 53, 6
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks and chunks have rows of their own, 4 and 10."""
    monkeypatch.setattr(tables, "_NUMBERS", 4 * WIDTH)
    monkeypatch.setattr(layout, "_ROWS", 10)


@pytest.fixture(params=[False, True], ids=["memory", "disk"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "made" if request.param else None


def points(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return oracle.normal(ROWS, WIDTH).to(dtype)


def classes() -> torch.Tensor:
    return torch.arange(ROWS) % 4 - 1


def same(bank: FeatureBank, want: FeatureBank) -> None:
    """Assert that two banks have the same content, also where rows are read one by one."""
    assert bank.dtype == want.dtype
    assert len(bank) == len(want)
    assert torch.equal(bank.features, want.features)
    assert (bank.labels is None) == (want.labels is None)
    if bank.labels is not None and want.labels is not None:
        assert torch.equal(bank.labels, want.labels)
    assert torch.equal(bank.ids, want.ids)
    assert torch.equal(bank.digests(), want.digests())
    assert bank.info == want.info
    rows = torch.tensor([0, len(want) - 1, 3])
    assert torch.equal(bank.take(rows), want.take(rows))
    directions = oracle.normal(5, want.num_features, seed=1)
    assert torch.equal(bank.price(directions, 3)[1], want.price(directions, 3)[1])


@pytest.mark.parametrize("kind", ["file", "mapped", "array"])
@pytest.mark.parametrize("numbers", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("dtype", [None, *HALVES])
def test_a_file_of_numpy(
    tmp_path: Path, path: Path | None, kind: str, numbers: str, dtype: torch.dtype | None
) -> None:
    array = points().numpy().astype(numbers)
    file = tmp_path / "points.npy"
    np.save(file, array)
    np.save(tmp_path / "labels.npy", classes().numpy().astype(np.int16))
    sources: dict[str, Any] = {
        "file": file,
        "mapped": np.load(file, mmap_mode="r"),
        "array": np.asfortranarray(array),
    }
    labels = tmp_path / "labels.npy" if kind == "file" else classes()
    made = FeatureBank.from_npy(sources[kind], labels, path=path, dtype=dtype)
    want = FeatureBank(torch.from_numpy(array.astype(numbers[1:])), classes(), dtype=dtype)
    same(made, want)
    assert (made.seal != "") == (path is not None)


BAD_NPY: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: folder / "none.npy", "source: got .*none.npy', which cannot be read"),
    (lambda folder: folder / "words.npy", "source: got .*words.npy', which cannot be read"),
    (lambda folder: folder / "two.npz", "source: got .*two.npz', which contains several arrays"),
    (lambda folder: folder / "objects.npy", "source: got .*cannot be read .*Python objects"),
    (lambda _: [[1.0, 2.0]], "source: got a list; wanted a path or an array"),
    (lambda _: np.zeros((3, 2, 1)), r"source: got shape \(3, 2, 1\) and dtype float64"),
    (lambda _: np.zeros((0, 2)), r"source: got shape \(0, 2\)"),
    (lambda _: np.zeros((3, 2), int), r"source: got shape \(3, 2\) and dtype int64"),
]


@pytest.mark.parametrize(("source", "message"), BAD_NPY)
def test_files_of_numpy_that_are_no_points(
    tmp_path: Path, source: Callable[[Path], Any], message: str
) -> None:
    (tmp_path / "words.npy").write_text("words")
    np.savez(tmp_path / "two.npz", one=np.zeros(2), two=np.zeros(2))
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ArgumentError, match=message):
        FeatureBank.from_npy(source(tmp_path), path=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_other_bad_arguments(tmp_path: Path) -> None:
    array = points().numpy()
    with pytest.raises(ArgumentError, match=r"labels: got shape \(5,\); wanted"):
        FeatureBank.from_npy(array, classes()[:5], path=tmp_path / "made")
    for dtype in ("float16", torch.int8, torch.float8_e5m2):
        with pytest.raises(ArgumentError, match=r"dtype: got .*; wanted None or one of torch.flo"):
            FeatureBank.from_npy(array, dtype=dtype)  # type: ignore[arg-type] # as a user might
        with pytest.raises(ArgumentError, match="dtype: got"):
            FeatureBank(points(), dtype=dtype)  # type: ignore[arg-type] # as above
        with pytest.raises(ArgumentError, match="dtype: got"):
            space().bank(loader(), dtype=dtype)  # type: ignore[arg-type] # as above
    (tmp_path / "there").mkdir()
    with pytest.raises(ArgumentError, match=r"path: got .*there, which exists"):
        FeatureBank.from_npy(array, path=tmp_path / "there")


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "NaN or"), (1e9, "beyond the range")])
def test_numbers_that_cannot_be_stored(
    tmp_path: Path, path: Path | None, value: float, message: str
) -> None:
    array = points().numpy()
    array[[20, 31], 1] = value
    with pytest.raises(DataError, match=rf"{message}.* in rows 20(, 31)?\. "):
        FeatureBank.from_npy(array, path=path, dtype=torch.float16)
    if value == 1e9:
        with pytest.raises(DataError, match=r"largest is 65504, in rows 20, 31\. Store them with"):
            FeatureBank(array, dtype=torch.float16)
        assert FeatureBank(array, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", HALVES)
def test_the_stored_numbers_are_the_points(
    tmp_path: Path, path: Path | None, dtype: torch.dtype
) -> None:
    """Certificates are checked with the rounded points, by the independent checker."""
    bank = FeatureBank.from_npy(points().numpy(), classes(), path=path, dtype=dtype)
    stored = points().to(dtype)
    assert bank.dtype == dtype
    assert bank.features.dtype == torch.float32
    assert torch.equal(bank.features, stored.float())
    assert torch.equal(bank.take(torch.arange(ROWS)), stored.double())
    queries = 0.8 * oracle.normal(7, WIDTH, seed=2).double()
    found = fsb.hull_projection(bank, queries).raise_for_status()
    assert not check_hulls(
        HullCase(points=stored.double().numpy(), queries=queries.numpy()), arrays(found)
    )
    again = fsb.hull_projection(FeatureBank(stored.float()), queries)
    assert torch.equal(found.distance, again.distance)
    chosen = bank.subset(labels=[0, 2])
    assert torch.equal(chosen.features, stored.float()[torch.isin(classes(), torch.tensor([0, 2]))])
    ends = torch.stack(bank.range())
    assert torch.equal(ends, torch.stack([stored.amin(0), stored.amax(0)]).double())
    whole = tmp_path / "whole"
    bank.save(whole)
    same(FeatureBank.open(whole), bank)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("after", [3, 12])
def test_extraction_to_half_precision_resumes(
    tmp_path: Path, dtype: torch.dtype, after: int
) -> None:
    want = space().extract(images(), batch_size=4).features.to(dtype)
    assert torch.equal(space().bank(loader(), dtype=dtype).features, want.float())
    whole = space().bank(loader(), tmp_path / "whole", dtype=dtype)
    assert torch.equal(whole.features, want.float())

    def cut() -> Any:
        yield from loader()[:after]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        space().bank(cut(), tmp_path / "cut", dtype=dtype)
    with pytest.raises(DataError, match=rf"a bank of {dtype}; .*float32. Pass dtype={dtype}, or"):
        space().bank(loader(), tmp_path / "cut")
    space().bank(loader(), tmp_path / "cut", dtype=dtype)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_lists_in_parquet_files(
    tmp_path: Path, path: Path | None, fixed: bool, files: int, dtype: torch.dtype | None
) -> None:
    kind = pyarrow.list_(pyarrow.float32(), WIDTH if fixed else -1)
    sources = []
    pairs = zip(points().tensor_split(files), classes().tensor_split(files), strict=True)
    for number, (part, labels) in enumerate(pairs):
        columns = {"z": pyarrow.array(part.tolist(), kind), "y": labels.numpy()}
        sources.append(tmp_path / f"{number}.parquet")
        pyarrow.parquet.write_table(pyarrow.table(columns), sources[-1], row_group_size=7)
    source = sources if files > 1 else str(sources[0])
    made = FeatureBank.from_parquet(source, "z", "y", path=path, dtype=dtype)
    same(made, FeatureBank(points(), classes(), dtype=dtype))


def test_columns_of_parquet_files(tmp_path: Path, path: Path | None) -> None:
    names = [f"z{number}" for number in range(WIDTH)]
    table = dict(zip(names, points(torch.float64).T.numpy(), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "columns.parquet")
    made = FeatureBank.from_parquet(tmp_path / "columns.parquet", names, path=path)
    same(made, FeatureBank(points(torch.float64)))
    one = FeatureBank.from_parquet(tmp_path / "columns.parquet", "z2")
    assert torch.equal(one.features, points(torch.float64)[:, 2:3])


TABLE = {
    "z": [[1.0, 2.0], [3.0, 4.0]],
    "ragged": [[1.0, 2.0], [3.0]],
    "null": [[1.0, None], [3.0, 4.0]],
    "missing": [None, [3.0, 4.0]],
    "whole": [[1, 2], [3, 4]],
    "words": ["one", "two"],
    "y": [0, 1],
    "low": [-2, 1],
    "real": [0.5, 1.0],
}
BAD_PARQUET = [
    ("other", None, r"features: got \['other'\], which .* does not have; .*choose among z, ragged"),
    ("z", "other", r"features: got \['other'\]"),
    ("ragged", None, "lists of .* numbers. Every row needs the same number"),
    ("null", None, "nulls among the features"),
    ("missing", None, "nulls among the features"),
    ("whole", None, "features: got a column of list<.*int64> .*; wanted floats"),
    ("words", None, "features: got a column of string"),
    ("z", "real", "labels: got double with 0 nulls; wanted a column of integers"),
    ("z", "low", "labels: got labels from -2"),
    (["z", "real"], None, "features: got a column of list"),
    ([], None, "features: got a list; wanted names of columns"),
    (3, None, "features: got"),
]


@pytest.mark.parametrize(("features", "labels", "message"), BAD_PARQUET)
def test_columns_that_are_no_points(
    tmp_path: Path, features: Any, labels: str | None, message: str
) -> None:
    file = tmp_path / "bad.parquet"
    pyarrow.parquet.write_table(pyarrow.table(TABLE), file)
    with pytest.raises((ArgumentError, DataError), match=message):
        FeatureBank.from_parquet(file, features, labels, path=tmp_path / "made")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.parquet"]


def test_files_that_are_not_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words").write_text("words")
    pyarrow.parquet.write_table(pyarrow.table({"z": pyarrow.array([], "float32")}), tmp_path / "no")
    for source, message in [
        (tmp_path / "words", "source: got a file that cannot be read"),
        (tmp_path / "none", "source: got a file that cannot be read"),
        ([], "source: got a list; wanted a path"),
        ([3], "source: got a list; wanted a path"),
        (tmp_path / "no", "source: got no rows; wanted at least one"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            FeatureBank.from_parquet(source, "z")  # type: ignore[arg-type] # as a user might
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ArgumentError, match=r"pip install 'fsboundary\[parquet\]'"):
        FeatureBank.from_parquet(tmp_path / "no", "z")


@pytest.mark.parametrize("stored", [False, True])
def test_merged_and_appended_banks(tmp_path: Path, path: Path | None, stored: bool) -> None:
    cuts = [points()[:20], points()[20:21], points()[21:]]
    parts = list(zip(cuts, classes().split([20, 1, 32]), strict=True))
    banks = [FeatureBank(rows, labels) for rows, labels in parts]
    if stored:
        for number, bank in enumerate(banks):
            bank.save(tmp_path / str(number))
        banks = [FeatureBank.open(tmp_path / str(number)) for number in range(3)]
    want = FeatureBank(points(), classes())
    same(FeatureBank.merge(banks, path=path), want)
    same(banks[0].append(points()[20:], classes()[20:]), want)
    half = FeatureBank.merge(banks, dtype=torch.float16)
    same(half, FeatureBank(points(), classes(), dtype=torch.float16))
    mixed = FeatureBank.merge([half, FeatureBank(points(), classes(), dtype=torch.bfloat16)])
    assert mixed.dtype == torch.float32
    appended = half.append(points()[:3], classes()[:3], path=tmp_path / "appended")
    assert appended.dtype == torch.float16
    assert torch.equal(appended.ids, torch.arange(ROWS + 3))
    view = FeatureBank.merge([want.subset(labels=1), want.subset(labels=2)])
    order = torch.cat([(classes() == 1).nonzero()[:, 0], (classes() == 2).nonzero()[:, 0]])
    assert torch.equal(view.features, points()[order])
    assert torch.equal(view.ids, torch.arange(len(order)))


def test_the_origin_of_merged_rows(tmp_path: Path) -> None:
    batch = space().extract(images())
    bank = space().bank(loader())
    labels = torch.zeros(len(batch.features), dtype=torch.int64)
    appended = bank.append(batch, labels, path=tmp_path / "bank")
    assert appended.info == bank.info
    assert len(FeatureBank.open(tmp_path / "bank")) == 2 * len(bank)
    assert bank.append(batch.features, labels).info == BankInfo()
    other = FeatureBank.merge([bank])
    other._store.info = BankInfo(fingerprint="another")
    with pytest.raises(HeadMismatchError, match=r"banks: of different heads.*another"):
        FeatureBank.merge([bank, other])


BAD_MERGES: list[tuple[Callable[[], Any], str]] = [
    (list, r"banks: got a list; wanted a sequence of FeatureBank, at least one"),
    (lambda: FeatureBank(points()), "banks: got a FeatureBank"),
    (lambda: [FeatureBank(points()), points()], "banks: got a Tensor"),
    (
        lambda: [FeatureBank(points()), FeatureBank(points()[:, :3])],
        "banks: got width 3 at 1, after 6; wanted banks of one width",
    ),
    (
        lambda: [FeatureBank(points(), classes()), FeatureBank(points())],
        "banks: got no labels at 1, after labels; wanted labels in all banks or in none",
    ),
]


@pytest.mark.parametrize(("banks", "message"), BAD_MERGES)
def test_banks_that_cannot_be_merged(
    tmp_path: Path, banks: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        FeatureBank.merge(banks(), path=tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_memory_holds_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The banks have 16 MB each; chunks have 1 MB, of which a few wait for the disk."""
    monkeypatch.setattr(layout, "_ROWS", 2000)
    monkeypatch.setattr(layout, "_BYTES", 2**20)
    monkeypatch.setattr(tables, "_NUMBERS", 2**17)
    file = tmp_path / "points.npy"
    np.save(file, oracle.normal(2000, 2000).numpy())
    FeatureBank.from_npy(points().numpy()).save(tmp_path / "warm")
    tracemalloc.start()
    bank = FeatureBank.from_npy(file, path=tmp_path / "one")
    FeatureBank.merge([bank, bank, bank], path=tmp_path / "three")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20


def _make(kind: str, folder: Path) -> FeatureBank:
    """Make the bank FOLDER/made of the rows in the other files of the folder."""
    if kind == "npy":
        return FeatureBank.from_npy(folder / "points.npy", classes(), path=folder / "made")
    if kind == "parquet":
        return FeatureBank.from_parquet(folder / "points", "z", "y", path=folder / "made")
    bank = FeatureBank.open(folder / "bank")
    if kind == "append":
        return bank.append(points()[1:], classes()[1:], path=folder / "made")
    rest = FeatureBank(points()[1:], classes()[1:])
    return FeatureBank.merge([bank, rest], path=folder / "made")


@pytest.fixture(params=["npy", "parquet", "append", "merge"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Write what a bank is made from, and return the way."""
    np.save(tmp_path / "points.npy", points().numpy())
    columns = {"z": pyarrow.array(points().tolist()), "y": classes().numpy()}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "points")
    FeatureBank(points()[:1], classes()[:1]).save(tmp_path / "bank")
    kind: str = request.param
    return kind


def test_a_path_that_another_process_writes_is_refused(made: str, tmp_path: Path) -> None:
    with hold_lock(tmp_path / "made"), pytest.raises(DataError, match="is being written by"):
        _make(made, tmp_path)
    assert len(_make(made, tmp_path)) == ROWS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork and no SIGKILL")
def test_a_process_that_is_killed_leaves_nothing_that_counts(made: str, tmp_path: Path) -> None:
    """It is killed at every fifth file operation; the next call makes the same bank."""
    number, wanted = 0, None
    while True:
        child = os.fork()
        if child == 0:
            left = number

            def watch(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal left
                if event in ("open", "os.rename", "os.mkdir") and ".made" in str(arguments[0]):
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(watch)
                _make(made, tmp_path)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert not (tmp_path / "made" / "zarr.json").exists()
        _make(made, tmp_path)
        files = content(tmp_path / "made")
        wanted = wanted or files
        assert files == wanted
        for file in sorted((tmp_path / "made").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (tmp_path / "made").rmdir()
        number += 5
    assert number >= 25
    assert content(tmp_path / "made") == wanted
    assert not list(tmp_path.glob(".*"))
