"""Random numbers for code that draws them from the global generators.

Captum's methods, run on a model's logits and compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import numpy as np
import torch
from captum.attr import Attribution
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from fsboundary.attr.comparison.arguments import check_image_batch
from fsboundary.attr.comparison.compare import check_options, compare
from fsboundary.attr.methods.arguments import target_rows
from fsboundary.attr.methods.boundary_direction import BoundaryDirection
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Comparison, FeatureBatch
from fsboundary.models.images import check_batch_size
from fsboundary.space import FeatureSpace, space_of


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch and numpy, and put them back afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


Method: TypeAlias = Attribution | Callable[[nn.Module], Attribution]
"""A method of Captum's, or what makes one from a model: its class, say."""


def attribute_methods(
    space: FeatureSpace | nn.Module,
    images: Float[Tensor, "B C H W"],
    methods: Mapping[str, Method],
    target: int | Sequence[int] | Int[Tensor, " B"] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    row_options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, Tensor]:
    """Return what Captum's methods say about the logits of images, by name.

    The first entry, "boundary", is ours, unless a method has this name:
    :class:`BoundaryDirection` with the same target, so with the sign of evidence for the class.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images : Tensor (B, C, H, W)
    methods : dict
        By name: classes, as ``IntegratedGradients``; functions that make a method from a model,
        as ``lambda model: NoiseTunnel(Saliency(model))``; or methods ready made.
    target : int, list or Tensor (B,), optional
        Class to be explained; None is the predicted one.
    options : dict of dict, optional
        By name: arguments of a method's ``attribute``, such as ``n_steps``; passed to every batch
        as they are. A ``target`` here, for a method of another model, is used instead of `target`.
    row_options : dict of dict, optional
        The same, of tensors and lists with an entry for each image, such as flip images as
        ``baselines``: cut into batches as the images are.
    batch_size : int
        Images at once; a method may make several of each.
    seed : int
        Of each batch of the methods that draw random numbers.
    show_progress : bool

    Returns
    -------
    dict of Tensor (B, C, H, W)
        Detached.

    Raises
    ------
    ArgumentError
        Something that is no method, an argument that its ``attribute`` needs, a class that is not
        there; or a method that returns something else than one number for each pixel.
    """
    images = check_image_batch(images)
    check_batch_size(batch_size)
    view = space_of(space)
    batch = view.extract(images, batch_size=batch_size)
    asked = _classes(target, batch)
    given = {name: (options or {}).get(name, {}) for name in methods}
    cut = {name: (row_options or {}).get(name, {}) for name in methods}
    for argument, named in (("options", options), ("row_options", row_options)):
        _check_names(argument, named or {}, methods)
    for name, values in cut.items():
        _check_rows(name, values, len(images))
    runs: dict[str, Callable[[slice], object]] = {}
    for name, method in _with_ours(methods).items():
        made = BoundaryDirection(view) if method is None else _made(name, method, view)
        fixed, by_row = given.get(name, {}), cut.get(name, {})
        _check_options(name, made, {**fixed, **by_row})
        runs[name] = _calls(made, images, {"target": asked, **by_row}, fixed, seed)
    starts = range(0, len(images), batch_size)
    found: dict[str, Tensor] = {}
    total = len(starts) * len(runs)
    with tqdm(total=total, unit="batch", desc="attribute", disable=not show_progress) as bar:
        for name, run in runs.items():
            parts = []
            for start in starts:
                part = slice(start, start + batch_size)
                parts.append(_checked(name, run(part), images[part].shape))
                bar.update()
            found[name] = torch.cat(parts)
    return found


def compare_methods(
    space: FeatureSpace | nn.Module,
    images: Float[Tensor, "B C H W"],
    methods: Mapping[str, Method],
    target: int | Sequence[int] | Int[Tensor, " B"] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    row_options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    show_progress: bool = False,
    **compare_options: Any,
) -> Comparison:
    """Run Captum's methods on the logits of images and compare them with our boundary direction.

    As :func:`compare` of what :func:`attribute_methods` returns, with the same `space`.

    Parameters
    ----------
    space, images, methods, target, options, row_options, batch_size, seed, show_progress
        As for :func:`attribute_methods`.
    **compare_options : object
        As for :func:`compare`: ``reference``, ``metrics``, ``flips``, ``baselines``, ...

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        As both functions.
    """
    view, images = space_of(space), check_image_batch(images)
    how: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "show_progress": show_progress}
    asked = {"space": view, **how, **compare_options}
    # before the methods, which may take long
    check_options(images, tuple(_with_ours(methods)), asked)
    found = attribute_methods(
        view, images, methods, target, options=options, row_options=row_options, **how
    )
    return compare(images, found, **asked)


