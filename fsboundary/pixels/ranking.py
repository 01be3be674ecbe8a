"""Vulnerability class by class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Amplification


def vulnerability_by_class(
    found: Amplification, labels: Tensor | None = None
) -> dict[int, dict[str, Any]]:
    """Return how vulnerable the images of each class are, most vulnerable class first.

    Parameters
    ----------
    found : Amplification
    labels : Tensor (B,), optional
        Class of each image; the predicted one if left out.

    Returns
    -------
    dict
        From class number to ``images`` (how many without failure), ``median`` and ``largest``
        vulnerability, ``median_worst`` (feature units) and ``above_one`` (share of images whose
        features a pixel move takes at least as far as the boundary is).

    Raises
    ------
    ArgumentError
        Not one label for each row.
    """
    if not isinstance(found, Amplification):
        raise ArgumentError(
            "found", f"a {type(found).__name__}", "an Amplification", "call amplification first"
        )
    group = found.predicted if labels is None else labels
    if not isinstance(group, Tensor) or group.shape != found.status.shape:
        got = f"shape {tuple(group.shape)}" if isinstance(group, Tensor) else repr(group)
        raise ArgumentError("labels", got, f"shape {tuple(found.status.shape)}", "pass one a row")
    fine = torch.isfinite(found.vulnerability)
    table = {}
    for k in group[fine].unique().tolist():
        rows = fine & (group == k)
        score = found.vulnerability[rows]
        table[int(k)] = {
            "images": int(rows.sum()),
            "median": float(score.quantile(0.5)),
            "largest": float(score.amax()),
            "median_worst": float(found.worst[rows].quantile(0.5)),
            "above_one": float((score >= 1).double().mean()),
        }
    return dict(sorted(table.items(), key=lambda item: -item[1]["median"]))
