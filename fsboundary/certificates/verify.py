"""Exact check of a file of certificates: ``python verify.py certificates.json``.

This file needs Python and nothing else: no torch, no fsboundary. Every number of a certificate is a
float written in hexadecimal, so it is exactly a fraction whose denominator is a power of two. All
checks are made with such fractions: nothing is rounded, and squares are compared in place of square
roots. How the numbers were found plays no part.

A claim holds if what it says about the head, the rows and the generators *in the file* is true.
That these are your model and your images is for you to compare: the fingerprint of the head is
printed, and equals ``LinearHead.fingerprint``.

Exit status: 0 if the file is as it was written and every claim holds, 1 if not, 2 if it cannot be
read.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from operator import mul

FORMAT, VERSION = "fsboundary certificates", 1

_CONDITIONS = "`point` is within `upper`, and meets each condition to within `violation`"

SAYS = {
    "flip": "source and target tie, and no other logit is larger: the domain has no such point "
    f"nearer than `lower`; {_CONDITIONS}",
    "unreachable": "source and target tie, and no other logit is larger: the domain has no such "
    "point nearer than `lower` (inf: none at all)",
    "tie": "`classes` tie, and no other logit is larger: the domain has no such point nearer than "
    f"`lower`; {_CONDITIONS}",
    "ball": "every point of the domain nearer to the row than `radius` has the class `source`",
    "box": "every point of the box has the class `source`, and the row is in it",
    "region": "`point` is inside the domain, and its logit of `class` is larger than those of all "
    "classes with another logit somewhere",
    "facet": "the two classes share a facet: beside `point`, inside the domain, they tie and every "
    "other logit is smaller; or not larger, if on their whole tie it, or a limit, is equal",
    "projection": "the hull of the generators is between `lower` and `upper` away from the row; a "
    "positive `lower` puts the row outside",
    "separation": "the hulls of the generators of the two classes are between `lower` and `upper` "
    "apart; a positive `lower` separates them",
}
"""What a claim of each kind says. Distances are Euclidean, but of balls with the norm "linf"."""


class Malformed(Exception):
    """The file or a claim is not what this version writes; the text says what is wrong."""


class Vector:
    """Numbers with one power of two as their common denominator, so that sums are of integers."""

    __slots__ = ("numerators", "shift")

    def __init__(self, numbers: Iterable[Fraction]) -> None:
        numbers = list(numbers)
        self.shift = max((n.denominator.bit_length() - 1 for n in numbers), default=0)
        self.numerators = [
            n.numerator << (self.shift - n.denominator.bit_length() + 1) for n in numbers
        ]

    def __len__(self) -> int:
        return len(self.numerators)

    def numbers(self) -> list[Fraction]:
        """Return the numbers."""
        return [Fraction(n, 1 << self.shift) for n in self.numerators]

    def dot(self, other: Vector) -> Fraction:
        """Return the sum of products."""
        total = sum(map(mul, self.numerators, other.numerators))
        return Fraction(total, 1 << (self.shift + other.shift))

    def square(self) -> Fraction:
        """Return the squared Euclidean norm."""
        return self.dot(self)

    def plus(self, factor: Fraction, other: Vector) -> Vector:
        """Return ``self + factor * other``."""
        sum_ = Vector([])
        step = factor.denominator.bit_length() - 1
        sum_.shift = max(self.shift, other.shift + step)
        one, two = sum_.shift - self.shift, sum_.shift - other.shift - step
        sum_.numerators = [
            (a << one) + ((factor.numerator * b) << two)
            for a, b in zip(self.numerators, other.numerators, strict=True)
        ]
        return sum_

    def times(self, factor: Fraction) -> Vector:
        """Return the multiple."""
        return Vector([Fraction(0)] * len(self)).plus(factor, self)

    def minus(self, other: Vector) -> Vector:
        """Return the difference."""
        return self.plus(Fraction(-1), other)


Claim = dict[str, object]
"""One claim, as the file has it."""

Limit = Fraction | None
"""A limit of one feature; None where there is none."""


class Head:
    """Logits ``W x + b``, and the lower and upper limit of each feature."""

    def __init__(self, data: object) -> None:
        fields = mapping(data, "head", ("weight", "bias", "lower", "upper"))
        self.weight = matrix(fields["weight"], "head.weight")
        self.bias = vector(fields["bias"], "head.bias", len(self.weight)).numbers()
        self.width = len(self.weight[0])
        self.lower = limits(fields["lower"], "head.lower", self.width, "-inf")
        self.upper = limits(fields["upper"], "head.upper", self.width, "inf")
        if any(lo is not None and hi is not None and lo > hi for lo, hi in self.limits()):
            raise Malformed("head.lower is above head.upper")

    def limits(self) -> list[tuple[Limit, Limit]]:
        """Return the limits of each feature."""
        return list(zip(self.lower, self.upper, strict=True))

    def difference(self, one: int, other: int) -> tuple[Vector, Fraction]:
        """Return a and c with ``a.x + c`` the logit of the first class minus that of the other."""
        return self.weight[one].minus(self.weight[other]), self.bias[one] - self.bias[other]

    def others(self, source: int) -> list[tuple[Vector, Fraction]]:
        """Return what each other class is above `source`, as :meth:`difference`."""
        return [self.difference(k, source) for k in range(len(self.weight)) if k != source]

    def equal(self, one: int, other: int) -> bool:
        """Return whether two classes have the same logit everywhere."""
        normal, offset = self.difference(one, other)
        return offset == 0 and normal.square() == 0

    def clip(self, x: Vector) -> Vector:
        """Return the nearest point of the domain."""
        return Vector(
            lo if lo is not None and n < lo else hi if hi is not None and n > hi else n
            for n, (lo, hi) in zip(x.numbers(), self.limits(), strict=True)
        )

    def moving(self, normal: Vector) -> Vector:
        """Return a normal with 0 for the features whose limits are equal."""
        return Vector(
            Fraction(0) if lo is not None and lo == hi else n
            for n, (lo, hi) in zip(normal.numbers(), self.limits(), strict=True)
        )

    def strictly_inside(self, x: Vector) -> bool:
        """Return whether `x` is inside the domain and on no limit, but where both limits agree."""
        return all(
            n == lo if lo is not None and lo == hi else
            (lo is None or n > lo) and (hi is None or n < hi)
            for n, (lo, hi) in zip(x.numbers(), self.limits(), strict=True)
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Return the digest that fsboundary computes of weights and biases."""
        digest = hashlib.sha256(str((len(self.weight), self.width)).encode())
        for numbers in (*(row.numbers() for row in self.weight), self.bias):
            digest.update(struct.pack(f"<{len(numbers)}d", *map(float, numbers)))
        return digest.hexdigest()[:16]


