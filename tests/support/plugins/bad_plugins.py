"""Plugins with one error each, which the suites must identify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsboundary import Domain, Status
from fsboundary.builtin.boundary_finders.dual_newton import DualNewton
from fsboundary.builtin.head_input import HeadInput
from fsboundary.builtin.hull_solvers.nnls import Nnls
from fsboundary.builtin.image_finders.ddn import DecoupledDescent
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView
from fsboundary.core.results import FlipImages, FlipPoints, HullProjection
from fsboundary.plugins.interfaces import (
    BoundaryFinder,
    FeatureExtractor,
    HullSolver,
    ImageBoundaryFinder,
)

_HULL, _FLIP, _IMAGES, _HEAD = Nnls(), DualNewton(), DecoupledDescent(), HeadInput


class Bad:
    """Base class with a repr that recreates the plugin."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Solver(Bad, HullSolver):
    """A correct hull solver, with methods that faulty ones override."""

    def prepare(self, points: Any) -> Any:
        return _HULL.prepare(points)

    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        return self.change(_HULL.project(state, queries, **options))

    def change(self, result: HullProjection) -> HullProjection:
        return result


class OffByAThousandth(Solver):
    def change(self, result: HullProjection) -> HullProjection:
        # as if it had stopped when its weights were accurate to three digits
        weights = result.weights + 1e-3 * (result.support >= 0)
        return dataclasses.replace(result, weights=weights / weights.sum(dim=1, keepdim=True))


class Liar(Solver):
    def change(self, result: HullProjection) -> HullProjection:
        nearest = torch.zeros_like(result.weights)
        nearest[:, :1] = 1.0
        return dataclasses.replace(
            result,
            weights=nearest,
            lower_bound=torch.full_like(result.lower_bound, 100.0),
            status=torch.full_like(result.status, int(Status.CONVERGED)),
        )


class NegativeWeights(Solver):
    def change(self, result: HullProjection) -> HullProjection:
        weights = result.weights.clone()
        weights[:, 0] = -1e-3
        return dataclasses.replace(result, weights=weights)


class ChangesItsInput(Solver):
    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        result = super().project(state, queries, **options)
        queries -= queries.mean()
        return result


