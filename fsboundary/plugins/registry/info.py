"""Kinds of plugin, entries of the list that users see, and lazily importing factories."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from fsboundary.plugins.interfaces import (
    BodyBounds,
    BoundaryFinder,
    FeatureExtractor,
    HullSolver,
    ImageBoundaryFinder,
    Registration,
)

Kind = Literal["feature_extractor", "hull_solver", "boundary_finder", "body_bound"]
State = Literal["ready", "rejected"]

KINDS: tuple[Kind, ...] = get_args(Kind)
HOOKS: dict[str, Kind] = {f"register_{kind}s": kind for kind in KINDS}
"""Hook name to kind."""

PIXELS = "pixels"
"""The capability of boundary finders that work on images."""

NONLINEAR_HEAD = "nonlinear_head"
"""The capability of boundary finders that take any differentiable head."""

_INTERFACES: dict[Kind, type[Any]] = {
    "feature_extractor": FeatureExtractor,
    "hull_solver": HullSolver,
    "boundary_finder": BoundaryFinder,
    "body_bound": BodyBounds,
}


def needs_pixels(kind: Kind, capabilities: Collection[str | None]) -> bool:
    """Return whether `kind` with these `capabilities` is an image finder."""
    return kind == "boundary_finder" and PIXELS in capabilities


def interface_of(kind: Kind, *, pixels: bool) -> type[Any]:
    """Return the class that a plugin of `kind` derives from."""
    return ImageBoundaryFinder if pixels else _INTERFACES[kind]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One plugin, as ``fsboundary plugins`` lists it.

    Attributes
    ----------
    name : str
        Name by which users select it; the entry point's name if the plugin failed before it
        registered one.
    kind : str
        "feature_extractor", "hull_solver", "boundary_finder" or "body_bound"; empty if it
        registered none.
    distribution, version : str
        Installed package that it comes from; empty if it is not installed.
    state : {"ready", "rejected"}
    reason : str
        Reason for the rejection, or a remark on how it loaded; often empty.
    summary : str
        When to use it.
    capabilities : frozenset of str

    Examples
    --------
    >>> import fsboundary as fsb
    >>> info = next(one for one in fsb.plugins.describe() if one.name == "dual_newton")
    >>> info.kind, info.state
    ('boundary_finder', 'ready')
    """

    name: str
    kind: Kind | Literal[""]
    distribution: str
    version: str
    state: State
    reason: str = ""
    summary: str = ""
    capabilities: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registration that is ready for use, with its origin."""

    kind: Kind
    registration: Registration
    distribution: str
    version: str
    remark: str = ""

    @property
    def key(self) -> tuple[Kind, bool, str]:
        """Key that must be unique: kind, whether it works on images, name."""
        pixels = needs_pixels(self.kind, self.registration.capabilities)
        return self.kind, pixels, self.registration.name

    @property
    def label(self) -> str:
        """Name, distribution and version, for messages."""
        return f"{self.registration.name!r} ({self.distribution} {self.version})"

    def info(self, state: State = "ready", reason: str | None = None) -> PluginInfo:
        """Return its entry in the list."""
        return PluginInfo(
            name=self.registration.name,
            kind=self.kind,
            distribution=self.distribution,
            version=self.version,
            state=state,
            reason=self.remark if reason is None else reason,
            summary=self.registration.summary,
            capabilities=frozenset(self.registration.capabilities),
        )


@final
class _LazyFactory:
    """Calls ``module:attribute``, importing the module at the first call."""

    def __init__(self, target: str) -> None:
        self._module, _, self._attribute = target.partition(":")

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self._attribute)

    @property
    def __signature__(self) -> inspect.Signature:
        """The target's signature, so that misspelt options are reported before the call."""
        return inspect.signature(self._load())

    def __call__(self, **options: Any) -> Any:
        return self._load()(**options)

    def __repr__(self) -> str:
        return f"lazy({f'{self._module}:{self._attribute}'!r})"


def lazy(target: str) -> _LazyFactory:
    """Return a factory that imports its class only when the first instance is created.

    Parameters
    ----------
    target : str
        ``"package.module:Class"``.

    Examples
    --------
    >>> from fsboundary.plugins import lazy
    >>> lazy("fractions:Fraction")(numerator=3)
    Fraction(3, 1)
    """
    return _LazyFactory(target)
