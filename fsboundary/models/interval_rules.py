"""Interval rules: limits of an operation's result from the limits of its arguments.

A rule returns two floats between which every number of the result lies, whatever the arguments are
within their own limits and however they are rounded; infinite where nothing is known. In doubt an
operation has no rule. NaN counts as inside; an infinity only where the limit is infinite.

Sums and products are monotone in each term and factor, also after rounding, in any order of
summation. So only the results at the limits matter, and n roundings move these by at most n unit
roundoffs of the coarsest dtype times the sum of the absolute terms (Jeannerod and Rump, SIAM J.
Matrix Anal. Appl. 34(2), 2013), and n smallest normal numbers where they underflow. A sum of
nonnegative terms stays nonnegative, so that a limit of 0 stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Bounds = tuple[float, float]
"""Lower and upper limit."""

UNKNOWN: Bounds = (-math.inf, math.inf)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes of which numbers are proved."""

_SMALLEST = {torch.float64: 1e-307, torch.float16: 6.2e-5}
"""Sizes above every number that may be flushed to zero, or loses digits; float32 has 1e-37."""

_INTEGERS: dict[torch.dtype, Bounds] = {
    torch.bool: (0.0, 1.0),
    torch.uint8: (0.0, 255.0),
    torch.int8: (-128.0, 127.0),
}


@final
class Call:
    """One call of an operation, with what is known of its arguments.

    Parameters
    ----------
    name : str
        Name in ``torch.ops.aten``, without a trailing underscore.
    arguments : dict
        Values by the names in the operation's schema, with defaults.
    result : object
        Result of the call; only shapes and dtypes are used.
    known : callable
        Limits of a tensor argument.
    constant : callable
        Numbers, in float64, of a tensor that is constant over all passes; None for others.
    trusted : bool
        Whether Python numbers among the arguments are the same in every pass.
    """

    def __init__(
        self,
        name: str,
        arguments: dict[str, Any],
        result: Any,
        known: Callable[[Tensor], Bounds],
        constant: Callable[[Tensor], Tensor | None],
        trusted: bool,
    ) -> None:
        self.name, self.arguments, self.result = name, arguments, result
        self.known, self.constant, self.trusted = known, constant, trusted
        leaves = tree_leaves((list(arguments.values()), result))
        floats = {t.dtype for t in leaves if isinstance(t, Tensor) and t.is_floating_point()}
        infos = [torch.finfo(dtype) for dtype in floats or {torch.float64}]
        self.eps = max(i.eps for i in infos)
        self.tiny = max(_SMALLEST.get(dtype, 1e-37) for dtype in floats or {torch.float64})
        self.largest = min(i.max for i in infos)

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def first(self) -> Any:
        """First argument, in most operations the input."""
        return next(iter(self.arguments.values()), None)

    def of(self, value: Any) -> Bounds:
        """Return the limits of a tensor, of all in a list, or of a number."""
        if isinstance(value, Tensor):
            return _INTEGERS.get(value.dtype) or self.known(value)
        if isinstance(value, tuple | list):
            return union(*map(self.of, value)) if value else UNKNOWN
        number = self.number(value)
        if number is None:
            return UNKNOWN
        # a number is rounded to the dtype of the tensor
        exact = (math.frexp(number)[0] * 2 / self.eps).is_integer()
        if number == 0 or (exact and self.tiny <= abs(number) <= self.largest):
            return number, number
        return self.widen(number, number)

    def number(self, value: Any) -> float | None:
        """Return a Python number that is the same in every pass; None for anything else."""
        if not self.trusted or not isinstance(value, int | float):
            return None
        number = float(value) if abs(value) < 1e300 else math.copysign(math.inf, value)
        return None if math.isnan(number) else number

    def widen(self, low: float, high: float, n: int = 1, size: Bounds | None = None) -> Bounds:
        """Return limits that `n` roundings of `low` and `high` do not leave.

        Parameters
        ----------
        low, high : float
            Exact limits.
        n : int
            Number of roundings, or of terms.
        size : pair of floats, optional
            Sums of the absolute terms of which `low` and `high` are sums.
        """
        low_size, high_size = size or (abs(low), abs(high))
        below = low - self.error(low_size, n)
        above = high + self.error(high_size, n)
        if low >= 0 and low_size <= low:  # no term is negative
            below = max(below, 0.0)
        if high <= 0 and high_size <= -high:
            above = min(above, 0.0)
        # beyond the largest number lies infinity, also for a partial sum of terms of both signs
        if not below >= -self.largest or (low_size > self.largest and low_size > low):
            below = -math.inf
        if not above <= self.largest or (high_size > self.largest and high_size > -high):
            above = math.inf
        return min(below, self.largest), max(above, -self.largest)

    def error(self, size: Any, n: int) -> Any:
        """Return a bound on the error of `n` roundings of terms whose absolute sum is `size`."""
        return (n + 1) * self.eps * size + n * self.tiny


