"""How many test images the guaranteed sets of the training images hold, and who is right there.

On the demo's network with its embedded images, or with all of Fashion-MNIST. That a covered image
has the class of its set is a theorem; the accuracies against true labels are what is measured.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist

SHARES = (None, 0.1, 0.5, 0.9)
"""How much of the way to the border the generators go; None for the hulls as they are."""


def load(folder: Path | None) -> tuple[fsb.LinearHead, fsb.FeatureBank, torch.Tensor, torch.Tensor]:
    """Return head, training features, test features and test labels."""
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    if folder is None:
        train, test, labels = demo.train_images, demo.test_images, demo.test_labels
    else:
        data = read_fashion_mnist(folder)
        train, test = (data[f"{part}_images"].float() / 255 for part in ("train", "test"))
        labels = data["test_labels"]
    bank = fsb.FeatureBank(torch.cat([space.extract(x).features for x in train.split(5000)]))
    return space.head, bank, space.extract(test).features, labels.long()


def main() -> None:
    """Print shares and accuracies for hulls, balls, both and either."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the files of all of Fashion-MNIST")
    args = parser.parse_args()
    head, bank, test, labels = load(args.data)
    hulls = fsb.guaranteed_hulls(head, bank)
    right = head.predict(test) == labels
    figures = {"training": len(bank), "test": len(test), "accuracy": float(right.double().mean())}
    rows = []
    for share in SHARES:
        used = hulls if share is None else hulls.enlarged(share)
        found = fsb.coverage_shares(fsb.coverage(head, bank, test, labels, hulls=used))
        for place, kind in enumerate(found.kinds):
            rows.append(
                {
                    "enlarged": share,
                    "covered by": kind,
                    "share": float(found.share[place]),
                    "accuracy covered": float(found.accuracy_covered[place]),
                    "accuracy uncovered": float(found.accuracy_uncovered[place]),
                }
            )
    clearance = [float(hulls.clearance.min()), float(hulls.clearance.max())]
    print(json.dumps({**figures, "clearance": clearance, "coverage": rows}, indent=1))


if __name__ == "__main__":
    main()
