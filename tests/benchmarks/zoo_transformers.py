"""Classifiers of transformers, built from small configurations without downloads.

Each configuration is made as small as its model permits: the numbers of :data:`SIZES` replace those
of the same name, also in nested configurations. If the model cannot be built or run so, fewer are
replaced.
"""

from __future__ import annotations

import inspect
import math
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
         "num_blocks", "pred_num_hidden_layers", "num_spatial_layers", "num_temporal_layers",
         "num_auxiliary_layers", "attn_layer_period"),
        2,
    ),
    "attn_layer_offset": 1,
    **dict.fromkeys(("n_positions", "max_position_embeddings"), 128),
    "vocab_size": 300,
}  # fmt: skip
"""Numbers of layers, positions and tokens, which no other number of a configuration depends on."""

WIDTHS = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "n_inner", "d_latents"),
        64,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "num_key_value_heads", "num_self_attention_heads",
         "linear_num_key_heads", "linear_num_value_heads", "index_n_heads"),
        4,
    ),
    "num_cross_attention_heads": 1,
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner",
         "moe_intermediate_size", "shared_expert_intermediate_size"),
        96,
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(
        ("head_dim", "d_kv", "d_head", "linear_key_head_dim", "linear_value_head_dim",
         "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "num_latents"),
        16,
    ),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "index_head_dim"), 32),
    **dict.fromkeys(("rotary_dim", "index_topk"), 8),
    "image_size": 64,
}  # fmt: skip
"""Widths, which must fit each other."""

SIZES = (LAYERS | WIDTHS, LAYERS, {"vocab_size": 300}, {})

TOKENS = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 0}

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

OTHERS: dict[str, dict[str, Any]] = {
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}
    },
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]]},
    "Qwen3NextConfig": {"num_hidden_layers": 4},
    "Qwen3_5TextConfig": {"num_hidden_layers": 4},
    "ShieldGemma2Config": {
        "image_token_index": 290,
        "boi_token_index": 291,
        "eoi_token_index": 292,
        "yes_token_index": 7,
        "no_token_index": 8,
    },
    "XmodConfig": {"default_language": "en_XX"},
    "ZambaConfig": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2},
    "Zamba2Config": {"layers_block_type": ["mamba", "hybrid"]},
}
"""Settings of single configurations that fit :data:`SIZES`, and tokens that have no default."""

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
            if hasattr(part, name) or name == "decoder_start_token_id":
                setattr(part, name, token)
    return settings


def shrunk(config: Any, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that make a configuration small."""
    found = {k: n for k, n in sizes.items() if is_size(config, k)}
    if "qk_rope_head_dim" in found:  # of which the whole is computed
        found.pop("head_dim", None)
    if sizes:
        found |= OTHERS.get(type(config).__name__, {})
    for name, kind in getattr(config, "sub_configs", {}).items():
        part = getattr(config, name, None)
        if part is not None and isinstance(kind, type):
            found[name] = {"model_type": part.model_type, **shrunk(part, sizes)}
    return found


def is_size(config: Any, name: str) -> bool:
    """Return whether a configuration has a number of this name, or none yet, that can be set."""
    if isinstance(inspect.getattr_static(type(config), name, None), property):
        return False
    return isinstance(getattr(config, name, ""), int | None)


def parameters(kind: type, settings: Any) -> int:
    """Return the number of parameters."""
    with torch.device("meta"):
        model: nn.Module = kind(settings)
    return sum(p.numel() for p in model.parameters())


def inputs(model: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return two examples for a model: images, frames, a wave or spectrum, or tokens."""
    config, name = model.config, model.main_input_name
    accepted = inspect.signature(model.forward).parameters
    if "spatial_shapes" in accepted:
        return patches(config, generator)
    is_image = "ForImageClassification" in type(model).__name__ and "input_ids" not in accepted
    if is_image and name == "input_ids":
        name = "pixel_values"
    if is_image or name in ("pixel_values", "pixel_values_videos"):
        return {name: pictures(config, not is_image, generator)}
    if name == "input_values":
        return {name: torch.randn(2, *wave(config), generator=generator)}
    if name == "input_features":
        return {name: torch.randn(2, *spectrum(config), generator=generator)}
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


def pictures(config: Any, moving: bool, generator: torch.Generator) -> torch.Tensor:
    """Return images (2,C,S,S), or videos (2,T,C,S,S)."""
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    shape = [getattr(vision, "num_channels", None) or 3, height, width]
    if moving:
        counts = (getattr(vision, k, None) for k in ("num_frames", "frames_per_clip"))
        shape = [next(filter(None, counts)), *shape]
    return torch.randn(2, *shape, generator=generator)


def wave(config: Any) -> tuple[int, ...]:
    """Return the shape of a wave, or of a spectrum if the configuration has frequencies."""
    if getattr(config, "num_mel_bins", None):
        return config.max_length, config.num_mel_bins
    return (8000,)


def spectrum(config: Any) -> tuple[int, int]:
    """Return the shape of a spectrum."""
    if hasattr(config, "num_mel_bins"):
        return config.num_mel_bins, 2 * config.max_source_positions
    return 60, config.feature_projection_input_dim


def patches(config: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return images (2, P, numbers of a patch), with their shapes in patches."""
    vision = config.vision_config
    side = math.isqrt(vision.num_patches)
    numbers = vision.num_channels * vision.patch_size**2
    return {
        "pixel_values": torch.randn(2, side**2, numbers, generator=generator),
        "pixel_attention_mask": torch.ones(2, side**2, dtype=torch.long),
        "spatial_shapes": torch.tensor([[side, side]] * 2),
    }
