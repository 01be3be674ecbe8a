"""Quality and cost of inverse images, morphs and amplification on the demo.

Prints one JSON object. Cost is the number of gradients; times are CPU times of this machine.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.demo import load_demo


def spread(values: Tensor) -> dict[str, float]:
    """Return quartiles and the largest of `values` that are finite."""
    finite = values[torch.isfinite(values)].double()
    names = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "largest": 1.0}
    return {name: float(finite.quantile(q)) for name, q in names.items()}


def inversion(space: fsb.FeatureSpace, z: Tensor, starts: int, **options: Any) -> dict[str, Any]:
    begin = time.process_time()
    found = fsb.pixels.inverse_images(space, z, (starts, 1, 28, 28), **options)
    best = found.best()
    return {
        "relative_residual": spread(found.relative_residual.flatten()),
        "relative_residual_of_the_best": spread(best.relative_residual.flatten()),
        "boundary_distance_of_the_best": spread(best.boundary_distance.flatten()),
        "spread": spread(found.spread) if starts > 1 else None,
        "cpu_seconds": time.process_time() - begin,
    }


def morphs(
    space: fsb.FeatureSpace, x: Tensor, y: Tensor, via: str, steps: int | None
) -> dict[str, Any]:
    begin = time.process_time()
    found = fsb.pixels.morph(space, x, y, via=via, max_steps=steps)
    met = [len(set(row)) for row in found.predicted.tolist() if -1 not in row]
    return {
        "off_path": spread(found.off_path[:, 1:-1].flatten()),
        "largest_jump_over_that_of_the_blend": spread(
            found.largest_jump / found.blend_largest_jump
        ),
        "crossing_minus_that_of_the_features": spread(
            (found.crossing - found.feature_crossing).abs()
        ),
        "classes_met": sum(met) / max(1, len(met)),
        "statuses": found.status.bincount().tolist(),
        "cpu_seconds": time.process_time() - begin,
    }


def amplification(space: fsb.FeatureSpace, x: Tensor, radius: float) -> dict[str, Any]:
    begin = time.process_time()
    found = fsb.pixels.amplification(space, x, radius=radius)
    used = time.process_time() - begin
    exact = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: space.features(v[None])[0], row)
        exact.append(torch.linalg.matrix_norm(jacobian.flatten(1), 2))
    return {
        "share_of_the_exact_singular_value": float(
            (found.singular_value / torch.stack(exact)).min()
        ),
        "worst_over_random_max": spread(found.max_displacement / found.random_max),
        "worst_over_linear": spread(found.max_displacement / (radius * found.singular_value)),
        "vulnerability": spread(found.vulnerability),
        "cpu_seconds": used,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--morphs", type=int, default=20)
    parser.add_argument("--radius", type=float, default=0.3, help="near the median flip image")
    parser.add_argument(
        "--max-steps", type=int, help="gradients per image; by default those of the functions"
    )
    args = parser.parse_args()
    steps = args.max_steps
    demo = load_demo()
    space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    order = torch.randperm(len(demo.test_images), generator=torch.Generator().manual_seed(0))
    x = demo.test_images[order[: args.images]]
    z = space.extract(x).features
    flips = fsb.flip_points(space.head, z).points[:, 0]
    a, b = x[: args.morphs], x.flip(0)[: args.morphs]
    results = {
        "images": len(x),
        "invert_real": inversion(space, z, args.starts, max_steps=steps),
        "invert_real_tv": inversion(space, z, args.starts, prior="tv", max_steps=steps),
        "invert_flip_points": inversion(space, flips, args.starts, max_steps=steps),
        "morph_straight": morphs(space, a, b, "straight", steps),
        "morph_flip_point": morphs(space, a, b, "flip_point", steps),
        "amplification": amplification(space, x, args.radius),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
