"""Search for points of another class within certified radii of pixels, among a million.

Networks from linear to residual, with every activation, in float64. Radii are certified in both
norms; points inside are random, corners, and those of projected descents of the smallest margin
from several starts. The biases of each head are moved so that the classes are about equally large
on average; otherwise many random networks have one class everywhere, and nothing is tested. Then
the hunt itself is checked. On the linear network, radii that are larger by a millionth must be
refuted, in L2 without limits of pixels, where the steepest descent is exact. On every network,
radii a hundredth beyond the nearest known image of another class are attacked in the same way: at
how many an image of another class is found says how strong the attack is. Exits with 1 if a
certificate is false, or if a check finds nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor, nn

from fsboundary import pixels
from support.bounds.bodies import OPERATIONS, body, pictures, points_inside
from support.pixels.models import Linear

ROWS = 16
FIRST_SEED = 1000
"""The tests use smaller seeds."""
BEYOND = 1.01
"""Radii of the check of the attack, relative to the nearest known image of another class."""
SMALLER = 1e-12
"""A margin that is negative by less than this, relative to the logits, is rounding."""


class Flat(nn.Module):
    """A linear network of images (B,2,8,8)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = Linear(seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x[:, :, ::3, ::3].flatten(1)[:, :16])
        return out


class Shifted(nn.Module):
    """A network whose pixels lose their last digits, if it is of float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner((x + 256.0) - 256.0)
        return out


def balanced(model: nn.Module, head: nn.Linear, seed: int) -> nn.Module:
    """Return `model` after its mean logits were made equal."""
    with torch.no_grad():
        head.bias -= model(pictures(64, seed + 100_000)).mean(dim=0)
    return model


def networks(seed: int, *, floating_point: bool = False) -> dict[str, nn.Module]:
    """Return the networks by name."""
    flat = Flat(seed).eval()
    models = {"linear": balanced(flat, flat.inner.head, seed)}
    for name in OPERATIONS:
        model = body(name, seed)
        models[name] = balanced(model, model.head, seed)
    if floating_point:
        models = {name: Shifted(model.float()).eval() for name, model in models.items()}
    return models


def margin(logits: Tensor, source: Tensor) -> Tensor:
    """Return the smallest margin (B,) of class `source` over the others."""
    own = logits.gather(1, source[:, None])
    others = logits.scatter(1, source[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)


def attack(
    model: nn.Module,
    images: Tensor,
    source: Tensor,
    radius: Tensor,
    norm: str,
    seed: int,
    points: int,
    bounds: tuple[float, float] = (0, 1),
) -> tuple[Tensor, int]:
    """Return how often the class changed within each radius (B,), and among how many points."""
    changed, tried = torch.zeros_like(source), 0
    dtype = next(model.parameters()).dtype
    if dtype == torch.float32:  # rounding of pixels must not leave the set
        one = torch.finfo(dtype).eps / 2
        radius = (
            radius - (one if norm == "linf" else one * images.shape[1:].numel() ** 0.5)
        ).clamp_min(0)
    while len(images) and tried < points:
        seed += 1
        inside = points_inside(
            images, radius, norm, lambda x: margin(model(x.to(dtype)), source), seed, bounds
        )
        for x in inside:
            with torch.no_grad():
                logits = model(x.to(dtype))
            if dtype == torch.float32:
                changed += logits.argmax(dim=1) != source
            else:
                changed += margin(logits, source) < -SMALLER * logits.abs().amax(dim=1)
            tried += len(x)
    return changed, tried


def check(models: dict[str, nn.Module], seed: int) -> tuple[list[int], list[float]]:
    """Return by norm what is found beyond the exact radii of the linear network, and of all.

    The first are points of another class within radii that are larger by a millionth; the second
    fractions of the images within :data:`BEYOND` of which an image of another class is found.
    """
    # a ball of radius 1 around an image of 128 pixels does not meet these limits
    limits = {"linf": (0.0, 1.0), "l2": (-1e3, 1e3)}
    images, refuted, strength = pictures(ROWS, seed), [], []
    for norm, bounds in limits.items():
        found = pixels.certify(models["linear"], images, norm=norm, bounds=bounds, tolerance=1e-8)
        radius = found.radius * (1 + 1e-6)
        changed, _ = attack(
            models["linear"], images, found.source, radius, norm, seed, 1000, bounds
        )
        refuted.append(int(changed.sum()))
        known = successes = 0
        for model in models.values():
            flips = pixels.flip_images(model, images, norm=norm)
            rows = flips.ok.nonzero()[:, 0]
            beyond = BEYOND * flips.distance[rows]
            changed, _ = attack(model, images[rows], flips.source[rows], beyond, norm, seed, 1000)
            successes, known = successes + int((changed > 0).sum()), known + len(rows)
        strength.append(successes / known)
    return refuted, strength


def check_rounding(model: nn.Module, images: Tensor, seed: int) -> list[int]:
    """Return how many points within radii in exact arithmetic float32 gives another class."""
    refuted = []
    for norm in ("linf", "l2"):
        # without flip images, whose classes in float32 could refute the radii at once
        found = pixels.certify(
            model, images, norm=norm, upper=images * torch.nan, bounds=(-1e3, 1e3), tolerance=1e-8
        )
        changed, _ = attack(
            model, images.double(), found.source, found.radius, norm, seed, 1000, (-1e3, 1e3)
        )
        refuted.append(int(changed.sum()))
    return refuted


def main() -> None:
    """Run the hunt and print counts by network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--floating-point", action="store_true")
    parser.add_argument("--networks", nargs="*", help="names; default all", default=())
    args = parser.parse_args()
    start, seed = time.process_time(), args.seed
    models, images = networks(seed, floating_point=args.floating_point), pictures(ROWS, seed)
    models = {
        n: m for n, m in models.items() if not args.networks or n in ("linear", *args.networks)
    }
    arithmetic: Literal["exact", "floating_point"] = "exact"
    if args.floating_point:
        images, arithmetic = images.float(), "floating_point"
    share = args.points // (2 * len(models))
    total = false = 0
    print(
        f"{'network':16} {'norm':>5} {'certified':>9} {'changes':>8} {'share of upper':>14} "
        f"{'points':>8} false"
    )
    for name, model in models.items():
        for norm in ("linf", "l2"):
            found = pixels.certify(model, images, norm=norm, arithmetic=arithmetic)
            rows = (found.radius > 0).nonzero()[:, 0]
            # without limit: all images within the bounds of pixels
            radius = torch.where(torch.isfinite(found.radius), found.radius, ROWS)[rows]
            changed, tried = attack(
                model, images[rows].double(), found.source[rows], radius, norm, seed, share
            )
            known = torch.isfinite(found.upper)
            ratio = (found.radius / found.upper)[known]
            median = float(ratio.median()) if len(ratio) else float("nan")
            print(
                f"{name:16} {norm:>5} {len(rows):6}/{ROWS} {int(known.sum()):5}/{ROWS} "
                f"{median:14.3f} {tried:8} {int(changed.sum()):5}",
                flush=True,
            )
            total, false = total + tried, false + int(changed.sum())
    if args.floating_point:
        refuted = check_rounding(models["linear"], images, seed)
        strength = [1.0, 1.0]
    else:
        refuted, strength = check(models, seed)
    seconds = time.process_time() - start
    print(
        f"seed {seed}: {total} points in {len(models)} networks, {seconds / 60:.1f} minutes of "
        f"processor time: {false} of another class"
    )
    radii = "in exact arithmetic" if args.floating_point else "larger by 1e-6"
    print(f"radii {radii} on the linear network: {refuted} points of another class, by norm")
    if not args.floating_point:
        print(
            f"radii {BEYOND} times the distance of flip images: found in "
            + " and ".join(f"{100 * s:.0f} %" for s in strength)
        )
    sys.exit(1 if false or not all(refuted) or not all(strength) else 0)


if __name__ == "__main__":
    main()