class Problem:
    """The head, rows and generators of a file; what a claim refers to."""

    def __init__(self, data: dict[str, object]) -> None:
        self._head = Head(data["head"]) if data.get("head") is not None else None
        self._rows = matrix(data["rows"], "rows") if data.get("rows") is not None else []
        given = data.get("generators")
        self.generators = matrix(given, "generators") if given is not None else []
        labels = data.get("labels")
        self._members: dict[int, list[int]] = {}
        if labels is not None:
            if len(listed(labels, "labels")) != len(self.generators):
                raise Malformed("labels and generators differ in length")
            for number, label in enumerate(listed(labels, "labels")):
                self._members.setdefault(whole(label, "labels"), []).append(number)
        widths = {len(p) for p in (*self._rows, *self.generators)}
        widths |= {self._head.width} if self._head else set()
        if len(widths) > 1:
            raise Malformed(f"rows, generators and head have different widths: {sorted(widths)}")

    @property
    def head(self) -> Head:
        """The head."""
        if self._head is None:
            raise Malformed("the claim needs a head, and the file has none")
        return self._head

    @property
    def width(self) -> int:
        """Number of features."""
        return self._head.width if self._head else len((self._rows or self.generators)[0])

    def row(self, claim: Claim) -> Vector:
        """Return the row that a claim is about."""
        return self._rows[index(claim["row"], "row", len(self._rows))]

    def in_domain(self, claim: Claim) -> Vector:
        """Return the row that a claim is about, which must be in the domain."""
        row = self.row(claim)
        if self.head.clip(row).numbers() != row.numbers():
            raise Malformed("the row is outside the domain")
        return row

    def a_class(self, value: object, name: str) -> int:
        """Return a class of the head."""
        return index(value, name, len(self.head.weight))

    def members(self, value: object) -> list[int]:
        """Return the generators of a class."""
        found = self._members.get(whole(value, "class"))
        if not found:
            raise Malformed(f"no generator has the label {value}")
        return found

    def __str__(self) -> str:
        parts = [f"{len(self._rows)} rows, {len(self.generators)} generators"]
        if self._head:
            classes, width = len(self._head.weight), self._head.width
            parts.insert(
                0, f"head {self._head.fingerprint()} ({classes} classes, {width} features)"
            )
        return ", ".join(parts)


