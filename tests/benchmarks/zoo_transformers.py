"""Classifiers of transformers, built from small configurations without downloads.

Each configuration is made as small as its model permits: the numbers of :data:`SIZES` replace those
of the same name, also in nested configurations. If the model cannot be built or run so, fewer are
replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from zoo_samples import CLASSES, Sample

TASKS = ("Image", "Sequence", "Audio", "Video")
LARGEST = 200_000_000
"""Parameters of the largest model that is built."""

LAYERS = {
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
         "decoder_layers", "num_encoder_layers", "num_decoder_layers", "num_self_attends_per_block",
         "pred_num_hidden_layers", "num_spatial_layers", "num_temporal_layers",
         "num_auxiliary_layers"),
        2,
    ),
    **dict.fromkeys(("n_positions", "max_position_embeddings"), 128),
    **dict.fromkeys(("vocab_size",), 300),
}  # fmt: skip
"""Numbers of layers, positions and tokens, which no other number of a configuration depends on."""

WIDTHS = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "n_inner"), 64
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "num_key_value_heads"),
        4,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff",
         "moe_intermediate_size", "shared_expert_intermediate_size"),
        96,
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    "image_size": 64,
}  # fmt: skip
"""Widths, which must fit each other."""

SIZES = (LAYERS | WIDTHS, LAYERS, {"vocab_size": 300}, {})

TOKENS = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}
LENGTH = 24


def transformers_models() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield name and builder of each classifier that one of the automatic classes can make."""
    from transformers.models.auto import modeling_auto

    for task in TASKS:
        models = getattr(modeling_auto, f"MODEL_FOR_{task.upper()}_CLASSIFICATION_MAPPING")
        for config, model in sorted(models.items(), key=lambda pair: pair[0].__name__):
            for kind in model if isinstance(model, tuple) else (model,):
                yield kind.__name__, lambda c=config, k=kind: smallest(c, k)


def smallest(config: type, kind: type) -> Sample:
    """Return the model of the smallest sizes that it can be built and run with."""
    errors = []
    for sizes in SIZES:
        try:
            settings = configuration(config, sizes)
            count = parameters(kind, settings)
            if count > LARGEST:
                errors.append(f"{count:,} parameters")
                continue
            torch.manual_seed(0)
            model = kind(settings).eval()
            sample = Sample(model, lambda g, m=model: inputs(m, g))
            with torch.no_grad():
                model(**sample.draw(torch.Generator().manual_seed(0)))
            return sample
        except Exception as error:
            errors.append(f"{type(error).__name__}: {str(error).strip()[:150]}")
    raise RuntimeError(" | ".join(dict.fromkeys(errors)))


def configuration(config: type, sizes: dict[str, Any]) -> Any:
    """Return a configuration with these sizes, where it has them."""
    settings: Any = config(**shrunk(config(), sizes), num_labels=CLASSES)
    text = settings.get_text_config()
    for name, token in TOKENS.items():
        for part in (settings, text):
            if hasattr(part, name):
                setattr(part, name, token)
    return settings


def shrunk(config: Any, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that make a configuration small."""
    found = {k: n for k, n in sizes.items() if isinstance(getattr(config, k, None), int)}
    for name, kind in getattr(config, "sub_configs", {}).items():
        part = getattr(config, name, None)
        if part is not None and isinstance(kind, type):
            found[name] = {"model_type": part.model_type, **shrunk(part, sizes)}
    return found


def parameters(kind: type, settings: Any) -> int:
    """Return the number of parameters."""
    with torch.device("meta"):
        model: nn.Module = kind(settings)
    return sum(p.numel() for p in model.parameters())


def inputs(model: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return two examples for a model: images, frames, a wave or spectrum, or tokens."""
    config, name = model.config, model.main_input_name
    accepted = inspect.signature(model.forward).parameters
    if name == "input_ids" and "pixel_values" in accepted and "input_ids" not in accepted:
        name = "pixel_values"
    if name in ("pixel_values", "pixel_values_videos"):
        return {name: pictures(model, generator)}
    if name == "input_values":
        return {name: torch.randn(2, *wave(config), generator=generator)}
    if name == "input_features":
        return {name: torch.randn(2, *spectrum(model), generator=generator)}
    text = config.get_text_config()
    largest = min(getattr(text, "vocab_size", None) or 300, 300)
    ids = torch.randint(5, largest, (2, LENGTH), generator=generator)
    end = TOKENS["eos_token_id"]
    ids[0, -1] = ids[1, -5] = end
    found = {name: ids}
    if "attention_mask" in accepted:
        ids[1, -4:] = TOKENS["pad_token_id"]
        found["attention_mask"] = (ids != TOKENS["pad_token_id"]).long()
    else:
        ids[1, -1] = end
        ids[1, -5] = 7
    return found


def pictures(model: Any, generator: torch.Generator) -> torch.Tensor:
    """Return images (2,C,S,S), or videos (2,T,C,S,S) where the configuration has frames."""
    config = model.config
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    shape = [getattr(vision, "num_channels", None) or 3, height, width]
    frames = next(
        (n for k in ("num_frames", "frames_per_clip") if (n := getattr(vision, k, None))), None
    )
    return torch.randn(2, *([frames] if frames else []), *shape, generator=generator)


def wave(config: Any) -> tuple[int, ...]:
    """Return the shape of a wave, or of a spectrum if the configuration has frequencies."""
    if getattr(config, "num_mel_bins", None):
        return config.max_length, config.num_mel_bins
    return (8000,)


def spectrum(model: Any) -> tuple[int, int]:
    """Return the shape of a spectrum."""
    config = model.config
    if hasattr(config, "max_source_positions"):
        return config.num_mel_bins, 2 * config.max_source_positions
    return 60, getattr(config, "feature_projection_input_dim", 160)
