"""Captum's methods, run on a model's logits and compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

import torch
from captum.attr import Attribution
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsboundary.attr.comparison.arguments import comparison_options
from fsboundary.attr.comparison.compare import compare
from fsboundary.attr.methods.arguments import target_rows
from fsboundary.attr.methods.boundary_direction import BoundaryDirection
from fsboundary.core.checks import (
    check_choice,
    check_instance,
    check_integer,
    check_integer_tensor,
    check_options,
    check_shape,
)
from fsboundary.core.errors import ArgumentError
from fsboundary.core.results import Comparison, FeatureBatch
from fsboundary.core.rows import TensorOrArray
from fsboundary.models.calling import hooks_alone
from fsboundary.modes import in_standard_modes, seeded
from fsboundary.pixels.checks import check_pixels
from fsboundary.progress import tqdm
from fsboundary.space import FeatureSpace, space_of

_OUTPUT_FIX = "choose a method that attributes to pixels, and leave return_convergence_delta out"

Method: TypeAlias = Attribution | Callable[[nn.Module], Attribution]
"""A Captum method, or a callable that makes one from a model, such as its class."""


@in_standard_modes
def attribute_methods(
    space: FeatureSpace | nn.Module,
    images: Float[TensorOrArray, "B C H W"],
    methods: Mapping[str, Method],
    target: int | Sequence[int] | Int[TensorOrArray, " B"] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    row_options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, Tensor]:
    """Return the attributions of Captum's methods for the logits of images, by name.

    The first entry, "boundary", is :class:`BoundaryDirection` with the same target, so with the
    sign of evidence for the class; unless `methods` has an entry of this name.

    Parameters
    ----------
    space : FeatureSpace or nn.Module
    images : Tensor or array (B, C, H, W)
    methods : dict
        Methods by name: classes, such as ``IntegratedGradients``; functions that make a method
        from a model, such as ``lambda model: NoiseTunnel(Saliency(model))``; or instances.
    target : int, list or Tensor (B,), optional
        Class to explain; default the predicted one.
    options : dict of dict, optional
        Arguments of a method's ``attribute`` by name, such as ``n_steps``; passed unchanged to
        every batch. A ``target`` here, for a method of another model, overrides `target`.
    row_options : dict of dict, optional
        The same for tensors and lists with one entry per image, such as flip images as
        ``baselines``; they are split into batches with the images.
    batch_size : int
        Number of images per batch; a method may expand each to several.
    seed : int
        Seed of each batch, for methods that draw random numbers.
    show_progress : bool

    Returns
    -------
    dict of Tensor (B, C, H, W)
        Attributions by name, detached.

    Raises
    ------
    ArgumentError
        An entry that is not a method, a missing argument of its ``attribute``, a class that does
        not exist; or a method that does not return an attribution of the images' shape.

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
    >>> sorted(maps)
    ['boundary', 'product', 'saliency']
    """
    images = check_pixels(images, None, nonempty=True)
    check_integer("batch_size", batch_size)
    view = space_of(space)
    batch = view.extract(images, batch_size=batch_size)
    classes = _target_classes(target, batch)
    fixed_options = {name: (options or {}).get(name, {}) for name in methods}
    split_options = {name: (row_options or {}).get(name, {}) for name in methods}
    for argument, by_name in (("options", options), ("row_options", row_options)):
        for name in by_name or {}:
            check_choice(argument, name, tuple(methods))
    for name, values in split_options.items():
        for key, value in values.items():
            argument, fix = f"row_options[{name!r}][{key!r}]", "pass shared values in options="
            wanted = f"a tensor or list with one entry for each of the {len(images)} images"
            check_instance(argument, value, (Tensor, list), wanted, fix)
            if len(value) != len(images):
                raise ArgumentError(argument, f"{len(value)} entries", wanted, fix)
    runs: dict[str, Callable[[slice], object]] = {}
    for name, method in _with_boundary(methods).items():
        made = BoundaryDirection(view) if method is None else _instantiate(name, method, view)
        fixed, by_row = fixed_options.get(name, {}), split_options.get(name, {})
        signature = inspect.signature(made.attribute)
        # the first is the images; a method may have no target
        passed = {*list(signature.parameters)[:1], "target"} & set(signature.parameters)
        owner = f"{type(made).__name__}.attribute"
        check_options(f"options[{name!r}]", {*passed, *fixed, *by_row}, signature, owner)
        runs[name] = _batch_runner(view, made, images, {"target": classes, **by_row}, fixed, seed)
    starts = range(0, len(images), batch_size)
    attributions: dict[str, Tensor] = {}
    total = len(starts) * len(runs)
    with tqdm(total=total, unit="batch", desc="attribute", disable=not show_progress) as bar:
        for name, run in runs.items():
            parts = []
            for start in starts:
                part = slice(start, start + batch_size)
                shape = tuple(images[part].shape)
                parts.append(check_shape(f"methods[{name!r}]", run(part), shape, fix=_OUTPUT_FIX))
                bar.update()
            attributions[name] = torch.cat(parts)
    return attributions


@in_standard_modes
def compare_methods(
    space: FeatureSpace | nn.Module,
    images: Float[TensorOrArray, "B C H W"],
    methods: Mapping[str, Method],
    target: int | Sequence[int] | Int[TensorOrArray, " B"] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    row_options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    show_progress: bool = False,
    **compare_options: Any,
) -> Comparison:
    """Run Captum's methods on the logits of images and compare them with the boundary direction.

    Equivalent to :func:`compare` on the result of :func:`attribute_methods`, with the same `space`.

    Parameters
    ----------
    space, images, methods, target, options, row_options, batch_size, seed, show_progress
        Same as for :func:`attribute_methods`.
    **compare_options : object
        Same as for :func:`compare`: ``reference``, ``metrics``, ``flips``, ``baselines``, ...

    Returns
    -------
    Comparison

    Raises
    ------
    ArgumentError
        As for both functions.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.demo import load_demo
    >>> demo = load_demo()
    >>> space = fsb.FeatureSpace(demo.model, preprocess=demo.preprocess)
    >>> images = demo.test_images[:2]
    >>> from captum.attr import Saliency
    >>> found = fsb.attr.compare_methods(
    ...     space,
    ...     images,
    ...     {"saliency": Saliency},
    ...     metrics=["cosine"],
    ...     max_steps=5,
    ...     steps=3,
    ...     resamples=9,
    ... )
    >>> found.methods
    ('boundary', 'saliency')
    """
    view, images = space_of(space), check_pixels(images, None, nonempty=True)
    run: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "show_progress": show_progress}
    comparison = {"space": view, **run, **compare_options}
    # before the methods, which may take long
    bound = inspect.signature(compare).bind(images, {}, **comparison)
    bound.apply_defaults()
    unchecked = ("images", "attributions", "seed", "show_progress")
    checked = {k: v for k, v in bound.arguments.items() if k not in unchecked}
    comparison_options(images, tuple(_with_boundary(methods)), **checked)
    attributions = attribute_methods(
        view, images, methods, target, options=options, row_options=row_options, **run
    )
    return compare(images, attributions, **comparison)


@final
class _Logits(nn.Module):
    """A feature space as the logits module that Captum's methods expect."""

    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        self.model = space.model  # methods that hook layers look for them here
        self._logits = space.logits
        self.training = space.model.training

    def forward(self, images: Tensor) -> Tensor:
        # Captum expects the logits on the device of the images, where the targets are
        return self._logits(images).to(images.device)


