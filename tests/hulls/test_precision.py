"""Float32 products that are less precise than IEEE arithmetic, and flushed subnormal numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import modes
from fsboundary.banks import store
from fsboundary.core.results import HullProjection
from fsboundary.geometry.flips.bounds import tie_exclusion_radius
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.hulls.point_sets import point_set_stats
from fsboundary.geometry.regions import guaranteed_sets
from fsboundary.geometry.regions.certify import Polyhedron
from fsboundary.models.linear_maps import LayerCall, relative_tolerance

BITS = {"tf32": 10, "bf16": 7}
"""Bits of the fraction that remain of a factor."""

LEGACY = {"tf32": "high", "bf16": "medium"}

WAYS = [False, True] if hasattr(torch.backends.mkldnn, "matmul") else [False]
"""Whether the precision is set in the new way; torch before 2.9 has the old one only."""


def rounded(x: Tensor, bits: int) -> Tensor:
    """Return float32 `x` with `bits` bits of its fraction, as a tensor unit reads it."""
    whole, half = x.contiguous().view(torch.int32), 1 << (23 - bits - 1)
    return ((whole + half) & ~((1 << (23 - bits)) - 1)).view(torch.float32)


def reduced_products(monkeypatch: pytest.MonkeyPatch, bits: int, says: Callable[[], bool]) -> None:
    """Round the factors of all float32 matrix products as long as `says()`."""

    def reduce(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def product(a: Tensor, b: Tensor, **options: Any) -> Tensor:
            if a.dtype == torch.float32 and says():
                a, b = rounded(a, bits), rounded(b, bits)
            return real(a, b, **options)

        return product

    for owner, name in ((torch, "mm"), (torch, "matmul"), (Tensor, "__matmul__")):
        monkeypatch.setattr(owner, name, reduce(getattr(owner, name)))


@contextmanager
def set_to(precision: str, new: bool) -> Iterator[None]:
    """Ask torch for a precision of float32 products, in the old or the new way."""
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(settings, "fp32_precision", None)
    try:
        if new:
            settings.fp32_precision = precision
        else:
            torch.set_float32_matmul_precision(LEGACY[precision])
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        if settings is not None:
            settings.fp32_precision = before


def hull_problem(n: int, d: int, spread: float) -> tuple[fsb.FeatureBank, Tensor]:
    """Return points in a small cube far from the origin, and rows in and around it."""
    g = torch.Generator().manual_seed(0)
    points = torch.rand(n, d, generator=g) * spread + 1
    rows = (torch.rand(30, d, generator=g) - 0.5) * spread * 1.2 + 1 + spread / 2
    return fsb.FeatureBank(points), rows


def require_proofs(bank: fsb.FeatureBank, found: HullProjection, exact: HullProjection) -> None:
    """Require that no bound exceeds a distance and that no plane cuts the hull, in fractions."""
    assert exact.ok.all()
    assert (found.lower_bound <= exact.distance * (1 + 1e-9) + 1e-12).all()
    assert (found.membership == exact.membership).all()
    outside = (found.membership == -1).nonzero()[:5, 0].tolist()
    assert outside
    points = bank.features.double()
    for row in outside:
        normal = found.normal[row]
        # the generators that come nearest to the plane, or cross it
        for index in (points @ normal).topk(3).indices.tolist():
            pairs = zip(normal.tolist(), points[index].tolist(), strict=True)
            product = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
            assert product <= Fraction(float(found.offset[row])) + Fraction(1, 10**12)


@pytest.mark.parametrize("case", [(1500, 8, 0.002), (400, 32, 0.02)])
@pytest.mark.parametrize("new", WAYS)
@pytest.mark.parametrize("precision", BITS)
def test_hull_bounds_hold_with_reduced_products(
    monkeypatch: pytest.MonkeyPatch, precision: str, new: bool, case: tuple[int, int, float]
) -> None:
    bank, rows = hull_problem(*case)
    exact = fsb.hull_projection(bank, rows)
    asked = lambda: modes.product_precision("cpu") != ""  # noqa: E731
    reduced_products(monkeypatch, BITS[precision], asked)
    with set_to(precision, new):
        assert modes.product_precision("cpu") == precision
        assert not modes.has_ieee_products(torch.device("cpu"))
        found = fsb.hull_projection(bank, rows)
    assert modes.has_ieee_products(torch.device("cpu"))
    require_proofs(bank, found, exact)
    assert torch.equal(found.status, exact.status)


@pytest.mark.parametrize("case", [(1500, 8, 0.002), (400, 32, 0.02)])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("precision", BITS)
def test_hull_bounds_hold_where_no_setting_says_that_products_are_reduced(
    monkeypatch: pytest.MonkeyPatch, precision: str, seen: bool, case: tuple[int, int, float]
) -> None:
    bank, rows = hull_problem(*case)
    exact = fsb.hull_projection(bank, rows)
    reduced_products(monkeypatch, BITS[precision], lambda: True)
    # the product that is tried shows it
    assert not modes.has_ieee_products(torch.device("cpu"))
    if not seen:
        # and even without it, the candidates' two values differ too much
        monkeypatch.setattr(store, "has_ieee_products", lambda device: True)
    require_proofs(bank, fsb.hull_projection(bank, rows), exact)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precision", [None, *BITS])
def test_the_bound_that_excludes_balls_holds_with_reduced_products(
    monkeypatch: pytest.MonkeyPatch, precision: str | None, autocast: bool
) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (2 * torch.rand(9, 5, generator=g, dtype=torch.float64) - 1 for _ in range(2))
    b[0], a[0, :2] = a[1], 1e-40  # a difference that cancels, and factors that float32 flushes
    if precision is not None:
        reduced_products(monkeypatch, BITS[precision], lambda: True)
    excess = modes.in_standard_modes(guaranteed_sets._float32_excess)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, doubt = excess(a, b, torch.zeros(9, dtype=torch.float64))
    assert (doubt < 1e-4).all()
    for i in range(9):
        for j in range(9):
            pairs = zip(a[i].tolist(), b[j].tolist(), strict=True)
            exact = sum(((Fraction(p) - Fraction(q)) ** 2 for p, q in pairs), Fraction(0))
            assert abs(Fraction(float(value[i, j])) - exact) <= Fraction(float(doubt[i, j]))


@pytest.mark.parametrize("new", WAYS)
@pytest.mark.parametrize("precision", BITS)
def test_the_tolerance_of_a_head_knows_the_precision(precision: str, new: bool) -> None:
    z = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    call = LayerCall(layer="", features=z, outputs=z, size=None, positions=1, convolution=False)
    ieee = relative_tolerance(call)
    with set_to(precision, new):
        assert relative_tolerance(call) >= ieee + 2 * 2.0 ** -BITS[precision]


def test_the_largest_norm_of_a_point_set_is_not_rounded_down() -> None:
    class Points:
        num_features = 2

        def __len__(self) -> int:
            return 1

        def take(self, indices: Tensor) -> Tensor:
            return torch.tensor([[1 + 2.0**-30, 0.0]], dtype=torch.float64)[indices]

        def price(self, directions: Tensor, k: int, exclude: Tensor | None = None) -> Any:
            raise AssertionError("the largest norm needs no pricing")

    assert float(point_set_stats(Points()).largest) >= 1 + 2.0**-30


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_coordinate_whose_multiplier_underflows_still_counts(sign: float) -> None:
    # x + 1e-200 y + 5 = 0 in [0, 1] x R: the boundary is 5e200 away, not nowhere
    infinite = torch.inf
    low, high = torch.tensor([0.0, -infinite]), torch.tensor([1.0, infinite])
    weight = torch.tensor([[1.0, 1e-200], [0.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([5.0, 0.0], dtype=torch.float64)
    head = fsb.LinearHead(weight, bias, fsb.Domain.box(low, high))
    source, target = torch.tensor([0]), torch.tensor([1])
    z = torch.zeros(1, 2, dtype=torch.float64)
    problems = FlipProblems(head=head, z=z, source=source, target=target)
    radius = tie_exclusion_radius(problems, torch.tensor([sign * 1e-200], dtype=torch.float64))
    assert float(radius) <= 5.0000001e200
    region = Polyhedron(rows=-weight[:1], offset=-bias[:1], lower=low.double(), upper=high.double())
    multiplier = torch.tensor([1e-200], dtype=torch.float64)
    # the region contains (0, -6e200)
    assert not region.certifies_empty(multiplier)


FLUSHED = """
import threading, torch
import fsboundary as fsb
from fsboundary import modes

