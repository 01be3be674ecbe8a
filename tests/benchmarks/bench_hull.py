"""Hull projections of real features, relative to one float32 product. Run: see ``--help``.

60,000 training features of the demo's network are the generators, 10,000 test features the
queries. The unit is one float32 ``queries @ points.T`` with row maximum, timed in the same run;
both times are medians of three.
Times of fsboundary include grading. scipy's nnls and cvxpy with Clarabel answer stated samples,
one query at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist


def unit_seconds(queries: torch.Tensor, points: torch.Tensor) -> float:
    """Return the median seconds of one product with row maximum, in blocks that fit a cache."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for block in queries.split(500):
            (block @ points.T).amax(dim=1)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def nnls_seconds(queries: torch.Tensor, points: torch.Tensor) -> tuple[float, list[float]]:
    """Return seconds per query and distances by nonnegative least squares on q = Vᵀa, Σa = 1."""
    start, distances = time.perf_counter(), []
    for query in queries.double():
        shifted = (points.double() - query).numpy()
        right = np.append(np.zeros(shifted.shape[1]), 1.0)
        weights, _ = nnls(np.vstack([shifted.T, np.ones(len(shifted))]), right)
        distances.append(float(np.linalg.norm(weights / weights.sum() @ shifted)))
    return (time.perf_counter() - start) / len(queries), distances


def cvxpy_seconds(queries: torch.Tensor, bank: fsb.FeatureBank) -> tuple[float, list[float]]:
    """Return seconds per query and distances of the solver ``cvxpy``, without grading."""
    solver, distances, seconds = fsb.plugins.create("hull_solver", "cvxpy"), [], 0.0
    for query in queries.double().split(1):
        state = solver.prepare(bank)
        start = time.perf_counter()
        found = solver.project(state, query, tolerance=1e-6, max_steps=200)
        seconds += time.perf_counter() - start
        weights, support = found.weights[0], found.support[0].clamp_min(0)
        distances.append(float(torch.linalg.vector_norm(query[0] - weights @ bank.take(support))))
    return seconds / len(queries), distances


def beside(each: float, own: float, distances: list[float], found: torch.Tensor) -> dict[str, Any]:
    """Return the comparison of a peer's seconds per query `each` with this package's `own`."""
    difference = np.abs(np.array(distances) - found[: len(distances)].numpy()).max()
    return {
        "sample": len(distances),
        "seconds_a_query": round(each, 4),
        "times_slower": round(each / own, 1),
        "largest_difference": float(difference),
    }


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3, help="number of runs; the median counts")
    parser.add_argument("--sample", type=int, default=10, help="number of queries for nnls")
    parser.add_argument("--slow-sample", type=int, default=2, help="number of queries for cvxpy")
    args = parser.parse_args()
    demo, data = load_demo(), read_fashion_mnist(args.data)
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    points = torch.cat(
        [space.extract(x.float() / 255).features for x in data["train_images"].split(5000)]
    )
    queries = space.extract(data["test_images"][: args.queries].float() / 255).features
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = unit_seconds(queries, points)
    turns = []
    for _ in range(args.repeats):
        # a new bank, so that no prepared state exists yet
        bank = fsb.FeatureBank(points, data["train_labels"])
        start = time.perf_counter()
        found = fsb.hull_projection(bank, queries)
        turns.append(time.perf_counter() - start)
    seconds = float(np.median(turns))
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    own = seconds / len(queries)
    nnls_each = nnls_seconds(queries[: args.sample], points)
    cvxpy_each = cvxpy_seconds(queries[: args.slow_sample], bank)
    outside = found.distance > 0
    row = {
        "generators": list(points.shape),
        "queries": len(queries),
        "threads": torch.get_num_threads(),
        "unit_seconds": round(unit, 3),
        "seconds": round(seconds, 2),
        "seconds_of_all_turns": [round(t, 2) for t in turns],
        "multiple_of_unit": round(seconds / unit, 2),
        "converged": int((found.status == fsb.Status.CONVERGED).sum()),
        "largest_relative_gap": float((found.gap / found.distance)[outside].max()),
        "inside": int((found.membership == 1).sum()),
        "passes": {int(k): int((found.steps == k).sum()) for k in found.steps.unique()},
        "mean_support": round(float((found.support >= 0).sum(dim=1).double().mean()), 2),
        "peak_memory_above_bank_gib": round(above, 3),
        "nnls": beside(nnls_each[0], own, nnls_each[1], found.distance),
        "cvxpy": beside(cvxpy_each[0], own, cvxpy_each[1], found.distance),
    }
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
