"""What counts as a linear map, and what one call of it took and gave.

How near ``W z + b`` must come to the model's logits, and whether it does.

The tolerance of one logit is a share of ``size . |w_k| + |b_k|``, where ``size`` is ``|z|`` (its
mean over space where features are pooled). With ``n = d + positions`` rounded sums and ``u`` the
unit roundoff (half the machine epsilon) the share is

- ``u * min(n + 3, 8 sqrt(n + 1))`` for the dtype that sums are kept in: float64 for float64
  models, else float32. The first is a rigorous bound (Higham, Accuracy and Stability of Numerical
  Algorithms, 2nd ed., section 3.1); the second holds with probability 1 - 3e-14 a logit when
  rounding errors are independent (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4
  with lambda = 8);
- plus the same in float64, for this module's own evaluation;
- plus 6 roundoffs of float16 or bfloat16 where an input, a weight or an output has that dtype:
  two for products of rounded inputs, the rest for rounded outputs, means and split sums;
- plus two machine epsilons (of TF32 or bfloat16) where torch is set to round the inputs of
  float32 products.

For underflow, ``n`` times the smallest normal number of the sum's dtype and one of the logits'
dtype are added.
"""

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


_EPS = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def allowed(reading: Reading, weight: Tensor, bias: Tensor | None, logits: Tensor) -> Tensor:
    """Return the tolerance (B,K) of ``|W z + b - logits|``; see the module.

    It is as wide as the sums are kept in: of a tolerance, a few digits are enough.

    Parameters
    ----------
    reading : Reading
        One call of the layer.
    weight, bias : Tensor (K,d) and (K,) or None
        In any dtype.
    logits : Tensor (B,K)
        What is compared; its dtype counts.
    """
    size = reading.features.detach().abs() if reading.size is None else reading.size
    kept = torch.float64 if size.dtype == torch.float64 else torch.float32
    magnitude = size.to(kept) @ weight.to(kept).abs().T
    if bias is not None:
        magnitude += bias.to(kept).abs()
    underflow = torch.finfo(logits.dtype).tiny + size.shape[1] * torch.finfo(kept).tiny
    return magnitude.mul_(share(reading, logits.dtype)).add_(underflow)


def share(reading: Reading, *dtypes: torch.dtype) -> float:
    """Return the tolerance as a share of the magnitude of the sum; see the module."""
    features = reading.features
    coarsest = max(torch.finfo(t).eps for t in (features.dtype, reading.outputs.dtype, *dtypes))
    single = torch.finfo(torch.float32).eps
    terms = features.shape[1] + reading.positions
    total = _summed(min(coarsest, single), terms)
    total += _summed(torch.finfo(torch.float64).eps, terms)
    if coarsest > single:
        total += 3 * coarsest
    if torch.float32 in (features.dtype, reading.outputs.dtype):
        total += 2 * _EPS.get(_product_precision(features.device.type, reading.convolution), 0.0)
    return total


def _summed(eps: float, terms: int) -> float:
    return eps / 2 * min(terms + 3, 8 * math.sqrt(terms + 1))


def _product_precision(device: str, convolution: bool) -> str:
    """Return "tf32" or "bf16" where torch rounds the inputs of float32 products so."""
    backends: Any = torch.backends
    if device == "cuda":
        module = backends.cudnn if convolution else backends.cuda.matmul
    else:
        module = backends.mkldnn
    place = getattr(module, "conv" if convolution else "matmul", module)
    precision = getattr(place, "fp32_precision", None)
    if precision is None:  # torch before 2.9
        legacy = {"medium": "bf16", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "")
        precision = legacy if device != "cuda" else "tf32" if module.allow_tf32 else ""
    return str(precision)
