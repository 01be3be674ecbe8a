"""Triage of all of Fashion-MNIST: python tests/benchmarks/bench_triage.py, about ten minutes.

The demo's network; 5 % of the labels of all images are replaced by other classes on purpose. The
10,000 test images are examined with the 60,000 training images as the reference. The first run is
killed after some of the rows, and the second one continues it. Beside it, the label scores of
cleanlab (self-confidence and normalised margin) from the same network's probabilities, if cleanlab
is installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_scores import interval
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fsboundary as fsb
from fsboundary.demo.load import CLASS_NAMES, load_demo
from fsboundary.demo.train import read_fashion_mnist

WRONG = 0.05
COUNTS = (100, 500)


def relabel(labels: Tensor, seed: int) -> Tensor:
    """Return labels of which a share WRONG is another class, each with equal probability."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(labels), generator=generator) < WRONG
    step = torch.randint(1, 10, (len(labels),), generator=generator)
    return torch.where(chosen, (labels + step) % 10, labels)


def data(folder: Path, part: str, seed: int, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return images in [0, 1], given labels and true labels."""
    read = read_fashion_mnist(folder)
    images, truth = read[f"{part}_images"][:rows].float() / 255, read[f"{part}_labels"][:rows]
    return images, relabel(truth, seed), truth


def demo_space() -> fsb.FeatureSpace:
    demo = load_demo()
    return fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)


def triage(folder: Path, journal: Path, rows: int | None) -> fsb.Triage:
    space = demo_space()
    train, given, _ = data(folder, "train", 1, None)
    started = time.process_time()
    file = journal.with_suffix(".reference")
    if file.exists():
        reference = fsb.Reference.open(file)
    else:
        reference = fsb.Reference.fit(space, TensorDataset(train, given), "both", path=file)
    print(f"reference of 60,000: {time.process_time() - started:.0f} s", flush=True)
    test, labels, _ = data(folder, "test", 2, rows)
    loader = DataLoader(TensorDataset(test, labels), batch_size=256)
    batch = space.extract(test[:1000])
    started = time.process_time()
    fsb.scores.novelty(reference, batch)
    seconds = time.process_time() - started
    print(f"novelty of 1,000 rows: {seconds:.2f} s", flush=True)
    started = time.process_time()
    found = fsb.triage(space, loader, reference, path=journal)
    print(f"triage of {len(found):,}: {time.process_time() - started:.0f} s", flush=True)
    return found


def precision(wrong: Tensor, doubt: Tensor) -> str:
    order = doubt.nan_to_num(-torch.inf).argsort(descending=True)
    return ", ".join(f"{100 * float(wrong[order[:n]].double().mean()):.1f} %" for n in COUNTS)


def cleanlab_scores(labels: Tensor, probabilities: Tensor) -> dict[str, Tensor]:
    try:
        rank = importlib.import_module("cleanlab.rank")
    except ImportError:
        print("cleanlab is not installed")
        return {}
    found = {}
    for method in ("self_confidence", "normalized_margin"):
        quality = rank.get_label_quality_scores(
            labels.numpy(), probabilities.numpy(), method=method
        )
        # its sign is changed, and it is not subtracted from 1, where the smallest would be equal
        found[f"cleanlab, {method}"] = -torch.from_numpy(quality)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--rows", type=int, help="test images; all by default")
    parser.add_argument("--out", type=Path, help="folder for suspects.csv and suspects.html")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        triage(options.data, options.child, options.rows)
        return
    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch) / "rows"
        command = [sys.executable, __file__, "--child", str(journal), "--data", str(options.data)]
        command += ["--rows", str(options.rows)] if options.rows else []
        with subprocess.Popen(command) as child:
            while not journal.exists() or journal.stat().st_size < 300_000:
                if child.poll() is not None:
                    raise SystemExit(f"the first run ended by itself: {child.returncode}")
                time.sleep(0.05)
            os.kill(child.pid, signal.SIGKILL)
        print(f"killed after {len(fsb.Triage.open(journal)):,} rows")
        found = triage(options.data, journal, options.rows)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of the process: {peak:.0f} MiB")
        frame = found.to_pandas()
        out = Path(scratch) if options.out is None else options.out
        for name in ("csv", "html"):
            started = time.process_time()
            path = out / f"suspects.{name}"
            write = getattr(found, f"to_{name}")
            write(path, **({"class_names": CLASS_NAMES} if name == "html" else {}), force=True)
            seconds = time.process_time() - started
            print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB, {seconds:.1f} s")
    images, labels, truth = data(options.data, "test", 2, options.rows)
    logits = demo_space().extract(images).logits
    scores = {"label_issue": torch.tensor(frame["label_issue"].to_numpy(dtype="float64"))}
    scores |= cleanlab_scores(labels, logits.double().softmax(dim=1))
    errors = logits.argmax(dim=1) != truth
    doubts = {
        "distrust": torch.tensor(frame["distrust"].to_numpy(dtype="float64")),
        "1 - largest probability": 1 - logits.double().softmax(dim=1).amax(dim=1),
    }
    print(f"{int(errors.sum())} errors of the network; AUROC, with 95 % bootstrap interval:")
    for name, doubt in doubts.items():
        print(f"  {name}: {interval(errors, doubt, roc_auc_score)}")
    wrong = labels != truth
    print(f"{int(wrong.sum())} of {len(wrong):,} labels are wrong; precision at {COUNTS}:")
    for name, doubt in scores.items():
        print(f"  {name}: {precision(wrong, doubt)}")


if __name__ == "__main__":
    main()
