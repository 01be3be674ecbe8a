"""Status codes of result entries, each with advice."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one entry of a result (design.md, section 1).

    Results store the codes as int64 tensors. ``Status(code).advice`` says what to do;
    ``Status(code).ok`` is true for final answers, including "there is none".

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> status = fsb.Status(int(fsb.flip_points(head, z).status[0, 0]))
    >>> status.name, status.ok
    ('CONVERGED', True)
    >>> print(fsb.Status.MAX_STEPS.advice)
    stopped at max_steps before the certificate closed; a lower_bound still holds. Raise max_steps
    """

    CONVERGED = 0
    INFEASIBLE = 1
    UNBOUNDED = 2
    DUPLICATE = 3
    MAX_STEPS = 4
    INACCURATE = 5
    OUTSIDE_DOMAIN = 6
    TARGET_IS_SOURCE = 7
    NOT_FINITE = 8
    UNDECIDED = 9
    DEGENERATE = 10
    ON_BOUNDARY = 11

    @property
    def ok(self) -> bool:
        """Whether the entry is a final, certified answer."""
        return self in _OK

    @property
    def advice(self) -> str:
        """Meaning of the status and what to do about it."""
        return _ADVICE[self]


_OK = frozenset(
    {
        Status.CONVERGED,
        Status.INFEASIBLE,
        Status.UNBOUNDED,
        Status.DUPLICATE,
        Status.ON_BOUNDARY,
    }
)

OK_CODES = tuple(int(s) for s in sorted(_OK))
"""Codes of final answers, for comparison with status tensors."""

_ADVICE = {
    Status.CONVERGED: "certified: gap and violation are within tolerance",
    Status.INFEASIBLE: (
        "no such point exists in the domain (or none nearer than a million times the scale); "
        "the distance is +inf, which is the answer and not a failure"
    ),
    Status.UNBOUNDED: "no limit: no other class can be reached, or balls of any size fit",
    Status.DUPLICATE: "two classes have equal weight rows and biases, so they tie everywhere",
    Status.MAX_STEPS: (
        "stopped at max_steps before the certificate closed; a lower_bound still holds. "
        "Raise max_steps"
    ),
    Status.INACCURATE: (
        "almost solved: the answer missed the tolerance when re-checked in float64; a lower_bound "
        "still holds. Loosen tolerance, or choose another solver or finder, where there are such "
        "arguments"
    ),
    Status.OUTSIDE_DOMAIN: (
        "the row lies outside the domain. Check that the features come from the body of this "
        "head, or pass domain=Domain.unbounded()"
    ),
    Status.TARGET_IS_SOURCE: (
        "the target is the row's own class. Choose another target; the source is the predicted "
        "class, also for misclassified rows"
    ),
    Status.NOT_FINITE: "the row contains NaN or infinite values. Drop it or fix its example",
    Status.UNDECIDED: "the bracket does not decide the question. Tighten tolerance",
    Status.DEGENERATE: (
        "nothing can be measured: all entries of an attribution are equal, so they have no order, "
        "or the example already lies on the boundary, or its features are all 0 and have no "
        "direction. Leave the row out"
    ),
    Status.ON_BOUNDARY: (
        "certified to lie on the boundary of a non-linear head; not certified to be the nearest "
        "boundary point, so lower_bound is 0"
    ),
}