Rule = Callable[[Call], Bounds]


def union(*bounds: Bounds) -> Bounds:
    """Return the smallest limits that contain all of `bounds`."""
    return min(b[0] for b in bounds), max(b[1] for b in bounds)


def _times(x: float, y: float) -> float:
    return x * y if x and y else 0.0  # 0 times infinity is NaN, which counts as inside


def _product(x: Bounds, y: Bounds) -> Bounds:
    corners = [_times(a, b) for a in x for b in y]
    return min(corners), max(corners)


def _negative(x: Bounds) -> Bounds:
    return -x[1], -x[0]


def _increasing(function: Callable[[float], float], low: float, high: float, n: int = 4) -> Rule:
    """Return the rule of an increasing function; its results lie between `low` and `high`."""

    def rule(c: Call) -> Bounds:
        x = c.of(c.first)
        below, above = c.widen(function(x[0]), function(x[1]), n)
        return max(below, low), min(above, high)

    return rule


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


def _sigmoid(x: float) -> float:
    return 1 / (1 + _exp(-x))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _gate(minimum: float, factor: float = 1.0) -> Rule:
    """Return the rule of x g(x) with g in [0, 1], whose smallest value is `minimum`.

    The product is computed as if x were first multiplied by a number of at most `factor`.
    """

    def rule(c: Call) -> Bounds:
        low, high = c.of(c.first)
        above = max(high, 0.0)
        if above * factor > c.largest:
            above = math.inf
        return c.widen(max(minimum, min(low, 0.0)), above, 16)

    return rule


def _clamp(c: Call) -> Bounds:
    x = c.of(c.first)
    low, high = (c["min_val"], c["max_val"]) if c.name == "hardtanh" else (c["min"], c["max"])
    lower = (-math.inf, -math.inf) if low is None else c.of(low)
    upper = (math.inf, math.inf) if high is None else c.of(high)
    # where the limits are in the wrong order, the upper one is returned
    below, above = (min(max(x[i], lower[i]), upper[i]) for i in (0, 1))
    return below, above


def _threshold(c: Call) -> Bounds:
    x, above = c.of(c.first), c.of(c["threshold"])
    return union(c.of(c["value"]), (max(x[0], above[0]), x[1]))


def _softplus(c: Call) -> Bounds:
    high = c.of(c.first)[1]
    beta, threshold = c.number(c["beta"]), c.number(c["threshold"])
    # beyond the threshold the input itself is returned
    if beta is None or threshold is None or not 0 < beta < math.inf or threshold < 0:
        return UNKNOWN
    above = max(high, 0.0) + math.log1p(_exp(-abs(high) * beta)) / beta
    return c.widen(0.0, above, 16)


