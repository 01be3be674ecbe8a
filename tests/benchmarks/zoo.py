"""Heads of the models of timm and torchvision: found and right, refused, or silently wrong.

Run ``tox run -e zoo``, or ``python tests/benchmarks/zoo.py [--library timm] [--only NAME ...]``.
The smallest variants are searched, which takes minutes, unless ``--list`` was written to
``zoo_timm.txt`` beside this file.
For timm, the smallest variant of every module is built, for torchvision every classifier, with
random weights and no download. Each is extracted on two images, and then

- its logits on four other images must be those of the model, and ``W z + b`` within the tolerance
  (the package checks that), and their derivative along a random change of the images must be ``W``
  times that of the features, which it does not check;
- if its classifier is one linear layer or a 1x1 convolution, the head must have its weights.

The last line has the counts as JSON. Exit code 1 if a head is wrong or under 98 % are found.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fsboundary as fsb

SHARE = 0.98
CLASSES = 10
NAMES = Path(__file__).with_name("zoo_timm.txt")


def timm_models() -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Yield name, builder and image size of the smallest variant of each module of timm."""
    import timm

    names = NAMES.read_text("utf-8").split() if NAMES.is_file() else smallest_of_timm()
    for name in names:
        size = timm.models.get_pretrained_cfg(name)
        side = 224 if size is None else size.input_size[-1]
        yield name, lambda name=name: timm.create_model(name, num_classes=CLASSES), side


def torchvision_models() -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Yield name, builder and image size of each classifier of torchvision."""
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        options = {"num_classes": CLASSES}
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False, "aux_logits": True}
        side = 299 if name == "inception_v3" else 224
        yield name, lambda n=name, o=options: torchvision.models.get_model(n, **o), side


def smallest_of_timm() -> list[str]:
    """Return the name of the smallest variant of each module of timm, for the list of names."""
    import timm
    from timm.models import _registry

    smallest = []
    for names in _registry._module_to_models.values():
        sizes = {}
        for name in sorted(names):
            try:
                with torch.device("meta"):
                    sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
            except Exception:  # some cannot be built without memory, or at all
                continue
        if sizes:
            smallest.append(min(sizes, key=sizes.__getitem__))
    return sorted(smallest)


def stir(model: nn.Module) -> None:
    """Change all parameters a little: fresh heads are often zero, and would match anything."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(0.1 * torch.randn(b.shape, generator=generator))


def own_weight(model: nn.Module, layer: str) -> Tensor | None:
    """Return the weight (K,d) of the classifier if it is one plain layer, else None."""
    try:
        module = model.get_submodule(layer)
    except AttributeError:
        return None
    weight = getattr(module, "weight", None)
    if type(module) not in (nn.Linear, nn.Conv2d) or weight[0].numel() != weight.shape[1]:
        return None
    return weight.detach().flatten(1).double()


def verdict(build: Callable[[], nn.Module], side: int) -> tuple[str, str]:
    """Return "right", "refused", "wrong" or "broken", and why."""
    try:
        model = build().eval()
        stir(model)
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(2, 3, side, side, generator=generator)
        with torch.no_grad():
            model(images)
    except Exception as error:
        return "broken", f"{type(error).__name__}: {error}"
    space = fsb.FeatureSpace(model)
    try:
        space.extract(images)
    except fsb.HeadError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    layer = space.notes()["layer"]
    weight = own_weight(model, layer)
    head = space.head
    if weight is not None and weight.shape == head.weight.shape:
        scale = head.weight.norm() / weight.norm()
        if not torch.allclose(head.weight, weight * scale, rtol=1e-9, atol=1e-12):
            return "wrong", f"other weights than those of {layer}"
    x = torch.randn(2, 3, side, side, generator=generator)
    try:
        other = space.extract(x)
    except fsb.FsboundaryError as error:
        return "wrong", f"a later batch: {error}"
    step = 1e-2 * torch.randn(x.shape, generator=generator)
    moved = space.extract(x + step)
    with torch.no_grad():
        first, second = (first_tensor(model(part)) for part in (x, x + step))
    if not torch.allclose(other.logits, first, rtol=1e-4, atol=1e-4):
        return "wrong", "other logits than the model's"
    change = (moved.features - other.features).double() @ head.weight.mT
    size = change.abs().max() + (second - first).abs().max() + first.abs().max() * 1e-3
    if float((change - (second - first).double()).abs().max() / size) > 1e-2:
        return "wrong", "the logits change by something else than W dz"
    return "right", f"{layer}, d = {head.num_features}, domain {space.domain.kind}"


def first_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else next(iter(output))


def main() -> int:
    """Print one line per model, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=["timm", "torchvision"], action="append")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th model from the i-th on")
    parser.add_argument("--list", action="store_true", help="print the names for zoo_timm.txt")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    if chosen.list:
        print("\n".join(smallest_of_timm()))
        return 0
    sources = {"timm": timm_models, "torchvision": torchvision_models}
    part, parts = map(int, chosen.part.split("/"))
    counts: dict[str, int] = {"right": 0, "refused": 0, "wrong": 0, "broken": 0}
    for library in chosen.library or sources:
        for number, (name, build, side) in enumerate(sources[library]()):
            if number % parts != part or (chosen.only and name not in chosen.only):
                continue
            outcome, why = verdict(build, side)
            counts[outcome] += 1
            print(f"{library:12s}{name:40s}{outcome:9s}{why[:300]}", flush=True)
    tried = counts["right"] + counts["refused"] + counts["wrong"]
    share = counts["right"] / max(tried, 1)
    print(json.dumps({"benchmark": "zoo", "share_found": round(share, 4), **counts}))
    return int(counts["wrong"] > 0 or share < SHARE)


if __name__ == "__main__":
    sys.exit(main())
