"""Feature space of a torch model: features and logits of images, and the head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fsboundary import plugins
from fsboundary.banks import BankInfo, FeatureBank
from fsboundary.core.checks import check_integer
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, HeadError, PluginError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.status import Status
from fsboundary.models.calling import require_deterministic, run_eagerly
from fsboundary.models.inputs import check_images, device_of, slice_arguments
from fsboundary.models.linear_maps import Residual
from fsboundary.modes import in_standard_modes
from fsboundary.plugins.grading.extractors import (
    CheckedPasses,
    GuardedExtractor,
    Pass,
    RowCheck,
    verify_head,
)
from fsboundary.plugins.interfaces import FeatureExtractor
from fsboundary.space.bank_builder import FeatureSource, build_bank
from fsboundary.space.fidelity import Fidelity, fit_surrogate


@final
class FeatureSpace:
    """The last hidden layer of a classifier, where decision regions are polyhedra.

    Parameters
    ----------
    model : nn.Module
        Classifier in eval mode, from images (B,...) to logits (B,K). It is called unchanged and
        never moved or modified.
    head : nn.Module or str, optional
        Last linear layer or its dotted name; found automatically by default.
    domain : "auto", "unbounded", "nonnegative" or Domain
        Set of features that the body can produce. "auto" is nonnegative only if the operations
        before the head prove it, else unbounded. :meth:`notes` reports the smallest feature seen;
        it is never used as evidence.
    extractor : str or FeatureExtractor
        Source of the features: a name listed by ``fsboundary plugins``, or an instance. The head
        of a surrogate must first be fitted with :meth:`fit`; for other extractors, ``W z + b`` is
        checked.
    preprocess : nn.Module or callable, optional
        Differentiable transform applied to every batch before the model, so that all images are
        those before preprocessing.

    Raises
    ------
    ArgumentError
        An argument of another type, or options for an extractor that does not take them.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module | str | None = None,
        *,
        domain: Literal["auto", "unbounded", "nonnegative"] | Domain = "auto",
        extractor: str | FeatureExtractor = "head_input",
        preprocess: nn.Module | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise _wrong("model", model, "a torch nn.Module", "pass the model itself, in eval mode")
        if not isinstance(head, nn.Module | str | None):
            raise _wrong("head", head, "a layer or its dotted name", "leave it out: it is found")
        if not (preprocess is None or callable(preprocess)):
            fix = "pass a differentiable nn.Module"
            raise _wrong("preprocess", preprocess, "a module or a function of images", fix)
        self._model = model
        self._domain = _domain(domain)
        self._preprocess = preprocess
        options = None if head is None else {"head": head}
        self._calls = GuardedExtractor(
            plugins.create("feature_extractor", extractor, options=options)
        )
        self._head: tuple[LinearHead, LinearHead] | None
        self._minimum: Tensor | None
        self._residual: Residual | None
        self._checked: CheckedPasses
        self.__dict__.update(self._unverified())
        self._fidelity: Fidelity | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling and copying, without what was verified of the model.

        The copy, or the code that loads it, may belong to a changed model, so it verifies anew.
        """
        return self.__dict__ | self._unverified()

    @staticmethod
    def _unverified() -> dict[str, Any]:
        """Return the attributes before the first batch."""
        names = ("_head", "_minimum", "_residual")
        return {**dict.fromkeys(names), "_checked": CheckedPasses()}

    @run_eagerly
    @in_standard_modes
    def extract(
        self, images: Tensor, *additional: Any, batch_size: int = 256, show_progress: bool = False
    ) -> FeatureBatch:
        """Return features, logits and classes of `images`.

        Parameters
        ----------
        images : Tensor (B, ...)
            Images, floating point, on any device; each batch is moved to the model's device.
        *additional : object
            Arguments passed to the model after the images; tensors whose first dimension is B are
            batched with them.
        batch_size : int
            Number of images per batch.
        show_progress : bool
            Whether to show a progress bar on standard error.

        Returns
        -------
        FeatureBatch
            Detached result on the images' device. Rows with NaN or infinite features or logits
            have status NOT_FINITE and class -1.

        Raises
        ------
        ArgumentError
            The images are not a floating-point tensor with a batch dimension.
        HeadError
            No linear head; the model is in training mode; features leave the domain proved by
            "auto"; or there are no images and the head is not known yet.
        HeadMismatchError
            ``W z + b`` is not what the model computes.
        """
        check_images(images)
        check_integer("batch_size", batch_size)
        rows = len(images)
        if rows == 0:
            return self._empty(images.device)
        parts = []
        with torch.no_grad(), tqdm(total=rows, unit="image", disable=not show_progress) as bar:
            for start in range(0, rows, batch_size):
                part = slice(start, start + batch_size)
                batch = images[part]
                outputs = self._run(batch, tuple(slice_arguments(additional, rows, part)))
                parts.append(self._batch_fields(*outputs, images.device))
                bar.update(len(batch))
        fields = [torch.cat(values) for values in zip(*parts, strict=True)]
        return self._batch(*fields)

    @in_standard_modes
    def bank(
        self,
        loader: Iterable[Any],
        path: str | PathLike[str] | None = None,
        show_progress: bool = False,
    ) -> FeatureBank:
        """Return the bank of the features of all images in `loader`, in its order.

        Parameters
        ----------
        loader : iterable
            Batches of images, or of (images, labels); each is one batch for the model.
        path : str or PathLike, optional
            Folder on disk for the bank, so that only a chunk is kept in memory. Resumable: after an
            interruption at any moment, repeat the call. Images already in the bank are loaded
            again and recognised by digest, the model runs on the others, and the bank is bit for
            bit that of an uninterrupted call. A second process that builds it meanwhile is
            rejected.
        show_progress : bool
            Whether to show a progress bar on standard error.

        Raises
        ------
        ArgumentError
            No batches, batches of another kind, labels that are no classes of the model (-1
            stands for no label), or a shuffling sampler with `path`.
        DataError
            Features are NaN or infinite (the message lists the rows); or `path` contains a bank of
            another head, of other images or order, or something else; or another process writes to
            it; or the disk is full, in which case the chunks written so far are kept.
        HeadError, HeadMismatchError
            As in :meth:`extract`.
        """

        def extract(images: Tensor) -> Tensor:
            return self.extract(images, batch_size=len(images)).features

        def info() -> BankInfo:
            kind = type(self.extractor)
            name, layer = f"{kind.__module__}.{kind.__qualname__}", self.notes().get("layer", "")
            return BankInfo(self.fingerprint, name, layer, self.domain.kind)

        return build_bank(
            FeatureSource(extract, info, lambda: self.head.num_classes), loader, path, show_progress
        )

    @run_eagerly
    @in_standard_modes
    def logits(self, images: Tensor, *additional: Any) -> Tensor:
        """Return the logits (B,K) of `images`, in one batch and with the graph kept."""
        check_images(images)
        return self._run(images, additional)[1]

    @run_eagerly
    @in_standard_modes
    def features(self, images: Tensor, *additional: Any) -> Tensor:
        """Return the features (B,d) of `images`, in one batch and with the graph kept."""
        check_images(images)
        return self._run(images, additional)[0]

    @in_standard_modes
    def fit(self, loader: Iterable[Any]) -> FeatureSpace:
        """Fit an extractor that must be fitted, on batches of images; return self.

        One image in five is held out to measure the :attr:`fidelity` of the fitted head.
        """
        if self.surrogate:
            self._fidelity = fit_surrogate(self._calls, self.model, loader, self._preprocess_images)
        else:
            self._calls.fit(self.model, loader)
        return self

    @property
    def model(self) -> nn.Module:
        """The classifier, as passed."""
        return self._model

    @property
    def extractor(self) -> FeatureExtractor:
        """Feature extractor of the space."""
        return self._calls.extractor

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted to the model's predictions instead of part of the model."""
        return self._calls.surrogate

    @property
    def fidelity(self) -> float | None:
        """Fraction of held-out images on which a fitted head has the model's class; else None."""
        return None if self._fidelity is None else self._fidelity.fraction

    @property
    def head(self) -> LinearHead:
        """The last linear map in float64, with the domain of its features.

        Raises
        ------
        HeadError
            No features were extracted yet.
        HeadMismatchError
            The model's head changed since it was found.
        """
        head = self._calls.head(self.model)
        if head is None and self.surrogate:
            raise HeadError("the head is not fitted yet. Call fit(loader) on images first")
        if head is None:
            raise HeadError(
                "the head is not known yet: it is found by tracing the first forward pass. Call "
                "extract(images) first"
            )
        if self._head is None or self._head[0] is not head:
            domain = self._domain or self._calls.domain(self.model)
            # an inference tensor among the head's would forbid gradients through it for good
            with torch.inference_mode(False):
                self._head = head, LinearHead(head.weight, head.bias, domain)
        return self._head[1]

    @property
    def domain(self) -> Domain:
        """Set of features that the body can produce; raises like :attr:`head` if still unknown."""
        return self.head.domain if self._domain is None else self._domain

    @property
    def fingerprint(self) -> str:
        """Digest of the head, the extractor and the layer; raises like :attr:`head`."""
        kind, options = type(self.extractor), self._calls.options
        layer = self._calls.notes(self.model).get("layer", "")
        parts = (self.head.fingerprint, f"{kind.__module__}.{kind.__qualname__}", options, layer)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def notes(self) -> dict[str, str]:
        """Return facts for a report, as text.

        Returns
        -------
        dict
            Notes of the extractor (``layer``, ``link``, ``residual``, ...), ``domain`` and how it
            was determined, and ``observed minimum``, the smallest feature extracted so far.
        """
        notes = self._calls.notes(self.model)
        head = self.head
        proof = notes.pop("proof", "")
        if self._residual is not None:
            worst = self._residual
            notes["residual"] = f"{worst.size:.3g} (tolerance {worst.tolerance:.3g})"
        if self._domain is not None:
            how = "given by the user"
        elif head.domain.kind == "unbounded":
            how = "nothing in the model's structure proves more"
        else:
            how = f"proved by the model's structure: {proof}" if proof else "by the extractor"
        notes["domain"] = f"{head.domain.kind} ({how})"
        if self._fidelity is not None:
            notes["fidelity"] = str(self._fidelity)
        if self._minimum is not None:
            low = float(self._minimum)
            seen = "no negative feature was seen" if low >= 0 else "negative features were seen"
            notes["observed minimum"] = f"{low:.6g} ({seen})"
        return notes

    def _run(self, images: Tensor, additional: tuple[Any, ...]) -> Pass:
        """Return one pass, after the check that its rows depend on nothing else where it is due."""
        check = RowCheck(self._checked, self.model, self._pass, self._preprocess_images)
        return check.run(images, additional, device_of(self.model, images.device))

    def _pass(self, images: Tensor, additional: tuple[Any, ...]) -> Pass:
        """Return features and logits of one batch, and ``W z + b`` in float64 if it is known."""
        images = self._preprocess_images(images)
        device = images.device
        moved = (a.to(device) if isinstance(a, Tensor) else a for a in additional)
        features, logits, head_call = self._calls.run(self.model, images, *moved)
        exact: Tensor | None = None
        head = self.head
        if not self.surrogate:
            verified = verify_head(self.extractor, head, features, logits, head_call)
            if verified is not None:
                exact = verified[0]
                self._keep_worst(verified[1])
        self._check(head, features, logits, len(images))
        return features, logits, exact

    def _keep_worst(self, residual: Residual | None) -> None:
        if residual is not None and (
            self._residual is None or residual.ratio > self._residual.ratio
        ):
            self._residual = residual

    def _preprocess_images(self, images: Tensor) -> Tensor:
        """Return the preprocessed images, on the model's device."""
        device = device_of(self.model, images.device)
        if self._preprocess is None:
            return images.to(device)
        if isinstance(self._preprocess, nn.Module):
            require_deterministic(self._preprocess, "preprocess")
            images = images.to(device_of(self._preprocess, device))
        else:
            images = images.to(device)
        return self._preprocess(images).to(device)

    def _check(self, head: LinearHead, features: Tensor, logits: Tensor, rows: int) -> None:
        wanted = (rows, head.num_features), (rows, head.num_classes)
        if (features.shape, logits.shape) != wanted:
            raise PluginError(
                f"extractor {self.extractor!r} returned features {tuple(features.shape)} and "
                f"logits {tuple(logits.shape)}; wanted {wanted[0]} and {wanted[1]}"
            )
        if rows == 0:
            return
        z = features.detach()
        low = torch.where(_finite_rows(z), z.amin(dim=1), torch.inf).amin()
        self._minimum = low if self._minimum is None else torch.minimum(self._minimum.to(low), low)
        if self._domain is None and head.domain.kind == "nonnegative" and bool(low < 0):
            raise HeadError(
                f"a feature is {float(low):.6g}, but the first pass proved all nonnegative: "
                "the model's path depends on its input. Pass domain='unbounded'"
            )

    def _batch_fields(
        self, features: Tensor, logits: Tensor, exact: Tensor | None, device: torch.device
    ) -> tuple[Tensor, ...]:
        """Return the fields of a FeatureBatch, on `device`."""
        finite = _finite_rows(features) & _finite_rows(logits)
        predicted = (self.head.logits(features) if exact is None else exact).argmax(dim=1)
        disagrees = finite & (logits.argmax(dim=1) != predicted)
        predicted = torch.where(finite, predicted, -1)
        status = torch.where(finite, int(Status.CONVERGED), int(Status.NOT_FINITE))
        return tuple(t.to(device) for t in (features, logits, predicted, disagrees, status))

    def _empty(self, device: torch.device) -> FeatureBatch:
        head = self.head
        none = torch.zeros(0, dtype=torch.int64, device=device)
        dtype = next((p.dtype for p in self.model.parameters()), torch.float32)
        features = torch.zeros(0, head.num_features, dtype=dtype, device=device)
        logits = torch.zeros(0, head.num_classes, dtype=dtype, device=device)
        return self._batch(features, logits, none, none.bool(), none.clone())

    def _batch(
        self, features: Tensor, logits: Tensor, predicted: Tensor, disagrees: Tensor, status: Tensor
    ) -> FeatureBatch:
        return FeatureBatch(
            features=features,
            logits=logits,
            predicted=predicted,
            disagrees=disagrees,
            status=status,
            fingerprint=self.fingerprint,
        )


