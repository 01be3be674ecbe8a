"""Completeness of Captum's Integrated Gradients of BoundaryDistance on the demo's network.

For test images of all classes, a column of the distances is attributed along the straight path from
each baseline, to the pixels or, with --features, to the output of the layer before the head. The
delta is the sum of the attributions minus the difference of the distances at both ends. It is
reported as a fraction of that difference, of the image's own distance, and of the sum of absolute
attributions, which cancel in the difference.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import captum.attr as ca
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.demo import load_demo

LIMIT = 1e-4
METHODS = ("riemann_middle", "riemann_trapezoid", "gausslegendre")
COLUMNS = ("own", "nearest", "baseline", "flip point")
FLIP = "flip image, nearest in features"
BASELINES = (
    FLIP,
    "flip image",
    "blurred, 0.5",
    "blurred, 1",
    "blurred, 2",
    "blurred, 4",
    "mean of class",
    "mean of training",
    "training image",
    "grey",
    "black",
)


class Case:
    """The demo's network in one precision, and `count` of its test images.

    Parameters
    ----------
    dtype : torch.dtype
    count : int
    """

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.demo = load_demo()
        self.model = self.demo.model.to(dtype)
        self.space = fsb.FeatureSpace(self.model, preprocess=self.demo.preprocess.to(dtype))
        self.distance = fsb.attr.BoundaryDistance(self.space)
        every = max(1, len(self.demo.test_images) // count)
        self.images = self.demo.test_images[::every][:count].to(dtype)
        self.own = self.space.extract(self.images).predicted
        self.train = self.demo.train_images.to(dtype)

    def baselines(self, name: str) -> Tensor:
        """Return the baselines `name` of the images, of the same shape."""
        x, train = self.images, self.train
        if name == "flip image":
            return fsb.pixels.flip_images(self.space, x).images
        if name == FLIP:
            return fsb.pixels.flip_images(self.space, x, self.nearest()).images
        if name.startswith("blurred"):
            return blurred(x, float(name.split(",")[1]))
        if name == "mean of class":
            return torch.stack([train[self.demo.train_labels == k].mean(dim=0) for k in self.own])
        if name == "mean of training":
            return train.mean(dim=0).expand_as(x)
        if name == "training image":
            generator = torch.Generator().manual_seed(0)
            return train[torch.randperm(len(train), generator=generator)[: len(x)]]
        return torch.full_like(x, 0.5 if name == "grey" else 0.0)

    def nearest(self) -> Tensor:
        """Return the class of each image's nearest flip point in feature space (B,)."""
        features = self.space.extract(self.images).features
        return fsb.flip_points(self.space.head, features).target[:, 0]

    def columns(self, name: str, ends: Tensor) -> Tensor:
        """Return the own class of each image, the nearest other, or that of its baseline (B,).

        For "flip point" also the nearest other, as a column of the distances with the own class as
        source.
        """
        if name == "own":
            return self.own
        if name in ("nearest", "flip point"):
            return self.nearest()
        return self.space.extract(ends).predicted

    def run(
        self, name: str, column: str, features: bool, steps: int, method: str
    ) -> dict[str, Any]:
        """Return the deltas with the baselines `name`."""
        distances = {int(k): self.distance for k in self.own}
        if column == "flip point":
            distances = {k: fsb.attr.BoundaryDistance(self.space, source=k) for k in distances}
        shares: dict[str, list[float]] = {"difference": [], "own_distance": [], "total": []}
        ends = self.baselines(name)
        asked = self.columns(column, ends).tolist()
        for x, base, k, own in zip(self.images, ends, asked, self.own.tolist(), strict=True):
            distance = distances[own]
            ig = ca.IntegratedGradients(distance)
            if features:
                ig = ca.LayerIntegratedGradients(distance, self.model.pool)
            found, delta = ig.attribute(
                x[None].clone(),
                baselines=base[None],
                target=k,
                n_steps=steps,
                method=method,
                internal_batch_size=100,
                return_convergence_delta=True,
            )
            with torch.no_grad():
                start, end = distance(torch.stack([base, x]))[:, k].tolist()
            off = abs(float(delta))
            shares["difference"].append(off / abs(end - start))
            shares["own_distance"].append(off / abs(end))
            shares["total"].append(off / float(found.abs().sum()))
        return {
            "baseline": name,
            "column": column,
            "to": "features" if features else "pixels",
            "method": method,
            **{f"of_{name}": summary(values) for name, values in shares.items()},
        }


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Return images (B,1,H,W) under a Gaussian of `sigma` pixels, edges repeated."""
    reach = round(4 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=images.dtype) / sigma) ** 2)
    line = line / line.sum()
    padded = torch.nn.functional.pad(images, (reach,) * 4, mode="replicate")
    down = torch.nn.functional.conv2d(padded, line[None, None, :, None])
    return torch.nn.functional.conv2d(down, line[None, None, None])


def summary(shares: list[float]) -> dict[str, Any]:
    """Return the median, the largest, and the number within the limit."""
    values = torch.tensor(shares)
    return {
        "median": float(f"{float(values.median()):.2g}"),
        "largest": float(f"{float(values.max()):.2g}"),
        "within": int((values <= LIMIT).sum()),
    }


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:1])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS[:1])
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=BASELINES)
    parser.add_argument("--features", action="store_true", help="to the layer before the head")
    args = parser.parse_args()
    start = time.process_time()
    case = Case(getattr(torch, args.dtype), args.images)
    rows = [
        case.run(name, column, args.features, args.steps, method)
        for method in args.methods
        for column in args.columns
        for name in args.baselines
    ]
    row = {
        "images": len(case.images),
        "steps": args.steps,
        "dtype": args.dtype,
        "limit": LIMIT,
        "cpu_seconds": round(time.process_time() - start),
        "rows": rows,
    }
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
