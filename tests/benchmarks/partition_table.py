"""The tables of docs/regions.md: partitions and guaranteed sets of the demo's network.

Computed on the demo's embedded images, or on all of Fashion-MNIST: which pairs of classes share a
boundary, how wide the facets are, the angles between classes, whether regions are bounded, which
test images the guaranteed sets of the training images contain, and the accuracy there. That a
covered image has the class of its set is a theorem; what is measured is the accuracy against true
labels. Prints Markdown tables, or one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist


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


def spread(values: torch.Tensor) -> list[float]:
    """Return the smallest, the median and the largest."""
    ordered = values.sort().values
    return [float(ordered[place]) for place in (0, len(ordered) // 2, -1)]


def divided(head: fsb.LinearHead, within: fsb.Domain | None) -> dict[str, Any]:
    """Return the figures of one partition."""
    found = fsb.partition(head, within)
    i, j = found.facet_pairs.unbind(dim=1)
    upper = torch.triu(torch.ones_like(found.adjacency), 1)
    return {
        "pairs": int(upper.sum()),
        "share a boundary": len(i),
        "undecided": int((found.status[upper] == fsb.Status.UNDECIDED).sum()),
        "facet radius": spread(found.facet_radius[i, j]) if len(i) else None,
        "regions": int(found.nonempty.sum()),
        "bounded": int(found.bounded.sum()),
        "unbounded": int((found.bounded_status == fsb.Status.UNBOUNDED).sum()),
        "region radius": spread(found.chebyshev_radius[found.nonempty]),
        "weight angle": spread(found.weight_angle[upper].rad2deg()),
    }


def covered(
    head: fsb.LinearHead,
    bank: fsb.FeatureBank,
    test: torch.Tensor,
    labels: torch.Tensor,
    shares: list[float],
) -> dict[str, Any]:
    """Return fractions and accuracies for hulls, balls, both and either, and for inflated hulls."""
    hulls = fsb.guaranteed_hulls(head, bank)
    rows = fsb.coverage(head, bank, test, labels, hulls=hulls)
    entries = counted(rows, ("hull", "ball", "both", "either"), "{}")
    for share in shares:
        held = hulls.inflated(share).certify(test)
        rows = dataclasses.replace(rows, hull=held)
        entries += counted(rows, ("hull",), f"{{}}, inflated by {share:g} of the way to the border")
    clearance = hulls.clearance[hulls.clearance.isfinite()]
    return {"clearance": spread(clearance), "coverage": entries}


def counted(rows: fsb.Coverage, kinds: tuple[str, ...], name: str) -> list[dict[str, Any]]:
    """Return one entry per kind in `kinds`."""
    found = fsb.coverage_fractions(rows)
    return [
        {
            "set": name.format(kind),
            "fraction": float(found.fraction[place]),
            "accuracy covered": float(found.accuracy_covered[place]),
            "accuracy uncovered": float(found.accuracy_uncovered[place]),
        }
        for place, kind in enumerate(found.kinds)
        if kind in kinds
    ]


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as two tables."""
    whole, box = figures["whole domain"], figures["observed box"]

    def three(values: list[float]) -> str:
        return " / ".join("∞" if v == math.inf else f"{v:.4g}" for v in values)

    def facets(part: dict[str, Any]) -> str:
        return f"{part['share a boundary']} of {part['pairs']}, {part['undecided']} undecided"

    rows = [
        ("pairs of classes that share a boundary", facets(whole), facets(box)),
        ("facet radius", three(whole["facet radius"]), three(box["facet radius"])),
        ("radius of a region", three(whole["region radius"]), three(box["region radius"])),
        ("bounded regions", *(f"{p['bounded']} of {p['regions']}" for p in (whole, box))),
        ("unbounded regions", *(f"{p['unbounded']} of {p['regions']}" for p in (whole, box))),
        ("angle between weights, degrees", *[three(whole["weight angle"])] * 2),
    ]
    lines = ["| | whole domain | observed box |", "|---|---|---|"]
    lines += [f"| {name} | {one} | {two} |" for name, one, two in rows]
    lines += ["", "| set | test images covered | accuracy covered | accuracy uncovered |"]
    lines.append("|---|---|---|---|")
    for row in figures["coverage"]:
        shares = (row["share"], row["accuracy covered"], row["accuracy uncovered"])
        cells = ["–" if math.isnan(s) else f"{100 * s:.2f} %" for s in shares]
        lines.append(f"| {' | '.join([row['set'], *cells])} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the files of all of Fashion-MNIST")
    parser.add_argument(
        "--inflated",
        type=float,
        nargs="*",
        default=[],
        metavar="SHARE",
        help="also inflate hulls by these fractions of the way to the border; takes far longer",
    )
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    args = parser.parse_args()
    head, bank, test, labels = load(args.data)
    right = head.predict(test) == labels
    low, high = bank.range()
    box = fsb.Domain.box(low, high)
    figures = {
        "training": len(bank),
        "test": len(test),
        "classes": head.num_classes,
        "features": head.num_features,
        "domain": head.domain.kind,
        "accuracy": float(right.double().mean()),
        "half of the box's narrowest side": float((high - low)[high > low].min()) / 2,
        "whole domain": divided(head, None),
        "observed box": divided(head, box),
        **covered(head, bank, test, labels, args.inflated),
    }
    print(json.dumps(figures, indent=1) if args.json else markdown(figures))


if __name__ == "__main__":
    main()