def _elu(c: Call) -> Bounds:
    alpha, scale = c.number(c["alpha"]), c.number(c["scale"])
    inner = c.number(c["input_scale"])
    if c.name == "celu":
        scale, inner = 1.0, alpha
    if alpha is None or scale is None or inner is None or inner <= 0 or scale < 0:
        return UNKNOWN
    low, high = c.of(c.first)
    positive = _product((max(low, 0.0), max(high, 0.0)), (scale, scale))
    saturated = _times(-alpha, scale)
    negative = (min(saturated, 0.0), max(saturated, 0.0)) if low < 0 else positive
    return c.widen(*union(positive, negative), 8)


def _leaky(c: Call) -> Bounds:
    (low, high), slope = (
        c.of(c.first),
        c.of(c["weight" if "weight" in c.arguments else "negative_slope"]),
    )
    positive = max(low, 0.0), max(high, 0.0)
    negative = _product((min(low, 0.0), min(high, 0.0)), slope)
    return union(positive, c.widen(*negative))


def _magnitude(x: Bounds) -> Bounds:
    least = 0.0 if x[0] <= 0 <= x[1] else min(abs(x[0]), abs(x[1]))
    return least, max(abs(x[0]), abs(x[1]))


def _power(x: float, p: float) -> float:
    try:
        return math.pow(x, p)
    except OverflowError:
        return math.inf if x > 0 or p % 2 == 0 else -math.inf


def _pow(c: Call) -> Bounds:
    p = 2.0 if c.name == "square" else c.number(c["exponent"])
    if p is None or not isinstance(c.first, Tensor) or math.isinf(p):
        return UNKNOWN
    x = c.of(c.first)
    if p == int(p) and 0 < p <= 64:  # larger ones may be rounded to another integer
        x = _magnitude(x) if p % 2 == 0 else x
        powers = [p]
    elif x[0] < 0 or (p <= 0 and x[0] < 2 * c.tiny):
        return UNKNOWN
    else:
        powers = list(c.of(p))
    corners = [_power(base, power) for base in x for power in powers]
    return c.widen(min(corners), max(corners), 16)


def _inverse(function: Callable[[float], float]) -> Rule:
    """Return the rule of a function that decreases on the positive numbers."""

    def rule(c: Call) -> Bounds:
        low, high = c.of(c.first)
        # negative zero, or a flushed number, would give an infinity
        return c.widen(function(high), function(low), 4) if low >= 2 * c.tiny else UNKNOWN

    return rule


def _mul(c: Call) -> Bounds:
    if c["self"] is c["other"]:
        low, high = _magnitude(c.of(c["self"]))
        return c.widen(_times(low, low), _times(high, high))
    return c.widen(*_product(c.of(c["self"]), c.of(c["other"])))


def _div(c: Call) -> Bounds:
    if c["rounding_mode"] is not None:
        return UNKNOWN
    x, y = c.of(c["self"]), c.of(c["other"])
    if y[1] < 0:
        x, y = _negative(x), _negative(y)
    if y[0] <= 0:
        return UNKNOWN
    if y[0] < 4 * c.tiny or y[1] > 0.25 / c.tiny:  # the reciprocal may overflow or underflow
        return (0.0 if x[0] >= 0 else -math.inf), (0.0 if x[1] <= 0 else math.inf)
    return c.widen(*_product(x, (1 / y[1], 1 / y[0])), 4)


def _add(c: Call) -> Bounds:
    x, y = c.of(c["self"]), c.of(c["other"])
    if c.name == "rsub":
        x, y = y, x
    alpha = c["alpha"]
    if alpha is not None and alpha != 1:
        y = c.widen(*_product(y, c.of(alpha)))
    if c.name != "add":
        y = _negative(y)
    size = abs(x[0]) + abs(y[0]), abs(x[1]) + abs(y[1])
    return c.widen(x[0] + y[0], x[1] + y[1], 1, size)


