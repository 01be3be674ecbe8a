"""Functions of features at the size of an ImageNet network: K = 1000 classes, d = 1280 features.

Run ``python tests/benchmarks/bench_real_size.py``. The heads are random, with features in a box as
after ReLU6. Each call runs in a process of its own with one thread, which also measures the peak of
its memory above that before the call. The unit of the column "products" is one float64 product
``z @ W.T`` of a row with all classes, measured in the same process: figures of different machines
compare better so. The last line has the same figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import fsboundary as fsb
from fsboundary.attr import BoundaryDistance

K, D = 1000, 1280


def head_and_rows(rows: int, bounded: bool = True) -> tuple[fsb.LinearHead, torch.Tensor]:
    """Return a random head and features of its domain."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(K, D, generator=g) / D**0.5
    bias = torch.randn(K, generator=g) / 10
    box = fsb.Domain.box(torch.zeros(D), torch.full((D,), 6.0))
    head = fsb.LinearHead(weight, bias, box if bounded else fsb.Domain.unbounded())
    z = torch.randn(rows, D, generator=g).abs() * torch.rand(rows, D, generator=g)
    return head, z


def small_classes() -> fsb.FeatureBank:
    """Return 288 classes of 5 points."""
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(288).repeat_interleave(5)
    return fsb.FeatureBank(torch.randn(288 * 5, D, generator=g).abs(), labels)


class Body(nn.Module):
    """A linear classifier of inputs that are features already."""

    def __init__(self) -> None:
        super().__init__()
        head, _ = head_and_rows(1)
        self.body = nn.Hardtanh(0.0, 6.0)
        self.fc = nn.Linear(D, K)
        with torch.no_grad():
            self.fc.weight.copy_(head.weight)
            self.fc.bias.copy_(head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        out: torch.Tensor = self.fc(self.body(x))
        return out


Prepared = tuple[Callable[[], Any], int]
"""The call to time, and the number of rows or targets that share its time."""


def distances(rows: int, **options: Any) -> Prepared:
    """Return the forward pass of a distance module."""
    _, z = head_and_rows(rows)
    space = fsb.FeatureSpace(Body().eval(), example=z[:1])
    module = BoundaryDistance(space, **options)
    return lambda: module(z), rows


def construction() -> Prepared:
    """Return the construction of a distance module for all classes."""
    _, z = head_and_rows(1)
    space = fsb.FeatureSpace(Body().eval(), example=z)
    _ = space.head
    return lambda: BoundaryDistance(space), 1


def of_head(call: Callable[..., Any], rows: int, per_row: int = 1, **options: Any) -> Prepared:
    """Return a call of head and features."""
    head, z = head_and_rows(rows, options.pop("bounded", True))
    return lambda: call(head, z, **options), rows * per_row


def class_hulls() -> Prepared:
    """Return the distances of 8 rows to the hulls of 288 small classes."""
    bank, (_, z) = small_classes(), head_and_rows(8)
    return lambda: fsb.class_hull_distances(bank, z), 8


CALLS: dict[str, Callable[[], Prepared]] = {
    "BoundaryDistance, construction": construction,
    "BoundaryDistance, one of 1000 columns": lambda: distances(16, classes=[7]),
    "BoundaryDistance, all columns": lambda: distances(1),
    "flip_points nearest": lambda: of_head(fsb.flip_points, 64),
    "flip_points all, a target": lambda: of_head(fsb.flip_points, 2, K - 1, targets="all"),
    "closed_form all, a target": lambda: of_head(
        fsb.flip_points, 2, K - 1, targets="all", finder="closed_form"
    ),
    "region_distances own": lambda: of_head(fsb.region_distances, 16, targets="own"),
    "guaranteed_balls": lambda: of_head(fsb.guaranteed_balls, 64),
    "guaranteed_boxes": lambda: of_head(fsb.guaranteed_boxes, 16),
    "guaranteed_boxes, unbounded": lambda: of_head(fsb.guaranteed_boxes, 16, bounded=False),
    "largest_ties, 4 classes": lambda: of_head(fsb.largest_ties, 8, max_classes=4),
    "class_hull_distances, 288 x 5 points": class_hulls,
}


def time_one(name: str) -> dict[str, float]:
    """Return seconds of a row, the same in products, and the peak of memory in MiB."""
    torch.set_num_threads(1)
    head, z = head_and_rows(1)
    weight, row = head.weight.T.contiguous(), z.double()
    product = min(seconds(lambda: row @ weight) for _ in range(20))
    CALLS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    CALLS[name]()[0]()  # imports what it needs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    call, count = CALLS[name]()  # new heads and banks, for which nothing was prepared
    taken = seconds(call) / count
    return {"seconds": taken, "products": taken / product, "MiB": peak / 2**10}


def seconds(call: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--child", choices=CALLS, help="time this call only, here")
    name = parser.parse_args().child
    if name is not None:
        print(json.dumps(time_one(name)))
        return
    print(f"{f'K = {K}, d = {D}, one thread':40}{'seconds a row':>15}{'products':>12}{'MiB':>8}")
    results = {}
    for name in CALLS:
        command = [sys.executable, __file__, "--child", name]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        results[name] = found = json.loads(ran.stdout.splitlines()[-1])
        print(
            f"{name:40}{found['seconds']:15.4f}{found['products']:12.1f}{found['MiB']:8.0f}",
            flush=True,
        )
    print(json.dumps({"benchmark": "real_size", "K": K, "d": D, "results": results}))


if __name__ == "__main__":
    main()
