"""Search for points of another class within certified radii of pixels, among a million.

Networks from linear to residual, with every activation, in float64. Radii are certified in both
norms; points inside are random, corners, and those of projected descents of the smallest margin
from several starts. The biases of each head are moved so that the classes are about equally large
on average; otherwise many random networks have one class everywhere, and nothing is tested. Then
the hunt itself is checked: on the linear network, radii that are larger by a millionth must be
refuted, in L2 without limits of pixels, where the steepest descent is exact. Exits with 1 if a
certificate is false, or if the check is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary import pixels
from support.bounds.bodies import OPERATIONS, body, pictures, points_inside
from support.pixels.models import Linear

ROWS = 16
FIRST_SEED = 1000
"""The tests use smaller seeds."""
SMALLER = 1e-12
"""A margin that is negative by less than this, relative to the logits, is rounding."""


class Flat(nn.Module):
    """A linear network of images (B,2,8,8)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Linear(seed=FIRST_SEED)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x[:, :, ::3, ::3].flatten(1)[:, :16])
        return out


def balanced(model: nn.Module, head: nn.Linear) -> nn.Module:
    """Return `model` after its mean logits were made equal."""
    with torch.no_grad():
        head.bias -= model(pictures(64, FIRST_SEED - 1)).mean(dim=0)
    return model


def margin(model: nn.Module, source: Tensor, x: Tensor) -> Tensor:
    """Return the smallest margin (B,) of class `source` over the others."""
    logits = model(x)
    own = logits.gather(1, source[:, None])
    others = logits.scatter(1, source[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)


def hunt(
    model: nn.Module,
    norm: str,
    seed: int,
    points: int,
    factor: float = 1.0,
    bounds: tuple[float, float] = (0, 1),
) -> tuple[int, int, fsb.CertifiedPixels]:
    """Return how many of how many points inside the certified balls have another class."""
    images = pictures(ROWS, seed)
    tolerance = 1e-8 if factor > 1 else 1e-3
    found = pixels.certify(model, images, norm=norm, bounds=bounds, tolerance=tolerance)
    radius = torch.where(torch.isfinite(found.radius), found.radius, 1.0) * factor
    changed = tried = 0
    while tried < points:
        seed += 1
        inside = points_inside(
            images, radius, norm, lambda x: margin(model, found.source, x), seed, bounds
        )
        for x in inside:
            with torch.no_grad():
                value = margin(model, found.source, x)
                size = model(x).abs().amax(dim=1)
            changed += int(((value < -SMALLER * size) & (radius > 0)).sum())
            tried += int((radius > 0).sum())
    return changed, tried, found


def main() -> None:
    """Run the hunt and print counts by network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    args = parser.parse_args()
    start = time.process_time()
    flat = Flat().eval()
    models = {"linear": balanced(flat, flat.inner.head)}
    for name in OPERATIONS:
        model = body(name, FIRST_SEED)
        models[name] = balanced(model, model.head)
    share = args.points / (2 * len(models))
    total = false = 0
    print(f"{'network':16} {'norm':>5} {'certified':>9} {'share of upper':>14} {'points':>8} false")
    for name, model in models.items():
        for norm in ("linf", "l2"):
            changed, tried, found = hunt(model, norm, FIRST_SEED, int(share))
            ratio = (found.radius / found.upper)[torch.isfinite(found.upper)]
            median = float(ratio.median()) if len(ratio) else float("nan")
            certified = int((found.radius > 0).sum())
            print(
                f"{name:16} {norm:>5} {certified:6}/{ROWS} {median:14.3f} {tried:8} {changed:5}",
                flush=True,
            )
            total, false = total + tried, false + changed
    # a ball of radius 1 around an image of 128 pixels does not meet these limits
    limits = {"linf": (0.0, 1.0), "l2": (-1e3, 1e3)}
    refuted = [
        hunt(models["linear"], norm, FIRST_SEED, 1000, 1 + 1e-6, bounds)[0]
        for norm, bounds in limits.items()
    ]
    seconds = time.process_time() - start
    print(
        f"{total} points in {len(models)} networks, {seconds / 60:.1f} minutes of processor time: "
        f"{false} of another class"
    )
    print(
        f"radii larger by 1e-6 on the linear network: {refuted} points of another class (linf, l2)"
    )
    sys.exit(1 if false or not all(refuted) else 0)


if __name__ == "__main__":
    main()