def _max(c: Call) -> Bounds:
    """Rule of the larger of two, or of the largest; "min" likewise."""
    if not isinstance(c["other"], Tensor):
        return c.of(c.first)
    x, y = c.of(c["self"]), c.of(c["other"])
    choose = max if c.name in ("max", "maximum") else min
    return choose(x[0], y[0]), choose(x[1], y[1])


def _sum(c: Call, x: Bounds, n: int) -> Bounds:
    return c.widen(_times(n, x[0]), _times(n, x[1]), n)


def _mean_of(c: Call, x: Bounds, n: int) -> Bounds:
    low, high = _sum(c, x, n)  # which may overflow
    return c.widen(low / n, high / n, 4)


def _num_terms(c: Call) -> int:
    outputs = [t for t in tree_leaves(c.result) if isinstance(t, Tensor)]
    return int(c.first.numel()) // max(outputs[0].numel(), 1)


def _mean(c: Call) -> Bounds:
    return _mean_of(c, c.of(c.first), max(_num_terms(c), 1))


def _adaptive_pool(c: Call) -> Bounds:
    return _mean_of(c, c.of(c.first), max(math.prod(c.first.shape[-int(c.name[-2]) :]), 1))


def _pool(c: Call) -> Bounds:
    dims, kernel = int(c.name[-2]), c["kernel_size"]
    kernel = [kernel] if isinstance(kernel, int) else list(kernel)
    n = int(math.prod(kernel if len(kernel) == dims else kernel * dims))
    x = c.of(c.first)
    padding = c["padding"] if isinstance(c["padding"], tuple | list) else [c["padding"]]
    if any(padding) or c["ceil_mode"]:
        x = union(x, (0.0, 0.0))
    if c["divisor_override"] is None:
        return _mean_of(c, x, n)
    divisor = c.number(c["divisor_override"])
    if not divisor:
        return UNKNOWN
    total = _sum(c, union(x, (0.0, 0.0)), n)  # of some of them, where the window is cut off
    return c.widen(*_product(total, (1 / divisor, 1 / divisor)), 4)


def _max_pool(c: Call) -> Bounds:
    low, high = c.of(c.first)
    dilation = c["dilation"] if isinstance(c["dilation"], tuple | list) else [c["dilation"]]
    # a window with gaps may contain nothing, which gives -inf
    return (-math.inf if any(d not in (None, 1) for d in dilation) else low), high


def _interpolate(c: Call) -> Bounds:
    return c.widen(*c.of(c.first), 16)  # weights are in [0, 1] and sum to 1


def _pad(c: Call) -> Bounds:
    return union(c.of(c.first), c.of(0.0 if c["value"] is None else c["value"]))


def _written_into(name: str) -> Rule:
    """Return the rule of an operation that replaces some numbers by those of argument `name`."""

    def rule(c: Call) -> Bounds:
        if c["accumulate"] or c["reduce"] is not None:
            return UNKNOWN
        return union(c.of(c.first), c.of(c["value"] if name not in c.arguments else c[name]))

    return rule


def _cast(c: Call) -> Bounds:
    """Rule of copies; those to a coarser dtype are rounded."""
    source = c["src"] if c.name == "copy" else c.first
    x = c.of(source)
    if source.dtype in _INTEGERS or source.dtype == c.result.dtype:
        return x
    if source.dtype not in FLOATS or c.result.dtype not in FLOATS:
        return UNKNOWN
    old, new = torch.finfo(source.dtype), torch.finfo(c.result.dtype)
    return x if new.eps <= old.eps and new.max >= old.max else c.widen(*x)


def _limits(low: float, high: float, n: int = 0) -> Rule:
    """Return the rule of results between `low` and `high`, up to `n` roundings, for any input."""
    return lambda c: c.widen(low, high, n) if n else (low, high)


def _of(name: str) -> Rule:
    return lambda c: c.of(c[name])


