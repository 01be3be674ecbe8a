"""FeatureSpace.bank: in memory, on disk, resumed and rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset

import fsboundary as fsb
from fsboundary.banks import FeatureBank
from fsboundary.banks.disk import layout
from fsboundary.core.errors import ArgumentError, DataError
from support.banks.small import BATCH, CHUNK, ROWS, content, images, labels, loader, model, space

Loader = Iterable[Any]


CHECK = 2
"""Passes of one image alone with the first batch, which show that rows depend on nothing else."""


class Interrupted(Exception):
    """Exception of a loader that is interrupted."""


def interrupt(batches: Loader, after: int) -> Iterator[Any]:
    """Yield `after` batches, then raise Interrupted."""
    for number, batch in enumerate(batches):
        if number == after:
            break
        yield batch
    raise Interrupted


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_ROWS", CHUNK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


def _begin(path: Path, after: int, batches: Loader | None = None) -> None:
    """Leave an unfinished bank of `after` batches, of which only whole chunks count."""
    with pytest.raises(Interrupted):
        space().bank(interrupt(loader() if batches is None else batches, after), path)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_bank_contains_the_features_of_extract(path: Path, on_disk: bool) -> None:
    feature_space = space()
    bank = feature_space.bank(loader(), path if on_disk else None)
    wanted = feature_space.extract(images(), batch_size=BATCH)
    assert torch.equal(bank.features, wanted.features)
    assert bank.labels is not None
    assert torch.equal(bank.labels, labels())
    assert torch.equal(bank.ids, torch.arange(ROWS))
    assert bank.fingerprint == wanted.fingerprint
    assert bank.info.layer == feature_space.notes()["layer"]
    assert bank.info.domain == "nonnegative"
    assert "head_input" in bank.info.extractor


LOADERS: list[Callable[[], Loader]] = [
    lambda: iter(images().split(BATCH)),
    lambda: [[part] for part in images().split(BATCH)],
    lambda: DataLoader(TensorDataset(images()), batch_size=BATCH),
    lambda: [images()[:0], *images().split(BATCH), images()[:0]],
    lambda: images().double().float().split(BATCH),
]


@pytest.mark.parametrize("make", LOADERS)
def test_loaders_without_labels(path: Path, make: Callable[[], Loader]) -> None:
    for bank in (space().bank(make()), space().bank(make(), path)):
        assert bank.labels is None
        assert torch.equal(bank.features, space().extract(images(), batch_size=BATCH).features)


def test_a_data_loader_with_labels_of_another_type(path: Path) -> None:
    data = DataLoader(TensorDataset(images(), labels().int()), batch_size=BATCH)
    bank = space().bank(data, path)
    assert bank.labels is not None
    assert torch.equal(bank.labels, labels())


def test_half_precision_features_are_widened() -> None:
    half = fsb.FeatureSpace(model().bfloat16())
    bank = half.bank([images().bfloat16()])
    assert bank.features.dtype == torch.float32
    assert torch.equal(bank.features, half.extract(images().bfloat16()).features.float())


def test_double_precision_is_kept_on_disk(path: Path) -> None:
    double = fsb.FeatureSpace(model().double())
    bank = double.bank([images().double()], path)
    assert torch.equal(bank.features, double.extract(images().double()).features)


def test_the_progress_bar_is_on_standard_error_and_only_if_asked_for(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space().bank(loader(), path)
    assert capsys.readouterr() == ("", "")
    space().bank(loader(), show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "12/12" in err
    assert "batch" in err


@pytest.mark.parametrize("after", range(13))
def test_a_resumed_bank_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, after: int) -> None:
    space().bank(loader(), tmp_path / "whole")
    _begin(tmp_path / "cut", after)
    space().bank(loader(), tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_stored_features_are_not_recomputed(path: Path) -> None:
    _begin(path, 9)  # 36 rows, of which 32 are in whole chunks
    again = model()
    fsb.FeatureSpace(again).bank(loader(), path)
    first_and_last = 2 * BATCH
    assert again.seen == first_and_last + ROWS - 32 + CHECK


def test_a_complete_bank_is_recognised_and_left_as_it_is(path: Path) -> None:
    space().bank(loader(), path)
    before = content(path)
    again = model()
    bank = fsb.FeatureSpace(again).bank(loader(), path)
    assert again.seen == BATCH + 3 + CHECK
    assert content(path) == before
    assert len(bank) == ROWS


@pytest.mark.parametrize("sizes", [[3, 30, 14], [10, 1, 1, 35], [47], [1] * 47, [5, 9, 2, 31]])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_batches_of_different_sizes(tmp_path: Path, sizes: list[int], after: int) -> None:
    batches = images().split(sizes)
    whole = space().bank(batches, tmp_path / "whole")
    assert torch.equal(whole.features, space().bank(batches).features)
    _begin(tmp_path / "cut", min(after, len(sizes)), batches)
    space().bank(batches, tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_an_unfinished_bank_cannot_be_opened(path: Path) -> None:
    _begin(path, 5)
    with pytest.raises(DataError, match=r"an unfinished bank \(16 rows so far\).*called as before"):
        FeatureBank.open(path)


@pytest.mark.parametrize(
    "torn", [b"", b'{"rows": 2', b'{"rows": 24, "batches": [[4, "a"]]}', b"\0"]
)
def test_a_torn_line_of_the_journal_does_not_count(tmp_path: Path, torn: bytes) -> None:
    space().bank(loader(), tmp_path / "whole")
    _begin(tmp_path / "cut", 5)
    journal = tmp_path / "cut" / "features" / "batches.jsonl"
    journal.write_bytes(journal.read_bytes() + torn)
    space().bank(loader(), tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_damaged_line_of_the_journal_is_rejected(path: Path) -> None:
    _begin(path, 9)
    journal = path / "features" / "batches.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"rows", b"r\0ws", 1))
    with pytest.raises(DataError, match=r"batches.jsonl: a damaged line"):
        space().bank(loader(), path)


def _swap_batches() -> Loader:
    batches = loader()
    batches[2], batches[3] = batches[3], batches[2]
    return batches


def _change_labels() -> Loader:
    batches = loader()
    batches[2] = (batches[2][0], batches[2][1] + 1)
    return batches


OTHER: list[tuple[Callable[[], Loader], str]] = [
    (_swap_batches, r"batch 2 of the loader \(rows 8 to 11\) is not the one.*shuffling sampler"),
    (_change_labels, r"batch 2 of the loader \(rows 8 to 11\) is not the one"),
    (lambda: loader(batch=2), r"batch 0 of the loader \(rows 0 to 1\) is not the one.*batch size"),
    (lambda: images().split(BATCH), r"batch 0 of the loader \(rows 0 to 3\) is not the one"),
    (lambda: loader()[:2], "the loader ended after 2 batches; the bank holds"),
]


@pytest.mark.parametrize("after", [9, 99])
@pytest.mark.parametrize(("other", "message"), OTHER)
def test_other_images_or_another_order_are_rejected(
    path: Path, after: int, other: Callable[[], Loader], message: str
) -> None:
    if after < len(loader()):
        _begin(path, after)
    else:
        space().bank(loader(), path)
    before = content(path)
    with pytest.raises(DataError, match=message):
        space().bank(other(), path)
    assert content(path) == before


def test_a_loader_that_goes_on_is_rejected(path: Path) -> None:
    space().bank(loader(40), path)
    with pytest.raises(DataError, match="the loader goes on after row 39, where it ended"):
        space().bank([*loader(40), *loader(4)], path)
    assert len(FeatureBank.open(path)) == 40


@pytest.mark.parametrize("after", [5, 99])
def test_a_bank_of_another_head_is_rejected_with_both_fingerprints(path: Path, after: int) -> None:
    if after < len(loader()):
        _begin(path, after)
    else:
        space().bank(loader(), path)
    first, other = space(), fsb.FeatureSpace(model(seed=1))
    first.extract(images()), other.extract(images())
    message = (
        f"another head.*fingerprint is {first.fingerprint}, this space's is {other.fingerprint}"
    )
    before = content(path)
    with pytest.raises(DataError, match=message):
        fsb.FeatureSpace(model(seed=1)).bank(loader(), path)
    assert content(path) == before


def test_another_head_is_rejected_before_anything_was_stored(path: Path) -> None:
    _begin(path, 1)
    with pytest.raises(DataError, match="a bank of another head"):
        fsb.FeatureSpace(model(seed=1)).bank(loader(), path)


def test_another_body_under_the_same_head_is_rejected(path: Path) -> None:
    _begin(path, 5)
    with pytest.raises(DataError, match=r"features of batch 0 \(rows 0 to 3\) differ by up to \d"):
        fsb.FeatureSpace(model(body_seed=1)).bank(loader(), path)


def test_a_body_that_changed_later_is_seen_at_the_last_batch(path: Path) -> None:
    """The first batch gives the same features, the last stored one does not."""

    class Later(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x if self.calls <= 1 + CHECK else x + 1

    _begin(path, 5)
    changed = fsb.FeatureSpace(model(), preprocess=Later().eval())
    with pytest.raises(DataError, match=r"features of batch 3 \(rows 12 to 15\) differ"):
        changed.bank(loader(), path)


def test_a_damaged_last_chunk_is_seen_on_resuming(path: Path) -> None:
    _begin(path, 5)
    (path / "features" / "c" / "1" / "0").write_bytes(b"")
    with pytest.raises(DataError, match=r"'features', chunk 1 \(rows 8 to 15\) is damaged"):
        space().bank(loader(), path)


def _data(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(images(), labels()), batch_size=BATCH, **options)


SHUFFLING: list[tuple[Callable[[], Loader], str]] = [
    (lambda: _data(shuffle=True), "a DataLoader with a RandomSampler"),
    (lambda: _data(sampler=RandomSampler(range(ROWS))), "a DataLoader with a RandomSampler"),
    (
        lambda: _data(sampler=torch.utils.data.SubsetRandomSampler(range(9))),
        "a DataLoader with a SubsetRandomSampler",
    ),
    (
        lambda: _data(sampler=DistributedSampler(range(ROWS), num_replicas=1, rank=0)),  # type: ignore[arg-type] # a range is a sized sequence, as it needs
        "a DataLoader with a DistributedSampler",
    ),
]


@pytest.mark.parametrize(("make", "message"), SHUFFLING)
def test_shuffling_samplers_are_rejected_by_name(
    path: Path, make: Callable[[], Loader], message: str
) -> None:
    with pytest.raises(ArgumentError, match=f"loader: got {message}; wanted.*pass shuffle=False"):
        space().bank(make(), path)
    assert not path.exists()
    assert len(space().bank(make())) in (ROWS, 9)  # banks in memory are not resumed


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_rejected_by_row(
    path: Path, on_disk: bool, bad: float
) -> None:
    batches = loader()
    spoilt = [(part.clone(), classes) for part, classes in batches]
    spoilt[6][0][1] = spoilt[6][0][3] = bad
    with pytest.raises(DataError, match=r"of 2 examples, at rows 25, 27 \(counted from 0\)"):
        space().bank(spoilt, path if on_disk else None)
    if on_disk:  # the fixed loader continues after the chunks that were written
        again = model()
        bank = fsb.FeatureSpace(again).bank(batches, path)
        assert again.seen == 2 * BATCH + ROWS - 24 + CHECK
        assert torch.equal(bank.features, space().bank(batches).features)


BAD: list[tuple[Callable[[], Any], str]] = [
    (list, "loader: got no examples; wanted at least one batch"),
    (lambda: iter([]), "loader: got no examples.*only once"),
    (images, "loader: got a Tensor.*extract"),
    (lambda: 3, "loader: got 3; wanted an iterable"),
    (lambda: [{"image": "cat.png"}], "inputs: got no tensors; wanted a tensor .*return_tensors"),
    (lambda: [(images(), labels(), 1)], "loader: got a batch that is a tuple of 3"),
    (lambda: [images().byte()], "inputs: got dtype torch.uint8"),
    (lambda: [(images(), labels()[:5])], r"labels: got shape \(5,\); wanted.*\(47,\)"),
    (lambda: [(images(), labels().float())], "labels: got dtype torch.float32"),
    (lambda: [(images(), labels()), images()], "loader: got a change at row 47; wanted labels"),
]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_loaders(path: Path, on_disk: bool, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        space().bank(make(), path if on_disk else None)


def test_a_folder_of_something_else_is_not_modified(path: Path) -> None:
    path.mkdir()
    space().bank(loader(), path)  # an empty folder is accepted
    assert len(FeatureBank.open(path)) == ROWS
    other = path.with_name("other")
    other.mkdir()
    (other / "thesis.txt").write_text("words")
    with pytest.raises(DataError, match="not a feature bank"):
        space().bank(loader(), other)
    assert content(other) == {"thesis.txt": b"words"}


def test_a_saved_bank_is_not_continued(path: Path) -> None:
    space().bank(loader()).save(path)
    with pytest.raises(
        DataError, match=r"a bank that was not built from a loader.*FeatureBank.open"
    ):
        space().bank(loader(), path)


def test_the_global_generator_is_not_used(path: Path) -> None:
    before = torch.random.get_rng_state()
    space().bank(loader(), path)
    assert torch.equal(torch.random.get_rng_state(), before)
