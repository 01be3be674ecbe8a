"""Comparisons of attributions and of models, and their tables as columns."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fsboundary.core.errors import ArgumentError
from fsboundary.core.files import write_file
from fsboundary.core.results.base import Result
from fsboundary.core.results.base.frames import Columns, data_frame
from fsboundary.core.status import Status

TableName = Literal["pairs", "reference", "images", "curves", "crossings"]
Axes: TypeAlias = Mapping[str, Sequence[Any]]


def columns(comparison: Comparison, table: TableName) -> Columns:
    """Return the columns of `table` by name, all of the same length.

    Raises
    ------
    ArgumentError
        No such table.
    """
    if table not in _TABLES:
        wanted = " or ".join(map(repr, _TABLES))
        raise ArgumentError("table", repr(table), wanted, "leave it out for the pairs")
    return _TABLES[table](comparison)


def write_csv(table: Columns, path: str | PathLike[str]) -> None:
    """Write `table` as CSV with a header line; NaN becomes an empty field."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in row])
    write_file(path, stream.getvalue().encode("utf-8", "backslashreplace"))


def _table(axes: Axes, values: dict[str, Tensor]) -> Columns:
    """Return one row per entry of the `values`, labelled by its position on the `axes`."""
    grid = torch.cartesian_prod(*(torch.arange(len(labels)) for labels in axes.values()))
    indices = grid.reshape(-1, len(axes)).T.tolist()
    positions = zip(axes.items(), indices, strict=True)
    table = {name: [labels[i] for i in index] for (name, labels), index in positions}
    return table | {name: value.reshape(-1).tolist() for name, value in values.items()}


def _pairs(c: Comparison) -> Columns:
    axes: Axes = {"metric": c.metrics, "method": c.methods, "other": c.methods}
    return _table(axes, {"mean": c.mean, "ci_low": c.ci_low, "ci_high": c.ci_high})


def _reference(c: Comparison) -> Columns:
    if not c.reference:
        got, wanted = "a comparison without a reference", "one of the methods as reference"
        fix = "call compare with reference= the name of one of the attributions"
        raise ArgumentError("table='reference'", got, wanted, fix)
    index = c.methods.index(c.reference)
    axes: Axes = {"metric": c.metrics, "method": c.methods}
    values = {"mean": c.mean, "ci_low": c.ci_low, "ci_high": c.ci_high}
    return _table(axes, {name: value[:, index] for name, value in values.items()})


def _images(c: Comparison) -> Columns:
    images = range(c.per_image.shape[1])
    axes: Axes = {"metric": c.metrics, "image": images, "method": c.methods, "other": c.methods}
    return _table(axes, {"value": c.per_image})


def _curves(c: Comparison) -> Columns:
    images = range(c.status.shape[1])
    parts = []
    for name, positions, values in (
        ("deletion", c.fraction_perturbed, c.deletion),
        ("reach", c.path_position, c.reach),
    ):
        axes: Axes = {
            "curve": [name],
            "method": c.methods,
            "image": images,
            "position": positions.tolist(),
        }
        parts.append(_table(axes, {"margin": values}))
    return {name: parts[0][name] + parts[1][name] for name in parts[0]}


def _crossings(c: Comparison) -> Columns:
    axes: Axes = {"method": c.methods, "image": range(c.status.shape[1])}
    distance = c.flip_distance.expand_as(c.crossing)
    table = _table(axes, {"crossing": c.crossing, "flip_distance": distance})
    return table | {"status": [Status(code).name for code in c.status.reshape(-1).tolist()]}


