"""Comparison of every hull solver and boundary finder, built in and from plugins/.

All solve the same problems. Times are ratios to the default of each kind in the same run. The
largest gap is given as the plugin claims it and as the core recomputes it, both relative to the
distance; "open" means that the plugin claims none.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fsboundary as fsb
from packages import install

COLUMNS = ("kind", "name", "time", "claimed_gap", "core_gap", "failures")
MAX_STEPS = 500
DEFAULTS = "active_set", "dual_newton", "linearised", "feature_guided"


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the answer of the second of two calls, and its processor seconds."""
    call()
    start = time.process_time()
    answer = call()
    return answer, time.process_time() - start


def largest(gap: Tensor, distance: Tensor) -> float | None:
    """Return the largest relative gap of the entries that have one."""
    share = (gap / distance)[torch.isfinite(gap) & (distance > 0)]
    return float(share.max()) if len(share) else None


def names(kind: fsb.plugins.Kind, capability: str | None = None) -> list[str]:
    """Return the ready plugins of `kind`, only those with `capability`; the default first."""
    found = [
        info.name
        for info in fsb.plugins.describe()
        if info.kind == kind
        and info.state == "ready"
        and info.capabilities == (frozenset([capability]) if capability else frozenset())
    ]
    return sorted(found, key=lambda name: name not in DEFAULTS)


def row(kind: str, name: str, seconds: float, said: Any, graded: Any) -> dict[str, Any]:
    """Return one line of the table; the claimed gap is None if the plugin claims none."""
    claimed = None if said is None else largest(said.gap, said.distance)
    return {
        "kind": kind,
        "name": name,
        "seconds": seconds,
        "claimed_gap": claimed,
        "core_gap": largest(graded.gap, graded.distance) if hasattr(graded, "gap") else None,
        "failures": int((~graded.ok).sum()),
        "problems": graded.ok.numel(),
    }


def hulls(points: int, queries: int, width: int) -> list[dict[str, Any]]:
    """Return one line per hull solver."""
    generator = torch.Generator().manual_seed(0)
    bank = fsb.FeatureBank(torch.randn(points, width, generator=generator).abs())
    asked = torch.randn(queries, width, generator=generator).abs().double()
    found = []
    for name in names("hull_solver"):
        solver = fsb.plugins.create("hull_solver", name)
        graded, seconds = timed(
            lambda s=solver: fsb.hull_projection(bank, asked, solver=s, max_steps=MAX_STEPS)
        )
        said = solver.project(
            solver.prepare(bank), asked.clone(), tolerance=1e-6, max_steps=MAX_STEPS
        )
        found.append(row("hull solver", name, seconds, said, graded))
    return found


def flips(rows: int, classes: int, width: int) -> list[dict[str, Any]]:
    """Return one line per finder for linear heads: all classes, nonnegative features."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(classes, width, generator=generator)
    head = fsb.LinearHead(weight, None, fsb.Domain.nonnegative())
    features = torch.randn(rows, width, generator=generator).abs().double()
    found = []
    for name in names("boundary_finder"):
        finder = fsb.plugins.create("boundary_finder", name)
        graded, seconds = timed(
            lambda f=finder: fsb.flip_points(head, features, "all", finder=f, max_steps=MAX_STEPS)
        )
        said = finder.find(
            head,
            features.clone(),
            targets=graded.target.clone(),
            tolerance=1e-8,
            max_steps=MAX_STEPS,
        )
        found.append(row("boundary finder", name, seconds, said, graded))
    return found


def nonlinear(rows: int) -> list[dict[str, Any]]:
    """Return one line per finder for non-linear heads."""
    head, features = _network(8), torch.rand(rows, 8, generator=torch.Generator().manual_seed(2))
    found = []
    for name in names("boundary_finder", "nonlinear_head"):
        graded, seconds = timed(lambda n=name: fsb.flip_points(head, features, finder=n))
        found.append(row("boundary finder, non-linear", name, seconds, None, graded))
    return found


def images(rows: int) -> list[dict[str, Any]]:
    """Return one line per image finder."""
    model = nn.Sequential(nn.Flatten(), _network(48)).eval()
    asked = torch.rand(rows, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    found = []
    for name in names("boundary_finder", "pixels"):
        graded, seconds = timed(
            lambda n=name: fsb.pixels.flip_images(model, asked, finder=n, max_steps=100)
        )
        line = row("image finder", name, seconds, None, graded)
        found.append(line | {"distance": float(graded.distance.nanmean())})
    return found


def _network(width: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def with_ratios(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace seconds by their ratio to the first line, the default."""
    first = table[0]["seconds"] if table else math.nan
    return [
        {k: v for k, v in line.items() if k != "seconds"} | {"time": line["seconds"] / first}
        for line in table
    ]


def markdown(table: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, as in docs/benchmarks.md."""

    def shown(value: Any) -> str:
        if not isinstance(value, float):
            return "open" if value is None else str(value)
        return f"{value:.1e}" if value < 0.01 else f"{value:.3g}"

    def cell(line: dict[str, Any], column: str) -> str:
        # images have no lower bound, so no gap
        asked = line["kind"] != "image finder" or "gap" not in column
        return shown(line[column]) if asked else ""

    lines = [
        "| kind | name | time | gap, claimed | gap, by the core | failures |",
        "|" + "---|" * 6,
    ]
    for line in table:
        cells = [cell(line, name) for name in COLUMNS]
        cells[-1] += f" of {line['problems']}"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and print one JSON object, or the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        sys.path.insert(0, folder)
        fsb.plugins.reset()
        table = [
            *with_ratios(hulls(args.points, args.rows, args.width)),
            *with_ratios(flips(args.rows, args.classes, args.width)),
            *with_ratios(nonlinear(args.rows)),
            *with_ratios(images(args.rows)),
        ]
    print(markdown(table) if args.markdown else json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
