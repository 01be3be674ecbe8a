"""Plugins of every kind that are correct, except for one thing that they do."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary import plugins
from fsboundary.plugins.grading import extractors, flips, hulls, images
from fsboundary.plugins.registry import info
from support.pixels.models import Linear, pictures

Change = Callable[[Any], Any]


def same(answer: Any) -> Any:
    return answer


class Hostile:
    """A correct plugin, except for what it does to its inputs before and to its answer after."""

    def __init__(self, change: Change = same, spoil: Callable[..., object] = dict) -> None:
        self.change, self.spoil = change, spoil


class Finder(Hostile, fsb.BoundaryFinder):
    def find(self, head, features, *, targets, **options):
        inner = plugins.create("boundary_finder", "dual_newton")
        answer = inner.find(head, features, targets=targets, **options)
        self.spoil(head=head, features=features, targets=targets)
        return self.change(answer)


class AnyHeadFinder(Hostile, fsb.BoundaryFinder):
    def find(self, head, features, *, targets, **options):
        inner = plugins.create("boundary_finder", "linearised", capability=info.NONLINEAR_HEAD)
        answer = inner.find(head, features, targets=targets, **options)
        self.spoil(head=head, features=features, targets=targets)
        return self.change(answer)


class Solver(Hostile, fsb.HullSolver):
    def prepare(self, points):
        self.points = points
        return plugins.create("hull_solver", "active_set").prepare(points)

    def project(self, state, queries, *, exclude=None, **options):
        inner = plugins.create("hull_solver", "active_set")
        answer = inner.project(state, queries, exclude=exclude, **options)
        self.spoil(points=self.points, state=state, queries=queries, exclude=exclude)
        return self.change(answer)


class ImageFinder(Hostile, fsb.ImageBoundaryFinder):
    def find(self, view, images, *, targets, **options):
        inner = plugins.create("boundary_finder", "line_search", capability=info.PIXELS)
        answer = inner.find(view, images, targets=targets, **options)
        self.spoil(view=view, images=images, targets=targets)
        return self.change(answer)


@dataclass
class Features:
    """The answer of an extractor, with names."""

    features: Any
    logits: Any


class Extractor(Hostile, fsb.FeatureExtractor):
    def features(self, model, images, *additional):
        features = model.body(images.flatten(1))
        answer = Features(features, model.head(features))
        self.spoil(model=model, images=images)
        answer = self.change(answer)
        return (answer.features, answer.logits) if isinstance(answer, Features) else answer

    def head(self, model):
        return fsb.LinearHead(model.head.weight, model.head.bias)


def cloud(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


WEIGHT, BIAS, ROWS = cloud(5, 4), cloud(5, seed=1), cloud(6, 4, seed=2)
POINTS, QUERIES = cloud(40, 3, seed=3), 2 * cloud(5, 3, seed=4)
IMAGES = pictures(4, 1, 4, 4)


class Given:
    """The user's own objects, new ones for every test."""

    def __init__(self) -> None:
        self.head, self.rows = fsb.LinearHead(WEIGHT, BIAS), ROWS.clone()
        self.bank, self.queries = fsb.FeatureBank(POINTS), QUERIES.clone()
        self.left_out, self.model = torch.arange(5), Linear()
        self.images = IMAGES.clone()

    def require_unchanged(self) -> None:
        """Require that every object is as it was."""
        fresh = Given()
        for name in ("rows", "queries", "left_out", "images"):
            assert torch.equal(getattr(self, name), getattr(fresh, name)), name
        assert torch.equal(self.head.weight, WEIGHT)
        assert torch.equal(self.head.bias, BIAS)
        assert torch.equal(self.bank.features, POINTS)
        for name, value in self.model.state_dict().items():
            assert torch.equal(value, fresh.model.state_dict()[name]), name


@dataclass(frozen=True)
class Kind:
    """One kind of plugin: how it is called, and which fields of its answers are read."""

    plugin: type[Hostile]
    label: str
    call: Callable[[Given, Any], Any]
    floats: tuple[str, ...]
    integers: tuple[str, ...] = ()
    ragged: tuple[str, ...] = ()
    grade: tuple[Any, str] = (None, "")


KINDS = {
    "finder": Kind(
        Finder,
        "boundary finder Finder",
        lambda given, plugin: fsb.flip_points(given.head, given.rows, "all", finder=plugin),
        floats=("points", "multipliers"),
        integers=("active", "steps"),
        ragged=("active", "multipliers"),
        grade=(flips, "grade_flips"),
    ),
    "finder of any head": Kind(
        AnyHeadFinder,
        "boundary finder AnyHeadFinder",
        lambda given, plugin: fsb.flip_points(
            given.model.head, cloud(3, 10, seed=5), torch.full((3,), 2), finder=plugin
        ),
        floats=("points", "multipliers"),
        integers=("active", "steps"),
        ragged=("active", "multipliers"),
        grade=(flips, "_grade"),
    ),
    "solver": Kind(
        Solver,
        "hull solver Solver",
        lambda given, plugin: fsb.hull_projection(
            given.bank, given.queries, leave_out=given.left_out, solver=plugin
        ),
        floats=("weights",),
        integers=("support", "steps"),
        ragged=("support", "weights"),
        grade=(hulls, "grade_hulls"),
    ),
    "image finder": Kind(
        ImageFinder,
        "image boundary finder ImageFinder",
        lambda given, plugin: fsb.pixels.flip_images(given.model, given.images, finder=plugin),
        floats=("images",),
        integers=("num_backwards", "num_forwards"),
        grade=(images, "_grade"),
    ),
    "extractor": Kind(
        Extractor,
        "feature extractor Extractor",
        lambda given, plugin: fsb.FeatureSpace(given.model, extractor=plugin).extract(given.images),
        floats=("features", "logits"),
        grade=(extractors, "logit_tolerance"),
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@functools.cache
def honest(label: str) -> dict[str, Any]:
    """Return the answer with an honest plugin of the kind called `label`."""
    kind = next(k for k in KINDS.values() if k.label == label)
    return dict(kind.call(Given(), kind.plugin()).to_dict())


def require_honest(kind: Kind, result: Any) -> None:
    """Require that `result` is that of an honest plugin, in tensors of torch's own class."""
    for name, value in result.to_dict().items():
        want = honest(kind.label)[name]
        if isinstance(want, Tensor):
            assert type(value) is Tensor, name
            assert torch.equal(value.nan_to_num(nan=-7.0), want.nan_to_num(nan=-7.0)), name


def replaced(field: str, value: Change) -> Change:
    """Return a change of one field of an answer, which is shared with nothing."""

    def change(answer: Any) -> Any:
        answer = copy.copy(answer)
        object.__setattr__(answer, field, value(getattr(answer, field)))
        return answer

    return change
