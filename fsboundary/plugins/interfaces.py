"""Interfaces of plugins. A plugin proposes; the core grades (design.md, section 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from fsboundary.core.domain import Domain
from fsboundary.core.heads import LinearHead
from fsboundary.core.protocols import ModelView, PointSet
from fsboundary.core.results import FlipImages, FlipPoints, HullProjection
from fsboundary.core.status import Status
from fsboundary.models.calling import call
from fsboundary.models.linear_maps import LayerCall

API_VERSION = 1
"""Version of these interfaces. A registration for a newer version is rejected."""


@dataclass(frozen=True, slots=True, kw_only=False)
class Registration:
    """Registration of one plugin, as returned by a hook.

    Parameters
    ----------
    name : str
        Name by which users select it; unique among plugins of its kind.
    factory : callable
        Creates the plugin from its options: ``factory(**options)``.
    summary : str
        One line that says when to use it.
    api_version : int
        :data:`API_VERSION` that it was written for.
    capabilities : frozenset of str
        Extractors: "surrogate". Boundary finders: "nonlinear_head", "pixels".

    Examples
    --------
    >>> import fsboundary as fsb
    >>> fsb.Registration("mine", dict, "one line that says when to use it").api_version
    1
    """

    name: str
    factory: Callable[..., Any]
    summary: str
    api_version: int = 1
    capabilities: frozenset[str] = frozenset()


class FeatureExtractor(ABC):
    """Source of features. Hyper-parameters go to the constructor, data to the call.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> extractor = fsb.plugins.create("feature_extractor", "head_input")
    >>> isinstance(extractor, fsb.FeatureExtractor)
    True
    """

    @abstractmethod
    def features(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Return features (B,d) and logits (B,K) of one batch, with the graph kept.

        Parameters
        ----------
        model : nn.Module
        inputs : object
            First argument of the model: a tensor (B, ...), or a mapping or tuple of tensors.
        *additional, **keywords : object
            Further arguments of the model.
        """

    def features_and_call(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor, LayerCall | None]:
        """Return features, logits, and the call of the layer that computed the logits, if known.

        The core verifies ``W z + b`` against the logits. The call tells it how the layer rounds:
        its dtypes, and over how many positions it pools. By default the call is None.
        """
        return *self.features(model, inputs, *additional, **keywords), None

    def call_model(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> Any:
        """Return the output of `model`, for use in :meth:`features`.

        A mapping given as `inputs` becomes keyword arguments and a tuple positional ones, as
        :meth:`fsboundary.FeatureSpace.extract` says.
        """
        return call(model, inputs, additional, keywords)

    @abstractmethod
    def head(self, model: nn.Module) -> LinearHead | None:
        """Return the linear map from the features to the logits; None until it is known."""

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted and replaces the model (capability "surrogate").

        The core then reports how often it agrees with the model on held-out examples; for other
        extractors it requires that ``W z + b`` is what the model computes. By default False; a
        class attribute ``surrogate = True`` is enough.
        """
        return False

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> Self:
        """Fit the surrogate head (capability "surrogate"); a no-op by default."""
        return self

    def domain(self, model: nn.Module) -> Domain:
        """Return the domain that the model's structure proves; unbounded by default."""
        return Domain.unbounded()

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return facts for the report, such as the layer's name; empty by default."""
        return {}

    def example(self, rows: int, seed: int) -> tuple[nn.Module, Tensor] | None:
        """Return a small model in eval mode and `rows` images for the conformance suite.

        Torch's generator is seeded with `seed` before and restored afterwards. By default None:
        the suite uses its own convolutional network and images (rows,3,8,8).
        """
        return None


class HullSolver(ABC):
    """Solver of projections onto the hull of a point set. Prepares once, solves many queries.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> solver = fsb.plugins.create("hull_solver", "active_set")
    >>> isinstance(solver, fsb.HullSolver)
    True
    """

    @abstractmethod
    def prepare(self, points: PointSet) -> Any:
        """Return a state for :meth:`project`; the core caches it by point set and options."""

    @abstractmethod
    def project(
        self,
        state: Any,
        queries: Tensor,
        *,
        exclude: Tensor | None = None,
        tolerance: float,
        max_steps: int,
    ) -> HullProjection:
        """Propose the nearest point of the hull to each of `queries` (B,d).

        The core reads ``support``, ``weights`` and ``steps``, and computes everything else.
        """


class BoundaryFinder(ABC):
    """Finder of boundary points of a head in feature space.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> finder = fsb.plugins.create("boundary_finder", "dual_newton")
    >>> isinstance(finder, fsb.BoundaryFinder)
    True
    """

    @abstractmethod
    def find(
        self,
        head: LinearHead,
        features: Tensor,
        *,
        targets: Tensor,
        tolerance: float,
        max_steps: int,
    ) -> FlipPoints:
        """Propose flip points of `features` (B,d) for `targets` (B,T).

        With the capability "nonlinear_head", `head` may also be a
        :class:`fsboundary.core.heads.NonlinearHead`, and ``points`` and ``steps`` are enough.

        Rows are finite, inside the domain, and of another class than their targets; the core
        handles other rows itself. It reads ``points``, ``active``, ``multipliers`` and ``steps``
        of the result and recomputes everything else.
        """


class ImageBoundaryFinder(ABC):
    """Finder of images on a boundary (hook ``register_boundary_finders``, capability "pixels").

    Examples
    --------
    >>> import fsboundary as fsb
    >>> finder = fsb.plugins.create("boundary_finder", "ddn", capability="pixels")
    >>> isinstance(finder, fsb.ImageBoundaryFinder)
    True
    """

    @abstractmethod
    def find(
        self,
        view: ModelView,
        images: Tensor,
        *,
        targets: Tensor | Literal["nearest"],
        bounds: tuple[float, float],
        norm: Literal["l2", "linf"],
        max_steps: int,
    ) -> FlipImages:
        """Propose an image on the boundary for each of `images` (B,C,H,W)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearFunctions:
    """F linear functions of the features of each of B images, such as the margins of a class.

    Attributes
    ----------
    weight : Tensor (B, F, d), float64
    offset : Tensor (B, F), float64
    weight_error : Tensor (B, F, d), float64
        The functions are all those whose weights differ from ``weight`` by at most this: the
        difference of two float64 numbers is rounded. Subtract it times the largest ``|z|``.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> functions = fsb.LinearFunctions(
    ...     weight=torch.eye(2, dtype=torch.float64)[None],
    ...     offset=torch.zeros(1, 2, dtype=torch.float64),
    ...     weight_error=torch.zeros(1, 2, 2, dtype=torch.float64),
    ... )
    >>> functions.values(torch.tensor([[3.0, 1.0]])).tolist()
    [[3.0, 1.0]]
    """

    weight: Tensor
    offset: Tensor
    weight_error: Tensor

    def values(self, features: Tensor) -> Tensor:
        """Return the functions (B,F) at `features` (B,d), without the rounding of the weights."""
        z = features.to(torch.float64)
        return (self.weight @ z[..., None])[..., 0] + self.offset

    def take(self, rows: Tensor | slice) -> LinearFunctions:
        """Return those of some of the images."""
        return LinearFunctions(
            weight=self.weight[rows], offset=self.offset[rows], weight_error=self.weight_error[rows]
        )


class BodyBounds(ABC):
    """Method that bounds functions of the features over sets of images (``register_body_bounds``).

    Hyper-parameters go to the constructor, data to the call.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> method = fsb.plugins.create("body_bound", "interval")
    >>> isinstance(method, fsb.BodyBounds)
    True
    """

    @abstractmethod
    def bound(
        self,
        view: ModelView,
        images: Tensor,
        radius: Tensor,
        *,
        norm: Literal["l2", "linf"],
        bounds: tuple[float, float],
        functions: LinearFunctions,
    ) -> Tensor:
        """Return lower bounds (B,F), float64, of `functions` around each of `images` (B,C,H,W).

        The set of an image is every image within its `radius` (B,) in `norm` whose pixels are
        within `bounds`. A bound holds for the body in exact arithmetic and includes the rounding
        of its own evaluation; it is -inf where nothing is known.

        Raises
        ------
        HeadError
            The method has no rule for an operation of the body; the message names it.
        """


def unsolved_flips(
    features: Tensor, source: Tensor, targets: Tensor, *, with_points: bool = True
) -> dict[str, Tensor]:
    """Return the fields of a :class:`FlipPoints` without results yet, for finders to fill in.

    Parameters
    ----------
    features : Tensor (B, d)
    source : Tensor (B,)
    targets : Tensor (B, T)
    with_points : bool
        Whether the points get memory; else they are one NaN, which cannot be written to.

    Returns
    -------
    dict
        Keyword arguments of :class:`FlipPoints`: NaN points and distances, bound 0, one empty
        multiplier slot (S = 1), status UNDECIDED.
    """
    shape = targets.shape
    nan = torch.full(shape, torch.nan, dtype=torch.float64, device=features.device)
    points = nan.new_full((), torch.nan).expand(*shape, features.shape[1])
    return {
        "points": points.contiguous() if with_points else points,
        "distance": nan,
        "lower_bound": torch.zeros_like(nan),
        "gap": nan.clone(),
        "violation": nan.clone(),
        "source": source,
        "target": targets,
        "active": torch.full((*shape, 1), -1, dtype=torch.int64, device=features.device),
        "multipliers": torch.zeros((*shape, 1), dtype=torch.float64, device=features.device),
        "status": torch.full_like(targets, int(Status.UNDECIDED)),
        "steps": torch.zeros_like(targets),
    }


def unsolved_hulls(queries: Tensor) -> dict[str, Tensor]:
    """Return the fields of a :class:`HullProjection` without results yet, for solvers to fill in.

    Parameters
    ----------
    queries : Tensor (B, d)

    Returns
    -------
    dict
        Keyword arguments of :class:`HullProjection`: NaN points and distances, bound 0, one empty
        support slot (S = 1), status UNDECIDED.
    """
    count, device = len(queries), queries.device
    nan = torch.full((count,), torch.nan, dtype=torch.float64, device=device)
    code = torch.zeros(count, dtype=torch.int64, device=device)
    return {
        "points": nan[:, None].repeat(1, queries.shape[1]),
        "distance": nan,
        "lower_bound": torch.zeros_like(nan),
        "gap": nan.clone(),
        "support": torch.full((count, 1), -1, dtype=torch.int64, device=device),
        "weights": torch.zeros((count, 1), dtype=torch.float64, device=device),
        "normal": nan[:, None].repeat(1, queries.shape[1]),
        "offset": nan.clone(),
        "membership": code,
        "status": torch.full_like(code, int(Status.UNDECIDED)),
        "steps": code.clone(),
    }
