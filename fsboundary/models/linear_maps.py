"""What counts as a linear map, and what one call of it took and gave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """One call of a linear map, pooled over space where it is a 1x1 convolution.

    Attributes
    ----------
    layer : str
        Dotted name.
    features : Tensor (B, d)
        Copy of the input, so that later in-place operations do not change it; graph kept.
        The mean over space for a convolution, because pooling and a linear map commute.
    outputs : Tensor (B, K)
        Copy of the output, pooled likewise.
    size : Tensor (B, d) or None
        Mean over space of the input's absolute values; None where nothing was pooled.
    positions : int
        How many places in space were pooled; 1 for none.
    convolution : bool
        Whether the layer is a convolution, whose rounding torch sets apart.
    proof : str
        The operation that proves the features nonnegative; empty where nothing does.
    """

    layer: str
    features: Tensor
    outputs: Tensor
    size: Tensor | None
    positions: int
    convolution: bool
    proof: str = ""


def is_linear_map(module: nn.Module) -> bool:
    """Whether `module` is a Linear or a dense 1x1 convolution of any dimension."""
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, _CONVOLUTIONS) or module.groups != 1:
        return False
    # a string means "same" or "valid", which are the same for a kernel of one
    padding = () if isinstance(module.padding, str) else module.padding
    ones = (*module.kernel_size, *module.stride)
    return all(n == 1 for n in ones) and all(n == 0 for n in padding)


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the input of a call, however it was passed."""
    return args[0] if args else kwargs.get("input")


def read(layer: str, module: nn.Module, source: Any, output: Any, rows: int) -> Reading | None:
    """Return what a call took and gave; None if not one flat vector for each of B = `rows` images.

    Parameters
    ----------
    source : object
        The input; a Reading comes of a tensor (B,d), (B,1,..,d) or (B,d,*space).
    """
    if not isinstance(source, Tensor) or not isinstance(output, Tensor):
        return None
    if source.ndim < 2 or source.shape[0] != rows or output.ndim != source.ndim:
        return None
    if isinstance(module, nn.Linear):
        if math.prod(source.shape[1:-1]) != 1:
            return None
        flat, out = source.reshape(rows, source.shape[-1]), output.reshape(rows, output.shape[-1])
        return Reading(
            layer=layer,
            features=flat.clone(),
            outputs=out.clone(),
            size=None,
            positions=1,
            convolution=False,
        )
    positions = math.prod(source.shape[2:])
    if source.ndim == 2 or positions == 0 or output.shape[2:] != source.shape[2:]:
        return None
    pooled = positions > 1
    return Reading(
        layer=layer,
        features=_pooled(source),
        outputs=_pooled(output),
        size=_pooled(source.detach().abs()) if pooled else None,
        positions=positions,
        convolution=True,
    )


def _pooled(x: Tensor) -> Tensor:
    if math.prod(x.shape[2:]) == 1:
        return x.reshape(x.shape[:2]).clone()
    return x.mean(dim=tuple(range(2, x.ndim)))


def weight_and_bias(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Return detached weight (K,d) and bias (K,); None if a subclass keeps something else there."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or weight[0].numel() != weight.shape[1]:
        return None
    if bias is not None and not (isinstance(bias, Tensor) and bias.shape == weight.shape[:1]):
        return None
    with torch.no_grad():
        return weight.detach().reshape(weight.shape[:2]), None if bias is None else bias.detach()
