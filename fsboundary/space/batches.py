"""Feature batches: what a space returns for the passes of one call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsboundary.core.errors import PluginError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import finite_rows
from fsboundary.core.status import Status
from fsboundary.plugins.grading.extractors import Pass
from fsboundary.plugins.interfaces import FeatureExtractor


def check_shapes(
    extractor: FeatureExtractor, head: LinearHead, features: Tensor, logits: Tensor, rows: int
) -> None:
    """Raise PluginError unless an extractor returned as many rows and columns as the head has."""
    wanted = (rows, head.num_features), (rows, head.num_classes)
    if (features.shape, logits.shape) != wanted:
        raise PluginError(
            f"extractor {extractor!r} returned features {tuple(features.shape)} and "
            f"logits {tuple(logits.shape)}; wanted {wanted[0]} and {wanted[1]}"
        )


def fields_of_pass(head: LinearHead, found: Pass, device: torch.device) -> dict[str, Tensor]:
    """Return the fields of a :class:`fsboundary.FeatureBatch`, on `device`, of one pass."""
    features, logits, exact = found
    finite = finite_rows(features) & finite_rows(logits)
    predicted = (head.logits(features) if exact is None else exact).argmax(dim=1)
    fields = {
        "features": features,
        "logits": logits,
        "predicted": torch.where(finite, predicted, -1),
        "disagrees": finite & (logits.argmax(dim=1) != predicted),
        "status": torch.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE)),
    }
    return {name: tensor.to(device) for name, tensor in fields.items()}


def fields_of_nothing(
    head: LinearHead, model: nn.Module, device: torch.device
) -> dict[str, Tensor]:
    """Return the fields of a batch without rows, in the dtype of the model's parameters."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return {
        "features": torch.zeros(0, head.num_features, dtype=dtype, device=device),
        "logits": torch.zeros(0, head.num_classes, dtype=dtype, device=device),
        "predicted": none,
        "disagrees": none.bool(),
        "status": none.clone(),
    }


def join_passes(parts: list[dict[str, Tensor]], fingerprint: str) -> FeatureBatch:
    """Return the batch of all rows, in order."""
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return FeatureBatch(**fields, fingerprint=fingerprint)
