"""Models of the zoo: timm, torchvision, open_clip and peft, and what all sources share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CLASSES = 11
"""A number that no other layer of the models has as its number of outputs."""

LARGE = 256
"""Side of images that are replaced by smaller ones, where the model takes these too."""

NAMES = Path(__file__).with_name("zoo_timm.txt")


class Sample(NamedTuple):
    """A model, a function that draws two examples, and one that returns features and weight.

    The weight is that of the head up to a positive factor, computed without this package.
    """

    model: nn.Module
    draw: Callable[[torch.Generator], Any]
    expected: Callable[[Any], tuple[Tensor, Tensor]] | None = None


def images(side: int) -> Callable[[torch.Generator], Tensor]:
    """Return a function that draws two images."""
    return lambda generator: torch.randn(2, 3, side, side, generator=generator)


def timm_models() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield name and builder of the smallest variant of each module of timm."""
    import timm

    def build(name: str) -> Sample:
        config = timm.models.get_pretrained_cfg(name)
        side = 224 if config is None else config.input_size[-1]
        if side > LARGE and not config.fixed_input_size:
            side = 224
        return Sample(timm.create_model(name, num_classes=CLASSES), images(side))

    for name in NAMES.read_text("utf-8").split():
        yield name, lambda n=name: build(n)


def torchvision_models() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield name and builder of each classifier of torchvision."""
    import torchvision

    def build(name: str) -> Sample:
        options = {"num_classes": CLASSES}
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False, "aux_logits": True}
        model = torchvision.models.get_model(name, **options)
        return Sample(model, images(299 if name == "inception_v3" else 224))

    for name in torchvision.models.list_models(module=torchvision.models):
        yield name, lambda n=name: build(n)


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


ZERO_SHOT = (
    "MobileCLIP2-S0", "PE-Core-T-16-384", "RN50", "ViT-B-16-SigLIP", "ViT-B-32", "ViT-S-16-alt",
    "ViTamin-S", "convnext_tiny", "swin_base_patch4_window7_224",
)  # fmt: skip
"""Models of open_clip, one per kind of image tower, without downloads for the text tower."""


def open_clip_models() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield name and builder of zero-shot classifiers."""
    import open_clip

    from fsboundary.space import ZeroShotClassifier

    def build(name: str) -> Sample:
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=None, pretrained_text=False).eval()
        side = model.visual.image_size
        side = side if isinstance(side, int) else side[0]
        draw = images(side)
        with torch.no_grad():
            width = model.encode_image(draw(torch.Generator().manual_seed(0))).shape[1]
        # not of the text tower, whose random weights give all texts nearly one embedding
        text = torch.randn(CLASSES, width)
        whole = ZeroShotClassifier(model.encode_image, text, scale=100.0)

        def expected(x: Tensor) -> tuple[Tensor, Tensor]:
            return model.encode_image(x), nn.functional.normalize(text, dim=1)

        return Sample(whole, draw, expected)

    for name in ZERO_SHOT:
        yield name, lambda n=name: build(n)


def peft_models() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield name and builder of classifiers with unmerged adapters, also at the classifier."""
    import peft
    import transformers
    from zoo_transformers import smallest

    adapters: dict[str, Callable[[list[str]], Any]] = {
        "LoRA": lambda at: peft.LoraConfig(target_modules=at, r=4),
        "rsLoRA": lambda at: peft.LoraConfig(target_modules=at, r=4, use_rslora=True),
        "DoRA": lambda at: peft.LoraConfig(target_modules=at, r=4, use_dora=True),
        "AdaLoRA": lambda at: peft.AdaLoraConfig(target_modules=at, total_step=10),
        "LoHa": lambda at: peft.LoHaConfig(target_modules=at, r=4),
        "LoKr": lambda at: peft.LoKrConfig(target_modules=at, r=4),
        "VeRA": lambda at: peft.VeraConfig(target_modules=at, r=4),
        "OFT": lambda at: peft.OFTConfig(target_modules=at, oft_block_size=8),
        "IA3": lambda at: peft.IA3Config(target_modules=at, feedforward_modules=at),
        "FourierFT": lambda at: peft.FourierFTConfig(target_modules=at, n_frequency=16),
    }
    heads = {"Bert": "classifier", "GPT2": "score", "ViT": "classifier"}

    def build(base: str, kind: str, everywhere: bool) -> Sample:
        task = "Image" if base == "ViT" else "Sequence"
        layer = heads[base]
        plain = smallest(
            getattr(transformers, f"{base}Config"),
            getattr(transformers, f"{base}For{task}Classification"),
        )
        config = adapters[kind]([layer])
        if everywhere:
            inner = ["c_attn"] if base == "GPT2" else ["query", "value"]
            inner = ["q_proj", "v_proj"] if base == "ViT" else inner
            config = adapters[kind](inner)
            config.modules_to_save = [layer]
        model = peft.get_peft_model(plain.model, config).eval()

        def expected(x: Any) -> tuple[Tensor, Tensor]:
            whole = copy.deepcopy(model)
            if kind in ("OFT", "IA3"):  # which change the layer's input, and nothing after it
                last = whole.get_submodule(f"base_model.model.{layer}.base_layer")
            else:
                whole = whole.merge_and_unload()
                last = whole.get_submodule(layer)
            seen: list[Tensor] = []
            last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
            whole(**x)
            return seen[-1], last.weight

        return Sample(model, plain.draw, expected)

    for base in heads:
        for kind in adapters:
            yield f"{base} {kind} head".replace(" ", "-"), lambda b=base, k=kind: build(b, k, False)
        yield f"{base}-LoRA-body", lambda b=base: build(b, "LoRA", True)