# --- what numbers prove: used by fsboundary too, to state no more than can be checked


Constraints = list[tuple[Fraction, Vector, Fraction]]
"""Multiplier λ, and a and c: every point in question has ``λ (a.x + c) >= 0``."""


def least_half_square(head: Head, row: Vector, constraints: Constraints) -> Fraction:
    """Return a lower bound of half the squared distance to every point in question.

    Weak duality: for such a point x of the domain ``|x - z|^2 / 2`` is at least
    ``|x - z|^2 / 2 - sum λ (a.x + c)``, which is smallest at ``x = clip(z + sum λ a)``.
    """
    point = row
    for multiplier, normal, _ in constraints:
        point = point.plus(multiplier, normal)
    point = head.clip(point)
    half = point.minus(row).square() / 2
    return half - sum(lam * (normal.dot(point) + c) for lam, normal, c in constraints)


def exclusion(head: Head, row: Vector, constraints: Constraints) -> tuple[Fraction, Fraction]:
    """Return s and the square of a norm n: no point in question is nearer than s / n if s > 0.

    Every such point of the domain has ``u.x + c >= 0`` with ``u = sum λ a``. Of the features whose
    term is limited, the largest possible terms are added to c; u keeps the others. If no other is
    left, n is 0, and there is no such point at all.
    """
    direction = Vector([Fraction(0)] * len(row))
    most = Fraction(0)
    for multiplier, normal, c in constraints:
        direction, most = direction.plus(multiplier, normal), most + multiplier * c
    free = []
    for u, (lo, hi) in zip(direction.numbers(), head.limits(), strict=True):
        limit = hi if u > 0 else lo
        most += u * limit if u and limit is not None else 0
        free.append(u if u and limit is None else Fraction(0))
    left = Vector(free)
    return -most - left.dot(row), left.square()


def excludes(head: Head, row: Vector, constraints: Constraints, lower: Fraction | None) -> bool:
    """Return whether no point in question is nearer than `lower` (None: there is none at all)."""
    slack, square = exclusion(head, row, constraints)
    if slack <= 0:
        return False
    return square == 0 or (lower is not None and lower * lower * square <= slack * slack)


def is_lower_bound(head: Head, row: Vector, constraints: Constraints, lower: Fraction) -> bool:
    """Return whether no point in question is nearer than `lower`."""
    if lower <= 0:
        return True
    if lower * lower <= 2 * least_half_square(head, row, constraints):
        return True
    return excludes(head, row, constraints, lower)


def hull_point(
    generators: Sequence[Vector], weights: Sequence[Fraction]
) -> tuple[Vector, Fraction]:
    """Return s p and s for the point p of the hull with these weights, whose sum is s > 0."""
    point = Vector([Fraction(0)] * len(generators[0]))
    for weight, generator in zip(weights, generators, strict=True):
        point = point.plus(weight, generator)
    return point, sum(weights, Fraction(0))


# --- one check a kind: each returns whether the claim is true


