"""Image classifiers of the library transformers, in tiny configurations, without downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from torch import nn

from support.models.families import CLASSES, Family


def builder(model: str, config: str = "", **settings: Any) -> Callable[[], nn.Module]:
    """Return a function that builds ``{model}ForImageClassification`` from a configuration."""

    def build() -> nn.Module:
        configuration = getattr(hf, f"{config or model}Config")(num_labels=CLASSES, **settings)
        name = model if "ForImage" in model else f"{model}ForImageClassification"
        classifier: nn.Module = getattr(hf, name)(configuration)
        return classifier

    return build


_SIZES = {"image_size": 32, "patch_size": 8}
_VIT = {
    **_SIZES,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_TEXT = {
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "vocab_size": 8,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_TWO = {"hidden_sizes": [8, 12], "depths": [1, 1]}
_SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
_FOUR = {
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
}
_LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 16, 16],
    "depths": [1, 1, 1],
    "num_attention_heads": [1, 1, 2],
    "key_dim": [8, 8, 8],
}
_PERCEIVER = {
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "image_size": 32,
}
SWIFTFORMER = {"depths": [1, 1], "embed_dims": [8, 16], "downsamples": [True, True]}

FAMILIES = {
    "ResNet": Family(
        builder("ResNet", **_TWO, embedding_size=8, layer_type="basic"), "classifier.1", True
    ),
    "RegNet": Family(
        builder("RegNet", **_TWO, embedding_size=8, groups_width=4), "classifier.1", True
    ),
    "BiT": Family(
        builder("Bit", embedding_size=8, hidden_sizes=[32, 32], depths=[1, 1], num_groups=4),
        "classifier.1",
        True,
    ),
    "MobileNetV1": Family(builder("MobileNetV1", depth_multiplier=0.25), "classifier", True),
    "MobileNetV2": Family(builder("MobileNetV2", depth_multiplier=0.25), "classifier", True),
    "TextNet": Family(
        builder("TextNet", stem_out_channels=8, hidden_sizes=[8, 8, 8, 8, 16]), "fc", True
    ),
    "HGNetV2": Family(
        builder(
            "HGNetV2",
            depths=[1, 1],
            hidden_sizes=[8, 12],
            stem_channels=[3, 8, 8],
            stage_in_channels=[8, 8],
            stage_mid_channels=[8, 8],
            stage_out_channels=[8, 12],
            stage_num_blocks=[1, 1],
            stage_downsample=[False, True],
            stage_downsample_strides=[2, 2],
            stage_light_block=[False, True],
            stage_kernel_size=[3, 3],
            stage_numb_of_layers=[2, 2],
        ),
        "fc",
        True,
    ),
    "ConvNeXt": Family(builder("ConvNext", **_TWO, num_stages=2), "classifier", False),
    "ConvNeXtV2": Family(builder("ConvNextV2", **_TWO, num_stages=2), "classifier", False),
    "EfficientNet": Family(
        builder("EfficientNet", width_coefficient=0.2, depth_coefficient=0.1, hidden_dim=256),
        "classifier",
        False,
    ),
    "MobileViT": Family(
        builder(
            "MobileViT",
            image_size=32,
            patch_size=2,
            hidden_sizes=[16, 16, 16],
            neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
            num_attention_heads=2,
        ),
        "classifier",
        False,
    ),
    "MobileViTV2": Family(
        builder("MobileViTV2", width_multiplier=0.25, n_attn_blocks=[1, 1, 1]),
        "classifier",
        False,
        (3, 64, 64),
    ),
    "ViT": Family(builder("ViT", **_VIT), "classifier", False),
    "DeiT": Family(builder("DeiT", **_VIT), "classifier", False),
    "BEiT": Family(builder("Beit", **_VIT), "classifier", False),
    "Data2VecVision": Family(builder("Data2VecVision", **_VIT), "classifier", False),
    "DINOv2": Family(builder("Dinov2", **_VIT), "classifier", False),
    "DINOv2 with registers": Family(builder("Dinov2WithRegisters", **_VIT), "classifier", False),
    "ViTMSN": Family(builder("ViTMSN", **_VIT), "classifier", False),
    "I-JEPA": Family(builder("IJepa", **_VIT), "classifier", False),
    "SigLIP": Family(builder("Siglip", vision_config=_VIT, text_config=_TEXT), "classifier", False),
    "CLIP": Family(builder("CLIP", vision_config=_VIT, text_config=_TEXT), "classifier", False),
    "Swin": Family(builder("Swin", **_SWIN), "classifier", False),
    "Swinv2": Family(builder("Swinv2", **_SWIN), "classifier", False),
    "DonutSwin": Family(builder("DonutSwin", **_SWIN), "classifier", False),
    "PVT": Family(builder("Pvt", image_size=32, **_FOUR), "classifier", False),
    "PVTv2": Family(builder("PvtV2", image_size=32, **_FOUR), "classifier", False),
    "SegFormer": Family(builder("Segformer", **_FOUR), "classifier", False),
    "PoolFormer": Family(
        builder("PoolFormer", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
        "classifier",
        False,
    ),
    "CvT": Family(
        builder("Cvt", embed_dim=[8, 8, 16], depth=[1, 2, 3], num_heads=[1, 1, 2]),
        "classifier",
        False,
    ),
    "FocalNet": Family(
        builder(
            "FocalNet",
            image_size=32,
            embed_dim=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            focal_levels=[1, 1],
            focal_windows=[3, 3],
        ),
        "classifier",
        False,
    ),
    "LeViT": Family(builder("Levit", **_LEVIT), "classifier.linear", False, (3, 64, 64)),
    "Hiera": Family(
        builder(
            "Hiera",
            embed_dim=8,
            image_size=[32, 32],
            depths=[1, 1],
            num_heads=[1, 2],
            num_query_pool=1,
            masked_unit_size=[4, 4],
        ),
        "classifier",
        False,
    ),
    "Perceiver": Family(
        builder("PerceiverForImageClassificationLearned", "Perceiver", **_PERCEIVER),
        "perceiver.decoder.decoder.final_layer",
        False,
    ),
}
"""Families by name, each with a different architecture."""

AVERAGED = {
    "SwiftFormer": Family(builder("SwiftFormer", **SWIFTFORMER), "head, dist_head", False),
    "DeiT with teacher": Family(
        builder("DeiTForImageClassificationWithTeacher", "DeiT", **_VIT),
        "cls_classifier, distillation_classifier",
        False,
    ),
    "LeViT with teacher": Family(
        builder("LevitForImageClassificationWithTeacher", "Levit", **_LEVIT),
        "classifier.linear, classifier_distill.linear",
        False,
        (3, 64, 64),
    ),
}
"""Families whose logits are the average of two heads: features are the inputs of both."""
