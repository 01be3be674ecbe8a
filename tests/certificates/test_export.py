"""Export of certificates: what is refused, what is left out, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from fsboundary.certificates import verify
from support.certificates import problem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "certificates.json"


def test_a_result_of_something_else_is_refused(file: Path) -> None:
    head, z, bank = problem(3)
    other, y, another = problem(7)  # of the same width
    flips, hulls = fsb.flip_points(head, z, "all"), fsb.hull_projection(bank, 3 * z)
    with pytest.raises(ArgumentError, match=r"result.*\(flip, row \d.*not true.*head and features"):
        fsb.export_certificates(file, flips, head=other, features=z)
    with pytest.raises(ArgumentError, match="not true"):
        fsb.export_certificates(file, flips, head=head, features=y)
    with pytest.raises(ArgumentError, match="not true"):
        fsb.export_certificates(file, hulls, features=3 * z, bank=another)
    with pytest.raises(ArgumentError, match="not true"):
        fsb.export_certificates(file, fsb.guaranteed_balls(head, z), head=other)
    assert not file.exists()


def test_without_its_own_row_a_bank_is_another_one(file: Path) -> None:
    # left out, row 0 is outside of the hull of the others; with it, it is a generator
    _, _, bank = problem(4)
    rows = bank.features
    alone = fsb.hull_projection(bank, rows, leave_out=torch.arange(len(rows)))
    with pytest.raises(ArgumentError, match="not true"):
        fsb.export_certificates(file, alone, features=rows, bank=bank)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "head"),
        ({"head": 1}, "features"),
        ({"head": 1, "features": 1}, "head"),
        ({"head": 1, "features": 1, "bank": 1}, "bank"),
    ],
)
def test_arguments_of_another_kind_of_result_are_refused(
    given: dict[str, Any], named: str, file: Path
) -> None:
    head, z, _ = problem(3)
    with pytest.raises(ArgumentError, match=f"^{named}"):
        fsb.export_certificates(file, fsb.flip_points(head, z), **given)
    with pytest.raises(ArgumentError, match=r"^features.*5 rows.*6 rows"):
        fsb.export_certificates(file, fsb.flip_points(head, z), head=head, features=z[:5])


def test_results_without_certificates_are_refused(file: Path) -> None:
    head, z, bank = problem(3)
    for result in (fsb.region_distances(head, z), fsb.affine_rank(bank), z, None):
        with pytest.raises(ArgumentError, match=r"^result.*FlipPoints, TiePoints"):
            fsb.export_certificates(file, result, head=head)  # type: ignore[arg-type]  # on purpose


def test_failed_entries_are_left_out_and_counted(file: Path) -> None:
    head, z, _ = problem(4)  # nonnegative
    z[1, 0], z[2] = torch.nan, -1.0
    flips = fsb.flip_points(head, z, "all")
    fsb.export_certificates(file, flips, head=head, features=z)
    data = json.loads(file.read_text())
    assert {claim["row"] for claim in data["claims"]} == {0, 3, 4, 5}
    statuses = [Status(code).name for code in flips.status[~flips.ok].tolist()]
    assert data["left_out"] == {name: statuses.count(name) for name in dict.fromkeys(statuses)}
    assert {"NOT_FINITE", "OUTSIDE_DOMAIN"} <= set(data["left_out"])
    assert verify.main([str(file)]) == 0


def test_numbers_are_those_of_the_result_up_to_rounding(file: Path) -> None:
    _, z, bank = problem(5)
    found = fsb.hull_projection(bank, 2 * z)
    fsb.export_certificates(file, found, features=2 * z, bank=bank)
    for claim in json.loads(file.read_text())["claims"]:
        row = claim["row"]
        assert float.fromhex(claim["lower"]) == found.lower_bound[row]
        upper, distance = float.fromhex(claim["upper"]), float(found.distance[row])
        # the generators are of size 1 to 3, in at most 6 features
        assert distance <= upper <= distance + 1e-12 * 20


def test_files_of_others_stay(file: Path) -> None:
    head, z, _ = problem(3)
    flips = fsb.flip_points(head, z)
    fsb.export_certificates(file, flips, head=head, features=z)
    fsb.export_certificates(file, flips, head=head, features=z)  # our own may be replaced
    file.write_text("mine")
    with pytest.raises(ArgumentError, match="not written by fsboundary"):
        fsb.export_certificates(file, flips, head=head, features=z)
    with pytest.raises(ArgumentError, match="not written by fsboundary"):
        fsb.write_verifier(file)
    assert file.read_text() == "mine"
    fsb.write_verifier(file, force=True)
    assert "def main" in file.read_text()


def test_a_thousand_certificates_of_a_wide_head(file: Path) -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(101, 32, generator=g)
    head = fsb.LinearHead(weight, None, fsb.Domain.nonnegative())
    z = torch.rand(10, 32, generator=g)
    flips = fsb.flip_points(head, z, "all")
    fsb.export_certificates(file, flips, head=head, features=z)
    assert len(json.loads(file.read_text())["claims"]) == 1000
