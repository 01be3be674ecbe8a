from __future__ import annotations

import pytest
import torch

import fsboundary as fsb
from fsboundary import ArgumentError
from support.flips.oracles import make_problem


def slow(head: fsb.LinearHead, z: torch.Tensor, k: int) -> torch.Tensor:
    """Return the tie distances row by row."""
    order = head.logits(z).argsort(dim=1, descending=True)[:, :k]
    rows = [fsb.tie_points(head, z[r : r + 1], order[r]).distance for r in range(len(z))]
    return torch.cat(rows)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_it_is_the_tie_distance_over_the_median(k: int) -> None:
    head, z = make_problem(6, 9, "nonnegative", rows=8, seed=1)
    _, other = make_problem(6, 9, "nonnegative", rows=11, seed=2)
    own, usual = slow(head, z, k), slow(head, other, k)
    want = own / usual[torch.isfinite(usual)].quantile(0.5)
    bank = fsb.FeatureBank(other)
    for reference in (other, bank):
        got = fsb.ambiguity(head, z, k, reference=reference)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    alone = fsb.ambiguity(head, z, k)
    want = own / own[torch.isfinite(own)].quantile(0.5)
    torch.testing.assert_close(alone, want, rtol=1e-9, atol=1e-12)


def test_two_top_classes_are_the_nearest_flip_without_a_domain_mostly() -> None:
    head, z = make_problem(3, 9, "unbounded", rows=50, seed=3)
    second = head.logits(z).argsort(dim=1, descending=True)[:, 1]
    flips = fsb.flip_points(head, z, second).distance[:, 0]
    got = fsb.ambiguity(head, z, 2)
    torch.testing.assert_close(got, flips / flips.quantile(0.5), rtol=1e-9, atol=1e-12)


def test_a_row_on_the_tie_is_most_ambiguous() -> None:
    head, z = make_problem(5, 9, "unbounded", rows=30, seed=4)
    order = head.logits(z).argsort(dim=1, descending=True)[:, :3]
    z[7] = fsb.tie_points(head, z, order).points[7]
    values = fsb.ambiguity(head, z)
    assert int(values.argmin()) == 7
    assert float(values[7]) < 1e-8


def test_a_bank_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    head, z = make_problem(4, 5, "nonnegative", rows=10, seed=5)
    bank = fsb.FeatureBank(make_problem(4, 5, "nonnegative", rows=300, seed=6)[1])
    want = fsb.ambiguity(head, z, reference=bank)
    monkeypatch.setattr("fsboundary.boundaries.ties._ROWS", 64)
    monkeypatch.setattr("fsboundary.geometry.batching.CACHE_BYTES", 0)
    sizes: list[int] = []
    take = fsb.FeatureBank.take

    def watched(self: fsb.FeatureBank, indices: torch.Tensor) -> torch.Tensor:
        sizes.append(len(indices))
        return take(self, indices)

    monkeypatch.setattr(fsb.FeatureBank, "take", watched)
    got = fsb.ambiguity(head, z, reference=bank)
    assert sizes == [64, 64, 64, 64, 44]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0.0)


def test_rows_without_an_answer() -> None:
    head, z = make_problem(5, 6, "nonnegative", rows=9, seed=0)
    want = fsb.ambiguity(head, z, reference=z)
    broken = z.clone()
    broken[1, 2], broken[3, 0] = torch.nan, -0.25
    got = fsb.ambiguity(head, broken, reference=z)
    assert torch.isnan(got[[1, 3]]).all()
    rest = [0, 2, 4, 5, 6, 7, 8]
    torch.testing.assert_close(got[rest], want[rest], rtol=1e-12, atol=0.0)
    # three parallel planes: the top three never tie
    lines = fsb.LinearHead(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0.0, 0.0, -1.0]))
    rows = torch.tensor([[3.0], [0.5]], dtype=torch.float64)
    assert torch.isnan(fsb.ambiguity(lines, rows)).all()
    touching = fsb.LinearHead(lines.weight, torch.zeros(3))
    got = fsb.ambiguity(touching, rows)
    torch.testing.assert_close(got, rows[:, 0] / 1.75, rtol=1e-9, atol=0.0)


def test_top_classes_that_cannot_tie_are_infinitely_far() -> None:
    # three classes that meet at the origin, and a fourth that is below their largest everywhere
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.5, 0.5]])
    head = fsb.LinearHead(weight, torch.tensor([0.0, 0.0, 0.0, -1.0]))
    got = fsb.ambiguity(head, torch.tensor([[-1.0, -2.0], [2.0, 1.0], [-2.0, -1.0]]))
    assert got.tolist() == [pytest.approx(1.0), torch.inf, pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 1}, "an integer from 2 to 4"),
        ({"k": 5}, "an integer from 2 to 4"),
        ({"k": 2.0}, "an integer from 2 to 4"),
        ({"features": torch.zeros(3)}, "single row"),
        ({"reference": torch.zeros(2, 5)}, r"reference: got shape \(2, 5\)"),
        ({"reference": fsb.FeatureBank(torch.zeros(2, 5))}, "reference: got width 5"),
        ({"reference": "train"}, "reference: got 'train'"),
    ],
)
def test_malformed_arguments(change: dict[str, object], message: str) -> None:
    head, _ = make_problem(4, 3, "unbounded", rows=1, seed=2)
    given = {"head": head, "features": torch.zeros(2, 3), **change}
    with pytest.raises(ArgumentError, match=message):
        fsb.ambiguity(**given)  # type: ignore[arg-type]  # wrong on purpose
