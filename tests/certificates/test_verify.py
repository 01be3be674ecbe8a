"""The program that checks certificates: what is true holds, and what was made false does not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fsboundary as fsb
from fsboundary.certificates import verify
from support.certificate_mutations import TRUTH, Data, mutate
from support.certificates import KINDS, problem, write
from support.flips.run_family import FAMILIES, draw
from support.hulls.run_family import HULL_FAMILIES, draw_hulls


def holds(data: Data) -> list[bool]:
    """Return which claims of a file hold."""
    read = verify.Problem(data)
    return [verify.fault(read, claim) is None for claim in data["claims"]]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_exported_holds(kind: str, tmp_path: Path, capsys: Any) -> None:
    for seed in range(6):
        file = write(kind, seed, tmp_path / "certificates.json")
        if not json.loads(file.read_text())["claims"]:  # three classes that do not tie in a box
            assert kind == "ties"
            continue
        assert verify.main([str(file)]) == 0
        print_out = capsys.readouterr().out
        assert "digest: as written" in print_out
        assert "DOES NOT HOLD" not in print_out


@pytest.mark.parametrize("name", FAMILIES)
def test_all_families_of_flips(name: str, tmp_path: Path) -> None:
    # the export raises unless each claim is proved in exact arithmetic
    case = draw(name, 1)
    head, z = case.head(), torch.from_numpy(np.asarray(case.features))
    file = tmp_path / "certificates.json"
    for result, features in (
        (fsb.flip_points(head, z, "all"), z),
        (fsb.guaranteed_balls(head, z), None),
        (fsb.guaranteed_balls(head, z, "linf"), None),
        (fsb.guaranteed_boxes(head, z), z),
        (fsb.partition(head, pairs=torch.combinations(torch.arange(head.num_classes))[:9]), None),
    ):
        fsb.export_certificates(file, result, head=head, features=features)


@pytest.mark.parametrize("name", HULL_FAMILIES)
def test_all_families_of_hulls(name: str, tmp_path: Path) -> None:
    case = draw_hulls(name, 1)
    bank = fsb.FeatureBank(torch.from_numpy(np.asarray(case.points)))
    z = torch.from_numpy(np.asarray(case.queries))
    with np.errstate(all="ignore"):  # the extreme families overflow in the exact solver's start
        result = fsb.hull_projection(bank, z)
    fsb.export_certificates(tmp_path / "certificates.json", result, features=z, bank=bank)


# --- mutations: what still holds must be true, as the package itself and plain floats say


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mutation_makes_false_does_not_hold(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    refused = 0
    for number in range(25):
        # in these problems the three classes tie
        seed = (0, 2, 3)[number % 3]
        data = json.loads(write(kind, seed, tmp_path / "file.json").read_text())
        changed = mutate(data, chance)
        try:
            held = holds(changed)
        except verify.Malformed:
            refused += 1
            continue
        refused += not all(held)
        for claim, holding in zip(changed["claims"], held, strict=True):
            assert not holding or TRUTH[claim["kind"]](changed, claim), (number, claim)
    assert refused >= 4  # so that the test is about something


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_as_good_as_they_can_be(kind: str, tmp_path: Path) -> None:
    # raised or lowered by a hundredth they are refused, so the check is not generous
    data = json.loads(write(kind, 3, tmp_path / "file.json").read_text())
    read, tried = verify.Problem(data), 0
    for claim in data["claims"]:
        for name, factor in (("lower", 1.01), ("upper", 0.99), ("radius", 1.01)):
            if not isinstance(claim.get(name), str) or claim[name].endswith("inf"):
                continue
            value = float.fromhex(claim[name])
            if value > 1e-3:
                tried += 1
                assert verify.fault(read, claim | {name: (value * factor).hex()}) is not None
    assert tried or kind in ("boxes", "partition")


# --- files that are malformed


def first_claim(kind: str, tmp_path: Path) -> tuple[Data, Data]:
    data = json.loads(write(kind, 1, tmp_path / "file.json").read_text())
    return data, next(c for c in data["claims"] if c["kind"] != "unreachable")


@pytest.mark.parametrize(
    "value", [1.5, None, "1.5", "nan", "inf", "0x1p0", "0x1.0p+99999", [], True]
)
def test_only_exact_floats_are_numbers(value: object, tmp_path: Path) -> None:
    data, claim = first_claim("flips", tmp_path)
    fault = verify.fault(verify.Problem(data), claim | {"lower": value})
    assert fault is not None
    assert fault.startswith("malformed")


@pytest.mark.parametrize("value", [-1, 99, 1.0, "0", True, None])
def test_only_numbers_of_rows_and_classes_are_indices(value: object, tmp_path: Path) -> None:
    data, claim = first_claim("flips", tmp_path)
    for name in ("row", "source", "target"):
        fault = verify.fault(verify.Problem(data), claim | {name: value})
        assert fault is not None
        assert fault.startswith("malformed")


def test_what_no_claim_may_contain(tmp_path: Path) -> None:
    data, claim = first_claim("flips", tmp_path)
    active, multipliers = claim["active"], claim["multipliers"]
    other = next(k for k in range(4) if k not in (claim["source"], claim["target"]))
    bad: list[object] = [
        None,
        [],
        {},
        {"kind": "magic"},
        {"kind": []},
        claim | {"target": claim["source"]},
        claim | {"active": active + active, "multipliers": multipliers + multipliers},
        claim | {"active": [other], "multipliers": [(-1.0).hex()]},
        claim | {"point": claim["point"][:-1]},
        {key: value for key, value in claim.items() if key != "point"},
    ]
    for one in bad:
        fault = verify.fault(verify.Problem(data), one)
        assert fault is not None
        assert fault.startswith("malformed")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nothing",
        '{"format": "fsboundary certificates", "version": 2, "claims": [], "sha256": ""}',
        '{"format": "fsboundary certificates", "format": 1}',
        "[" * 100_000,
    ],
)
def test_other_files_are_refused(text: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    assert verify.main([str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert verify.main([]) == 2
    assert verify.main([str(tmp_path / "none")]) == 2


def test_a_changed_file_is_noticed_though_its_claims_hold(tmp_path: Path, capsys: Any) -> None:
    file = write("flips", 1, tmp_path / "file.json")
    data = json.loads(file.read_text())
    data["left_out"] = {"MAX_STEPS": 1}
    file.write_text(json.dumps(data))
    assert verify.main([str(file)]) == 1
    printed = capsys.readouterr().out
    assert "ANOTHER" in printed
    assert "DOES NOT HOLD" not in printed


def test_a_false_claim_is_named(tmp_path: Path, capsys: Any) -> None:
    file = write("flips", 1, tmp_path / "file.json")
    data = json.loads(file.read_text())
    position = [c["kind"] for c in data["claims"]].index("flip")
    data["claims"][position]["lower"] = (1e3).hex()
    data["sha256"] = verify.digest(data)
    file.write_text(json.dumps(data))
    assert verify.main([str(file)]) == 1
    printed = capsys.readouterr().out
    assert f"DOES NOT HOLD: claim {position} (flip): it is not proved" in printed


def test_a_file_without_claims_proves_nothing(tmp_path: Path) -> None:
    data = json.loads(write("flips", 1, tmp_path / "file.json").read_text())
    data["claims"] = []
    data["sha256"] = verify.digest(data)
    (tmp_path / "none.json").write_text(json.dumps(data))
    assert verify.main([str(tmp_path / "none.json")]) == 1


def test_the_program_runs_alone(tmp_path: Path) -> None:
    program = fsb.write_verifier(tmp_path / "verify.py")
    file = write("projections", 1, tmp_path / "file.json")
    # -I -S: nothing but Python's own modules can be imported
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "projection: 6 of 6 hold" in done.stdout


def test_the_fingerprint_is_that_of_the_head() -> None:
    head, _, _ = problem(1)
    assert _exact_head(head).fingerprint() == head.fingerprint


def test_vectors_are_exact() -> None:
    g = np.random.default_rng(0)
    x, y = (g.standard_normal(9) * 10.0 ** g.integers(-300, 300, 9) for _ in range(2))
    one, two = ([Fraction(v) for v in numbers.tolist()] for numbers in (x, y))
    a, b = verify.Vector(one), verify.Vector(two)
    assert a.numbers() == one
    assert a.dot(b) == sum(p * q for p, q in zip(one, two, strict=True))
    assert a.plus(two[0], b).numbers() == [p + two[0] * q for p, q in zip(one, two, strict=True)]
    assert a.times(two[1]).numbers() == [two[1] * p for p in one]
    assert a.minus(b).numbers() == [p - q for p, q in zip(one, two, strict=True)]


def test_weak_duality_is_below_every_point_of_a_grid() -> None:
    head, z, _ = problem(8)  # three features in a box
    exact, g = _exact_head(head), np.random.default_rng(0)
    a, c = exact.difference(0, 1)
    grid = torch.cartesian_prod(*torch.linspace(0, 1, 20).double().expand(3, -1))
    logits = head.logits(grid)
    there = logits[:, 0] >= logits[:, 1]
    for row in z:
        vector = verify.Vector([Fraction(v) for v in row.double().tolist()])
        for lam in g.random(8).tolist():
            bound = verify.least_half_square(exact, vector, [(Fraction(lam), a, c)])
            nearest = 0.5 * (grid[there] - row).square().sum(dim=1).min()
            assert float(bound) <= float(nearest)


def _exact_head(head: fsb.LinearHead) -> verify.Head:
    low, high = head.domain.limits(head.weight)
    return verify.Head({
        "weight": [[x.hex() for x in row] for row in head.weight.tolist()],
        "bias": [x.hex() for x in head.bias.tolist()],
        "lower": [x.hex() for x in low.tolist()],
        "upper": [x.hex() for x in high.tolist()],
    })  # fmt: skip
