"""Reference: a sample of the training set, to which the scores of other rows are relative."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor

from fsboundary.banks import FeatureBank
from fsboundary.core.checks import check_choice, check_features, check_instance, check_integer
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError, HeadMismatchError
from fsboundary.core.heads import LinearHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.results.base.tensor_files import (
    check_new,
    digest_of,
    read_tensors,
    write_tensors,
)
from fsboundary.core.rows import scatter_rows
from fsboundary.modes import in_standard_modes
from fsboundary.scores.calibration import calibrate, cross_validate
from fsboundary.scores.conformal import Distribution
from fsboundary.scores.measures import unit_rows
from fsboundary.scores.training_rows import draw_rows, file_names, ordered_batches
from fsboundary.space import FeatureSpace

if TYPE_CHECKING:
    from torch.utils.data import Dataset

_LABELS = ("both", "given", "predicted")

_FORMAT = "fsboundary reference 1"
"""Name and version of the format of the file."""

_FIX = "open it with Reference.open(path), or name another file"


@final
class Reference:
    """A sample of a training set, with the hulls of its classes and leave-one-out distances.

    Created with :meth:`fit` and reopened with :meth:`open`; immutable. All scores of
    :mod:`fsboundary.scores` are relative to it.

    Examples
    --------
    >>> import torch
    >>> import fsboundary as fsb
    >>> head = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = head.weight.copy_(torch.eye(2))
    ...     _ = head.bias.zero_()
    >>> space = fsb.FeatureSpace(head.eval(), domain="unbounded")
    >>> generator = torch.Generator().manual_seed(0)
    >>> means = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(20, 1)
    >>> rows = means + torch.rand(40, 2, generator=generator)
    >>> labels = torch.arange(40) % 2
    >>> reference = fsb.Reference.fit(space, [(rows, labels)], "given")
    >>> reference
    Reference(n=40, K=2, d=2)
    """

    def __init__(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self._tensors, self._facts = tensors, facts
        lower, upper = tensors["lower"], tensors["upper"]
        kind = facts["domain"]
        domain = Domain.box(lower, upper) if kind == "box" else Domain(kind)
        self._head = LinearHead(tensors["weight"], tensors["bias"], domain)
        features, group = tensors["features"], tensors["group"]
        self._bank = FeatureBank(features, group)
        unit = unit_rows(features.to(torch.float64))
        zero = unit.isnan().any(dim=1)
        # a feature vector of 0 has no direction: it stays in its row, and in no class
        self._directions = FeatureBank(unit.nan_to_num(), torch.where(zero, -1, group))
        self._clean = FeatureBank(features, tensors["clean"])

    @classmethod
    @in_standard_modes
    def fit(
        cls,
        space: FeatureSpace,
        loader: Iterable[Any] | Dataset[Any],
        labels: Literal["both", "given", "predicted"] = "both",
        sample: int | None = 8000,
        path: str | PathLike[str] | None = None,
        *,
        calibration: int = 2000,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Reference:
        """Return the reference of a training set.

        Parameters
        ----------
        space : FeatureSpace
            Space of the model whose predictions will be scored.
        loader : iterable or Dataset
            Training data: batches as for :meth:`fsboundary.FeatureSpace.bank`, or a map-style
            dataset. Always in the same order, because rows are named by their positions. Label -1
            is no label.
        labels : "both", "given" or "predicted"
            Class of a training row. "both": the given label where the model predicts it, else
            none, so that wrong labels and wrong predictions stay out of the hulls. "given" and
            "predicted": one of the two.
        sample : int or None
            Number of rows that are drawn, each with the same chance; None for all rows.
        path : str or PathLike, optional
            File that does not exist yet, to which the reference is saved.
        calibration : int
            Number of rows of the sample whose leave-one-out distances are computed.
        seed : int
            Seed of all draws. The same data, model and seed give the same reference, in batches of
            any size.
        show_progress : bool

        Returns
        -------
        Reference

        Raises
        ------
        ArgumentError
            Wrong types or options, labels that are no classes of the model, no labels unless
            `labels` is "predicted", a shuffling loader, or a `path` that exists.
        DataError
            No row has finite features, or the file cannot be written.
        HeadError
            As for :meth:`fsboundary.FeatureSpace.extract`.

        Examples
        --------
        >>> import torch
        >>> import fsboundary as fsb
        >>> space = fsb.FeatureSpace(torch.nn.Linear(2, 2).eval(), domain="unbounded")
        >>> rows = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [2.0, 0.0]])
        >>> fsb.Reference.fit(space, [(rows, torch.tensor([0, 0, 1, 1]))], "given")
        Reference(n=4, K=2, d=2)
        """
        fix = "pass FeatureSpace(model)"
        check_instance("space", space, FeatureSpace, "a FeatureSpace", fix)
        check_choice("labels", labels, _LABELS)
        if sample is not None:
            check_integer("sample", sample, 2)
        check_integer("calibration", calibration)
        if path is not None:
            check_new(path, _FIX)
        batches = ordered_batches("loader", loader)
        rows = draw_rows(space, batches, sample, seed, show_progress)
        head = space.head
        group = rows.given if labels == "given" else rows.predicted
        if labels == "both":
            group = torch.where(rows.given == rows.predicted, rows.given, -1)
        if not bool((group >= 0).any()):
            got = "no row with a label" if (rows.given < 0).all() else "no label that is predicted"
            fix = 'pass labels="predicted", or labels in the order of the images'
            raise ArgumentError("labels", f"{labels!r} and {got}", "rows of some class", fix)
        low, high = head.domain.limits(head.weight)
        tensors = {
            "features": rows.features,
            "given": rows.given,
            "predicted": rows.predicted,
            "ids": rows.ids,
            "group": group,
            "weight": head.weight.cpu(),
            "bias": head.bias.cpu(),
            "lower": low.cpu(),
            "upper": high.cpu(),
            **cross_validate(rows.features, rows.given, head.num_classes, seed),
        }
        facts = {
            "fingerprint": space.fingerprint,
            "domain": head.domain.kind,
            "labels": labels,
            "seed": seed,
            "seen": rows.seen,
            "skipped": rows.skipped,
            "names": _names_of(loader, rows.ids),
        }
        reference = cls(tensors, facts)
        tensors |= calibrate(reference, calibration, seed, show_progress)
        if path is not None:
            reference.save(path)
        return reference

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Reference:
        """Open a reference that :meth:`fit` or :meth:`save` wrote.

        The file contains numbers and text only, so opening it runs no code of others.

        Raises
        ------
        DataError
            No reference, a damaged one, or one of another format.
        """
        fix = "Fit it again with Reference.fit(space, loader, path=...), or restore a copy"
        return cls(*read_tensors(Path(path), _FORMAT, "reference", fix))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the reference to a new file.

        Raises
        ------
        ArgumentError
            The path exists.
        DataError
            The file cannot be written.
        """
        check_new(path, _FIX)
        write_tensors(Path(path), _FORMAT, self._tensors, self._facts)

    @property
    def head(self) -> LinearHead:
        """Head of the model, as it was when the reference was fitted."""
        return self._head

    @property
    def num_classes(self) -> int:
        """Number K of classes of the model."""
        return self._head.num_classes

    @property
    def bank(self) -> FeatureBank:
        """Features of the sample, with the class of each row, -1 for none."""
        return self._bank

    @property
    def directions(self) -> FeatureBank:
        """The same rows divided by their norms."""
        return self._directions

    @property
    def clean(self) -> FeatureBank:
        """The same rows, with a label only where cross-validation confirms the given one."""
        return self._clean

    @property
    def group(self) -> Tensor:
        """Class of each row (n,) in the hulls, -1 for none; a copy."""
        return self._tensors["group"].clone()

    @property
    def given(self) -> Tensor:
        """Given label of each row (n,), -1 for none; a copy."""
        return self._tensors["given"].clone()

    @property
    def predicted(self) -> Tensor:
        """Predicted class of each row (n,); a copy."""
        return self._tensors["predicted"].clone()

    @property
    def ids(self) -> Tensor:
        """Position of each row (n,) in the training data, ascending; a copy."""
        return self._tensors["ids"].clone()

    @property
    def fold(self) -> Tensor:
        """Fold (n,) that was left out when the row was predicted, -1 for rows without a label."""
        return self._tensors["fold"].clone()

    @property
    def fold_weight(self) -> Tensor:
        """Weights (F,K,d) of the cross-validated heads."""
        return self._tensors["fold_weight"].clone()

    @property
    def fold_bias(self) -> Tensor:
        """Biases (F,K) of the cross-validated heads."""
        return self._tensors["fold_bias"].clone()

    @property
    def names(self) -> list[str] | None:
        """Name of the file of each row, or None where the training data has no names."""
        names = self._facts["names"]
        return None if names is None else list(names)

    @property
    def fingerprint(self) -> str:
        """Digest of head, extractor and layer of the space."""
        return str(self._facts["fingerprint"])

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the reference: equal for equal references."""
        return digest_of(self._tensors, self._facts)

    def distribution(self, name: str) -> Distribution:
        """Return the leave-one-out distribution of a score."""
        scores, labels = f"{name} scores", f"{name} labels"
        return Distribution(self._tensors[scores], self._tensors[labels])

    def notes(self) -> dict[str, str]:
        """Return facts about the sample, as text: rows, and classes with few or no rows."""
        group = self._tensors["group"]
        counts = group[group >= 0].bincount(minlength=self.num_classes)
        facts = self._facts
        notes = {
            "rows": f"{len(group)} of {facts['seen']}, {int((group >= 0).sum())} with a class",
            "classes": f'by labels="{facts["labels"]}"',
        }
        if facts["skipped"]:
            notes["skipped"] = f"{facts['skipped']} rows with NaN or infinite features"
        for key, wanted in (("classes without rows", 0), ("classes with one row", 1)):
            few = (counts == wanted).nonzero()[:, 0].tolist()
            if few:
                notes[key] = ", ".join(map(str, few[:20])) + (", .." if len(few) > 20 else "")
        return notes

    def rows_of(self, features: object) -> tuple[Tensor, Tensor, torch.device]:
        """Return features (B,d) as float64 on the CPU, predicted classes (B,), and their device.

        Raises
        ------
        ArgumentError
            Features of another type or width.
        HeadMismatchError
            A batch of another space.
        """
        if isinstance(features, FeatureBatch):
            if features.fingerprint != self.fingerprint:
                raise HeadMismatchError(
                    f"features: of another head, extractor or layer than the reference: their "
                    f"fingerprint is {features.fingerprint}, the reference's is "
                    f"{self.fingerprint}. Fit a reference with the same FeatureSpace"
                )
            z = check_features(self.head.num_features, features.features)
            z = torch.where(features.ok[:, None], z, torch.nan)
            return z.cpu(), features.predicted.cpu(), z.device
        z = check_features(self.head.num_features, features)
        device, z = z.device, z.cpu()
        finite = torch.isfinite(z).all(dim=1)
        return z, scatter_rows(self.head.predict(z[finite]), finite, len(z), -1), device

    def sample_rows(self, ids: Tensor) -> Tensor:
        """Return the rows of the sample that are at the positions `ids` (B,), -1 where none is."""
        known = self._tensors["ids"]
        at = torch.searchsorted(known, ids.contiguous()).clamp_max(len(known) - 1)
        return torch.where(known[at] == ids, at, -1)

    def __len__(self) -> int:
        return len(self._bank)

    def __repr__(self) -> str:
        return f"Reference(n={len(self)}, K={self.num_classes}, d={self.head.num_features})"


def _names_of(data: object, ids: Tensor) -> list[str] | None:
    names = file_names(data)
    return None if names is None else [names[i] for i in ids.tolist()]
