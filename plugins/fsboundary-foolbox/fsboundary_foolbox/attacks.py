"""Construction and execution of Foolbox's attacks; imported only when one is used."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary_foolbox.bisection import HasLogits

with warnings.catch_warnings():
    # it imports gaussian_filter from a deprecated SciPy module
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

_DEFAULT_ATTACKS = {"l2": "L2FMNAttack", "linf": "LInfFMNAttack"}


class _InputGradientOnly(torch.autograd.Function):
    """Logits whose backward pass reaches only the pixels, not the weights' .grad."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, view: HasLogits) -> Tensor:
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
        """Return the gradient of the pixels; attacks may request it more than once."""
        leaf, logits = ctx.pair
        if not logits.requires_grad:  # logits that ignore the images
            return torch.zeros_like(leaf), None
        return torch.autograd.grad(logits, leaf, slopes[0], retain_graph=True)[0], None


class _Logits(nn.Module):
    """A view of a model as a module, as Foolbox requires, of inputs in units of the attack."""

    def __init__(self, view: HasLogits, origin: float, unit: float) -> None:
        super().__init__()
        self._view, self._origin, self._unit = view, origin, unit

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = _InputGradientOnly.apply(inputs * self._unit + self._origin, self._view)
        return logits


def attack_names() -> list[str]:
    """Return the attacks that minimise a distance, by name."""
    members = inspect.getmembers(foolbox.attacks, inspect.isclass)
    base = foolbox.attacks.base.MinimizationAttack
    return [
        name for name, kind in members if issubclass(kind, base) and not inspect.isabstract(kind)
    ]


@dataclass(frozen=True)
class AttackOptions:
    """Options of finders that run an attack.

    Parameters
    ----------
    attack : str
        Class of ``foolbox.attacks``; empty for the fast minimum-norm attack in the requested norm.
    overrides : tuple of (str, value)
        Further arguments of that class.
    """

    attack: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Raise for an attack that Foolbox does not have, or that does not minimise."""
        if self.attack and self.attack not in attack_names():
            wanted = f"one of {', '.join(attack_names())}"
            raise fsb.ArgumentError("attack", repr(self.attack), wanted, "choose one of these")


def run_attack(
    name: str,
    overrides: dict[str, Any],
    view: HasLogits,
    images: Tensor,
    source: Tensor,
    targets: Tensor | Literal["nearest"],
    *,
    bounds: tuple[float, float],
    unit: float,
    norm: Literal["l2", "linf"],
    max_steps: int,
) -> Tensor:
    """Return the attack's proposal for each of `images`; NaN rows count as not found.

    Foolbox's attacks step in fixed lengths, meant for pixels from 0 to 1. They are run on the
    inputs minus the lower bound, divided by `unit`: steps are then relative to it.
    """
    kind = getattr(foolbox.attacks, name or _DEFAULT_ATTACKS[norm])
    options = dict(overrides)
    if "steps" in inspect.signature(kind).parameters:
        options.setdefault("steps", max_steps)
    origin, top = bounds
    model = foolbox.PyTorchModel(
        _Logits(view, origin, unit).eval(),
        bounds=(0.0, (top - origin) / unit),
        device=images.device,
    )
    if isinstance(targets, Tensor):
        criterion = foolbox.criteria.TargetedMisclassification(targets)
    else:
        criterion = foolbox.criteria.Misclassification(source)
    with torch.enable_grad():
        inputs = ((images - origin) / unit).clamp(0.0, (top - origin) / unit)
        _, proposed, _ = kind(**options)(model, inputs, criterion, epsilons=None)
    return (proposed.detach() * unit + origin).clamp(*bounds)