class KeepsTheFirstPoints(Solver):
    """Caches prepared states by the number of points."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def prepare(self, points: Any) -> Any:
        return self._kept.setdefault(len(points), super().prepare(points))


class KeepsTheFirstAnswer(Solver):
    """Caches results by the number of queries."""

    def __init__(self) -> None:
        self._kept: dict[int, HullProjection] = {}

    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        if len(queries) not in self._kept:
            self._kept[len(queries)] = super().project(state, queries, **options)
        return self._kept[len(queries)]


class IgnoresExclude(Solver):
    def project(
        self, state: Any, queries: Tensor, exclude: Tensor | None = None, **options: Any
    ) -> HullProjection:
        return super().project(state, queries, **options)


class AnswersInReverse(Solver):
    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        result = super().project(state, queries, **options)
        return result.take(torch.arange(len(queries)).flip(0))


class SinglePrecision(Solver):
    def change(self, result: HullProjection) -> HullProjection:
        return dataclasses.replace(result, weights=result.weights.float())


class SetsDefaultDtype(Solver):
    def prepare(self, points: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().prepare(points)


class DrawsNumbers(Solver):
    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        torch.rand(1)
        return super().project(state, queries, **options)


class DrawsNumpyNumbers(Solver):
    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        np.random.rand()
        return super().project(state, queries, **options)


class SetsThreads(Solver):
    def prepare(self, points: Any) -> Any:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().prepare(points)


_calls = count()


class AnotherAnswerEachTime(Solver):
    def change(self, result: HullProjection) -> HullProjection:
        return dataclasses.replace(result, weights=result.weights * (1 - 1e-13 * next(_calls)))


class CannotDoWithoutRows(Solver):
    def project(self, state: Any, queries: Tensor, **options: Any) -> HullProjection:
        queries.amax(dim=0)
        return super().project(state, queries, **options)


class WantsABank(Solver):
    def prepare(self, points: Any) -> Any:
        points.moments()
        return super().prepare(points)


class ForgetsItsOptions(Solver):
    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength


class ReprOfAnAddress(Solver):
    __repr__ = object.__repr__


def not_a_solver() -> Any:
    return {}


class Finder(Bad, BoundaryFinder):
    """A correct boundary finder, with methods that faulty ones override."""

    def find(
        self, head: LinearHead, features: Tensor, *, targets: Tensor, **options: Any
    ) -> FlipPoints:
        return self.change(_FLIP.find(head, features, targets=targets, **options), features)

    def change(self, result: FlipPoints, features: Tensor) -> FlipPoints:
        return result


class FlipsOffByAThousandth(Finder):
    def change(self, result: FlipPoints, features: Tensor) -> FlipPoints:
        return dataclasses.replace(result, points=result.points + 1e-3)


class FlipLiar(Finder):
    def change(self, result: FlipPoints, features: Tensor) -> FlipPoints:
        return dataclasses.replace(
            result,
            points=features[:, None] + 5.0 * (result.points - features[:, None]),
            distance=torch.full_like(result.distance, 1e-9),
            lower_bound=torch.full_like(result.distance, 100.0),
            status=torch.full_like(result.status, int(Status.CONVERGED)),
        )


class FlipsChangeTheirInput(Finder):
    def find(
        self, head: LinearHead, features: Tensor, *, targets: Tensor, **options: Any
    ) -> FlipPoints:
        result = super().find(head, features, targets=targets, **options)
        head._bias.add_(1.0)  # what is public is a copy
        return result


class FlipsKeepTheFirst(Finder):
    def __init__(self) -> None:
        self._kept: dict[torch.Size, FlipPoints] = {}

    def find(
        self, head: LinearHead, features: Tensor, *, targets: Tensor, **options: Any
    ) -> FlipPoints:
        if targets.shape not in self._kept:
            self._kept[targets.shape] = super().find(head, features, targets=targets, **options)
        return self._kept[targets.shape]


class IgnoresTheDomain(Finder):
    def find(
        self, head: LinearHead, features: Tensor, *, targets: Tensor, **options: Any
    ) -> FlipPoints:
        free = LinearHead(head.weight, head.bias, Domain.unbounded())
        return super().find(free, features, targets=targets, **options)


class OneTargetOnly(Finder):
    def find(
        self, head: LinearHead, features: Tensor, *, targets: Tensor, **options: Any
    ) -> FlipPoints:
        return super().find(head, features, targets=targets[:, :1], **options)


class NoProof(Finder):
    def change(self, result: FlipPoints, features: Tensor) -> FlipPoints:
        return dataclasses.replace(result, multipliers=torch.zeros_like(result.multipliers))


class Images(Bad, ImageBoundaryFinder):
    """A correct image finder, with methods that faulty ones override."""

    def find(self, view: ModelView, images: Tensor, **options: Any) -> FlipImages:
        return self.change(_IMAGES.find(view, images, **options), images)

    def change(self, result: FlipImages, images: Tensor) -> FlipImages:
        return result


class StopsShort(Images):
    def change(self, result: FlipImages, images: Tensor) -> FlipImages:
        return dataclasses.replace(result, images=images + 0.99 * (result.images - images))


class GoesTooFar(Images):
    def change(self, result: FlipImages, images: Tensor) -> FlipImages:
        return dataclasses.replace(result, images=result.images.clamp(0.3, 0.7))


class LeavesTheBounds(Images):
    def change(self, result: FlipImages, images: Tensor) -> FlipImages:
        return dataclasses.replace(result, images=result.images - 1.0)


class PaintsOnItsInput(Images):
    def find(self, view: ModelView, images: Tensor, **options: Any) -> FlipImages:
        result = super().find(view, images.clone(), **options)
        images.mul_(0.5)
        return result


class LeavesImageGradients(Images):
    def find(self, view: ModelView, images: Tensor, **options: Any) -> FlipImages:
        with torch.enable_grad():
            view.logits(images).sum().backward()
        return super().find(view, images, **options)


class KeepsTheFirstImages(Images):
    def __init__(self) -> None:
        self._kept: dict[torch.Size, FlipImages] = {}

    def find(self, view: ModelView, images: Tensor, **options: Any) -> FlipImages:
        if images.shape not in self._kept:
            self._kept[images.shape] = super().find(view, images, **options)
        return self._kept[images.shape]


class Extractor(Bad, FeatureExtractor):
    """A correct extractor, with methods that faulty ones override."""

    def __init__(self) -> None:
        self._head_input = _HEAD()

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        return self._head_input.features(model, images, *additional)

    def head(self, model: nn.Module) -> LinearHead | None:
        return self._head_input.head(model)


class WrongLayer(Extractor):
    """Takes the input of the linear layer before the last, which is as wide."""

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        layer = [m for m in model.modules() if isinstance(m, nn.Linear)][-2]
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(args[0]))
        logits = self._head_input.features(model, images)[1]
        handle.remove()
        return seen[0], logits


class LeavesAHook(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        result = super().features(model, images)
        model.register_forward_hook(lambda module, args, output: None)
        return result


class LeavesAHookWhereItRaises(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        handle = model.register_forward_hook(lambda module, args, output: None)
        result = super().features(model, images)
        handle.remove()
        return result


class SetsTheMode(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        result = super().features(model, images)
        model.train()
        return result


class LeavesGradients(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            super().features(model, images)[1].sum().backward()
        return super().features(model, images)


class SetsPrecision(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        result = super().features(model, images)
        model.double()
        return result


class CutsTheGraph(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        features, logits = super().features(model, images)
        return features.detach(), logits


class KeepsTheFirstModel(Extractor):
    def __init__(self) -> None:
        super().__init__()
        self._first: nn.Module | None = None

    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        self._first = self._first or model
        return super().features(self._first, images)

    def head(self, model: nn.Module) -> LinearHead | None:
        return super().head(self._first or model)


class CentresTheBatch(Extractor):
    def features(self, model: nn.Module, images: Tensor, *additional: Any) -> tuple[Tensor, Tensor]:
        features, logits = super().features(model, images)
        return features - features.mean(dim=0), logits


class ClaimsTooSmallADomain(Extractor):
    def domain(self, model: nn.Module) -> Domain:
        return Domain.box(torch.zeros(6), torch.full((6,), 1e-3))


HULLS: dict[Callable[[], Any], set[str]] = {
    OffByAThousandth: {"known_answers", "moved_and_scaled", "certificates_can_be_checked"},
    Liar: {"claims_are_true", "known_answers", "one_step_keeps_valid_bounds"},
    NegativeWeights: {"claims_are_true"},
    ChangesItsInput: {"inputs_and_process_are_left_alone"},
    KeepsTheFirstPoints: {"calls_do_not_remember"},
    KeepsTheFirstAnswer: {"calls_do_not_remember"},
    IgnoresExclude: {"excluded_points_do_not_count"},
    AnswersInReverse: {"batch_equals_loop", "order_of_rows", "known_answers"},
    SinglePrecision: {"shapes_dtypes_and_device"},
    SetsDefaultDtype: {"inputs_and_process_are_left_alone"},
    DrawsNumbers: {"inputs_and_process_are_left_alone"},
    DrawsNumpyNumbers: {"inputs_and_process_are_left_alone"},
    SetsThreads: {"inputs_and_process_are_left_alone"},
    AnotherAnswerEachTime: {"same_answer_every_time"},
    CannotDoWithoutRows: {"no_rows"},
    WantsABank: {"any_point_set_will_do"},
    ForgetsItsOptions: {"repr_tells_options"},
    ReprOfAnAddress: {"repr_tells_options"},
    not_a_solver: {"factory_makes_a_hull_solver"},
}

FINDERS: dict[Callable[[], Any], set[str]] = {
    FlipsOffByAThousandth: {
        "known_answers_of_two_classes",
        "known_answers_with_third_classes",
        "known_answers_in_a_domain",
        "ordinary_heads_are_certified",
    },
    FlipLiar: {"claims_are_true", "one_step_keeps_valid_bounds", "known_answers_of_two_classes"},
    FlipsChangeTheirInput: {"inputs_and_process_are_left_alone"},
    FlipsKeepTheFirst: {"calls_do_not_remember"},
    IgnoresTheDomain: {"domain_is_respected", "known_answers_in_a_domain"},
    OneTargetOnly: {"shapes_dtypes_and_device", "batch_equals_loop"},
    NoProof: {"certificates_can_be_checked", "unreachable_target_is_infeasible"},
}

IMAGES: dict[Callable[[], Any], set[str]] = {
    StopsShort: {"images_lie_on_a_boundary", "known_answers", "targets_are_reached"},
    GoesTooFar: {"images_lie_on_a_boundary"},
    LeavesTheBounds: {"images_lie_on_a_boundary"},
    PaintsOnItsInput: {"inputs_and_process_are_left_alone"},
    LeavesImageGradients: {"model_is_left_alone"},
    KeepsTheFirstImages: {"calls_do_not_remember"},
}

EXTRACTORS: dict[Callable[[], Any], set[str]] = {
    WrongLayer: {"head_gives_the_logits"},
    LeavesAHook: {"model_is_left_alone"},
    LeavesAHookWhereItRaises: {"model_is_left_alone"},
    SetsTheMode: {"model_is_left_alone"},
    LeavesGradients: {"model_is_left_alone"},
    SetsPrecision: {"model_is_left_alone"},
    CutsTheGraph: {"graph_is_kept"},
    KeepsTheFirstModel: {"calls_do_not_remember"},
    CentresTheBatch: {"head_gives_the_logits", "batch_equals_loop"},
    ClaimsTooSmallADomain: {"domain_is_respected"},
}