torch.set_num_threads(2)
torch.set_flush_denormal(True)
torch.ones(2**18).exp()  # starts torch's own threads, which flush from now on
g = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
cases = []
for exponent in range(-157, -139, 3):
    weight, bias, z = draw(3, 4), draw(3), draw(20, 4).abs()
    scale = 10.0**exponent
    cases.append((weight * scale, bias * scale * 1e-152, z * 1e-152))

def answers():
    out = []
    for weight, bias, z in cases:
        for domain in (fsb.Domain.unbounded(), fsb.Domain.nonnegative()):
            head = fsb.LinearHead(weight, bias, domain)
            flips = fsb.flip_points(head, z, "all")
            out += [flips.lower_bound, flips.distance, flips.status]
            out.append(fsb.guaranteed_balls(head, z).radius)
    return out

assert modes.flushes_subnormals() and modes.workers_flush_subnormals()
flushed = answers()
assert modes.flushes_subnormals()
torch.set_flush_denormal(False)
clean = []
thread = threading.Thread(target=lambda: clean.extend(answers()))
thread.start()
thread.join()
for one, other in zip(flushed, clean, strict=True):
    assert torch.equal(one.nan_to_num(-1.0), other.nan_to_num(-1.0))
print("equal")
"""


def test_flushed_subnormal_numbers_change_no_bound() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLUSHED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr


def test_flushing_that_cannot_be_switched_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    head, z = fsb.LinearHead(torch.eye(2), None), torch.rand(3, 2)
    monkeypatch.setattr(modes, "flushes_subnormals", lambda: True)
    with pytest.raises(fsb.FsboundaryError, match="subnormal numbers are set to zero"):
        fsb.flip_points(head, z)
    monkeypatch.undo()
    torch.set_flush_denormal(False)  # as it was: only the pretended test said otherwise
    monkeypatch.setattr(modes, "workers_flush_subnormals", lambda: True)
    with pytest.raises(fsb.FsboundaryError, match="subnormal numbers are set to zero"):
        fsb.flip_points(head, z)
    monkeypatch.undo()
    assert not modes.flushes_subnormals()
    assert fsb.flip_points(head, z).ok.all()