def _constraints(problem: Problem, claim: Claim, pairs: Callable[[int], Pair]) -> Constraints:
    numbers = listed(claim["active"], "active")
    multipliers = vector(claim["multipliers"], "multipliers", len(numbers)).numbers()
    found: Constraints = []
    seen = set()
    for value, multiplier in zip(numbers, multipliers, strict=True):
        k = problem.a_class(value, "active")
        one, other, tie = pairs(k)
        if k in seen or one == other:
            raise Malformed(f"active: class {k} stands for no constraint, or twice")
        seen.add(k)
        if multiplier < 0 and not tie:
            raise Malformed("a multiplier of an inequality is negative")
        found.append((multiplier, *problem.head.difference(one, other)))
    return found


Pair = tuple[int, int, bool]
"""Two classes, the first of which has the larger logit, and whether they tie."""


def _point_holds(problem: Problem, claim: Claim, row: Vector, pairs: list[Pair]) -> bool:
    """Return whether `point` is within `upper`, and off each condition by at most `violation`."""
    head, point = problem.head, vector(claim["point"], "point", problem.width)
    upper, violation = (number(claim[name], name) for name in ("upper", "violation"))
    if upper < 0 or violation < 0 or point.minus(row).square() > upper * upper:
        return False
    if head.clip(point).minus(point).square() > violation * violation:
        return False
    for one, other, tie in pairs:
        normal, offset = head.difference(one, other)
        value = normal.dot(point) + offset
        if (tie or value < 0) and value * value > violation * violation * normal.square():
            return False
    return True


def _flip_pairs(problem: Problem, claim: Claim) -> tuple[Callable[[int], Pair], list[Pair]]:
    source, target = (problem.a_class(claim[n], n) for n in ("source", "target"))
    if source == target:
        raise Malformed("source and target are one class")

    def pair(k: int) -> Pair:
        return (source, target, True) if k == target else (target, k, False)

    others = (k for k in range(len(problem.head.weight)) if k not in (source, target))
    # the source ties with the target, so it needs no condition of its own
    return pair, [pair(target), *map(pair, others)]


def check_flip(problem: Problem, claim: Claim) -> bool:
    """Check both bounds of the distance to the boundary of two classes."""
    row, (pair, pairs) = problem.in_domain(claim), _flip_pairs(problem, claim)
    lower = number(claim["lower"], "lower")
    bound = is_lower_bound(problem.head, row, _constraints(problem, claim, pair), lower)
    return bound and _point_holds(problem, claim, row, pairs)


def check_unreachable(problem: Problem, claim: Claim) -> bool:
    """Check that no point of a boundary is within a distance, or none at all."""
    row, (pair, _) = problem.in_domain(claim), _flip_pairs(problem, claim)
    none = claim["lower"] == "inf"
    lower = None if none else number(claim["lower"], "lower")
    return excludes(problem.head, row, _constraints(problem, claim, pair), lower)


def check_tie(problem: Problem, claim: Claim) -> bool:
    """Check both bounds of the distance to a tie of several classes."""
    row = problem.in_domain(claim)
    tied = [problem.a_class(k, "classes") for k in listed(claim["classes"], "classes")]
    if len(tied) < 2 or len(set(tied)) < len(tied):
        raise Malformed("classes: wanted two or more, each once")
    anchor = problem.a_class(claim["anchor"], "anchor")
    if anchor not in tied:
        raise Malformed("the anchor is none of the classes")

    def pair(k: int) -> Pair:
        return anchor, k, k in tied

    lower = number(claim["lower"], "lower")
    bound = is_lower_bound(problem.head, row, _constraints(problem, claim, pair), lower)
    pairs = [pair(k) for k in range(len(problem.head.weight)) if k != anchor]
    return bound and _point_holds(problem, claim, row, pairs)