_TABLES: dict[str, Callable[[Comparison], Columns]] = {
    "pairs": _pairs,
    "reference": _reference,
    "images": _images,
    "curves": _curves,
    "crossings": _crossings,
}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """Agreement of M attributions of the same B images by Q metrics, and their behaviour.

    Rows are images: an index leaves means and intervals as they are, those of all images.

    Attributes
    ----------
    methods : tuple of str
        Names of the M attributions.
    metrics : tuple of str
        Names of the Q metrics.
    reference : str
        Attribution with which the others are compared; "" where it is not among `methods`.
    mean : Tensor (Q, M, M), float64
        Mean of ``per_image`` over the images that have a value; NaN where none has.
    ci_low, ci_high : Tensor (Q, M, M), float64
        Limits of the bootstrap confidence interval of ``mean`` over the images.
    per_image : Tensor (Q, B, M, M), float64
        Metrics of each image, symmetric in the attributions. NaN where a metric has no value for an
        image.
    deletion : Tensor (M, B, T), float64
        Margin of the image's own class, divided by the margin of the original image, after the
        pixels with the largest attributions in absolute value were replaced by the baselines. 1 at
        the start; negative where the class has changed.
    reach : Tensor (M, B, T), float64
        Same quotient along the line in the direction of the attribution, with the sign for which
        the boundary is nearer or, without a crossing, the final margin is smaller.
    fraction_perturbed : Tensor (T,), float64
        Fraction of the pixels replaced at each step of ``deletion``.
    path_position : Tensor (T,), float64
        Distance of each step of ``reach`` from the image, in units of ``flip_distance``.
    crossing : Tensor (M, B), float64
        Distance at which ``reach`` first meets the boundary, in units of ``flip_distance``: 1 is as
        near as the flip image. +inf where it does not within the last ``path_position``.
    flip_distance : Tensor (B,), float64
        Distance of the flip image in pixel units; NaN where there is none, in which case ``reach``
        and ``crossing`` are NaN too.
    status : Tensor (M, B)
        CONVERGED; NOT_FINITE where the image or the attribution contains NaN or infinite values;
        DEGENERATE where all entries of the attribution are equal or the image has no margin;
        INACCURATE where only the flip image is missing. Unless CONVERGED, everything except
        ``per_image`` is NaN; INACCURATE entries keep their ``deletion``.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> from captum.attr import InputXGradient, Saliency
    >>> methods = {"saliency": Saliency, "product": InputXGradient}
    >>> maps = fsb.attr.attribute_methods(space, images, methods)
    >>> found = fsb.attr.compare(images, maps, metrics=["cosine"], resamples=9)
    >>> found.to_pandas().columns.tolist()
    ['metric', 'method', 'other', 'mean', 'ci_low', 'ci_high']
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    reference: str
    mean: Float64[Tensor, "Q M M"]
    ci_low: Float64[Tensor, "Q M M"]
    ci_high: Float64[Tensor, "Q M M"]
    per_image: Float64[Tensor, "Q B M M"]
    deletion: Float64[Tensor, "M B T"]
    reach: Float64[Tensor, "M B T"]
    fraction_perturbed: Float64[Tensor, " T"]
    path_position: Float64[Tensor, " T"]
    crossing: Float64[Tensor, "M B"]
    flip_distance: Float64[Tensor, " B"]
    status: Int[Tensor, "M B"]

    _ROWS: ClassVar[str] = "B"

    def to_pandas(self, table: TableName = "pairs") -> Any:
        """Return a table as a ``pandas.DataFrame``.

        Parameters
        ----------
        table : str
            Name of the table, with these columns. "pairs": metric, method, other, mean, ci_low,
            ci_high. "reference": metric, method, mean, ci_low, ci_high, each method against the
            reference. "images": metric, image, method, other, value. "curves": curve, method,
            image, position, margin. "crossings": method, image, crossing, flip_distance, status.

        Raises
        ------
        ArgumentError
            No such table, or no reference.
        ImportError
            pandas is not installed.
        """
        return data_frame(columns(self, table), "; to_csv does not need it")

    def to_csv(self, path: str | PathLike[str], table: TableName = "pairs") -> None:
        """Write a table of :meth:`to_pandas` to the file `path`; missing values are empty.

        A file at this path is replaced once the table is complete.

        Raises
        ------
        ArgumentError
            No such table, or no reference.
        DataError
            The file could not be written; what was there is unchanged.
        """
        write_csv(columns(self, table), path)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ModelComparison(Result):
    """Predictions and distances of M models on the same B images, and their neighbouring classes.

    Rows are images: an index leaves curves, intervals and neighbours as they are, those of all
    images. The first model is the one with which the others are compared.

    Attributes
    ----------
    names : tuple of str
        Names of the M models.
    quantity, unit : str
        What ``distance`` is.
    labels : Tensor (B,)
        Label of each image; -1 for none.
    predicted : Tensor (M, B)
        Predicted classes; -1 where an image failed.
    distance : Tensor (M, B), float64
        Distance or radius of each image; NaN where it has none.
    accuracy : Tensor (M,), float64
        Fraction of the labelled images that are predicted right; NaN without labels. An image
        that failed counts as wrong.
    accuracy_interval : Tensor (M, 2), float64
        95 % Wilson interval of ``accuracy``, for images that are a random sample.
    radii : Tensor (R,), float64
        Radii of the curves.
    share : Tensor (M, R), float64
        Fraction of the images with a distance whose distance exceeds the radius.
    share_interval : Tensor (M, R, 2), float64
        95 % Wilson interval of ``share``, at any single radius.
    robust_accuracy : Tensor (M, R), float64
        Fraction of the labelled images that are predicted right and whose distance exceeds the
        radius; images that are predicted right and have no distance are left out. NaN without
        labels.
    robust_interval : Tensor (M, R, 2), float64
        95 % Wilson interval of ``robust_accuracy``, at any single radius.
    median_ratio : Tensor (M,), float64
        Median over the images of the distance divided by that of the first model; images without a
        ratio are left out.
    ratio_interval : Tensor (M, 2), float64
        95 % confidence interval of that median from its order statistics; NaN for an end that too
        few images determine.
    num_ratios : Tensor (M,)
        Number of images with a ratio.
    neighbours : Tensor (M, K, K)
        1 where two classes are proved to share a facet, -1 where they are proved not to, 0 where
        that is not known, and on the diagonal.
    status : Tensor (M, B)
        Status of each distance.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    >>> spaces = {"before": fsb.FeatureSpace(model), "after": fsb.FeatureSpace(other)}
    >>> found = fsb.compare_models(spaces, torch.rand(8, 1, 4, 4))
    >>> found.predicted.shape, found.median_ratio[0].item()
    (torch.Size([2, 8]), 1.0)
    """

    names: tuple[str, ...]
    quantity: str
    unit: str
    labels: Int[Tensor, " B"]
    predicted: Int[Tensor, "M B"]
    distance: Float64[Tensor, "M B"]
    accuracy: Float64[Tensor, " M"]
    accuracy_interval: Float64[Tensor, "M 2"]
    radii: Float64[Tensor, " R"]
    share: Float64[Tensor, "M R"]
    share_interval: Float64[Tensor, "M R 2"]
    robust_accuracy: Float64[Tensor, "M R"]
    robust_interval: Float64[Tensor, "M R 2"]
    median_ratio: Float64[Tensor, " M"]
    ratio_interval: Float64[Tensor, "M 2"]
    num_ratios: Int[Tensor, " M"]
    neighbours: Int[Tensor, "M K K"]
    status: Int[Tensor, "M B"]

    _ROWS: ClassVar[str] = "B"
    _AXES: ClassVar[tuple[str, ...]] = ("model", "image")

    def changed(self, first: str, second: str) -> Int[Tensor, " C"]:
        """Return the images that two models predict differently, ascending.

        Images that failed in one of the models are left out.

        Raises
        ------
        ArgumentError
            No such model.
        """
        a, b = (self.predicted[self._model(name)] for name in (first, second))
        return ((a != b) & (a >= 0) & (b >= 0)).nonzero()[:, 0]

    def gained(self, first: str, second: str) -> Int[Tensor, "P 2"]:
        """Return the pairs of classes, i < j, proved neighbours of the second model only.

        Pairs that are not decided in one of the models are left out. With the names exchanged
        these are the neighbours that were lost.

        Raises
        ------
        ArgumentError
            No such model.
        """
        a, b = (self.neighbours[self._model(name)] for name in (first, second))
        return ((a == -1) & (b == 1)).triu(1).nonzero()

    def distances(self) -> dict[str, Float64[Tensor, " B"]]:
        """Return the distances by model, as :func:`fsboundary.plot.robustness_curve` takes them."""
        return dict(zip(self.names, self.distance, strict=True))

    def _model(self, name: str) -> int:
        if name not in self.names:
            wanted = f"one of {', '.join(map(repr, self.names))}"
            raise ArgumentError("model", repr(name), wanted, "pass a name of the comparison")
        return self.names.index(name)
