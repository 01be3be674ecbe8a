"""The tolerance of ``W z + b`` against logits.

The tolerance of one logit is relative to ``size . |w_k| + |b_k|``, where ``size`` is ``|z|`` (its
mean over space if features are pooled). With ``n = d + positions`` rounded sums and ``u`` the unit
roundoff (half the machine epsilon) the relative tolerance is

- ``u * min(n + 3, 8 sqrt(n + 1))`` for the dtype in which sums are computed: float64 for float64
  models, else float32. The first is a rigorous bound (Higham, Accuracy and Stability of Numerical
  Algorithms, 2nd ed., section 3.1); the second holds with probability 1 - 3e-14 per logit if
  rounding errors are independent (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4
  with lambda = 8);
- plus the same in float64, for the evaluation in this module;
- plus 6 roundoffs of float16 or bfloat16 if an input, a weight or an output has that dtype:
  two for products of rounded inputs, the rest for rounded outputs, means and split sums;
- plus two machine epsilons (of TF32 or bfloat16) if torch is set to round the inputs of
  float32 products.

For underflow, ``n`` times the smallest normal number of the sum's dtype and one of the logits'
dtype are added.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import final

import torch
from torch import Tensor

from fsboundary.core.checks import distinct_texts
from fsboundary.core.errors import HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.modes import product_precision


@final
@dataclass(frozen=True, slots=True)
class Rounding:
    """How a model rounds between features and logits, on the path that rounds most.

    Attributes
    ----------
    terms : int
        Rounded terms of all sums on the path.
    steps : int
        Operations that round.
    products, convolutions : int
        Products, for which torch has settings of precision.
    eps : float
        Machine epsilon of the coarsest dtype of a result.
    """

    terms: int = 0
    steps: int = 0
    products: int = 0
    convolutions: int = 0
    eps: float = 0.0

    def worst(self, other: Rounding) -> Rounding:
        """Return the larger of each number."""
        return Rounding(*map(max, astuple(self), astuple(other)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCall:
    """Features and logits of one pass, and how the logits were computed.

    Attributes
    ----------
    layer : str
        Dotted name of the layer.
    features : Tensor (B, d)
        Features, with the graph kept.
    outputs : Tensor (B, K)
        Logits.
    size : Tensor (B, d) or None
        Mean of the absolute values of which the features are means; None if they are no means.
    positions : int
        Number of averaged positions in space; 1 if nothing was averaged.
    convolution : bool
        Whether the layer is a convolution, for which torch has separate rounding settings.
    rounding : Rounding or None
        How the logits were rounded; None for one product and one average.
    magnitude : (Tensor (K, d), Tensor (K,)) or None
        Sums of absolute values of which weight and bias are sums; None for their own.
    scale : Tensor (B,) or None
        Positive factor of each row, if the model normalises its features: the logits are
        ``scale * W z + b``, with one number b for all classes. None for 1.
    """

    layer: str
    features: Tensor
    outputs: Tensor
    size: Tensor | None
    positions: int
    convolution: bool
    rounding: Rounding | None = None
    magnitude: tuple[Tensor, Tensor] | None = None
    scale: Tensor | None = None


def exact_logits(call: LayerCall, head: LinearHead, features: Tensor) -> Tensor:
    """Return the logits (B,K) that `head` gives `features`, in float64."""
    z = head.logits(features)
    if call.scale is None:
        return z
    return call.scale[:, None] * (z - head._bias) + head._bias


_PRODUCT_EPS = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def logit_tolerance(call: LayerCall, head: LinearHead, logits: Tensor) -> Tensor:
    """Return the tolerance (B,K) of ``|W z + b - logits|``; see the module docstring.

    Its dtype is the one in which sums are computed; a tolerance needs only a few digits.

    Parameters
    ----------
    call : LayerCall
        One call of the layer.
    head : LinearHead
        Weight and bias of the layer.
    logits : Tensor (B,K)
        Logits that are compared; only their dtype is used.
    """
    size = call.features.detach().abs() if call.size is None else call.size
    dtype = torch.float64 if size.dtype == torch.float64 else torch.float32
    if call.scale is not None:
        size = size * call.scale[:, None].to(size)
    if call.magnitude is None and dtype == torch.float32:
        weight, bias = head._sizes
    else:
        terms = (head._weight, head._bias) if call.magnitude is None else call.magnitude
        weight, bias = (part.to(dtype).abs() for part in terms)
    magnitude = (size.to(dtype) @ weight.T).add_(bias)
    underflow = torch.finfo(logits.dtype).tiny + size.shape[1] * torch.finfo(dtype).tiny
    return magnitude.mul_(relative_tolerance(call, logits.dtype)).add_(underflow)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """The residual that is largest relative to its tolerance, and where it is."""

    size: float
    tolerance: float
    row: int
    column: int

    @property
    def ratio(self) -> float:
        """Residual over tolerance; a head fails above 1."""
        return self.size / self.tolerance if self.tolerance else 0.0


def largest_residual(expected: Tensor, output: Tensor, tolerance: Tensor) -> Residual | None:
    """Return the residual (B,K) of `output` that is largest relative to its tolerance.

    None if there are no finite entries. Rows of `output` that are not finite are ignored.
    """
    if output.numel() == 0:
        return None
    residual = (expected - output).abs()
    ratio = residual / tolerance
    largest, flat = ratio.flatten().max(dim=0)
    if not bool(largest <= 1):  # NaN counts as the largest and comes from bad rows: ignore them
        # below 0, the ratio of an exact row, which must not lose to an ignored one before it
        ratio = torch.where(torch.isfinite(output), ratio, -1.0).nan_to_num(nan=-1.0)
        largest, flat = ratio.flatten().max(dim=0)
        if float(largest) < 0:
            return None
    row, column = divmod(int(flat), ratio.shape[1])
    size, limit = float(residual[row, column]), float(tolerance[row, column])
    return Residual(size=size, tolerance=limit, row=row, column=column)


def head_mismatch(layer: str, what: str, worst: Residual, dtype: torch.dtype) -> HeadMismatchError:
    """Return the error for a layer whose output differs from the model's."""
    size, tolerance = distinct_texts(worst.size, worst.tolerance, digits=3, kind="e")
    return HeadMismatchError(
        f"{layer}: {what} differs from the model's output by {size} at row {worst.row}, "
        f"class {worst.column}; the tolerance there is {tolerance} ({dtype}). The "
        "layer's class computes something else than W z + b, or the model's path depends on its "
        "input"
    )


def relative_tolerance(call: LayerCall, *dtypes: torch.dtype) -> float:
    """Return the tolerance relative to the magnitude of the sum; see the module docstring."""
    features = call.features
    known = call.rounding or Rounding(
        terms=features.shape[1] + call.positions,
        steps=1,
        products=not call.convolution,
        convolutions=call.convolution,
    )
    coarsest = max(torch.finfo(t).eps for t in (features.dtype, call.outputs.dtype, *dtypes))
    coarsest = max(coarsest, known.eps)
    single = torch.finfo(torch.float32).eps
    total = _sum_tolerance(min(coarsest, single), known.terms)
    total += _sum_tolerance(torch.finfo(torch.float64).eps, known.terms)
    if coarsest > single:
        total += 3 * coarsest * known.steps
    if torch.float32 in (features.dtype, call.outputs.dtype):
        device = features.device.type
        for count, convolution in ((known.products, False), (known.convolutions, True)):
            if count:
                precision = product_precision(device, convolution=convolution)
                total += 2 * count * _PRODUCT_EPS.get(precision, 0.0)
    return total


def _sum_tolerance(eps: float, terms: int) -> float:
    return eps / 2 * min(terms + 3, 8 * math.sqrt(terms + 1))