def _with_boundary(methods: Mapping[str, object]) -> dict[str, object]:
    """Return `methods` with "boundary" (None) first, unless a method has this name."""
    return {**({} if "boundary" in methods else {"boundary": None}), **methods}


def _target_classes(target: object, batch: FeatureBatch) -> Tensor:
    """Return the class to explain for each image, (B,)."""
    rows, num_classes = batch.logits.shape
    classes = target_rows(target, rows, batch.logits.device)
    if classes is None:
        return batch.predicted.clamp_min(0)  # a row that is not finite is NaN for any class
    # the predicted class of a row that is not finite is -1, and it is NaN for any class
    classes = torch.where(batch.predicted < 0, classes.clamp_min(0), classes)
    fix = "pass a class, or one per image"
    return check_integer_tensor(
        "target", classes, (rows,), fix=fix, noun="classes", within=range(num_classes)
    )


def _batch_runner(
    space: FeatureSpace,
    method: Attribution,
    images: Tensor,
    by_row: Mapping[str, Any],
    fixed: Mapping[str, Any],
    seed: int,
) -> Callable[[slice], object]:
    """Return a function that runs `method` on a slice of the images."""

    def run(part: slice) -> object:
        # many of Captum's methods put hooks on the model's layers
        with seeded(seed, images.device), hooks_alone(space.model):
            leaf = images[part].clone().requires_grad_()
            sliced = {name: value[part] for name, value in by_row.items()}
            return method.attribute(leaf, **{**sliced, **fixed})

    return run


def _instantiate(name: str, method: object, space: FeatureSpace) -> Attribution:
    made = method(_Logits(space)) if callable(method) else method
    wanted = "a method of captum.attr, its class, or a function that makes it from a model"
    fix = "pass IntegratedGradients, for example"
    return check_instance(f"methods[{name!r}]", made, Attribution, wanted, fix)