RULES: dict[str, Rule] = {
    "relu": lambda c: (max(c.of(c.first)[0], 0.0), max(c.of(c.first)[1], 0.0)),
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min", "clamp_max"), _clamp),
    "threshold": _threshold,
    "sigmoid": _increasing(_sigmoid, 0.0, 1.0),
    "hardsigmoid": _increasing(lambda x: min(max((x + 3) / 6, 0.0), 1.0), 0.0, math.inf, 8),
    "tanh": _increasing(math.tanh, -math.inf, math.inf),
    "erf": _increasing(math.erf, -math.inf, math.inf),
    "atan": _increasing(math.atan, -math.inf, math.inf),
    "exp": _increasing(_exp, 0.0, math.inf, 8),
    "log": _increasing(_log, -math.inf, math.inf, 8),
    "sqrt": _increasing(lambda x: math.sqrt(max(x, 0.0)), 0.0, math.inf),
    "rsqrt": _inverse(lambda x: 1 / math.sqrt(x)),
    "reciprocal": _inverse(lambda x: 1 / x),
    "sin": _limits(-1.0, 1.0, 2),
    "cos": _limits(-1.0, 1.0, 2),
    **dict.fromkeys(("_softmax", "_safe_softmax"), lambda c: (0.0, 1 + 16 * c.eps)),
    "_log_softmax": lambda c: (-math.inf, 64 * c.eps),
    "softplus": _softplus,
    "silu": _gate(-0.27846454276107384),
    "gelu": _gate(-0.17004075057125407),  # with tanh; the exact one is above -0.16998
    "hardswish": _gate(-0.375, 6.0),
    "mish": _gate(-0.30884341301725047),
    **dict.fromkeys(("elu", "celu"), _elu),
    **dict.fromkeys(("leaky_relu", "_prelu_kernel"), _leaky),
    "abs": lambda c: _magnitude(c.of(c.first)),
    "neg": lambda c: _negative(c.of(c.first)),
    **dict.fromkeys(("pow", "square"), _pow),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "zero"), _limits(0.0, 0.0)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _limits(1.0, 1.0)),
    "fill": _of("value"),
    **dict.fromkeys(("full", "full_like", "new_full"), _of("fill_value")),
    "scalar_tensor": _of("s"),
}  # fmt: skip
"""Rules of operations that a proof names."""

KEEPS: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "amax", "amin", "sort", "topk", "adaptive_max_pool2d", "adaptive_max_pool3d",
            "index_select", "gather", "index", "_unsafe_index", "take", "masked_select",
            "embedding", "flip", "roll", "repeat", "pixel_shuffle", "pixel_unshuffle",
            "channel_shuffle", "native_channel_shuffle", "reflection_pad1d", "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d", "replication_pad2d", "replication_pad3d", "upsample_nearest1d",
            "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "cat", "stack",
        ),
        lambda c: c.of(c.first),
    ),
    **dict.fromkeys(("max", "min", "maximum", "minimum"), _max),
    **dict.fromkeys(("clone", "_to_copy", "copy"), _cast),
    "mean": _mean,
    "sum": lambda c: _sum(c, c.of(c.first), _num_terms(c)),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _adaptive_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool),
    **dict.fromkeys(
        (
            "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d", "max_pool2d",
            "max_pool3d",
        ),
        _max_pool,
    ),
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
        _interpolate,
    ),
    "constant_pad_nd": _pad,
    "where": lambda c: union(c.of(c["self"]), c.of(c["other"])),
    **dict.fromkeys(("masked_fill", "index_fill"), _written_into("value")),
    **dict.fromkeys(("scatter", "slice_scatter", "select_scatter"), _written_into("src")),
    "index_put": _written_into("values"),
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    "mul": _mul,
    "div": _div,
}  # fmt: skip
"""Rules of operations that a proof does not name: their arguments are what was proved."""


def limits_of(call: Call, rules: dict[str, Rule]) -> Bounds:
    """Return the limits that the rule of `call` gives; infinite where it gives NaN."""
    low, high = rules[call.name](call)
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
