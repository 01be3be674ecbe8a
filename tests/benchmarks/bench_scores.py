"""Scores beside the usual ones: python tests/benchmarks/bench_scores.py, about three minutes.

Novelty of a class that a small network has never seen (scikit-learn's digits), and of digits among
the demo's images of clothes; label issues among labels that are changed on purpose. Intervals are
95 % bootstrap intervals over the scored rows, for one network each.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fsboundary import FeatureSpace, Reference, scores
from fsboundary.core.results import FeatureBatch
from fsboundary.demo.load import load_demo


def network(images: Tensor, labels: Tensor, seed: int) -> FeatureSpace:
    """Return the space of a small network with ReLU, trained for some seconds."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(60):
        for rows in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimiser.step()
    return FeatureSpace(net.eval())


def interval(truth: Tensor, score: Tensor, metric: object) -> str:
    """Return a figure in percent with its bootstrap interval."""
    y, s = truth.numpy().astype(int), score.double().numpy()
    g = np.random.default_rng(0)
    again = []
    for _ in range(300):
        rows = g.integers(0, len(y), len(y))
        if 0 < y[rows].sum() < len(rows):
            again.append(metric(y[rows], s[rows]))  # type: ignore[operator]
    low, high = np.percentile(again, [2.5, 97.5])
    return f"{100 * metric(y, s):.1f} ({100 * low:.1f} to {100 * high:.1f})"  # type: ignore[operator]


def msp(batch: FeatureBatch) -> Tensor:
    return 1 - batch.logits.softmax(dim=1).amax(dim=1)


def nearest_neighbours(train: Tensor, rows: Tensor, normalised: bool, k: int) -> Tensor:
    """Return the distance to the k-th nearest training row."""
    if normalised:
        train, rows = (nn.functional.normalize(t) for t in (train, rows))
    return torch.cdist(rows, train).kthvalue(k, dim=1).values


def novelty_table(space: FeatureSpace, train: TensorDataset, usual: Tensor, novel: Tensor) -> str:
    reference = Reference.fit(space, train, sample=8000)
    batch = space.extract(torch.cat([usual, novel]))
    truth = torch.arange(len(batch.features)) >= len(usual)
    started = time.process_time()
    found = scores.novelty(reference, batch).score
    seconds = time.process_time() - started
    points = space.extract(train.tensors[0]).features
    # tuned in its own favour: the best of its options on the very rows that are scored
    options = [(n, k) for n in (False, True) for k in (1, 5)]
    neighbours = [nearest_neighbours(points, batch.features, *option) for option in options]
    best = max(neighbours[:1] + neighbours[2:3], key=lambda s: roc_auc_score(truth, s))
    tuned = max(neighbours, key=lambda s: roc_auc_score(truth, s))
    cells = [found, best, tuned, msp(batch)]
    figures = " | ".join(interval(truth, cell, roc_auc_score) for cell in cells)
    return f"{figures} | {1000 * seconds / len(truth):.2f} s per 1,000"


def label_table(
    space: FeatureSpace, images: Tensor, labels: Tensor, share: float, pairs: bool
) -> str:
    g = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=g) < share
    step = 1 if pairs else torch.randint(1, 10, labels.shape, generator=g)
    given = torch.where(wrong, (labels + step) % 10, labels)
    reference = Reference.fit(space, TensorDataset(images, given), sample=None)
    rows, batch = torch.arange(len(labels)), space.extract(images)
    cells = [
        scores.label_issues(reference, batch, given, kind=kind, leave_out=rows)
        for kind in ("margin", "ratio")
    ]
    weight, bias = reference.fold_weight, reference.fold_bias
    logits = torch.einsum("bd,bkd->bk", batch.features.double(), weight[reference.fold])
    p = (logits + bias[reference.fold]).softmax(dim=1)
    own = p.gather(1, given[:, None])[:, 0]
    other = p.scatter(1, given[:, None], -1).amax(dim=1)
    found = [*(c.score for c in cells), -cells[1].value, -own, other - own]
    return " | ".join(interval(wrong, one, average_precision_score) for one in found)


def main() -> None:
    """Print the tables."""
    digits = load_digits()
    pixels = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    half = torch.arange(len(labels)) % 2 == 0
    print("novelty, AUROC | 1-NN, tuned | kNN, tuned | MSP | processor time of ours")
    for k in (1, 3, 5, 8, 9):
        known = half & (labels != k)
        space = network(pixels[known], labels[known], seed=k)
        train = TensorDataset(pixels[known], labels[known])
        usual, novel = pixels[~half & (labels != k)], pixels[labels == k]
        print(f"digits, unseen {k}: {novelty_table(space, train, usual, novel)}", flush=True)
    demo = load_demo()
    clothes = FeatureSpace(demo.model, preprocess=demo.preprocess)
    train = TensorDataset(demo.train_images, demo.train_labels)
    novel = nn.functional.interpolate(pixels[:500], size=28, mode="bilinear")
    print(f"clothes, digits: {novelty_table(clothes, train, demo.test_images, novel)}", flush=True)
    print("label issues, AP: margin | ratio | ratio alone | self-confidence | normalised margin")
    space = network(pixels[half], labels[half], seed=0)
    for name, data in (
        ("digits", (space, pixels[~half], labels[~half])),
        ("clothes", (clothes, demo.train_images, demo.train_labels)),
    ):
        for share in (0.05, 0.1):
            for pairs in (False, True):
                noise = "pairs" if pairs else "symmetric"
                line = label_table(*data, share, pairs)
                print(f"{name}, {share:.0%} {noise}: {line}", flush=True)


if __name__ == "__main__":
    main()
