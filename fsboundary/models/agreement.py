"""How near ``W z + b`` must come to the model's logits, and whether it does.

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
from typing import Any

import torch
from torch import Tensor

from fsboundary.models.linear_maps import Reading

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