def check_ball(problem: Problem, claim: Claim) -> bool:
    """Check that no other class can reach the logit of the source in a ball."""
    head, row = problem.head, problem.in_domain(claim)
    others = head.others(problem.a_class(claim["source"], "source"))
    radius = None if claim["radius"] == "inf" else number(claim["radius"], "radius")
    if radius is not None and radius < 0:
        raise Malformed("the radius is negative")
    if claim["norm"] == "linf":
        sides = [
            (lo if radius is None else n - radius if lo is None else max(lo, n - radius),
             hi if radius is None else n + radius if hi is None else min(hi, n + radius))
            for n, (lo, hi) in zip(row.numbers(), head.limits(), strict=True)
        ]  # fmt: skip
        return radius == 0 or all(_stays_below(a, c, sides) for a, c in others)
    if claim["norm"] != "l2":
        raise Malformed('norm: wanted "l2" or "linf"')
    multipliers = vector(claim["multipliers"], "multipliers", len(others)).numbers()
    if any(m < 0 for m in multipliers):
        raise Malformed("a multiplier of an inequality is negative")
    for multiplier, (normal, offset) in zip(multipliers, others, strict=True):
        one = [(multiplier, normal, offset)]
        if radius is None and not excludes(head, row, one, None):
            return False
        if radius is not None and not is_lower_bound(head, row, one, radius):
            return False
    return True


def _stays_below(normal: Vector, offset: Fraction, sides: list[tuple[Limit, Limit]]) -> bool:
    """Return whether ``normal.x + offset < 0`` strictly between the sides, where they differ."""
    most, moves = offset, False
    for a, (lo, hi) in zip(normal.numbers(), sides, strict=True):
        if a == 0:
            continue
        side = hi if a > 0 else lo
        if side is None:
            return False
        most, moves = most + a * side, moves or lo != hi
    return most < 0 or (most == 0 and moves)


def check_box(problem: Problem, claim: Claim) -> bool:
    """Check that no other class can reach the logit of the source in a closed box."""
    head, row = problem.head, problem.in_domain(claim)
    lower = limits(claim["lower"], "lower", head.width, "-inf")
    upper = limits(claim["upper"], "upper", head.width, "inf")
    for n, lo, hi in zip(row.numbers(), lower, upper, strict=True):
        if (lo is not None and n < lo) or (hi is not None and n > hi):
            return False
    for normal, most in head.others(problem.a_class(claim["source"], "source")):
        for a, lo, hi in zip(normal.numbers(), lower, upper, strict=True):
            side = hi if a > 0 else lo
            if a and side is None:
                return False
            most += a * side if a and side is not None else 0
        if most >= 0:
            return False
    return True


def check_region(problem: Problem, claim: Claim) -> bool:
    """Check that a point is inside the region of a class."""
    head, point = problem.head, vector(claim["point"], "point", problem.width)
    source = problem.a_class(claim["class"], "class")
    others = (
        head.difference(k, source) for k in range(len(head.weight)) if not head.equal(k, source)
    )
    return head.strictly_inside(point) and all(a.dot(point) + c < 0 for a, c in others)


def check_facet(problem: Problem, claim: Claim) -> bool:
    """Check that the point, moved exactly to the tie, is strictly inside everything else."""
    head, point = problem.head, vector(claim["point"], "point", problem.width)
    i, j = _two_classes(claim, problem.a_class)
    full, offset = head.difference(i, j)
    normal = head.moving(full)
    square, value = normal.square(), full.dot(point) + offset
    if square == 0:
        return False
    # the point moves by - value / square * normal; all is multiplied by `square` to avoid divisions
    for k in range(len(head.weight)):
        if not (head.equal(k, i) or head.equal(k, j)):
            full, offset = head.difference(i, k)
            other = head.moving(full)
            room = (full.dot(point) + offset) * square - value * other.dot(normal)
            # a class may also equal the two on their whole tie, to which its own is then parallel
            parallel = other.dot(normal) ** 2 == other.square() * square
            if room < 0 or (room == 0 and not parallel):
                return False
    for n, a, (lo, hi) in zip(point.numbers(), normal.numbers(), head.limits(), strict=True):
        if lo is not None and lo == hi:
            if n != lo:
                return False
            continue
        x = n * square - value * a
        rooms = [x - lo * square] if lo is not None else []
        rooms += [hi * square - x] if hi is not None else []
        # a tie of this feature alone may be a face of the domain: it is then on the face
        least = min(rooms, default=square)
        if least < 0 or (least == 0 and a * a != square):
            return False
    return True


