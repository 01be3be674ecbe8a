"""Results as files: bit for bit, lazily computed points included, and nothing else is opened."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import fsboundary as fsb
from fsboundary import ArgumentError, DataError
from fsboundary.core.results.base import files, tensor_files
from fsboundary.core.results.deferred import Deferred, stored
from support.results import CLASSES, assert_equal, example, same_bits


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("rows", [5, 0])
def test_a_result_is_the_same_after_saving_and_opening(
    kind: type[Any], rows: int, tmp_path: Path
) -> None:
    result = example(kind, rows)
    path = tmp_path / "result"
    result.save(path)
    assert_equal(kind.open(path), result)
    first = path.read_bytes()
    result.save(path, force=True)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def flips_and_distances(
    monkeypatch: pytest.MonkeyPatch, domain: fsb.Domain
) -> tuple[fsb.FlipPoints, fsb.RegionDistances]:
    """Return results with points that are computed when they are read."""
    monkeypatch.setattr("fsboundary.geometry.flips.recomputed._DEFER_BYTES", 0)
    monkeypatch.setattr("fsboundary.geometry.flips.recomputed._DEFER_WIDTH", 1)
    g = torch.Generator().manual_seed(0)
    head = fsb.LinearHead(torch.randn(6, 9, generator=g), torch.randn(6, generator=g), domain)
    z = torch.rand(7, 9, generator=g)
    z[2, 1] = torch.nan
    return fsb.flip_points(head, z, "all"), fsb.region_distances(head, z)


DOMAINS = {
    "unbounded": fsb.Domain.unbounded(),
    "nonnegative": fsb.Domain.nonnegative(),
    "box": fsb.Domain.box(torch.zeros(9), torch.arange(9) + 0.5),
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_points_that_are_computed_when_read_are_saved_without_being_computed(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips, distances = flips_and_distances(monkeypatch, DOMAINS[domain])
    for result, name in ((flips, "points"), (distances, "gradient")):
        assert isinstance(stored(result, name), Deferred)
        for number, part in enumerate((result, result[3:6], result[[6, 0, 2]], result[:0])):
            path = tmp_path / f"{name}{number}"
            part.save(path)
            assert isinstance(stored(part, name), Deferred)
            again = type(result).open(path)
            assert isinstance(stored(again, name), Deferred)
            assert_equal(again[1:], part[1:])
            assert_equal(again, part)
            assert_equal(pickle.loads(pickle.dumps(part)), part)


def test_a_deferred_field_with_numbers_of_other_points_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips, distances = flips_and_distances(monkeypatch, DOMAINS["box"])
    flips.save(tmp_path / "flips")
    distances.save(tmp_path / "distances")
    for name, kind in (("flips", fsb.FlipPoints), ("distances", fsb.RegionDistances)):
        tensors, facts = tensor_files.read_tensors(tmp_path / name, files.FORMAT, "result", "")
        for field in tensors:
            if "." not in field:
                continue
            for wrong in wrong_tensors(field, tensors[field]):
                path = tmp_path / "wrong"
                tensor_files.write_tensors(path, files.FORMAT, tensors | {field: wrong}, facts)
                with pytest.raises(DataError, match=f"no {kind.__name__} of this version"):
                    kind.open(path)


def wrong_tensors(field: str, value: Tensor) -> list[Tensor]:
    """Return tensors that cannot stand for a part of a deferred field."""
    wrong = [torch.zeros(3, 1, 1, 2)]
    if field.endswith(("anchor", "other", "kept_at", "domain")):
        wrong += [torch.full_like(value, 10**6), torch.full_like(value, -9)]
    if field.endswith(("weight", "lower")):
        wrong.append(torch.full_like(value, torch.nan))
    return wrong


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "flips"
    example(fsb.FlipPoints, 2).save(path)
    return path


def test_a_result_of_another_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of class FlipPoints; wanted TiePoints\. Open it with Fl"):
        fsb.TiePoints.open(saved(tmp_path))


def test_a_file_of_another_kind_is_refused_with_words(tmp_path: Path) -> None:
    path = saved(tmp_path)
    tensors, facts = tensor_files.read_tensors(path, files.FORMAT, "result", "")
    other = tmp_path / "other"
    tensor_files.write_tensors(other, "fsboundary result 2", tensors, facts)
    with pytest.raises(DataError, match="'fsboundary result 2'; wanted 'fsboundary result 1'"):
        fsb.FlipPoints.open(other)
    other.write_bytes(save(tensors))
    with pytest.raises(DataError, match="its format is 'none'"):
        fsb.FlipPoints.open(other)
    for entry in ("[1]", "no JSON", "[" * 10**5):
        other.write_bytes(save(tensors, {"fsboundary": entry}))
        with pytest.raises(DataError, match="no readable result"):
            fsb.FlipPoints.open(other)
    other.write_bytes(save(tensors, {"fsboundary": '{"format": "fsboundary result 1"}'}))
    with pytest.raises(DataError, match="a damaged result: its digest is another"):
        fsb.FlipPoints.open(other)
    other.write_bytes(pickle.dumps(example(fsb.FlipPoints)))
    with pytest.raises(DataError, match="no readable result"):
        fsb.FlipPoints.open(other)
    with pytest.raises(DataError, match="no readable result"):
        fsb.FlipPoints.open(tmp_path)
    with pytest.raises(DataError, match=r"no readable result \(.*No such file"):
        fsb.FlipPoints.open(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"distance": torch.zeros(2, 3, dtype=torch.float64)}, r"shape \(2, 3\), and T is 2"),
        ({"distance": torch.zeros(2, dtype=torch.float64)}, r"distance has shape \(2,\)"),
        ({"distance": torch.zeros(2, 2)}, "distance has dtype torch.float32"),
        ({"source": torch.zeros(2, dtype=torch.bool)}, "source has dtype torch.bool"),
        ({"status": torch.full((2, 2), 99)}, r"status has the codes \[99\]"),
        ({"more": torch.zeros(2)}, "its fields are "),
        ({"steps": None}, "its fields are "),
    ],
    ids=str,
)
def test_a_file_whose_tensors_are_not_those_of_the_class(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = saved(tmp_path)
    tensors, facts = tensor_files.read_tensors(path, files.FORMAT, "result", "")
    tensors = {k: v for k, v in (tensors | change).items() if v is not None}
    tensor_files.write_tensors(path, files.FORMAT, tensors, facts)
    with pytest.raises(DataError, match=f"no FlipPoints of this version .*{reason}"):
        fsb.FlipPoints.open(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"plain": {"norm": "l3"}},
        {"plain": {"norm": None}},
        {"plain": {"norm": ["l2"]}},
        {"plain": {"radius": "l2"}},
        {"plain": {}},
        {"plain": {"norm": "l2", "what": 1}},
        {"plain": 3},
        {"deferred": {"centre": "DeferredPoints"}},
        {"deferred": {"points": "os"}},
        {"deferred": {"points": "DeferredPoints"}},
        {"deferred": None},
    ],
    ids=str,
)
def test_a_file_whose_facts_are_not_those_of_the_class(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "balls"
    example(fsb.GuaranteedBalls).save(path)
    tensors, known = tensor_files.read_tensors(path, files.FORMAT, "result", "")
    tensor_files.write_tensors(path, files.FORMAT, tensors, known | facts)
    with pytest.raises(DataError, match="no GuaranteedBalls of this version"):
        fsb.GuaranteedBalls.open(path)


def test_no_byte_of_a_file_can_change_unseen(tmp_path: Path) -> None:
    path = tmp_path / "balls"
    result = example(fsb.GuaranteedBalls, 2)
    result.save(path)
    content = path.read_bytes()
    draw = random.Random(0)
    unseen = 0
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            again = fsb.GuaranteedBalls.open(path)
        except DataError:
            continue
        # a space for another in the header's JSON, for example
        assert_equal(again, result)
        unseen += 1
    assert unseen <= 8
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            fsb.GuaranteedBalls.open(path)
    path.write_bytes(content + b"more")
    with pytest.raises(DataError):
        fsb.GuaranteedBalls.open(path)


def test_a_file_that_changes_later_does_not_change_what_was_opened(tmp_path: Path) -> None:
    path = saved(tmp_path)
    again = fsb.FlipPoints.open(path)
    with path.open("r+b") as stream:
        stream.seek(-200, 2)
        stream.write(b"\x55" * 200)
    assert_equal(again, example(fsb.FlipPoints, 2))


def test_an_existing_file_is_replaced_only_if_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    result = example(fsb.FlipPoints, 3)
    with pytest.raises(ArgumentError, match=r"which exists.*pass force=True"):
        result.save(path)
    with pytest.raises(ArgumentError, match="a file in a folder that exists"):
        result.save(tmp_path / "no" / "folder")
    with pytest.raises(ArgumentError, match="which exists"):
        result.save(tmp_path, force=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DataError, match="cannot be written"):
            result.save(path, force=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["flips"]


def test_a_result_made_by_hand_of_other_shapes_is_not_saved(tmp_path: Path) -> None:
    result = example(fsb.GuaranteedBalls)
    other = fsb.GuaranteedBalls(**result.to_dict() | {"radius": torch.zeros(5, 1)})
    with pytest.raises(ArgumentError, match=r"a GuaranteedBalls whose radius has shape \(5, 1\)"):
        other.save(tmp_path / "balls")


def test_fields_with_common_memory_and_views_are_saved(tmp_path: Path) -> None:
    result = example(fsb.GuaranteedBoxes)
    lower = result.lower.T.contiguous().T
    shared = fsb.GuaranteedBoxes(**result.to_dict() | {"lower": lower, "upper": lower})
    shared.save(tmp_path / "boxes")
    assert_equal(fsb.GuaranteedBoxes.open(tmp_path / "boxes"), shared)


def test_the_file_is_one_that_other_programs_read(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with safe_open(path, framework="pt") as file:
        assert same_bits(file.get_tensor("distance"), example(fsb.FlipPoints, 2).distance)
        facts = json.loads(file.metadata()["fsboundary"])["facts"]
    assert facts["class"] == "FlipPoints"
    assert facts["made_by"] == fsb.__version__


def test_a_false_result_of_a_file_is_refused_where_results_are_checked(tmp_path: Path) -> None:
    head = fsb.LinearHead(torch.eye(3), None)
    z = torch.tensor([[3.0, 1.0, 0.0]])
    flips = fsb.flip_points(head, z)
    false = fsb.FlipPoints(**flips.to_dict() | {"lower_bound": flips.lower_bound * 2})
    false.save(tmp_path / "flips")
    again = fsb.FlipPoints.open(tmp_path / "flips")
    with pytest.raises(ArgumentError, match=r"a claim .* that is not true"):
        fsb.export_certificates(tmp_path / "claims.json", again, head=head, features=z)
