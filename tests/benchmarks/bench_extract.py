"""Cost of `extract`, which verifies features, relative to a bare forward pass.

Run ``python tests/benchmarks/bench_extract.py``. For each model and batch size it times, in turn,

- bare: ``for batch in images.split(batch_size): model(batch)`` under ``torch.no_grad()``,
- extract: ``space.extract(images, batch_size=batch_size)``, which calls the same model on the same
  batches, verifies ``W z + b`` on each and joins the results.

The first pass, which traces every layer to find the head, is timed separately: it runs once. Each
ratio is the median over the rounds of (time of extract / time of the bare pass before or after it
in the same round); the order alternates. Besides wall time the benchmark reports the same ratio of
CPU time, which with ``--threads 1`` is fair on a shared machine. The last line has the same figures
as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.demo.network import SmallResNet

LIMIT = 1.05
BATCHES = 2


def resnet18() -> nn.Module:
    """Return a ResNet-18 of transformers: d=512, K=1000."""
    config = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=1000,
    )
    return transformers.ResNetForImageClassification(config)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], tuple[int, ...]]] = {
    "SmallResNet (d=64, K=10)": (SmallResNet, (1, 28, 28), (64, 256)),
    "ResNet-18, 64 x 64 pixels": (resnet18, (3, 64, 64), (64, 128)),
    "ResNet-18, 224 x 224": (resnet18, (3, 224, 224), (64,)),
}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the CPU time of `work`."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def measure(build: Callable[[], nn.Module], shape: tuple[int, ...], size: int, rounds: int) -> Any:
    """Return medians for one model and batch size."""
    torch.manual_seed(0)
    model = build().eval()
    images = torch.randn(BATCHES * size, *shape)

    def bare() -> None:
        for batch in images.split(size):
            model(batch)

    space = fsb.FeatureSpace(model)
    first_images: Tensor = images[:size]
    with torch.no_grad():
        bare()
        one_batch = seconds(lambda: model(first_images))
        first = seconds(lambda: space.extract(first_images))

        def extract() -> None:
            space.extract(images, batch_size=size)

        extract()
        plain, verified = [], []
        for turn in range(rounds):
            if turn % 2:
                verified.append(seconds(extract))
                plain.append(seconds(bare))
            else:
                plain.append(seconds(bare))
                verified.append(seconds(extract))
    pairs = list(zip(verified, plain, strict=True))
    wall, cpu = ([v[clock] / p[clock] for v, p in pairs] for clock in (0, 1))
    return {
        "batch_size": size,
        "images_a_round": len(images),
        "bare_ms": 1e3 * statistics.median(p[0] for p in plain),
        "extract_ms": 1e3 * statistics.median(v[0] for v in verified),
        "ratio": statistics.median(wall),
        "ratio_quartiles": statistics.quantiles(wall, n=4)[::2],
        "cpu_ratio": statistics.median(cpu),
        "cpu_ratio_quartiles": statistics.quantiles(cpu, n=4)[::2],
        "first_batch_cpu_ratio": first[1] / one_batch[1],
    }


def main() -> None:
    """Print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = arguments.rounds
    results = []
    print(
        f"{'model':26s} batch   bare ms  extract ms  wall ratio (quartiles)  "
        "CPU ratio (quartiles)  first batch (CPU)"
    )
    for name, (build, shape, sizes) in CASES.items():
        for size in sizes:
            found = measure(build, shape, size, rounds)
            low, high = found["ratio_quartiles"]
            low_cpu, high_cpu = found["cpu_ratio_quartiles"]
            print(
                f"{name:26s} {size:5d} {found['bare_ms']:9.1f} {found['extract_ms']:11.1f} "
                f"{found['ratio']:8.3f} ({low:.3f}-{high:.3f}) "
                f"{found['cpu_ratio']:9.3f} ({low_cpu:.3f}-{high_cpu:.3f}) "
                f"{found['first_batch_cpu_ratio']:12.2f}",
                flush=True,
            )
            results.append({"model": name, **found})
    worst, worst_cpu = (max(r[key] for r in results) for key in ("ratio", "cpu_ratio"))
    print(f"largest median ratio {worst:.3f}, of CPU time {worst_cpu:.3f}; limit {LIMIT}")
    settings = {
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps({"benchmark": "extract", "limit": LIMIT, **settings, "results": results}))


if __name__ == "__main__":
    main()