def _two_classes(claim: Claim, read: Callable[[object, str], int]) -> tuple[int, int]:
    values = listed(claim["classes"], "classes")
    if len(values) != 2:
        raise Malformed("classes: wanted two")
    i, j = (read(value, "classes") for value in values)
    return i, j


def _weighted(
    problem: Problem, numbers: object, weights: object, members: Sequence[int]
) -> tuple[Vector, Fraction]:
    support = [index(n, "support", len(problem.generators)) for n in listed(numbers, "support")]
    given = vector(weights, "weights", len(support)).numbers()
    if not set(support) <= set(members) or any(w < 0 for w in given) or sum(given) <= 0:
        raise Malformed("weights: wanted numbers of at least 0, not all 0, of these generators")
    return hull_point([problem.generators[n] for n in support], given)


def check_projection(problem: Problem, claim: Claim) -> bool:
    """Check both bounds of the distance of a row to the hull of all generators."""
    row, everything = problem.row(claim), range(len(problem.generators))
    point, total = _weighted(problem, claim["support"], claim["weights"], everything)
    if not _within(claim, row.times(total).minus(point), total):
        return False
    return _beyond(problem, claim, everything, [row])


def check_separation(problem: Problem, claim: Claim) -> bool:
    """Check both bounds of the distance between the hulls of two classes."""
    i, j = _two_classes(claim, whole)
    if i == j:
        raise Malformed("classes: wanted two different ones")
    sides = [problem.members(i), problem.members(j)]
    supports, weights = (pair(claim[name], name) for name in ("support", "weights"))
    (one, s), (other, t) = (
        _weighted(problem, *side) for side in zip(supports, weights, sides, strict=True)
    )
    if not _within(claim, other.times(s).minus(one.times(t)), s * t):
        return False
    return _beyond(problem, claim, sides[0], [problem.generators[n] for n in sides[1]])


def _within(claim: Claim, difference: Vector, scale: Fraction) -> bool:
    """Return whether the length of a vector, divided by `scale`, is at most `upper`."""
    upper = number(claim["upper"], "upper")
    return upper >= 0 and difference.square() <= (upper * scale) ** 2


def _beyond(problem: Problem, claim: Claim, members: Sequence[int], points: list[Vector]) -> bool:
    """Return whether all points are `lower` farther along the normal than these generators."""
    lower = number(claim["lower"], "lower")
    if lower <= 0:
        return True
    normal = vector(claim["normal"], "normal", problem.width)
    highest = max(normal.dot(problem.generators[n]) for n in members)
    gap = min(normal.dot(point) for point in points) - highest
    return gap > 0 and lower * lower * normal.square() <= gap * gap


CHECKS: dict[str, Callable[[Problem, dict[str, object]], bool]] = {
    "flip": check_flip,
    "unreachable": check_unreachable,
    "tie": check_tie,
    "ball": check_ball,
    "box": check_box,
    "region": check_region,
    "facet": check_facet,
    "projection": check_projection,
    "separation": check_separation,
}


def fault(problem: Problem, claim: object) -> str | None:
    """Return why a claim does not hold, or None if it does."""
    try:
        fields = mapping(claim, "claim", ("kind",))
        check = CHECKS.get(fields["kind"]) if isinstance(fields["kind"], str) else None
        if check is None:
            raise Malformed(f"unknown kind {str(fields['kind'])[:40]!r}")
        return None if check(problem, fields) else "it is not proved"
    except KeyError as missing:
        return f"malformed: {missing} is missing"
    except Malformed as reason:
        return f"malformed: {reason}"


# --- reading


_HEX = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}")


