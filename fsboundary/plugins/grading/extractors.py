"""Guarded calls of feature extractors, verification of their heads, and of rows one by one.

Features and flip images are certified per row. That means something only if the model computes a
row from its image only: not from the other images of the batch, chance, or earlier calls.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.core.checks import distinct_texts
from fsboundary.core.domain import Domain
from fsboundary.core.errors import FsboundaryError, HeadError, HeadMismatchError, PluginError
from fsboundary.core.heads import LinearHead
from fsboundary.core.rows import finite_rows
from fsboundary.models.calling import OperationNames, batch_statistics, chance_state, has_drawn
from fsboundary.models.inputs import ModelArguments
from fsboundary.models.linear_maps import (
    LayerCall,
    Residual,
    exact_logits,
    head_mismatch,
    largest_residual,
    logit_tolerance,
)
from fsboundary.models.structures import leaves_of, map_tensors
from fsboundary.plugins.grading.calls import is_built_in, label_of, plain_tensor, plugin_call
from fsboundary.plugins.interfaces import FeatureExtractor


@final
class GuardedExtractor:
    """The methods of an extractor, with the type of every answer checked.

    Parameters
    ----------
    extractor : FeatureExtractor
        The plugin. The model that it is called with is the user's own, and runs inside its calls:
        exceptions of these keep their types, because the model may have raised them.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self._label, self._own = label_of("feature extractor", extractor), is_built_in(extractor)

    def __reduce__(self) -> tuple[type[GuardedExtractor], tuple[FeatureExtractor]]:
        """Pickle the extractor only: whether it is built in is decided where it is loaded."""
        return type(self), (self.extractor,)

    def run(
        self, model: nn.Module, inputs: Any, /, *additional: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor, LayerCall | None]:
        """Return features, logits and the call of the head, if known; see the interface."""
        extractor = self.extractor
        plain = type(extractor).features_and_call is FeatureExtractor.features_and_call
        method: Callable[..., Any] = extractor.features if plain else extractor.features_and_call
        arguments = (inputs, *additional), keywords
        if not self._own:  # the user's own tensors
            arguments = map_tensors(Tensor.clone, arguments)
        with self._running(model):
            answer = method(model, *arguments[0], **arguments[1])
        wanted = "(features, logits)" if plain else "(features, logits, call)"
        if not isinstance(answer, tuple) or len(answer) != (2 if plain else 3):
            got = (
                f"a tuple of {len(answer)}" if isinstance(answer, tuple) else type(answer).__name__
            )
            raise PluginError(f"{self._label} returned {got}; wanted {wanted}")
        features, logits = (
            self._read_tensor(name, value)
            for name, value in zip(("features", "logits"), answer, strict=False)
        )
        if features.device != logits.device:
            raise PluginError(
                f"{self._label}: features are on {features.device}, logits on {logits.device}; "
                "wanted both on one device"
            )
        return features, logits, self._read_call(None if plain else answer[2], features)

    def head(self, model: nn.Module) -> LinearHead | None:
        """Return the head, or None until it is known."""
        answer: LinearHead | None = self._ask("head", LinearHead | None, self.extractor.head, model)
        return answer

    def domain(self, model: nn.Module) -> Domain:
        """Return the domain that the model's structure proves."""
        answer: Domain = self._ask("domain", Domain, self.extractor.domain, model)
        return answer

    def notes(self, model: nn.Module) -> dict[str, str]:
        """Return facts for the report."""
        notes = self._ask("notes", dict, self.extractor.notes, model)
        return {str(name): str(value) for name, value in notes.items()}

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted and replaces the model."""
        answer: bool = self._ask("surrogate", bool, lambda: self.extractor.surrogate)
        return answer

    @property
    def options(self) -> str:
        """The repr, empty if it would contain an address, which differs between processes."""
        if type(self.extractor).__repr__ is object.__repr__:
            return ""
        answer: str = self._ask("repr", str, repr, self.extractor)
        return answer

    def fit(self, model: nn.Module, loader: Iterable[Any]) -> None:
        """Fit the surrogate head."""
        with self._running(model):
            self.extractor.fit(model, loader)

    def _running(self, model: nn.Module) -> AbstractContextManager[None]:
        return plugin_call(self._label, trusted=self._own, passes=(Exception,), model=model)

    def _ask(self, name: str, wanted: Any, method: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `method` returns, or raise PluginError if it is not of type `wanted`."""
        with plugin_call(self._label, trusted=self._own, passes=(FsboundaryError,)):
            answer = method(*arguments)
        if not isinstance(answer, wanted):
            text = getattr(wanted, "__name__", "LinearHead or None")
            raise PluginError(
                f"{self._label}: {name} is of type {type(answer).__name__}; wanted {text}"
            )
        return answer

    def _read_tensor(self, name: str, value: object) -> Tensor:
        """Return a tensor with its graph, which the extractor cannot write to afterwards."""
        tensor = plain_tensor(self._label, name, value)
        if not tensor.is_floating_point():
            raise PluginError(
                f"{self._label}: {name} has dtype {tensor.dtype}; wanted floating-point numbers"
            )
        return tensor if self._own else tensor.clone()

    def _read_call(self, call: object, features: Tensor) -> LayerCall | None:
        """Return how the layer computed the logits, with `features` as they were returned."""
        if call is None or self._own:
            return call  # type: ignore[return-value]  # the built-in extractor is typed
        if not isinstance(call, LayerCall):
            raise PluginError(
                f"{self._label}: call is of type {type(call).__name__}; wanted LayerCall or None"
            )
        outputs = self._read_tensor("call.outputs", call.outputs)
        size = None if call.size is None else self._read_tensor("call.size", call.size)
        count = call.positions if isinstance(call.positions, int) else 0
        shape = None if size is None else tuple(size.shape)
        if count < 1 or shape != (tuple(features.shape) if count > 1 else None):
            raise PluginError(
                f"{self._label}: call has positions {call.positions!r} and a size of shape "
                f"{shape}; wanted 1 and None, or more and {tuple(features.shape)}"
            )
        # what widens a tolerance or rescales logits is believed of the built-in extractor only
        return LayerCall(
            layer=call.layer,
            features=features,
            outputs=outputs,
            size=size,
            positions=count,
            convolution=call.convolution,
        )