def space_of(model: object) -> FeatureSpace:
    """Return `model` if it is a FeatureSpace, else a FeatureSpace of it with default options."""
    if not isinstance(model, nn.Module | FeatureSpace):
        wanted = "a torch nn.Module or a FeatureSpace"
        raise _wrong("model", model, wanted, "pass the model itself, in eval mode")
    return model if isinstance(model, FeatureSpace) else FeatureSpace(model)


def _domain(domain: object) -> Domain | None:
    """Return the domain that the user chose; None for "auto"."""
    if isinstance(domain, Domain):
        return domain
    if not isinstance(domain, str) or domain not in ("auto", "unbounded", "nonnegative"):
        fix = "pass one of these, or a box: Domain.box(lower, upper)"
        got = repr(domain) if isinstance(domain, str) else f"a {type(domain).__name__}"
        raise ArgumentError("domain", got, "'auto', 'unbounded', 'nonnegative' or a Domain", fix)
    named = {"unbounded": Domain.unbounded, "nonnegative": Domain.nonnegative}
    return named[domain]() if domain in named else None


def _finite_rows(x: Tensor) -> Tensor:
    """Return whether each row of `x` (B,n) is finite, (B,); aminmax propagates NaN."""
    low, high = torch.aminmax(x, dim=1)
    return torch.isfinite(low) & torch.isfinite(high)


def _wrong(name: str, got: object, wanted: str, fix: str) -> ArgumentError:
    return ArgumentError(name, f"a {type(got).__name__}", wanted, fix)
