"""Foolbox's attacks, made and run; imported only when one is asked for."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary_foolbox.halving import Scores

with warnings.catch_warnings():
    # it imports gaussian_filter from where SciPy used to keep it
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

_USUAL = {"l2": "L2FMNAttack", "linf": "LInfFMNAttack"}


class _OfPixelsOnly(torch.autograd.Function):
    """Logits whose backward pass reaches the pixels alone, and leaves the weights' .grad be."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, view: Scores) -> Tensor:
        """Return logits (B,K)."""
        if not ctx.needs_input_grad[0]:
            return view.logits(images).detach()
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            logits = view.logits(leaf)
        ctx.pair = leaf, logits
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the pixels; attacks may ask more than once."""
        leaf, logits = ctx.pair
        if not logits.requires_grad:  # logits that ignore the images
            return torch.zeros_like(leaf), None
        return torch.autograd.grad(logits, leaf, slopes[0], retain_graph=True)[0], None


class _Logits(nn.Module):
    """The module that Foolbox wants, over a view of a model."""

    def __init__(self, view: Scores) -> None:
        super().__init__()
        self._view = view

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = _OfPixelsOnly.apply(images, self._view)
        return found


def names() -> list[str]:
    """Return the attacks that minimise a distance, by name."""
    found = inspect.getmembers(foolbox.attacks, inspect.isclass)
    base = foolbox.attacks.base.MinimizationAttack
    return [name for name, kind in found if issubclass(kind, base) and not inspect.isabstract(kind)]


@dataclass(frozen=True)
class Attacking:
    """What finders that ask an attack have in common.

    Parameters
    ----------
    attack : str
        A class of ``foolbox.attacks``; empty for the fast minimum-norm attack in the norm asked.
    overrides : tuple of (str, value)
        Further arguments of that class.
    """

    attack: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse an attack that Foolbox does not have, or that does not minimise."""
        if self.attack and self.attack not in names():
            wanted = f"one of {', '.join(names())}"
            raise fsb.ArgumentError("attack", repr(self.attack), wanted, "choose one of these")


def run(
    name: str,
    overrides: dict[str, Any],
    view: Scores,
    images: Tensor,
    source: Tensor,
    targets: Tensor | Literal["nearest"],
    *,
    bounds: tuple[float, float],
    norm: Literal["l2", "linf"],
    max_steps: int,
) -> Tensor:
    """Return what the attack proposes for each of `images`; NaN rows count as not found."""
    kind = getattr(foolbox.attacks, name or _USUAL[norm])
    options = dict(overrides)
    if "steps" in inspect.signature(kind).parameters:
        options.setdefault("steps", max_steps)
    model = foolbox.PyTorchModel(_Logits(view).eval(), bounds=bounds, device=images.device)
    if isinstance(targets, Tensor):
        criterion = foolbox.criteria.TargetedMisclassification(targets)
    else:
        criterion = foolbox.criteria.Misclassification(source)
    with torch.enable_grad():
        _, found, _ = kind(**options)(model, images, criterion, epsilons=None)
    return found.detach()
