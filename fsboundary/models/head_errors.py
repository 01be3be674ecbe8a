"""Why no head was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fsboundary.core.errors import HeadError
from fsboundary.models.hooks import Sighting, Watched
from fsboundary.models.linear_maps import Reading


def no_head(watched: Watched, output: Tensor, finite: Tensor, asked: str | None) -> HeadError:
    """Return the error for a pass in which no linear map gave the model's output.

    Parameters
    ----------
    watched : Watched
        What the pass showed.
    output : Tensor (B, K)
        What the model returned.
    finite : Tensor (B,), bool
        Which rows of it are finite.
    asked : str or None
        The layer that the user named, if any.
    """
    if asked is not None:
        reason = _asked(watched, output, asked)
    else:
        reason = _probabilities(watched.readings, output[finite])
        reason = reason or _tokens(watched.unread, output.shape[1])
        reason = reason or _changed(watched.readings, output) or _NONE
    return HeadError(f"{reason}. {_last_layers(watched)}")


def not_finite(finite: Tensor) -> HeadError:
    """Return the error for a first batch without a finite row."""
    shown = ", ".join(str(row) for row in range(min(len(finite), 10)))
    more = ", ..." if len(finite) > 10 else ""
    return HeadError(
        f"all {len(finite)} rows of the first batch (rows {shown}{more}) have NaN or infinite "
        "features or logits, so the head cannot be found. Check the images and the model's "
        "weights, or extract a batch with at least one finite row first"
    )


_NONE = (
    "the model has no linear head: none of the linear layers or 1x1 convolutions that ran gave "
    "its output. fsboundary needs logits that are W z + b of one flat feature vector z, with "
    "nothing but a reshape, an average over space or a softmax after it; the map must be an "
    "nn.Linear or a 1x1 nn.Conv module"
)


def _asked(watched: Watched, output: Tensor, asked: str) -> str:
    calls = [r for r in watched.readings if r.layer == asked]
    seen = [s for s in watched.unread if s.layer == asked]
    if seen and not calls:
        return (
            f"head={asked!r} took shape {seen[-1].taken}, not one flat vector an image: pool "
            "tokens or positions before it, or name another layer"
        )
    if not calls:
        return (
            f"head={asked!r} was not called as a linear layer in the forward pass: name the "
            "nn.Linear or 1x1 convolution that gives the logits, or leave head out"
        )
    if calls[-1].outputs.shape != output.shape:
        return (
            f"head={asked!r} gave shape {tuple(calls[-1].outputs.shape)} but the model returned "
            f"{tuple(output.shape)}: name the layer that gives the logits, or leave head out"
        )
    return (
        f"head={asked!r} gave other numbers than the model returned "
        f"({_distance(calls[-1], output)}): name the layer that gives the logits, or leave head out"
    )


def _distance(reading: Reading, output: Tensor) -> str:
    difference = (reading.outputs.double() - output.double()).abs().nan_to_num(0.0, 0.0)
    return f"largest difference {float(difference.detach().max()):.3g}"


def _probabilities(readings: Sequence[Reading], output: Tensor) -> str:
    if bool((output < 0).any()) or bool((output > 1).any()):
        return ""
    for reading in readings:
        if reading.outputs.shape == output.shape and torch.allclose(
            reading.outputs.sigmoid().to(output.dtype), output, atol=1e-3
        ):
            return (
                f"the model returns the sigmoid of layer {reading.layer!r}, one probability a "
                "label: labels that do not exclude each other have no common decision regions. If "
                "the classes do exclude each other, return the logits instead of their sigmoid"
            )
    if bool(((output.to(torch.float64).sum(dim=1) - 1).abs() > 1e-2).any()):
        return ""
    return (
        "the model returns numbers in [0, 1] that sum to 1 in every row: they look like "
        "probabilities, and no linear layer gave their logits. Let the model return the logits, "
        "before any softmax"
    )


def _tokens(unread: Sequence[Sighting], classes: int) -> str:
    calls = [s for s in unread if s.given is not None and classes in s.given[1:]]
    if not calls:
        return ""
    return (
        f"the last linear layer with {classes} outputs, {calls[-1].layer!r}, took shape "
        f"{calls[-1].taken}, not one flat vector an image (token features). Pool the tokens "
        "before the last linear layer, or wrap the model in a module that does"
    )


def _changed(readings: Sequence[Reading], output: Tensor) -> str:
    alike = [r for r in readings if r.outputs.shape == output.shape]
    if not alike:
        return ""
    bounded = bool((output >= 0).all()) and bool((output <= 1).all())
    hint = ". The outputs lie in [0, 1], as probabilities do: return the logits" if bounded else ""
    return (
        "the model has no linear head: the last linear layer with outputs of the right shape, "
        f"{alike[-1].layer!r}, gave other numbers than the model returned "
        f"({_distance(alike[-1], output)}). An activation, a scale, a maximum or an average with "
        "another head after it makes the logits something else than W z + b; return that layer's "
        "own output, or fold the scale into its weights"
        f"{hint}"
    )


def _last_layers(watched: Watched) -> str:
    if not watched.last:
        return "No layer was seen running (is the model built of nn.Module layers?)"
    return f"The last layers seen were {'; '.join(str(s) for s in watched.last)}"
