"""The tables of docs/morphs.md: pixels and features compared on the same images.

``python tests/benchmarks/two_spaces.py --data FOLDER --markdown`` prints the table for all of
Fashion-MNIST; without ``--data`` the demo's 3,000 training images span the hulls.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with the *.gz files; by default the demo's images"
    )
    parser.add_argument(
        "--train", type=int, help="number of training images, the first ones; by default all"
    )
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--points", type=int, default=101)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="print the table instead of JSON")
    args = parser.parse_args()
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    images, labels = demo.test_images, demo.test_labels
    train, train_labels = demo.train_images, demo.train_labels
    if args.data:
        data = read_fashion_mnist(args.data)
        images, labels = data["test_images"].float() / 255, data["test_labels"]
        train, train_labels = data["train_images"].float() / 255, data["train_labels"]
    begin = time.process_time()
    table = fsb.analysis.two_spaces(
        space,
        images,
        labels,
        train[: args.train],
        train_labels[: args.train],
        sample=args.sample,
        flips=args.flips,
        pairs=args.pairs,
        points=args.points,
        seed=args.seed,
        show_progress=True,
    )
    if args.markdown:
        print(table.to_markdown(), end="")
        return
    print(json.dumps(table.to_dict() | {"cpu_seconds": time.process_time() - begin}, indent=2))


if __name__ == "__main__":
    main()
