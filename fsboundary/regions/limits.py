"""Checks of the arguments of a partition, and the box to which it is limited."""

from __future__ import annotations

from torch import Tensor

from fsboundary.core.checks import check_instance, check_integer_tensor
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead
from fsboundary.geometry.exact_arithmetic import Array


def common_limits(head: LinearHead, within: object) -> tuple[Array, Array]:
    """Return the limits (d,) of the domain of `head` cut down to `within`.

    Raises
    ------
    ArgumentError
        `within` is not a Domain, has another width, does not meet the domain, or leaves one point.
    """
    lower, upper = (t.cpu().numpy() for t in head.domain.limits(head.weight))
    if within is not None:
        fix = "pass Domain.box(lower, upper), for example Domain.box(*bank.range())"
        within = check_instance("within", within, Domain, "a Domain", fix)
        if within.num_features not in (None, head.num_features):
            raise ArgumentError(
                "within",
                f"a box of width {within.num_features}",
                f"a box of width {head.num_features}, that of the head",
                "build the box from features of the same layer",
            )
        low, high = (t.cpu().numpy() for t in within.limits(head.weight))
        lower, upper = lower.clip(min=low), upper.clip(max=high)
    apart = (lower > upper).nonzero()[0]
    if len(apart):
        m = int(apart[0])
        raise ArgumentError(
            "within",
            f"a domain that does not meet the head's: feature {m} from {lower[m]} to {upper[m]}",
            "a domain that meets the head's domain",
            "build the box from features of the same layer",
        )
    if (lower == upper).all():
        raise ArgumentError(
            "within",
            "a domain of one point",
            "a domain in which a feature varies",
            "call head.predict for the class of the point",
        )
    return lower, upper


def check_pairs(k: int, pairs: object) -> Tensor | None:
    """Return `pairs` with i < j, each once, ascending, or None for "auto"."""
    if isinstance(pairs, str) and pairs == "auto":
        return None
    found = check_integer_tensor(
        "pairs",
        pairs,
        ("P", 2),
        fix="pass one pair per row, as torch.tensor([[0, 1]])",
        noun="classes",
        within=range(k),
        also='"auto"',
    )
    ordered = found.cpu().sort(dim=1).values
    if bool((ordered[:, 0] == ordered[:, 1]).any()):
        i = int(ordered[ordered[:, 0] == ordered[:, 1]][0, 0])
        raise ArgumentError("pairs", f"({i}, {i})", "two different classes per pair", "drop it")
    unique: Tensor = ordered.unique(dim=0)
    return unique
