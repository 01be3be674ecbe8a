"""Feature space of a torch model: features and logits of examples, and the head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fsboundary import plugins
from fsboundary.banks import FeatureBank
from fsboundary.banks.streams import check_dtype
from fsboundary.core.checks import check_integer
from fsboundary.core.domain import Domain
from fsboundary.core.errors import HeadError
from fsboundary.core.heads import LinearHead, MultiLabelHead
from fsboundary.core.results import FeatureBatch
from fsboundary.core.results.base.display import html_table, short, title
from fsboundary.core.rows import device_of, finite_rows, require_float64
from fsboundary.models.calling import require_deterministic, run_eagerly
from fsboundary.models.inputs import ModelArguments, first_device, model_arguments
from fsboundary.models.linear_maps import Residual
from fsboundary.models.structures import to_device
from fsboundary.modes import in_standard_modes
from fsboundary.plugins.grading.extractors import (
    CheckedPasses,
    GuardedExtractor,
    Pass,
    RowCheck,
    verify_domain,
    verify_head,
)
from fsboundary.plugins.interfaces import FeatureExtractor
from fsboundary.progress import tqdm
from fsboundary.space.arguments import check_arguments, chosen_domain, extractor_options
from fsboundary.space.bank_builder import build_bank
from fsboundary.space.batches import (
    check_shapes,
    fields_of_nothing,
    fields_of_pass,
    join_passes,
)
from fsboundary.space.fidelity import Fidelity, fit_surrogate
from fsboundary.space.loaders import FeatureSource, extract_all
from fsboundary.space.notes import space_notes
from fsboundary.space.zero_shot import ZeroShotClassifier

if TYPE_CHECKING:
    from distributed import Client


@final
class FeatureSpace:
    """The last hidden layer of a classifier, where decision regions are polyhedra.

    Parameters
    ----------
    model : nn.Module
        Classifier in eval mode, from inputs of B examples to logits (B,K). It is called unchanged
        and never moved or modified.
    head : nn.Module or str, optional
        Last linear layer or its dotted name; found automatically by default. "multi_label" if the
        outputs are separate labels, each with a sigmoid, instead of classes that exclude each
        other: use :attr:`multi_label_head` then.
    output : str or int, optional
        Which part of the model's output is the logits: a key, an attribute or a position, joined
        by dots where nested. By default the only part that is linear in features.
    domain : "auto", "unbounded", "nonnegative" or Domain
        Set of features that the body can produce. "auto" is nonnegative only if the operations
        before the head prove it, else unbounded. :meth:`notes` reports the smallest feature seen;
        it is never used as evidence.
    extractor : str or FeatureExtractor
        Source of the features: a name listed by ``fsboundary plugins``, or an instance. The head
        of a surrogate must first be fitted with :meth:`fit`; for other extractors, ``W z + b`` is
        checked.
    preprocess : nn.Module or callable, optional
        Differentiable transform of the first argument, applied to every batch before the model, so
        that all inputs are those before preprocessing.
    example : object, optional
        Inputs of some examples, as for :meth:`extract`. They run where the head is needed before
        any other inputs, and are verified like these. Default: the head is found in the first
        batch.

    Raises
    ------
    ArgumentError
        An argument of another type, or options for an extractor that does not take them.

    Examples
    --------
    >>> import torch
    >>> from fsboundary import FeatureSpace
    >>> body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU())
    >>> model = torch.nn.Sequential(body, torch.nn.Linear(8, 3)).eval()
    >>> space = FeatureSpace(model, example=torch.rand(1, 1, 4, 4))
    >>> space.head.num_classes, space.domain.kind
    (3, 'nonnegative')
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module | str | None = None,
        *,
        output: str | int | None = None,
        domain: Literal["auto", "unbounded", "nonnegative"] | Domain = "auto",
        extractor: str | FeatureExtractor = "head_input",
        preprocess: nn.Module | Callable[[Any], object] | None = None,
        example: Any = None,
    ) -> None:
        check_arguments(model, head, output, preprocess)
        self._model = model
        self._domain = chosen_domain(domain)
        self._preprocess = preprocess
        if example is not None:
            model_arguments(model, example)
        self._example = example
        options = extractor_options(head, output)
        self._multi_label = "multi_label" in options
        self._calls = GuardedExtractor(
            plugins.create("feature_extractor", extractor, options=options or None)
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
        return {**dict.fromkeys(("_head", "_minimum", "_residual")), "_checked": CheckedPasses()}

    @run_eagerly
    @in_standard_modes
    def extract(
        self,
        inputs: Any = None,
        /,
        *additional: Any,
        batch_size: int = 256,
        show_progress: bool = False,
        **keywords: Any,
    ) -> FeatureBatch:
        """Return features, logits and classes of B examples.

        Parameters
        ----------
        inputs : Tensor or array (B, ...), mapping, tuple, list, DataLoader or Dataset
            Inputs of the model, on any device; each batch is moved to the model's device. Numbers
            are floating point, or integers such as token ids. A loader or dataset yields batches
            or examples as for :meth:`bank`; labels are left out. The tensors of a mapping become
            keyword arguments, as in ``model(**inputs)``, those of a tuple positional ones; if
            ``forward`` takes only one argument, it gets the mapping or tuple itself, and it always
            gets `value` for a tuple ``(value,)``. All have a common first dimension B. A list has
            B examples, which need no common shape, without that dimension; so has a nested
            tensor. Examples of one shape in succession run together, others one at a time.
        *additional, **keywords : object
            Further arguments of the model. Their tensors whose first dimension is B are batched
            with the inputs; everything else is passed whole. Without `inputs`, the keywords are
            all inputs: ``space.extract(**batch)``.
        batch_size : int
            Largest number of examples per batch.
        show_progress : bool
            Whether to show a progress bar on standard error.

        Returns
        -------
        FeatureBatch
            Detached result on the inputs' device. Rows with NaN or infinite features or logits
            have status NOT_FINITE and class -1.

        Raises
        ------
        ArgumentError
            Inputs without tensors, of different first dimensions, or of bytes.
        HeadError
            No linear head; the model is in training mode; features leave the domain proved by
            "auto"; or there are no examples and the head is not known yet.
        HeadMismatchError
            ``W z + b`` is not what the model computes.

        Examples
        --------
        >>> import torch
        >>> from fsboundary import FeatureSpace
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
        >>> FeatureSpace(model).extract(torch.rand(5, 1, 4, 4), batch_size=2).logits.shape
        torch.Size([5, 3])
        """
        check_integer("batch_size", batch_size)
        if isinstance(inputs, DataLoader | Dataset) and not additional and not keywords:
            return extract_all(self, inputs, batch_size, show_progress)
        arguments = model_arguments(self.model, inputs, additional, keywords)
        rows, device = arguments.rows, arguments.device
        if rows == 0:
            head = self._linear_head()
            none = fields_of_nothing(head, self.model, device)
            return join_passes([none], self._fingerprint_of(head))
        parts = []
        with torch.no_grad(), tqdm(total=rows, unit="example", disable=not show_progress) as bar:
            for batch in arguments.batches(batch_size):
                found = self._run(batch)
                # each pass has verified the head that it kept
                head = self._linear_head() if self._head is None else self._head[1]
                parts.append(fields_of_pass(head, found, device))
                bar.update(batch.rows)
        return join_passes(parts, self._fingerprint_of(head))

    @in_standard_modes
    def bank(
        self,
        loader: Iterable[Any] | Dataset[Any],
        path: str | PathLike[str] | None = None,
        show_progress: bool = False,
        *,
        dtype: torch.dtype | None = None,
        client: Client | None = None,
    ) -> FeatureBank:
        """Return the bank of the features of all examples in `loader`, in its order.

        Parameters
        ----------
        loader : iterable or Dataset
            Batches: inputs as for :meth:`extract`, pairs (inputs, labels), or mappings with the
            labels under "labels" or "label". Each is one batch for the model. A dataset of examples
            is read in batches of 256. With `client`: a DataLoader or a list.
        path : str or PathLike, optional
            Folder on disk for the bank, so that memory holds a few chunks. Resumable: after an
            interruption at any moment, repeat the call. Examples already in the bank are loaded
            again and recognised by digest, the model runs on the others, and the bank is bit for
            bit that of an uninterrupted call. A second process that builds it meanwhile is
            rejected.
        show_progress : bool
            Whether to show a progress bar on standard error.
        dtype : torch.dtype, optional
            Dtype in which features are stored, as for :class:`fsboundary.FeatureBank`; by default
            float32, and float64 for a model that computes in it.
        client : dask.distributed.Client, optional
            Cluster to whose workers model and dataset are sent. They read and extract the batches;
            this process writes them in order. Workers may die. The bank is bit for bit that of one
            process if processors, number of threads of torch and versions are the same.

        Raises
        ------
        ArgumentError
            No batches, batches of another kind, another dtype, labels that are no classes of the
            model (-1 stands for no label), or a shuffling sampler with `path`.
        DataError
            Features are NaN or infinite (the message lists the rows); or `path` contains a bank of
            another head, of other examples or order, or something else; or another process writes
            to it; or the disk is full, in which case the chunks written so far are kept.
        HeadError, HeadMismatchError
            As in :meth:`extract`.
        """
        source = FeatureSource(self, check_dtype(dtype))
        return build_bank(source, loader, path, show_progress, client)

    @run_eagerly
    @in_standard_modes
    def logits(self, inputs: Any = None, /, *additional: Any, **keywords: Any) -> Tensor:
        """Return the logits (B,K) of the examples, in one batch and with the graph kept.

        They are on the inputs' device. Arguments are those of :meth:`extract`; only examples of
        different shapes need more passes.
        """
        return self._join(inputs, additional, keywords)[1]

    @run_eagerly
    @in_standard_modes
    def features(self, inputs: Any = None, /, *additional: Any, **keywords: Any) -> Tensor:
        """Return the features (B,d) of the examples; see :meth:`logits`."""
        return self._join(inputs, additional, keywords)[0]

    @in_standard_modes
    def fit(self, loader: Iterable[Any]) -> FeatureSpace:
        """Fit an extractor that must be fitted, on batches as for :meth:`bank`; return self.

        One example in five is held out to measure the :attr:`fidelity` of the fitted head.
        """
        if self.surrogate:
            self._fidelity = fit_surrogate(self._calls, self.model, loader, self._prepare)
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

    @classmethod
    def zero_shot(
        cls,
        image_encoder: nn.Module | Callable[[Tensor], Tensor],
        text_embeddings: Tensor,
        *,
        scale: float = 1.0,
        **options: Any,
    ) -> FeatureSpace:
        """Return the space of a :class:`fsboundary.space.ZeroShotClassifier` (CLIP, SigLIP)."""
        return cls(ZeroShotClassifier(image_encoder, text_embeddings, scale), **options)

    @property
    def multi_label(self) -> bool:
        """Whether the outputs are separate labels instead of classes that exclude each other."""
        return self._multi_label

    @property
    def surrogate(self) -> bool:
        """Whether the head is fitted to the model's predictions instead of part of the model."""
        return self._calls.surrogate

    @property
    def fidelity(self) -> float | None:
        """Fraction of held-out examples on which a fitted head has the model's class; else None."""
        return None if self._fidelity is None else self._fidelity.fraction

    @property
    def head(self) -> LinearHead:
        """The last linear map in float64, with the domain of its features.

        Raises
        ------
        HeadError
            No features were extracted yet, and the space was made without an example; or the
            outputs are separate labels, see :attr:`multi_label_head`.
        HeadMismatchError
            The model's head changed since it was found.
        """
        if self._multi_label:
            raise HeadError(
                'the space was made with head="multi_label", and labels have no regions of one '
                "class. Use space.multi_label_head, with label_flips and label_balls"
            )
        return self._linear_head()

    @property
    def multi_label_head(self) -> MultiLabelHead:
        """The head of separate labels, of a space made with ``head="multi_label"``.

        Raises
        ------
        HeadError
            As :attr:`head`; or the space was made for classes that exclude each other.
        HeadMismatchError
            As :attr:`head`.
        """
        if not self._multi_label:
            raise HeadError('make the space of separate labels with head="multi_label"')
        head = self._linear_head()
        return MultiLabelHead(head._weight, head._bias, head.domain)

    def _linear_head(self) -> LinearHead:
        """Return the head, after a pass of the example if it is not known yet."""
        may_be_unknown = self._example is not None and not self.surrogate
        if may_be_unknown and self._calls.head(self.model) is None:
            self.extract(self._example)
        return self._current_head()

    def _current_head(self) -> LinearHead:
        """Return the head if it is known."""
        head = self._calls.head(self.model)
        if head is None and self.surrogate:
            raise HeadError("the head is not fitted yet. Call fit(loader) on examples first")
        if head is None:
            raise HeadError(
                "the head is not known yet: it is found by tracing the first forward pass. Call "
                "extract(inputs) first, or pass some as FeatureSpace(model, example=inputs)"
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
        return self._linear_head().domain if self._domain is None else self._domain

    @property
    def fingerprint(self) -> str:
        """Digest of the head, the extractor and the layer; raises like :attr:`head`."""
        return self._fingerprint_of(self._linear_head())

    def _fingerprint_of(self, head: LinearHead) -> str:
        kind, options = type(self.extractor), self._calls.options
        layer = self._calls.notes(self.model).get("layer", "")
        parts = (head.fingerprint, f"{kind.__module__}.{kind.__qualname__}", options, layer)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        head = None if self._head is None else self._head[1]  # not found for a text
        facts: dict[str, object] = {"model": type(self.model).__name__, "head": head}
        return title("FeatureSpace", facts | {"extractor": self.extractor})

    def _repr_html_(self) -> str:
        """Return a table for notebooks; runs no model."""
        rows = [
            ("model", type(self.model).__name__),
            ("preprocess", "none" if self._preprocess is None else type(self._preprocess).__name__),
            ("head", short(self._head[1]) if self._head else "found with the first images"),
            ("extractor", short(self.extractor)),
        ]
        return html_table("FeatureSpace", rows)

    def notes(self) -> dict[str, str]:
        """Return facts for a report, as text.

        Returns
        -------
        dict
            Notes of the extractor (``layer``, ``link``, ``residual``, ...), ``domain`` and how it
            was determined, and ``observed minimum``, the smallest feature extracted so far.
        """
        head = self._linear_head()
        notes = self._calls.notes(self.model)
        return space_notes(
            notes,
            domain=head.domain.kind,
            given=self._domain is not None,
            residual=self._residual,
            fidelity=self._fidelity,
            minimum=self._minimum,
        )

    def _join(
        self, inputs: Any, additional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return features and logits of all examples, with the graph kept."""
        arguments = model_arguments(self.model, inputs, additional, keywords)
        found = [self._run(batch)[:2] for batch in arguments.batches(max(arguments.rows, 1))]
        together = (one[0] if len(one) == 1 else torch.cat(one) for one in zip(*found, strict=True))
        features, logits = (one.to(arguments.device) for one in together)
        return features, logits

    def _run(self, batch: ModelArguments) -> Pass:
        """Return one pass, after the check that its rows depend on nothing else where it is due."""
        device = device_of(self.model, batch.device)
        require_float64("model", device)
        return RowCheck(self._checked, self.model, self._pass, self._prepare).run(batch, device)

    def _pass(self, batch: ModelArguments) -> Pass:
        """Return features and logits of one batch, and ``W z + b`` in float64 if it is known."""
        inputs = self._prepare(batch.inputs)
        more = to_device((batch.additional, batch.keywords), device_of(self.model, batch.device))
        features, logits, head_call = self._calls.run(self.model, inputs, *more[0], **more[1])
        exact: Tensor | None = None
        head = self._current_head()
        if not self.surrogate:
            verified = verify_head(self.extractor, head, features, logits, head_call)
            if verified is not None:
                exact, residual = verified
                worst = self._residual
                if worst is None or (residual is not None and residual.ratio > worst.ratio):
                    self._residual = residual
        self._check(head, features, logits, batch.rows)
        return features, logits, exact

    def _prepare(self, inputs: Any) -> Any:
        """Return the preprocessed inputs, on the model's device."""
        device = device_of(self.model, first_device(inputs))
        if self._preprocess is None:
            return to_device(inputs, device)
        if isinstance(self._preprocess, nn.Module):
            require_deterministic(self._preprocess, "preprocess")
            inputs = to_device(inputs, device_of(self._preprocess, device))
        else:
            inputs = to_device(inputs, device)
        return to_device(self._preprocess(inputs), device)

    def _check(self, head: LinearHead, features: Tensor, logits: Tensor, rows: int) -> None:
        check_shapes(self.extractor, head, features, logits, rows)
        if rows == 0:
            return
        z = features.detach()
        finite = finite_rows(z)
        low = torch.where(finite, z.amin(dim=1), torch.inf).amin()
        self._minimum = low if self._minimum is None else torch.minimum(self._minimum.to(low), low)
        if self._domain is None and (head.domain.kind == "box" or bool(low < 0)):
            verify_domain(head.domain, z, finite)
