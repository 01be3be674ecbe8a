"""Flip points, compared with ProxQP and Clarabel. Run: ``tox run -e bench``.

Row 1: real test features of the demo's network times all 9 other classes, against ProxQP's dense
solver (one object, warm, updated per problem) and Clarabel called directly, on stated samples.
Row 2: a random head with K = 1000, d = 2048 and 10 targets per row, against Clarabel, with the peak
memory above the data. All run in the same process. Times of fsboundary include grading. Peers
receive ready-made matrices: only their set-up and solve are timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clarabel
import numpy as np
import proxsuite
import torch
from numpy.typing import NDArray
from scipy import sparse

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist

Array = NDArray[np.float64]
FAR = 1e20
"""ProxQP's stand-in for infinity in its examples."""


class Problem:
    """One flip problem as matrices: ``a.x = -c``, ``rows @ x >= -offsets``, ``x >= 0``."""

    def __init__(self, head: fsb.LinearHead, z: Array, source: int, target: int) -> None:
        w, b = head.weight.numpy(), head.bias.numpy()
        others = np.setdiff1d(np.arange(len(b)), [source, target])
        self.z = z
        self.tie, self.tie_offset = w[source] - w[target], b[source] - b[target]
        self.rows, self.offsets = w[target] - w[others], b[target] - b[others]


def proxqp(problems: list[Problem]) -> tuple[float, Array]:
    """Return seconds and distances; one warm object, one call per problem."""
    d, m = len(problems[0].z), len(problems[0].rows)
    qp = proxsuite.proxqp.dense.QP(d, 1, m, True)
    qp.settings.eps_abs, qp.settings.eps_rel = 1e-9, 0.0
    upper, box = np.full(m, FAR), (np.zeros(d), np.full(d, FAR))
    seconds, distances = 0.0, []
    for count, p in enumerate([problems[0], *problems]):
        data: dict[str, Any] = {
            "g": -p.z,
            "A": p.tie[None],
            "b": np.array([-p.tie_offset]),
            "C": p.rows,
            "l": -p.offsets,
            "u": upper,
            "l_box": box[0],
            "u_box": box[1],
        }
        start = time.perf_counter()
        if count == 0:
            qp.init(H=np.eye(d), **data)
        else:
            qp.update(**data)
        qp.solve()
        if count:
            seconds += time.perf_counter() - start
            distances.append(float(np.linalg.norm(qp.results.x - p.z)))
    return seconds, np.array(distances)


def clarabel_direct(problems: list[Problem], factorisation: str = "qdldl") -> tuple[float, Array]:
    """Return seconds and distances of Clarabel without a modelling layer."""
    d = len(problems[0].z)
    quadratic = sparse.csc_matrix(sparse.eye(d))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.direct_solve_method = factorisation
    seconds, distances = 0.0, []
    for p in problems:
        matrix = sparse.vstack(
            [sparse.csr_matrix(p.tie[None]), sparse.csr_matrix(-p.rows), -sparse.eye(d)]
        ).tocsc()
        right = np.concatenate([[-p.tie_offset], p.offsets, np.zeros(d)])
        cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(len(p.rows) + d)]
        start = time.perf_counter()
        solver = clarabel.DefaultSolver(quadratic, -p.z, matrix, right, cones, settings)
        answer = solver.solve()
        seconds += time.perf_counter() - start
        distances.append(float(np.linalg.norm(np.array(answer.x) - p.z)))
    return seconds, np.array(distances)


def real_features(folder: Path, rows: int) -> tuple[fsb.LinearHead, torch.Tensor]:
    """Return the demo's head and the features of the first `rows` test images."""
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    images = read_fashion_mnist(folder)["test_images"][:rows].float() / 255
    features = space.extract(images).features
    return space.head, features


