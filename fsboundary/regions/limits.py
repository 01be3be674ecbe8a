"""The box to which a partition is limited."""

from __future__ import annotations

from fsboundary.core.checks import check_instance
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
    lower, upper = (t.cpu().numpy() for t in head.domain.limits(head._weight))
    if within is not None:
        fix = "pass Domain.box(lower, upper), for example Domain.box(*bank.range())"
        within = check_instance("within", within, Domain, "a Domain", fix)
        within.require_width(head.num_features, "within")
        low, high = (t.cpu().numpy() for t in within.limits(head._weight))
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