@final
class _Logits(nn.Module):
    """A space as the module that Captum's methods want."""

    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        self.model = space.model  # where the methods that hook layers look for them
        self._logits = space.logits
        self.training = space.model.training

    def forward(self, images: Tensor) -> Tensor:
        # the targets are with the images, and Captum wants the logits there too
        return self._logits(images).to(images.device)


def _with_ours(methods: Mapping[str, Method]) -> dict[str, Method | None]:
    """Return `methods` after ours, None, unless one has its name."""
    return {**({} if "boundary" in methods else {"boundary": None}), **methods}


def _classes(target: object, batch: FeatureBatch) -> Tensor:
    """Return the class to be explained for each image, (B,)."""
    rows, num_classes = batch.logits.shape
    asked = target_rows(target, rows, batch.logits.device)
    if asked is None:
        return batch.predicted.clamp_min(0)  # a row that is not finite is NaN whatever is asked
    if asked.numel() and not 0 <= int(asked.min()) <= int(asked.max()) < num_classes:
        got = f"classes from {int(asked.min())} to {int(asked.max())}"
        raise ArgumentError("target", got, f"0 to {num_classes - 1}", "count classes from 0")
    return asked


def _calls(
    method: Attribution,
    images: Tensor,
    by_row: Mapping[str, Any],
    fixed: Mapping[str, Any],
    seed: int,
) -> Callable[[slice], object]:
    """Return what calls `method` for a part of the images."""

    def run(part: slice) -> object:
        with seeded(seed, images.device):
            leaf = images[part].clone().requires_grad_()
            cut = {name: value[part] for name, value in by_row.items()}
            return method.attribute(leaf, **{**cut, **fixed})

    return run


def _made(name: str, method: object, space: FeatureSpace) -> Attribution:
    made = method(_Logits(space)) if callable(method) else method
    if not isinstance(made, Attribution):
        got = f"a {type(made).__name__}"
        wanted = "a method of captum.attr, its class, or a function that makes it from a model"
        raise ArgumentError(f"methods[{name!r}]", got, wanted, "pass IntegratedGradients, say")
    return made


def _check_options(name: str, method: Attribution, given: Mapping[str, Any]) -> None:
    """Raise ArgumentError if the method's attribute needs more than it would get."""
    parameters = list(inspect.signature(method.attribute).parameters.values())[1:]
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    missing = [n for n in needed if n not in given and n != "target"]
    if missing:
        got = f"no {' and no '.join(missing)}"
        wanted = f"all that {type(method).__name__}.attribute needs"
        fix = f"pass options={{{name!r}: {{{missing[0]!r}: ...}}}}"
        raise ArgumentError(f"options[{name!r}]", got, wanted, fix)


def _check_names(argument: str, options: Mapping[str, Any], methods: Mapping[str, Any]) -> None:
    unknown = [name for name in options if name not in methods]
    if unknown:
        wanted = f"some of {', '.join(map(repr, methods))}"
        raise ArgumentError(argument, repr(unknown[0]), wanted, "name it as in methods")


def _check_rows(name: str, options: Mapping[str, Any], rows: int) -> None:
    for key, value in options.items():
        if not isinstance(value, Tensor | list) or len(value) != rows:
            sized = isinstance(value, Tensor | list)
            raise ArgumentError(
                f"row_options[{name!r}][{key!r}]",
                f"{len(value)} entries" if sized else f"a {type(value).__name__}",
                f"a tensor or list with an entry for each of {rows} images",
                "pass what is the same for all images in options=",
            )


def _checked(name: str, out: object, shape: torch.Size) -> Tensor:
    """Return an attribution, detached, or raise ArgumentError."""
    if isinstance(out, Tensor) and out.shape == shape:
        return out.detach()
    got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    wanted = f"an attribution of the images' shape {tuple(shape)}"
    fix = "choose one that attributes to pixels, and leave return_convergence_delta out"
    raise ArgumentError(f"methods[{name!r}]", got, wanted, fix)
