"""A vision transformer with random weights, small enough for the conformance suite."""

from __future__ import annotations

import transformers


def tiny_classifier() -> transformers.ViTForImageClassification:
    """Return a classifier of four classes for images (B,3,16,16)."""
    configuration = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        num_labels=4,
        # at the usual 0.02 random weights give nearly the same logits for all images
        initializer_range=0.7,
    )
    return transformers.ViTForImageClassification(configuration)
