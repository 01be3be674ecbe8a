"""Argument checks: general ones, and those shared by functions that take a head and features."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from difflib import get_close_matches
from inspect import Parameter, Signature
from types import EllipsisType
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.heads import LinearHead, MultiLabelHead, NonlinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.rows import from_array, require_float64, scatter_rows
from fsboundary.core.status import Status

_T = TypeVar("_T")
_Word = TypeVar("_Word", bound=str)
_Choice = TypeVar("_Choice", bound="str | None")
Shape = tuple[int | str | EllipsisType, ...]
"""Sizes of a tensor: a name such as "B" stands for any size, a last ``...`` for more dimensions."""


def describe(value: object) -> str:
    """Return a short text of a wrong argument: plain values as they are, others by their type."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    name = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def distinct_texts(*values: float, digits: int = 6, kind: Literal["g", "e"] = "g") -> list[str]:
    """Return numbers as text, with as many digits as different ones need to look different.

    A message "got pixels from 0 to 1; wanted pixels from 0 to 1" helps nobody.
    """
    for count in range(digits, 18):
        texts = [f"{value:.{count}{kind}}" for value in values]
        if len(set(texts)) >= len(set(values)):
            break
    return texts


def check_instance(
    name: str, value: object, kinds: type[_T] | tuple[type[_T], ...], wanted: str, fix: str
) -> _T:
    """Return `value`, or raise ArgumentError unless it is of `kinds`; a bool is not a number."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ArgumentError(name, describe(value), wanted, fix)
    return value


def check_choice(name: str, value: object, choices: Collection[_Choice]) -> _Choice:
    """Return the one of `choices` that equals `value`, or raise ArgumentError."""
    for choice in choices:
        if value is choice or (isinstance(value, str) and value == choice):
            return choice
    wanted = f"one of {', '.join(map(repr, choices))}"
    raise ArgumentError(name, describe(value), wanted, "choose one of these")


def check_integer(
    name: str,
    value: object,
    minimum: int | None = 1,
    maximum: int | None = None,
    *,
    fix: str | None = None,
) -> int:
    """Return `value`, or raise ArgumentError unless it is an int, no bool, between the limits."""
    above = minimum is None or (isinstance(value, int) and minimum <= value)
    below = maximum is None or (isinstance(value, int) and value <= maximum)
    if not isinstance(value, int) or isinstance(value, bool) or not above or not below:
        if minimum is not None and maximum is not None:
            wanted, default = f" from {minimum} to {maximum}", f"pass {minimum} to {maximum}"
        elif minimum is not None:
            wanted, default = f", at least {minimum}", f"pass {minimum} or more"
        elif maximum is not None:
            wanted, default = f", at most {maximum}", f"pass {maximum} or less"
        else:
            wanted, default = "", "pass 0, for example"
        raise ArgumentError(name, describe(value), f"an integer{wanted}", fix or default)
    return value


def check_integers(owner: object, minimum: int = 1, **values: int) -> None:
    """Raise ArgumentError unless each of the options `values` of `owner` is an integer.

    The message names the class of `owner`.
    """
    for name, value in values.items():
        check_integer(f"{type(owner).__name__}, {name}", value, minimum, fix="leave it out")


def check_number(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    closed: Literal["neither", "low", "high"] = "neither",
    fix: str,
) -> float:
    """Return `value` as a float, or raise ArgumentError unless it is between `low` and `high`.

    Strings are refused. Everything else that converts to a float is a number, such as a NumPy
    scalar or a tensor of one element.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(cast("float", value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    inside = low < number < high
    if not (inside or (number == low and closed == "low") or (number == high and closed == "high")):
        left, right = "[" if closed == "low" else "(", "]" if closed == "high" else ")"
        # the value is printed with all its digits
        least, most, _ = distinct_texts(low, high, number)
        wanted = f"a number in {left}{least}, {most}{right}"
        if high == math.inf:
            wanted = f"a finite number, {'at least' if closed == 'low' else 'above'} {least}"
        raise ArgumentError(name, describe(value), wanted, fix)
    return number


def check_shape(
    name: str,
    value: object,
    *shapes: Shape,
    fix: str,
    nonempty: bool = False,
    wanted: str | None = None,
) -> Tensor:
    """Return `value` detached, or raise ArgumentError unless it is a tensor of one of `shapes`.

    A NumPy array is a tensor: here, and in all checks below, it becomes one.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : object
        Value of the argument.
    *shapes : tuple
        Shapes to accept; any shape without them.
    fix : str
        Instruction about every fault.
    nonempty : bool
        Whether tensors without entries are refused.
    wanted : str, optional
        Description of the tensor, by default its shapes.

    Returns
    -------
    Tensor
    """
    value = from_array(value)
    wanted = (wanted or f"a tensor {_format(shapes)}") + (", not empty" if nonempty else "")
    if not isinstance(value, Tensor):
        raise ArgumentError(name, describe(value), wanted, fix)
    fits = not shapes or any(_fits(tuple(value.shape), shape) for shape in shapes)
    if not fits or (nonempty and value.numel() == 0):
        raise ArgumentError(name, f"shape {tuple(value.shape)}", wanted, fix)
    return value.detach()


def check_float_tensor(
    name: str,
    value: object,
    *shapes: Shape,
    fix: str,
    nonempty: bool = False,
    finite_fix: str | None = None,
) -> Tensor:
    """Return `value` detached, or raise ArgumentError unless it is a float tensor of a shape.

    Parameters
    ----------
    name, value, *shapes, fix, nonempty
        As for :func:`check_shape`; the instruction about another dtype is to convert it.
    finite_fix : str, optional
        Instruction about rows with NaN or infinite numbers, which are accepted without it.

    Returns
    -------
    Tensor
    """
    value = from_array(value)
    wanted = f"a float tensor {_format(shapes)}"
    if isinstance(value, Tensor) and not value.is_floating_point():
        raise ArgumentError(name, f"dtype {value.dtype}", wanted, "call .float() or .double()")
    found = check_shape(name, value, *shapes, fix=fix, nonempty=nonempty, wanted=wanted)
    require_float64(name, found.device)
    if finite_fix is not None:
        bad = ~torch.isfinite(found).flatten(1).all(dim=1)
        if bool(bad.any()):
            got = f"NaN or infinite numbers in {_list_rows(bad.nonzero()[:, 0])}"
            raise ArgumentError(name, got, "finite numbers", finite_fix)
    return found


def check_integer_tensor(
    name: str,
    value: object,
    *shapes: Shape,
    fix: str,
    nonempty: bool = False,
    noun: str = "numbers",
    within: range | None = None,
    range_fix: str = "",
    distinct: bool = False,
    convert: bool = False,
    also: str = "",
) -> Tensor:
    """Return an int64 copy of `value`, or raise unless it is an integer tensor of a shape.

    A copy, because results keep it: what the caller writes to the argument must not reach them.

    Parameters
    ----------
    name, value, *shapes, fix, nonempty
        As for :func:`check_shape`; the instruction about another dtype is to convert it.
    noun : str
        Word for the entries: "classes" or "rows".
    within : range or None
        Entries to accept; None means all.
    range_fix : str
        Instruction about entries outside `within`; by default where counting starts.
    distinct : bool
        Whether entries that repeat along the last dimension are refused, except negative ones.
    convert : bool
        Whether a list, or whatever else converts to a tensor, is accepted too.
    also : str
        What the caller accepts besides a tensor, such as '"nearest"', for the message.

    Returns
    -------
    Tensor
    """
    wanted = f"{also} or " if also else ""
    wanted += "one integer, or " if () in shapes else ""
    wanted += "an integer tensor or list" if convert else "an integer tensor"
    wanted += f" {_format([shape for shape in shapes if shape])}" if shapes else ""
    wanted += f" of {noun} {within.start} to {within.stop - 1}" if within is not None else ""
    given = value = from_array(value)
    if convert and not isinstance(value, Tensor):
        with suppress(TypeError, ValueError, RuntimeError):
            value = torch.as_tensor(value)
            # without entries there is no dtype to refuse
            value = value if value.numel() else value.long()
    if isinstance(value, Tensor) and not is_integer(value):
        got, fix = f"dtype {value.dtype}", "call .long()"
        if not isinstance(given, Tensor | list | tuple):
            got = describe(given)
        raise ArgumentError(name, got, wanted, fix)
    found = check_shape(name, value, *shapes, fix=fix, nonempty=nonempty, wanted=wanted)
    numbers = found.to(torch.int64, copy=True)
    if found.dtype == torch.uint64 and bool((numbers < 0).any()):  # they wrapped around
        raise ArgumentError(name, "numbers of 2**63 or more", wanted, "pass int64 numbers")
    if within is not None and numbers.numel():
        low, high = int(numbers.min()), int(numbers.max())
        if not within.start <= low <= high < within.stop:
            fix = range_fix or f"count {noun} from 0"
            raise ArgumentError(name, f"{noun} from {low} to {high}", wanted, fix)
    if distinct and numbers.numel() and numbers.ndim:
        ordered = numbers.reshape(-1, numbers.shape[-1]).sort(dim=1).values
        again = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(dim=1)
        if bool(again.any()):
            row = int(again.nonzero()[0, 0])
            got = f"{numbers.reshape(ordered.shape)[row].tolist()} in row {row}"
            raise ArgumentError(name, got, "no repeats", fix)
    return numbers


def check_options(name: str, options: Collection[str], signature: Signature, owner: str) -> None:
    """Raise ArgumentError unless the keyword `options` fit the `signature` of `owner`."""
    parameters = signature.parameters.values()
    named = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    variadic = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    taken = [p.name for p in parameters if p.kind in named]
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    wanted = f"options among {', '.join(taken)}" if taken else "no options"
    unknown = sorted(set(options) - set(taken))
    if unknown and all(p.kind != Parameter.VAR_KEYWORD for p in parameters):
        got, close = ", ".join(map(repr, unknown)), get_close_matches(unknown[0], taken, n=1)
        fix = f"use {close[0]!r}, the closest name" if close else "leave it out"
        raise ArgumentError(name, f"{got} for {owner}", wanted, fix)
    missing = ", ".join(repr(one) for one in required if one not in options)
    if missing:
        raise ArgumentError(name, f"no {missing} for {owner}", wanted, f"add {missing}")


def is_integer(tensor: Tensor) -> bool:
    """Return whether `tensor` contains integers; bools are not integers."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    """Return whether `sizes` are those of `shape`."""
    if shape and shape[-1] is ...:
        shape = shape[:-1]
        if len(sizes) <= len(shape):
            return False
        sizes = sizes[: len(shape)]
    return len(sizes) == len(shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(sizes, shape, strict=True)
    )


def _format(shapes: Sequence[Shape]) -> str:
    """Return `shapes` as text: "(B,) or (B, T)"."""
    texts = []
    for shape in shapes:
        sizes = ["..." if size is ... else str(size) for size in shape]
        texts.append(f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})")
    return " or ".join(texts)


def _list_rows(rows: Tensor) -> str:
    """Return the first few row numbers as text: "rows 0, 2, 3, 4, 7 and 3 more"."""
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:5].tolist()))}{more}"


def check_head(head: object) -> None:
    """Raise ArgumentError unless `head` is a LinearHead."""
    if isinstance(head, MultiLabelHead):
        fix = (
            "call fsboundary.label_flips or fsboundary.label_balls, "
            "or pass head.label_head(k), the two classes of label k"
        )
        wanted = "a LinearHead, whose classes exclude each other"
        raise ArgumentError("head", "a MultiLabelHead", wanted, fix)
    fix = "pass space.head, or LinearHead(weight, bias, domain)"
    check_instance("head", head, LinearHead, "a LinearHead", fix)


def check_multi_label_head(head: object, of_classes: str) -> None:
    """Raise ArgumentError unless `head` is a MultiLabelHead; `of_classes` is for a LinearHead."""
    fix = "pass MultiLabelHead(weight, bias, domain)"
    if isinstance(head, LinearHead):
        fix = f"call fsboundary.{of_classes} for classes that exclude each other"
    check_instance("head", head, MultiLabelHead, "a MultiLabelHead", fix)


def batch_features(value: object) -> object:
    """Return the features of a FeatureBatch, an array as a tensor, and anything else as it is."""
    return value.features if isinstance(value, FeatureBatch) else from_array(value)


def check_features(width: int, features: object, name: str = "features") -> Tensor:
    """Return `features` (B, width) detached, as float64, or raise ArgumentError about `name`.

    A head has no fingerprint of a layer, so those of a FeatureBatch are checked by their width.
    """
    features = batch_features(features)
    fix = (
        "pass space.extract(inputs).features, of the same layer as the head or bank; "
        "a single row needs [None]"
    )
    return check_float_tensor(name, features, ("B", width), fix=fix).to(torch.float64)


def check_width(name: str, found: int | None, width: int) -> None:
    """Raise ArgumentError unless `found`, the width of a bank or domain, is `width` or None."""
    if found not in (None, width):
        fix = "make it from features of the same layer as the head"
        raise ArgumentError(name, f"width {found}", f"width {width}", fix)


NO_LABEL = -1
"""Label of a row whose class is not known. All other negative labels are refused."""


def check_single_label(name: str, labels: object) -> object:
    """Return `labels`, a tensor if they are an array, or raise if they have a column per label."""
    labels = from_array(labels)
    if isinstance(labels, Tensor) and labels.ndim == 2 and labels.shape[1] > 1:
        rows = len(labels)
        got = f"shape {tuple(labels.shape)}, one column per label (multi-label)"
        fix = (
            "labels.argmax(dim=1) gives the class if each row has exactly one; sets of labels "
            "belong to a fsboundary.MultiLabelHead, and a bank is made without them"
        )
        raise ArgumentError(name, got, f"one class per row, shape ({rows},)", fix)
    return labels


def check_labels(
    labels: object, rows: int, name: str = "labels", num_classes: int | None = None
) -> Tensor:
    """Return a copy of `labels` (rows,) as int64, or raise ArgumentError.

    Parameters
    ----------
    labels : object
        Class numbers, as an integer tensor or a list; NO_LABEL where a row has none.
    rows : int
        Number of rows.
    name : str
        Name of the argument.
    num_classes : int, optional
        Number of classes of the head, if it is known.

    Returns
    -------
    Tensor (rows,), int64
    """
    fix = "pass one class number per row, in the order of the rows"
    labels = check_single_label(name, labels)
    found = check_integer_tensor(name, labels, (rows,), fix=fix, convert=True).clone()
    if not len(found):
        return found
    low, high = int(found.min()), int(found.max())
    if low < NO_LABEL or (num_classes is not None and high >= num_classes):
        last = "" if num_classes is None else f" to {num_classes - 1}"
        wanted = f"classes 0{last or ', 1, ..'}, as the model numbers them, or -1 for no label"
        fix = "subtract 1 from labels that start at 1" if low >= 1 else "number classes from 0"
        raise ArgumentError(name, f"labels from {low} to {high}", wanted, fix)
    return found


def check_targets(
    targets: object, rows: int, num_classes: int, words: Collection[_Word], *shapes: Shape
) -> Tensor | _Word:
    """Return one of `words`, or the target classes (rows,) or of other `shapes`, or raise.

    A target of -1 is none, as the predicted class of a row that is not finite.
    """
    for word in words:
        if isinstance(targets, str) and targets == word:
            return word
    none, targets = None, from_array(targets)
    if isinstance(targets, Tensor) and is_integer(targets):
        # one row, or zeros only, may well be classes that are repeated
        columns = targets.shape == (rows, num_classes) and num_classes > 2 and rows > 1
        if columns and targets.unique().tolist() == [0, 1]:
            got = f"shape {tuple(targets.shape)} of zeros and ones (multi-label)"
            fix = "pass class numbers; sets of labels are targets of fsboundary.label_flips"
            raise ArgumentError("targets", got, "target classes", fix)
        none = targets == -1
        targets = torch.where(none, 0, targets)
    found = check_integer_tensor(
        "targets",
        targets,
        (rows,),
        *shapes,
        fix="pass torch.full((B,), k) for one class",
        noun="classes",
        within=range(num_classes),
        range_fix="count classes from 0; -1 leaves a row without a target",
        also=", ".join(f'"{word}"' for word in words),
    )
    return found if none is None else torch.where(none, -1, found)


def check_limits(
    tolerance: float | None, max_steps: int | None, default: tuple[float, int]
) -> tuple[float, int]:
    """Return the tolerance and the step limit, defaults filled in, or raise ArgumentError."""
    rtol = default[0] if tolerance is None else tolerance
    limit: object = default[1] if max_steps is None else max_steps
    limit = int(limit) if isinstance(limit, np.integer) else limit
    rtol = check_number("tolerance", rtol, 0, 1, fix=f"pass {default[0]:g}, for example")
    return rtol, check_integer("max_steps", limit, fix="leave it out")


def row_status(head: LinearHead | MultiLabelHead | NonlinearHead, z: Tensor) -> Tensor:
    """Return CONVERGED for usable rows of `z` (B,d), else NOT_FINITE or OUTSIDE_DOMAIN."""
    finite = torch.isfinite(z).all(dim=1)
    inside = head.domain.contains(z)
    status = torch.where(inside, int(Status.CONVERGED), int(Status.OUTSIDE_DOMAIN))
    return torch.where(finite, status, int(Status.NOT_FINITE))


def rows_and_sources(head: LinearHead | NonlinearHead, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the :func:`row_status` (B,) of the rows of `z` and their predicted classes (B,)."""
    status = row_status(head, z)
    finite = status != Status.NOT_FINITE
    return status, scatter_rows(head.predict(z[finite]), finite, len(z), -1)


def rows_and_labels(head: MultiLabelHead, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the status (B,) of the rows, and their labels (B,L), none where not finite."""
    status = row_status(head, z)
    predicted = torch.zeros((len(z), head.num_labels), dtype=torch.bool, device=z.device)
    finite = status != Status.NOT_FINITE
    predicted[finite] = head.predict(z[finite])
    return status, predicted
