"""Flip images of the demo's network, compared with foolbox. Run: ``tox run -e bench``.

Correctly classified test images of Fashion-MNIST (the package's own where the full set is not
installed): fsboundary's default finder, foolbox's DDN with 100 steps and DeepFool on all, DDN with
1,000 steps on the first 200, all in the same run. Ratios of L2 distances are per image, relative to
DDN-1000, on those 200. Passes are counted at the model for all methods: a pass with a backward pass
counts as a gradient, others as forward passes. "Margin left" is the top logit minus the second.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.demo import load_demo
from fsboundary.demo.train import read_fashion_mnist
from fsboundary.plugins.grading.images import CountingView

with warnings.catch_warnings():
    # foolbox 3.3 imports scipy.ndimage by a deprecated name
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox


class Counted(nn.Module):
    """The network with its preprocessing; counts its passes."""

    def __init__(self, space: fsb.FeatureSpace, network: nn.Module) -> None:
        super().__init__()
        self.counts = CountingView(space)
        self._network = [network]  # in a list, so it is no submodule and its state is not changed

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        out: Tensor = self._network[0](self.counts.watched(images))
        return out


def test_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Return all test images and labels there are."""
    if folder.is_dir():
        data = read_fashion_mnist(folder)
        return data["test_images"].float() / 255, data["test_labels"].long()
    demo = load_demo()
    return demo.test_images, demo.test_labels


def measured(
    name: str, found: Tensor, images: Tensor, success: Tensor, logits: Tensor, passes: list[float]
) -> tuple[dict[str, Any], Tensor]:
    """Return one row of the table, and the distances (NaN where nothing was found)."""
    distance = (found.double() - images.double()).flatten(1).norm(dim=1)
    distance = torch.where(success, distance, torch.nan)
    top = logits.double().topk(2, dim=1).values
    margin = (top[:, 0] - top[:, 1])[success]
    row = {
        "method": name,
        "images": len(images),
        "success": float(success.double().mean()),
        "median_l2": float(distance.nanmedian()),
        "mean_l2": float(distance.nanmean()),
        "gradients_an_image": passes[0],
        "forwards_an_image": passes[1],
        "median_margin_left": float(margin.median()),
        "largest_margin_left": float(margin.max()),
    }
    return row, distance


def by_foolbox(
    name: str, attack: Any, counted: Counted, images: Tensor, labels: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """Run an attack of foolbox in batches of 100."""
    model = foolbox.PyTorchModel(counted, bounds=(0, 1), device="cpu")
    counts = counted.counts
    before = counts.gradients, counts.num_forwards
    parts = [
        attack(model, images[i : i + 100], labels[i : i + 100], epsilons=None)
        for i in range(0, len(images), 100)
    ]
    passes = [
        (now - then) / len(images)
        for now, then in zip((counts.gradients, counts.num_forwards), before, strict=True)
    ]
    found = torch.cat([p[1] for p in parts])
    with torch.no_grad():
        logits = counted(found)
    return measured(name, found, images, torch.cat([p[2] for p in parts]), logits, passes)


def by_fsboundary(
    name: str, space: fsb.FeatureSpace, images: Tensor, **options: Any
) -> tuple[dict[str, Any], Tensor]:
    """Run flip_images."""
    flips = fsb.pixels.flip_images(space, images, **options)
    shown = torch.where(flips.ok[:, None, None, None], flips.images, images)
    passes = [float(t.double().mean()) for t in (flips.num_backwards, flips.num_forwards)]
    logits = space.extract(shown).logits
    row, distance = measured(name, shown, images, flips.ok, logits, passes)
    row["most_gradients"] = int(flips.num_backwards.max())
    row["most_forwards"] = int(flips.num_forwards.max())
    row["largest_residual"] = float(flips.residual[flips.ok].max())
    return row, distance


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--images", type=int, default=500, help="correctly classified images")
    parser.add_argument("--tiny", action="store_true", help="8 images and DDN-50, as a quick check")
    options = parser.parse_args()
    count = 8 if options.tiny else options.images
    common = min(200, count)
    steps = 50 if options.tiny else 1000
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    network = nn.Sequential(demo.preprocess, demo.model).eval().requires_grad_(False)
    counted = Counted(space, network).eval()
    images, labels = test_images(options.data)
    images, labels = images[: 2 * count + 20], labels[: 2 * count + 20]
    right = (space.extract(images).predicted == labels).nonzero()[:count, 0]
    images, labels = images[right], labels[right]
    ddn, deepfool = foolbox.attacks.DDNAttack, foolbox.attacks.L2DeepFoolAttack
    rows, distances = [], []
    for row, distance in (
        by_foolbox(
            f"foolbox DDN-{steps}", ddn(steps=steps), counted, images[:common], labels[:common]
        ),
        by_foolbox("foolbox DDN-100", ddn(steps=100), counted, images, labels),
        by_foolbox("foolbox DeepFool", deepfool(), counted, images, labels),
        by_fsboundary("fsboundary feature_guided", space, images),
        by_fsboundary("fsboundary feature_guided, 100 steps", space, images, max_steps=100),
        by_fsboundary("fsboundary ddn", space, images, finder="ddn", max_steps=100),
    ):
        rows.append(row)
        distances.append(distance)
        ratio = distance[:common] / distances[0]
        row["mean_ratio_on_common"] = float(ratio.nanmean())
        row["median_ratio_on_common"] = float(ratio.nanmedian())
        row["largest_ratio_on_common"] = float(ratio[torch.isfinite(ratio)].max())
    some = images[: min(50, count)]
    source = space.extract(some).predicted
    targets = (source[:, None] + torch.arange(1, 10)) % 10
    row, _ = by_fsboundary(
        "fsboundary feature_guided, all 9 targets",
        space,
        some.repeat_interleave(9, dim=0),
        targets=targets.reshape(-1),
    )
    rows.append(row)
    about = {"torch": torch.__version__, "foolbox": foolbox.__version__}
    about |= {"machine": platform.machine(), "common_images": common}
    print(json.dumps({"about": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