def sample(
    head: fsb.LinearHead, z: torch.Tensor, flips: fsb.FlipPoints, count: int
) -> tuple[list[Problem], Array]:
    """Return `count` problems drawn with seed 0 and fsboundary's distances for them."""
    generator = np.random.default_rng(0)
    width = flips.target.shape[1]
    index = generator.choice(len(z) * width, size=count, replace=False)
    problems = [
        Problem(
            head,
            z[k // width].double().numpy(),
            int(flips.source[k // width]),
            int(flips.target[k // width, k % width]),
        )
        for k in index
    ]
    return problems, flips.distance.reshape(-1).numpy()[index]


def timed(work: Callable[[], fsb.FlipPoints], repeats: int) -> tuple[float, fsb.FlipPoints]:
    """Return the median seconds of `repeats` runs after one warm-up, and the last answer."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), answer


def report(
    name: str,
    seconds: float,
    flips: fsb.FlipPoints,
    peers: dict[str, tuple[int, float, float]],
) -> dict[str, Any]:
    """Print one row and return it: times per problem, ratios, certificates."""
    count = flips.status.numel()
    finite = torch.isfinite(flips.distance)
    relative = (flips.gap[finite] / flips.distance[finite]).max()
    row: dict[str, Any] = {
        "row": name,
        "problems": count,
        "us_per_problem": round(seconds / count * 1e6, 2),
        "converged": int((flips.status == fsb.Status.CONVERGED).sum()),
        "infeasible": int((flips.status == fsb.Status.INFEASIBLE).sum()),
        "largest_relative_gap": float(relative),
    }
    for peer, (size, per_problem, difference) in peers.items():
        row[peer] = {
            "sample": size,
            "us_per_problem": round(per_problem * 1e6, 1),
            "times_slower": round(per_problem / (seconds / count), 1),
            "largest_difference": difference,
        }
    print(json.dumps(row, indent=2), flush=True)
    return row


def small_row(folder: Path) -> dict[str, Any]:
    """10,000 real rows x 9 targets, d = 64, nonnegative domain."""
    head, z = real_features(folder, 10_000)
    seconds, flips = timed(lambda: fsb.flip_points(head, z, "all"), 5)
    peers = {}
    for name, solve, count in (("proxqp", proxqp, 4000), ("clarabel", clarabel_direct, 2000)):
        problems, ours = sample(head, z, flips, count)
        solve(problems[:20])
        spent, distances = solve(problems)
        peers[name] = (count, spent / count, float(np.abs(distances - ours).max()))
    return report("real features, K=10, d=64, all targets", seconds, flips, peers)


def large_row() -> dict[str, Any]:
    """200 rows x 10 targets, K = 1000, d = 2048, nonnegative domain; memory in a fresh peak."""
    generator = torch.Generator().manual_seed(0)
    k, d, rows, width = 1000, 2048, 200, 10
    weight = torch.randn(k, d, generator=generator) / d**0.5
    bias = 0.1 * torch.randn(k, generator=generator)
    head = fsb.LinearHead(weight, bias, fsb.Domain.nonnegative())
    z = torch.randn(rows, d, generator=generator).clamp_min(0)
    source = head.predict(z)
    draws = torch.rand(rows, k, generator=generator)
    draws[torch.arange(rows), source] = 2.0
    targets = draws.argsort(dim=1)[:, :width]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, flips = timed(lambda: fsb.flip_points(head, z, targets), 1)
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    # Clarabel's supernodal, threaded factorisation: with the default one, a problem of this
    # size took 87 s
    problems, ours = sample(head, z, flips, 3)
    spent, distances = clarabel_direct(problems, "faer")
    difference = float(np.abs(distances - ours).max())
    peers = {"clarabel (faer)": (3, spent / 3, difference)}
    row = report("random head, K=1000, d=2048, 10 targets", seconds, flips, peers)
    row["peak_memory_above_data_gib"] = round(above, 3)
    print(f"peak memory above the data: {above:.3f} GiB")
    return row


def main() -> None:
    """Run both rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--row", choices=["small", "large", "both"], default="both")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    # the large row first, so that the peak memory is its own
    if args.row in ("large", "both"):
        large_row()
    if args.row in ("small", "both"):
        small_row(args.data)


if __name__ == "__main__":
    main()
