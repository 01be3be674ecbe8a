"""Linear maps: their recognition, their calls, and the tolerance of ``W z + b`` against logits.

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
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.checks import distinct_texts
from fsboundary.core.errors import HeadMismatchError
from fsboundary.modes import product_precision

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCall:
    """One call of a linear map, pooled over space if it is a 1x1 convolution.

    Attributes
    ----------
    layer : str
        Dotted name of the layer.
    features : Tensor (B, d)
        Copy of the input, so that later in-place operations do not change it; the graph is kept.
        For a convolution, the mean over space, because pooling and a linear map commute.
    outputs : Tensor (B, K)
        Copy of the output, pooled in the same way.
    size : Tensor (B, d) or None
        Mean over space of the absolute values of the input; None if nothing was pooled.
    positions : int
        Number of pooled positions in space; 1 if nothing was pooled.
    convolution : bool
        Whether the layer is a convolution, for which torch has separate rounding settings.
    proof : str
        Operation that proves the features nonnegative; empty if none does.
    """

    layer: str
    features: Tensor
    outputs: Tensor
    size: Tensor | None
    positions: int
    convolution: bool
    proof: str = ""


def is_linear_map(module: nn.Module) -> bool:
    """Return whether `module` is a Linear or a dense 1x1 convolution of any dimension."""
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, _CONVOLUTIONS) or module.groups != 1:
        return False
    # a string means "same" or "valid", which are equal for a kernel of size one
    padding = () if isinstance(module.padding, str) else module.padding
    ones = (*module.kernel_size, *module.stride)
    return all(n == 1 for n in ones) and all(n == 0 for n in padding)


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the input of a call, passed by position or by keyword."""
    return args[0] if args else kwargs.get("input")


def read_call(
    layer: str, module: nn.Module, source: Any, output: Any, rows: int
) -> LayerCall | None:
    """Return the call; None if its input is not one flat vector for each of B = `rows` images.

    Parameters
    ----------
    layer : str
        Dotted name of the layer.
    module : nn.Module
        Layer, a linear map.
    source, output : object
        Input and output of the call. The input of a readable call is a tensor (B,d), (B,1,..,d) or
        (B,d,*space).
    rows : int
        Number of images B.
    """
    if not isinstance(source, Tensor) or not isinstance(output, Tensor):
        return None
    if source.ndim < 2 or source.shape[0] != rows or output.ndim != source.ndim:
        return None
    if isinstance(module, nn.Linear):
        if math.prod(source.shape[1:-1]) != 1:
            return None
        flat, out = source.reshape(rows, source.shape[-1]), output.reshape(rows, output.shape[-1])
        return LayerCall(
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
    return LayerCall(
        layer=layer,
        features=_pool(source),
        outputs=_pool(output),
        size=_pool(source.detach().abs()) if pooled else None,
        positions=positions,
        convolution=True,
    )


def _pool(x: Tensor) -> Tensor:
    if math.prod(x.shape[2:]) == 1:
        return x.reshape(x.shape[:2]).clone()
    return x.mean(dim=tuple(range(2, x.ndim)))


def weight_and_bias(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Return detached weight (K,d) and bias (K,); None if the attributes are something else."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or weight[0].numel() != weight.shape[1]:
        return None
    if bias is not None and not (isinstance(bias, Tensor) and bias.shape == weight.shape[:1]):
        return None
    with torch.no_grad():
        return weight.detach().reshape(weight.shape[:2]), None if bias is None else bias.detach()


_PRODUCT_EPS = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def logit_tolerance(call: LayerCall, weight: Tensor, bias: Tensor | None, logits: Tensor) -> Tensor:
    """Return the tolerance (B,K) of ``|W z + b - logits|``; see the module docstring.

    Its dtype is the one in which sums are computed; a tolerance needs only a few digits.

    Parameters
    ----------
    call : LayerCall
        One call of the layer.
    weight, bias : Tensor (K,d) and (K,) or None
        Parameters of the layer, in any dtype.
    logits : Tensor (B,K)
        Logits that are compared; only their dtype is used.
    """
    size = call.features.detach().abs() if call.size is None else call.size
    dtype = torch.float64 if size.dtype == torch.float64 else torch.float32
    magnitude = size.to(dtype) @ weight.to(dtype).abs().T
    if bias is not None:
        magnitude += bias.to(dtype).abs()
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
    coarsest = max(torch.finfo(t).eps for t in (features.dtype, call.outputs.dtype, *dtypes))
    single = torch.finfo(torch.float32).eps
    terms = features.shape[1] + call.positions
    total = _sum_tolerance(min(coarsest, single), terms)
    total += _sum_tolerance(torch.finfo(torch.float64).eps, terms)
    if coarsest > single:
        total += 3 * coarsest
    if torch.float32 in (features.dtype, call.outputs.dtype):
        precision = product_precision(features.device.type, convolution=call.convolution)
        total += 2 * _PRODUCT_EPS.get(precision, 0.0)
    return total


def _sum_tolerance(eps: float, terms: int) -> float:
    return eps / 2 * min(terms + 3, 8 * math.sqrt(terms + 1))
