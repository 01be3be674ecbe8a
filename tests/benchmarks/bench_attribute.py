"""Cost of gradients of distances, relative to Captum's Saliency on the logits.

Batch 64 of the demo's images, all ten columns of BoundaryDistance, HullDistance with a bank of
3,000 training features. Every round times all three, one after the other; the figure is the median
over rounds of the ratio to Saliency in the same round. Run: ``tox run -e bench``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from captum.attr import Saliency

import fsboundary as fsb
from fsboundary.demo import load_demo


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bank", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--cpu-time", action="store_true", help="use CPU time, for a shared machine"
    )
    args = parser.parse_args()
    clock: Callable[[], float] = time.process_time if args.cpu_time else time.perf_counter
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    images = demo.test_images[: args.batch].clone().requires_grad_()
    train = demo.train_images[: args.bank], demo.train_labels[: args.bank]
    bank = space.bank([train])
    target = space.extract(images.detach()).predicted
    plain = torch.nn.Sequential(demo.preprocess, demo.model)
    runs: dict[str, Callable[[], object]] = {
        "saliency": lambda: Saliency(plain).attribute(images, target=target),
    }
    boundary = Saliency(fsb.attr.BoundaryDistance(space))
    hull = Saliency(fsb.attr.HullDistance(space, bank))
    runs["boundary_distance"] = lambda: boundary.attribute(images, target=target)
    runs["hull_distance"] = lambda: hull.attribute(images, target=0)
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    ratios = {
        name: [mine / base for mine, base in zip(times, seconds["saliency"], strict=True)]
        for name, times in seconds.items()
        if name != "saliency"
    }
    row = {
        "batch": len(images),
        "classes": space.head.num_classes,
        "bank": len(bank),
        "rounds": args.rounds,
        "clock": "cpu" if args.cpu_time else "wall",
        "threads": torch.get_num_threads(),
        "saliency_ms": round(1e3 * statistics.median(seconds["saliency"]), 1),
        "times_saliency": {name: round(statistics.median(r), 3) for name, r in ratios.items()},
        "largest": {name: round(max(r), 3) for name, r in ratios.items()},
    }
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