def number(value: object, name: str) -> Fraction:
    """Return a finite float in hexadecimal, exactly."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise Malformed(f"{name}: wanted a float in hexadecimal, got {str(value)[:40]!r}")
    try:
        found = float.fromhex(value)
    except OverflowError:
        raise Malformed(f"{name}: {value} is no float") from None
    if found.hex() != value:  # rounded while it was read
        raise Malformed(f"{name}: {value} is no float")
    return Fraction(found)


def whole(value: object, name: str) -> int:
    """Return an integer."""
    if type(value) is not int:
        raise Malformed(f"{name}: wanted an integer, got {str(value)[:40]!r}")
    return value


def index(value: object, name: str, count: int) -> int:
    """Return an integer from 0 to `count` - 1."""
    if not 0 <= whole(value, name) < count:
        raise Malformed(f"{name}: {value} is not between 0 and {count - 1}")
    return whole(value, name)


def listed(value: object, name: str) -> list[object]:
    """Return a list."""
    if not isinstance(value, list):
        raise Malformed(f"{name}: wanted a list")
    return value


def pair(value: object, name: str) -> list[object]:
    """Return a list of two."""
    if len(listed(value, name)) != 2:
        raise Malformed(f"{name}: wanted a list of two")
    return listed(value, name)


def vector(value: object, name: str, length: int | None = None) -> Vector:
    """Return a list of floats, of that length."""
    numbers = listed(value, name)
    if length is not None and len(numbers) != length:
        raise Malformed(f"{name}: wanted {length} numbers, got {len(numbers)}")
    return Vector(number(n, name) for n in numbers)


def matrix(value: object, name: str) -> list[Vector]:
    """Return rows of floats, of one length, at least one of each."""
    rows = [vector(row, name) for row in listed(value, name)]
    if not rows or len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise Malformed(f"{name}: wanted rows of one length, at least one")
    return rows


def limits(value: object, name: str, length: int, none: str) -> list[Limit]:
    """Return limits, of which `none` stands for no limit."""
    numbers = listed(value, name)
    if len(numbers) != length:
        raise Malformed(f"{name}: wanted {length} numbers, got {len(numbers)}")
    return [None if n == none else number(n, name) for n in numbers]


def mapping(value: object, name: str, keys: tuple[str, ...]) -> dict[str, object]:
    """Return an object with these keys."""
    if not isinstance(value, dict) or not set(keys) <= set(value):
        raise Malformed(f"{name}: wanted an object with {', '.join(keys)}")
    return value


def digest(data: dict[str, object]) -> str:
    """Return the SHA-256 of everything in a file but this digest."""
    rest = {key: value for key, value in data.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("a key stands twice")
    return found


def read(path: str) -> dict[str, object]:
    """Return the content of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file, object_pairs_hook=_each_key_once)
    except (OSError, ValueError, RecursionError) as error:
        raise Malformed(f"not readable as JSON: {error}") from None
    data = mapping(data, "the file", ("format", "version", "claims", "sha256"))
    if (data["format"], data["version"]) != (FORMAT, VERSION):
        raise Malformed(f"wanted {FORMAT!r}, version {VERSION}")
    return data


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file named on the command line, and print what holds."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("usage: python verify.py certificates.json", file=sys.stderr)
        return 2
    try:
        data = read(arguments[0])
        problem = Problem(data)
        claims = listed(data["claims"], "claims")
    except Malformed as reason:
        print(f"{arguments[0]}: {reason}", file=sys.stderr)
        return 2
    unchanged = digest(data) == data["sha256"]
    print(f"{problem}, {len(claims)} claims")
    print(f"digest: {'as written' if unchanged else 'ANOTHER: the file was changed'}")
    counts: dict[str, list[int]] = {}
    for position, claim in enumerate(claims):
        failure = fault(problem, claim)
        kind = str(claim.get("kind"))[:40] if isinstance(claim, dict) else "?"
        count = counts.setdefault(kind, [0, 0])
        count[failure is None] += 1
        if failure is not None:
            print(f"DOES NOT HOLD: claim {position} ({kind}): {failure}")
    for kind, (failed, held) in counts.items():
        print(f"{kind}: {held} of {failed + held} hold. {SAYS.get(kind, '')}".rstrip())
    return 0 if unchanged and claims and not any(failed for failed, _ in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
