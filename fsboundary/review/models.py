"""Comparison of models: which is more robust, and which images and classes changed sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from scipy.stats import quantile_test
from torch import Tensor

from fsboundary.core.checks import (
    check_float_tensor,
    check_instance,
    check_integer,
    check_labels,
    describe,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import ModelComparison, Partition, Result
from fsboundary.core.rows import TensorOrArray
from fsboundary.core.status import Status
from fsboundary.modes import in_standard_modes
from fsboundary.plot.values import RowValues, median, row_values
from fsboundary.regions import partition
from fsboundary.scores import pixel_margin
from fsboundary.scores.set_scores import wilson_interval
from fsboundary.space import FeatureSpace

_T = TypeVar("_T")

MAX_CLASSES = 30
"""Heads of more classes are not partitioned unasked: that takes minutes to hours."""

STEPS = 64
"""Number of equal steps of the default radii."""


@in_standard_modes
def compare_models(
    spaces: Mapping[str, FeatureSpace],
    images: Float[TensorOrArray, "B ..."],
    labels: Int[TensorOrArray, " B"] | Sequence[int] | None = None,
    *,
    distances: Mapping[str, Result | TensorOrArray] | None = None,
    partitions: Mapping[str, Partition] | None = None,
    radii: Float[TensorOrArray, " R"] | Sequence[float] | None = None,
    batch_size: int = 64,
) -> ModelComparison:
    """Compare models on the same images: two of them, or the checkpoints of a training.

    Models are compared in pixels, because a unit of length in feature space is another one in each
    model: flip distances of different models rank them wrongly. By default the distance of an
    image is its pixel margin (:func:`fsboundary.scores.pixel_margin`), a first-order estimate and
    no certificate. For certified curves pass results of :func:`fsboundary.pixels.certify`, which
    are lower bounds, or of :func:`fsboundary.pixels.flip_images`, which are upper bounds.

    Parameters
    ----------
    spaces : mapping of str to FeatureSpace
        One or more models by name, with the same classes in the same order. The first is the one
        that the others are compared with.
    images : Tensor or array (B, ...)
        Inputs of all models, floating point.
    labels : Tensor, array or list (B,), optional
        Class of each image, -1 for none.
    distances : mapping of str to result, Tensor or array (B,), optional
        Distance per image of each model, of one kind and unit; computed by default.
    partitions : mapping of str to Partition, optional
        Results of :func:`fsboundary.partition` for each model, or for some. By default, heads of at
        most 30 classes are partitioned.
    radii : Tensor, array or list (R,), optional
        Radii of the curves, ascending; by default 65 from 0 to the largest finite distance.
    batch_size : int
        Number of images per forward pass.

    Returns
    -------
    ModelComparison

    Raises
    ------
    ArgumentError
        Wrong types or shapes; models of different numbers of classes; distances of different
        units.
    HeadError
        As for :meth:`fsboundary.FeatureSpace.extract`.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> doubled = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> spaces = {"before": fsb.FeatureSpace(model), "after": fsb.FeatureSpace(doubled)}
    >>> found = fsb.compare_models(spaces, torch.rand(8, 1, 4, 4), torch.zeros(8).long())
    >>> found.names, found.share.shape
    (('before', 'after'), torch.Size([2, 65]))
    """
    given_spaces = _check_names("spaces", spaces, FeatureSpace, "pass {'a': FeatureSpace(model)}")
    names = tuple(given_spaces)
    fix = "pass images as the models take them; one image needs [None]"
    pixels = check_float_tensor("images", images, ("B", ...), fix=fix, nonempty=True)
    rows = len(pixels)
    check_integer("batch_size", batch_size)
    none = torch.full((rows,), -1)
    given_labels = none if labels is None else check_labels(labels, rows).cpu()
    given = _check_distances(distances, names, rows)
    fix = "pass partition(space.head) of some models, or leave it out"
    found = {}
    if partitions is not None:
        found = _check_names("partitions", partitions, Partition, fix, names)
    limits = _check_radii(radii)
    classes = _count_classes(given_spaces, pixels[:1])
    check_labels(given_labels, rows, num_classes=classes)
    for name, one in found.items():
        if len(one) != classes:
            got, wanted = f"a partition of {len(one)} classes", f"one of {classes} classes"
            fix = f"pass partition(spaces[{name!r}].head)"
            raise ArgumentError(f"partitions[{name!r}]", got, wanted, fix)
    predicted, values = [], []
    for name in names:
        labels_of, margins = _measure(given_spaces[name], pixels, name not in given, batch_size)
        predicted.append(labels_of)
        values.append(given[name] if margins is None else margins)
        if name not in found and classes <= MAX_CLASSES:
            found[name] = partition(given_spaces[name].head)
    tables = [_neighbours(found.get(name), classes) for name in names]
    return _compare(
        names, given_labels, torch.stack(predicted), values, torch.stack(tables), limits
    ).to(pixels.device)


def _check_names(
    name: str, value: object, kind: type[_T], fix: str, among: Sequence[str] = ()
) -> dict[str, _T]:
    """Return the mapping `value` of names, `among` these if there are any, or raise."""
    wanted = f"a mapping of names to {kind.__name__}"
    given = check_instance(name, value, Mapping, wanted, fix)
    if not given and not among:
        raise ArgumentError(name, "an empty mapping", wanted, fix)
    for key, one in given.items():
        check_instance(name, key, str, "names as text", fix)
        if among and key not in among:
            wanted = f"names of spaces: {', '.join(map(repr, among))}"
            raise ArgumentError(name, repr(key), wanted, "name the models alike")
        check_instance(f"{name}[{key!r}]", one, kind, f"a {kind.__name__}", fix)
    return dict(given)


def _check_distances(distances: object, names: Sequence[str], rows: int) -> dict[str, RowValues]:
    """Return the given distances of all models, none if they are to be computed, or raise."""
    if distances is None:
        return {}
    fix = "pass one result per model, or leave it out"
    given = _check_names("distances", distances, object, fix, names)
    if missing := [name for name in names if name not in given]:
        got = f"no distances of {', '.join(map(repr, missing))}"
        raise ArgumentError("distances", got, "one result per model", fix)
    found = {name: row_values(f"distances[{name!r}]", one) for name, one in given.items()}
    for name, one in found.items():
        if len(one.value) != rows:
            got, wanted = f"{len(one.value)} distances", f"one per image, {rows}"
            raise ArgumentError(f"distances[{name!r}]", got, wanted, "pass those of these images")
    kinds = {one.label for one in found.values()}
    if len(kinds) > 1:
        got, wanted = " and ".join(sorted(kinds)), "distances of one kind and unit"
        raise ArgumentError("distances", got, wanted, "compare like with like")
    return found


def _check_radii(radii: object) -> Tensor | None:
    """Return the radii on the CPU, or raise ArgumentError."""
    if radii is None:
        return None
    fix = "pass radii such as [0.0, 0.1, 0.2]"
    found = check_float_tensor(
        "radii", torch.tensor(radii) if isinstance(radii, list | tuple) else radii, ("R",), fix=fix
    ).to("cpu", torch.float64)
    if not len(found) or not bool((found >= 0).all() and (found.diff() > 0).all()):
        raise ArgumentError("radii", describe(radii), "ascending numbers from 0", fix)
    return found


def _count_classes(spaces: dict[str, FeatureSpace], example: Tensor) -> int:
    """Return the number of classes of all models, or raise ArgumentError."""
    counts = {}
    for name, space in spaces.items():
        space.extract(example)  # the head of a model may be known only after an example
        counts[name] = space.head.num_classes
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name!r} has {count} classes" for name, count in counts.items())
        fix = "compare models of the same classes in the same order"
        raise ArgumentError("spaces", got, "models of equally many classes", fix)
    return next(iter(counts.values()))


def _measure(
    space: FeatureSpace, pixels: Tensor, margins: bool, batch_size: int
) -> tuple[Tensor, RowValues | None]:
    """Return the predicted classes (B,) and, if asked for, the pixel margins, on the CPU."""
    if not margins:
        return space.extract(pixels, batch_size=batch_size).predicted.cpu(), None
    scores = pixel_margin(space, pixels, batch_size=batch_size)
    values = RowValues(
        value=scores.value.cpu(),
        status=scores.status.cpu(),
        quantity="pixel margin (first order)",
        unit="pixel units",
    )
    return scores.label.cpu(), values


def _compare(
    names: tuple[str, ...],
    labels: Tensor,
    predicted: Tensor,
    values: Sequence[RowValues],
    neighbours: Tensor,
    radii: Tensor | None,
) -> ModelComparison:
    """Return the comparison of what was measured."""
    distance = torch.stack([one.value for one in values])
    if radii is None:
        finite = distance[distance.isfinite()]
        top = float(finite.max()) if len(finite) else 0.0
        radii = torch.linspace(0.0, top, STEPS + 1, dtype=torch.float64)
    known = ~distance.isnan()
    above = known[:, :, None] & (distance[:, :, None] > radii)
    right = (predicted == labels) & (labels >= 0)
    counted = (labels >= 0) & (known | ~right)
    labelled = torch.full((len(names),), int((labels >= 0).sum()))
    accuracy = _fractions(right.sum(dim=1)[:, None], labelled)
    share = _fractions(above.sum(dim=1), known.sum(dim=1))
    robust = _fractions((above & right[:, :, None]).sum(dim=1), counted.sum(dim=1))
    ratios = [row[~row.isnan()] for row in distance / distance[0]]
    intervals = [_median_interval(row) for row in ratios]
    return ModelComparison(
        names=names,
        quantity=values[0].quantity,
        unit=values[0].unit,
        labels=labels,
        predicted=predicted,
        distance=distance,
        accuracy=accuracy[0][:, 0],
        accuracy_interval=accuracy[1][:, 0],
        radii=radii,
        share=share[0],
        share_interval=share[1],
        robust_accuracy=robust[0],
        robust_interval=robust[1],
        median_ratio=torch.tensor([median(row) for row in ratios], dtype=torch.float64),
        ratio_interval=torch.tensor(intervals, dtype=torch.float64),
        num_ratios=torch.tensor([len(row) for row in ratios]),
        neighbours=neighbours,
        status=torch.stack([one.status for one in values]),
    )


def _fractions(count: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return fractions (M,R) of counts of a total (M,), and their intervals (M,R,2)."""
    share = count.double() / total[:, None]  # NaN of none
    rows = zip(share, total.tolist(), strict=True)
    return share, torch.stack([wilson_interval(one, number) for one, number in rows])


def _median_interval(values: Tensor) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median from the order statistics (N,)."""
    if not len(values):
        return math.nan, math.nan
    # the hypothesis, that the median is 1, matters only for the p-value
    found = quantile_test(values.numpy(), q=1, p=0.5).confidence_interval(0.95)
    return float(found.low), float(found.high)


def _neighbours(found: Partition | None, classes: int) -> Tensor:
    """Return 1 for proved neighbours, -1 for classes proved to be none, else 0, (K,K)."""
    if found is None:
        return torch.zeros(classes, classes, dtype=torch.int64)
    table = found.adjacency.long() - (found.status == Status.INFEASIBLE).long()
    return table.fill_diagonal_(0).cpu()