@torch.no_grad()
def verify_head(
    extractor: FeatureExtractor,
    head: LinearHead,
    features: Tensor,
    logits: Tensor,
    call: LayerCall | None = None,
) -> tuple[Tensor, Residual | None] | None:
    """Return ``W z + b`` (B,K) in float64 after a check that it equals the logits.

    Parameters
    ----------
    extractor : FeatureExtractor
        The plugin, for messages.
    head : LinearHead
        The head that it claims.
    features, logits : Tensor (B, d) and (B, K)
        What it returned.
    call : LayerCall, optional
        How the layer computed the logits. Without it, as many rounded sums are assumed as there
        are features, because the operations between the two are unknown.

    Returns
    -------
    (Tensor (B, K), Residual or None), or None
        The product and the largest residual; None if shapes do not match, which the caller
        reports. Rows that are not finite are ignored.

    Raises
    ------
    HeadMismatchError
        The difference exceeds rounding (:mod:`fsboundary.models.linear_maps`).
    """
    rows = features.shape[:1]
    if (features.shape, logits.shape) != ((*rows, head.num_features), (*rows, head.num_classes)):
        return None
    known = call or LayerCall(
        layer="",
        features=features,
        outputs=logits,
        size=None,
        positions=head.num_features,
        convolution=True,
    )
    exact = exact_logits(known, head, features)
    tolerance = logit_tolerance(known, head, logits)
    worst = largest_residual(exact, logits, tolerance)
    if worst is not None and worst.ratio > 1:
        if call is not None:
            raise head_mismatch(f"layer {call.layer!r}", "W z + b", worst, logits.dtype)
        size, limit = distinct_texts(worst.size, worst.tolerance, digits=3, kind="e")
        raise HeadMismatchError(
            f"extractor {extractor!r}: W z + b differs from the model's logits by {size} "
            f"at row {worst.row}, class {worst.column}; the tolerance there is "
            f"{limit} ({logits.dtype}). Its features are not the input of its head, "
            "or it is a surrogate that does not declare itself one"
        )
    return exact, worst


