"""Export of results as certificates that one file of plain Python checks exactly."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from fsboundary._version import __version__
from fsboundary.banks import FeatureBank
from fsboundary.certificates import verify
from fsboundary.core.checks import check_features, check_head, check_instance, describe
from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import check_outputs, write_files
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import (
    FeatureBatch,
    FlipPoints,
    GuaranteedBalls,
    GuaranteedBoxes,
    HullProjection,
    HullSeparation,
    Partition,
    Result,
    TiePoints,
)
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.geometry.flips.dual_problems import FlipProblems
from fsboundary.geometry.flips.scalar_dual import solve_scalar_dual
from fsboundary.modes import in_standard_modes

Claim = dict[str, Any]


@in_standard_modes
def export_certificates(
    path: str | PathLike[str],
    result: Result,
    *,
    head: LinearHead | None = None,
    features: TensorOrArray | FeatureBatch | None = None,
    bank: FeatureBank | None = None,
    force: bool = False,
) -> Path:
    """Write the certificates of a result to a JSON file that can be checked without fsboundary.

    The file contains the head, rows and generators that the result is about, and a claim per entry:
    bounds, point, multipliers, weights. Every number is an exact float in hexadecimal.
    ``python verify.py FILE`` (see :func:`write_verifier`) checks each claim in exact arithmetic and
    needs only Python. Each claim is checked in that way before it is written.

    Parameters
    ----------
    path : path
        File to write.
    result : Result
        :class:`FlipPoints`, :class:`TiePoints`, :class:`GuaranteedBalls`, :class:`GuaranteedBoxes`,
        :class:`HullProjection`, :class:`HullSeparation` or :class:`Partition`. Entries without a
        certified answer are left out, and counted in the file by their status.
    head : LinearHead, optional
        Head of the result, with its domain; for all but hulls.
    features : Tensor or array (B, d), or FeatureBatch, optional
        Rows of the result; for flip and tie points, boxes and projections.
    bank : FeatureBank, optional
        Bank of the result; for projections and separations. All its points are written.
    force : bool
        Whether a file that fsboundary did not write may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ArgumentError
        Another kind of result, an argument that it needs is missing or does not need, or a claim
        that does not hold for them, for example because the result is that of another head.
    DataError
        The file cannot be written.

    Notes
    -----
    The file has about 24 bytes per number of the head, the rows, the generators and the points. An
    exact check of a flip point takes ``2 K d`` products, about a second per three million.

    Examples
    --------
    >>> import pathlib, tempfile, torch
    >>> import fsboundary as fsb
    >>> head = fsb.LinearHead(torch.eye(3), None)
    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> flips = fsb.flip_points(head, z, "all")
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> file = fsb.export_certificates(folder / "flips.json", flips, head=head, features=z)
    >>> from fsboundary.certificates import verify
    >>> verify.main([str(file)])  # as `python verify.py flips.json` does
    head ... (3 classes, 3 features), 1 rows, 0 generators, 2 claims
    digest: as written
    flip: 2 of 2 hold. source and target tie, and no other logit is larger: ...
    0
    """
    path = Path(path)
    check_outputs({"path": path}, force=force)
    claims_of, needed = _kind_of(result)
    given = {"head": head, "features": features, "bank": bank}
    for name, value in given.items():
        if (value is None) == (name in needed):
            raise ArgumentError(
                name,
                "None" if value is None else f"a {type(value).__name__}",
                f"{' and '.join(needed)} for {type(result).__name__}",
                "pass what the result was computed from, and nothing else",
            )
    status: Tensor = result.to_dict()["status"]
    subject = _Subject(len(status), **given)
    claims = list(claims_of(result.to("cpu"), subject))
    problem = verify.Problem(subject.data)
    for claim in claims:
        reason = verify.fault(problem, claim)
        if reason is not None:
            names = ", ".join(f"{k} {claim[k]}" for k in _PLACES if k in claim)
            raise ArgumentError(
                "result",
                f"a claim ({claim['kind']}, {names}) that is not true of these: {reason}",
                "the result of these arguments",
                f"pass the {' and '.join(needed)} that it was computed from",
            )
    left_out = Counter(Status(code).name for code in status[~result.ok].tolist())
    data = {
        "format": verify.FORMAT,
        "version": verify.VERSION,
        "made_by": f"fsboundary {__version__}",
        "result": type(result).__name__,
        **subject.data,
        "claims": claims,
        "left_out": dict(left_out),
    }
    data["sha256"] = verify.digest(data)
    write_files({path: json.dumps(data, separators=(",", ":")).encode()}, force=force)
    return path


def write_verifier(path: str | PathLike[str], *, force: bool = False) -> Path:
    """Write ``verify.py``, the program that checks files of certificates, to `path`.

    It is one file, imports nothing but Python's own modules and needs Python 3.11.

    Parameters
    ----------
    path : path
        File to write.
    force : bool
        Whether a file that fsboundary did not write may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ArgumentError
        The file exists, or its folder does not.
    DataError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fsboundary as fsb
    >>> fsb.write_verifier(pathlib.Path(tempfile.mkdtemp()) / "verify.py").name
    'verify.py'
    """
    path = Path(path)
    check_outputs({"path": path}, force=force)
    write_files({path: Path(verify.__file__).read_bytes()}, force=force)
    return path


_PLACES = ("row", "source", "target", "class", "classes")
"""Keys that say which entry of a result a claim is about."""


@final
class _Subject:
    """What the claims are about: in tensors, and as the file has it."""

    def __init__(self, rows: int, *, head: object, features: object, bank: object) -> None:
        self.data: dict[str, Any] = {}
        if head is not None:
            check_head(head)
            self.head: LinearHead = head.to(torch.device("cpu"))  # type: ignore[attr-defined]  # checked
            low, high = self.head.domain.limits(self.head._weight)
            self.data["head"] = {
                "weight": _hex(self.head._weight),
                "bias": _hex(self.head._bias),
                "lower": _hex(low),
                "upper": _hex(high),
            }
        if bank is not None:
            fix = "pass the bank that the hulls were computed from"
            known = check_instance("bank", bank, FeatureBank, "a FeatureBank", fix)
            self._generators = known.features.double().cpu()
            self.data["generators"] = _hex(self._generators)
            if known.labels is not None:
                self.data["labels"] = known.labels.tolist()
        if features is not None:
            width = self.head.num_features if head is not None else known.num_features
            self.features = check_features(width, features).cpu()
            if len(self.features) != rows:
                got, wanted = f"{len(self.features)} rows", f"{rows} rows, those of the result"
                raise ArgumentError("features", got, wanted, "pass the rows of the result")
            self.data["rows"] = _hex(self.features.nan_to_num())  # no claim is about other rows

    def size(self, support: list[int], points: Tensor) -> float:
        """Return the sum of the largest numbers of generators and points, over the features."""
        both = torch.cat([self._generators[support], points.reshape(-1, points.shape[-1])])
        return float(both.abs().amax(dim=0).sum())

    def hull_point(self, support: list[int], weights: Tensor) -> tuple[verify.Vector, Fraction]:
        """Return the point of the hull with these weights times their sum, and the sum."""
        generators = [_vector(v) for v in self._generators[support]]
        return verify.hull_point(generators, [Fraction(w) for w in weights.tolist()])


def _hex(numbers: Tensor) -> Any:
    """Return floats in hexadecimal, nested as the tensor is; infinite ones as "inf", "-inf"."""
    if numbers.ndim > 1:
        return [_hex(part) for part in numbers]
    return [float(n).hex() for n in numbers.tolist()]


def _vector(numbers: Tensor) -> verify.Vector:
    return verify.Vector(map(Fraction, numbers.tolist()))


def _upper(distance: Tensor, square: Fraction, size: float) -> str:
    """Return an upper bound of the root of `square`: `distance`, raised by rounding if need be.

    `size` is that of the numbers whose difference it is. A distance that is off by more than
    rounding stays, so that the claim fails.
    """
    found = float(distance)
    if square <= Fraction(found) ** 2:
        return found.hex()
    n, d = square.numerator, square.denominator
    bits = max(0, 64 + (d.bit_length() - n.bit_length()) // 2)
    root = float(Fraction(math.isqrt((n << 2 * bits) // d) + 1, 1 << bits))
    while Fraction(root) ** 2 < square:
        root = math.nextafter(root, math.inf)
    return (root if root <= found + _ROUNDING * size else found).hex()


_ROUNDING = 1e-12
"""Far more than the rounding of a distance in float64, relative to the size of the points."""


def _active(active: Tensor, multipliers: Tensor) -> Claim:
    used = active >= 0
    return {"active": active[used].tolist(), "multipliers": _hex(multipliers[used])}


def _flips(flips: FlipPoints, subject: _Subject) -> Iterator[Claim]:
    for r, t in flips.ok.nonzero().tolist():
        claim = {
            "kind": "flip",
            "row": r,
            "source": int(flips.source[r]),
            "target": int(flips.target[r, t]),
            "lower": float(flips.lower_bound[r, t]).hex(),
            **_active(flips.active[r, t], flips.multipliers[r, t]),
        }
        if flips.status[r, t] == Status.CONVERGED:
            yield claim | _point(
                flips.points[r, t], subject.features[r], flips.distance[r, t], flips.violation[r, t]
            )
        elif flips.status[r, t] == Status.INFEASIBLE:
            yield claim | {"kind": "unreachable"}


def _point(point: Tensor, row: Tensor, distance: Tensor, violation: Tensor) -> Claim:
    square = _vector(point).minus(_vector(row)).square()
    return {
        "point": _hex(point),
        "upper": _upper(distance, square, float(point.norm() + row.norm())),
        "violation": float(violation).hex(),
    }


def _ties(ties: TiePoints, subject: _Subject) -> Iterator[Claim]:
    for r in (ties.status == Status.CONVERGED).nonzero()[:, 0].tolist():
        yield {
            "kind": "tie",
            "row": r,
            "classes": [k for k in ties.classes[r].tolist() if k >= 0],
            "anchor": int(ties.anchor[r]),
            "lower": float(ties.lower_bound[r]).hex(),
            **_active(ties.active[r], ties.multipliers[r]),
            **_point(ties.points[r], subject.features[r], ties.distance[r], ties.violation[r]),
        }


def _balls(balls: GuaranteedBalls, subject: _Subject) -> Iterator[Claim]:
    head = subject.head
    # the result has its rows itself; no claim is about those that are not finite
    subject.data["rows"] = _hex(balls.centre.nan_to_num())
    for r in balls.ok.nonzero()[:, 0].tolist():
        source = int(balls.source[r])
        claim: Claim = {"kind": "ball", "row": r, "norm": balls.norm, "source": source}
        claim["radius"] = float(balls.radius[r]).hex()
        if balls.norm == "l2":
            others = torch.tensor([k for k in range(head.num_classes) if k != source])
            # one condition for each other class: it reaches the logit of the source
            problems = FlipProblems(
                head=head,
                z=balls.centre[r].expand(len(others), -1),
                source=torch.full_like(others, source),
                target=others,
            )
            claim["multipliers"] = _hex((-solve_scalar_dual(problems)[0]).clamp_min(0))
        yield claim


def _boxes(boxes: GuaranteedBoxes, _: _Subject) -> Iterator[Claim]:
    for r in boxes.ok.nonzero()[:, 0].tolist():
        yield {
            "kind": "box",
            "row": r,
            "source": int(boxes.source[r]),
            "lower": _hex(boxes.lower[r]),
            "upper": _hex(boxes.upper[r]),
        }


def _parts(part: Partition, _: _Subject) -> Iterator[Claim]:
    for k in part.nonempty.nonzero()[:, 0].tolist():
        yield {"kind": "region", "class": k, "point": _hex(part.chebyshev_centre[k])}
    for classes, centre in zip(part.facet_pairs.tolist(), part.facet_centre, strict=True):
        yield {"kind": "facet", "classes": classes, "point": _hex(centre)}


def _beyond(lower: Tensor, normal: Tensor) -> Claim:
    claim: Claim = {"lower": float(lower).hex()}
    return claim | {"normal": _hex(normal)} if lower > 0 else claim


def _projections(found: HullProjection, subject: _Subject) -> Iterator[Claim]:
    for r in found.ok.nonzero()[:, 0].tolist():
        used = found.support[r] >= 0
        support, weights = found.support[r][used].tolist(), found.weights[r][used]
        point, total = subject.hull_point(support, weights)
        difference = point.minus(_vector(subject.features[r]).times(total))
        size = subject.size(support, subject.features[r])
        yield {
            "kind": "projection",
            "row": r,
            "support": support,
            "weights": _hex(weights),
            "upper": _upper(found.distance[r], difference.square() / total**2, size),
            **_beyond(found.lower_bound[r], found.normal[r]),
        }


def _separations(found: HullSeparation, subject: _Subject) -> Iterator[Claim]:
    for p in found.ok.nonzero()[:, 0].tolist():
        used = [found.support[p, side] >= 0 for side in (0, 1)]
        support = [found.support[p, side][used[side]].tolist() for side in (0, 1)]
        weights = [found.weights[p, side][used[side]] for side in (0, 1)]
        (one, s), (other, t) = map(subject.hull_point, support, weights)
        difference = other.times(s).minus(one.times(t))
        size = subject.size(support[0] + support[1], found.points[p])
        yield {
            "kind": "separation",
            "classes": found.classes[p].tolist(),
            "support": support,
            "weights": [_hex(w) for w in weights],
            "upper": _upper(found.distance[p], difference.square() / (s * t) ** 2, size),
            **_beyond(found.lower_bound[p], found.normal[p]),
        }


_KINDS: dict[type[Result], tuple[Callable[[Any, _Subject], Iterator[Claim]], tuple[str, ...]]] = {
    FlipPoints: (_flips, ("head", "features")),
    TiePoints: (_ties, ("head", "features")),
    GuaranteedBalls: (_balls, ("head",)),
    GuaranteedBoxes: (_boxes, ("head", "features")),
    Partition: (_parts, ("head",)),
    HullProjection: (_projections, ("features", "bank")),
    HullSeparation: (_separations, ("bank",)),
}
"""Claims of each kind of result, and the arguments that they are about."""


def _kind_of(result: object) -> tuple[Callable[[Any, _Subject], Iterator[Claim]], tuple[str, ...]]:
    for kind, found in _KINDS.items():
        if isinstance(result, kind):
            return found
    names = ", ".join(kind.__name__ for kind in _KINDS)
    raise ArgumentError("result", describe(result), f"one of {names}", "pass such a result")