Pass = tuple[Tensor, Tensor, Tensor | None]
"""Features (B,d), logits (B,K) and, if it is known, ``W z + b`` in float64."""

_TIGHT = 64
"""Roundoffs, relative to a row's largest number, within which two passes of a row are equal."""

_REPEATS = 16
"""Passes of one row when random numbers were drawn: a coin that changes the row goes unnoticed with
a probability of 2**-16."""


def verify_domain(domain: Domain, features: Tensor, finite: Tensor) -> None:
    """Raise HeadError if a row of `features` (B,d) leaves the domain that the first pass proved.

    Parameters
    ----------
    domain : Domain
        Domain of the extractor, not one that the user chose.
    features : Tensor (B, d)
        Features of one batch.
    finite : Tensor (B,), bool
        Mask of the rows without NaN or infinite numbers; only these are compared.
    """
    lower, upper = domain.limits(features)
    outside = ((features < lower) | (features > upper)) & finite[:, None]
    if not bool(outside.any()):
        return
    row, m = outside.nonzero()[0].tolist()
    limits = "all nonnegative"
    if domain.kind == "box":
        limits = f"that it lies in [{float(lower[m])!r}, {float(upper[m])!r}]"
    raise HeadError(
        f"feature {m} of row {row} is {float(features[row, m])!r}, but the first pass proved "
        f"{limits}: the model's path depends on its input. Pass domain='unbounded'"
    )


@final
@dataclass(slots=True)
class CheckedPasses:
    """What :class:`RowCheck` has checked: two equal passes, a row alone, and harmless draws."""

    repeated: bool = False
    alone: bool = False
    draws: bool = False


@final
class RowCheck:
    """Check that a model computes each row from its example only.

    The first batch is compared with two passes of one of its rows alone, which cost two examples.
    Only if they differ by more than rounding, which a large model can amplify, whole batches are
    run again: the same batch, which shows chance and state, and that row in place of all others,
    in the same shape and so by the same kernels, which shows what the others contribute. With a
    batch of one example only chance and state are checked, and the rest with the first larger one.
    A later batch is checked again if it is the first that draws random numbers.

    Parameters
    ----------
    checked : CheckedPasses
        Updated.
    model : nn.Module
        For messages.
    run : callable
        One pass, preprocessing included.
    preprocess : callable
        The preprocessing of the inputs, for messages.
    """

    def __init__(
        self,
        checked: CheckedPasses,
        model: nn.Module,
        run: Callable[[ModelArguments], Pass],
        preprocess: Callable[[Any], Any],
    ) -> None:
        self._checked, self._model, self._run, self._preprocess = checked, model, run, preprocess

    def run(self, batch: ModelArguments, device: torch.device) -> Pass:
        """Return one pass of a model on `device`, checked where that is due.

        Raises
        ------
        HeadError
            A row depends on other rows, on chance or on earlier calls; the message says on which.
        """
        checked, before = self._checked, chance_state(device)
        found = self._run(batch)
        drawn = not checked.draws and has_drawn(before, chance_state(device))
        if drawn or not (checked.alone or (checked.repeated and batch.rows == 1)):
            devices = [device] if device.type == "cuda" else []
            # further passes leave the generators where one pass left them, and repeat its warnings
            with torch.no_grad(), torch.random.fork_rng(devices), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._check(batch, found, drawn)
        return found

    def _check(self, batch: ModelArguments, found: Pass, drawn: bool) -> None:
        finite = finite_rows(found[0]) & finite_rows(found[1])
        if not bool(finite.any()):
            return
        r = int(finite.nonzero()[0, 0])
        first = _row(found, r)
        tight = _TIGHT * _roundoff(first)
        # without chance, only the order of sums on some devices differs between equal calls
        loose = tight if drawn else _roundoff(first) ** 0.5
        one = batch.take(slice(r, r + 1))
        alone = self._try(one, 0)
        for _ in range(_REPEATS if drawn else 1):
            size = 0.0 if alone is None else _difference(alone, self._try(one, 0))
            if size > loose:
                raise self._not_repeatable(one, size, drawn)
        if _difference(first, alone) > tight:
            noise = _difference(first, _row(self._run(batch), r))
            if noise > loose:
                raise self._not_repeatable(batch, noise, drawn)
            copies = batch.copies(r)
            size = _difference(first, self._try(copies, r))
            if size > max(tight, 8 * noise):
                raise self._not_independent(batch, copies, r, size)
        self._checked.repeated = True
        self._checked.alone |= batch.rows > 1
        self._checked.draws |= drawn

    def _try(self, batch: ModelArguments, r: int) -> tuple[Tensor, Tensor] | None:
        """Return row `r` of a pass, or None if the model takes no such batch."""
        try:
            return _row(self._run(batch), r)
        except Exception:  # a model may raise anything for a batch of another size
            return None

    def _preprocessed(self, batch: ModelArguments) -> list[Tensor]:
        """Return the tensors of the preprocessed inputs."""
        leaves = leaves_of(self._preprocess(batch.inputs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _not_repeatable(self, batch: ModelArguments, size: float, drawn: bool) -> HeadError:
        """Return the error for a model whose second pass of the same inputs differs."""
        with OperationNames() as seen:
            self._try(batch, 0)
        if any(
            not all(map(torch.equal, self._preprocessed(batch), self._preprocessed(batch)))
            for _ in range(_REPEATS)
        ):
            why = "preprocess= gives another result for the same inputs: leave augmentation out"
        elif drawn or seen.random:
            names = ", ".join(seen.random) or "an operation that was not recognised"
            why = (
                f"random numbers are drawn in eval mode ({names}): functional dropout needs "
                "training=self.training, and noise or random crops must be left out"
            )
        else:
            why = (
                "torch draws no random numbers, so numbers come from elsewhere, or a state is kept "
                "from call to call (a counter, a cache, a running statistic): remove it"
            )
        return HeadError(
            "the features of the same inputs differ from pass to pass (largest difference "
            f"{size:.3g}, relative to the largest number of the row), so no distance from them "
            f"would hold. The cause: {why}"
        )

    def _not_independent(
        self, batch: ModelArguments, copies: ModelArguments, r: int, size: float
    ) -> HeadError:
        """Return the error for a model whose rows depend on the other rows of the batch."""
        with OperationNames() as seen:
            self._try(copies, r)
        if not self._same_row(batch, copies, r):
            why = "preprocess= uses the other examples: compute it per example, or from constants"
        else:
            names = batch_statistics(self._model) or [f"{name} (training=True)" for name in
                                                      seen.batch_norms]  # fmt: skip
            used = f"statistics of the batch are used by {', '.join(names)}: " if names else ""
            why = (
                f"{used}use running statistics or GroupNorm instead, or wrap the model in a module "
                "that calls it on one example at a time"
            )
        return HeadError(
            f"the features of an example depend on the other examples of its batch (row {r} "
            f"changes by {size:.3g}, relative to its largest number, when the others are "
            f"replaced), so no distance from them would hold for it. The cause: {why}"
        )

    def _same_row(self, batch: ModelArguments, copies: ModelArguments, r: int) -> bool:
        """Return whether the preprocessed row `r` is the same in both batches."""
        for first, second in zip(*map(self._preprocessed, (batch, copies)), strict=True):
            if first.shape != second.shape:
                return False
            if first.ndim > 0 and len(first) == batch.rows:
                first, second = first[r], second[r]
            if not torch.allclose(first, second, equal_nan=True):
                return False
        return True


def _row(found: Pass, r: int) -> tuple[Tensor, Tensor]:
    """Return features (d,) and logits (K,) of row `r`, detached."""
    return found[0][r].detach(), found[1][r].detach()


def _roundoff(row: tuple[Tensor, Tensor]) -> float:
    """Return the coarsest machine epsilon of features and logits."""
    return max(torch.finfo(part.dtype).eps for part in row)


def _difference(one: tuple[Tensor, Tensor] | None, other: tuple[Tensor, Tensor] | None) -> float:
    """Return the largest difference relative to the largest number; +inf if one is missing."""
    if one is None or other is None:
        return torch.inf
    sizes = [0.0]
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape:
            return torch.inf
        a, b = a.double(), b.double()
        change, scale = (a - b).abs().max(), torch.maximum(a.abs().max(), b.abs().max())
        sizes.append(float(change / scale) if float(change) != 0 else 0.0)
    return max(torch.inf if math.isnan(size) else size for size in sizes)
