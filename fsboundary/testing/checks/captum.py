"""Conformance checks of attribution methods against the expectations of Captum and its consumers.

Captum 0.9 has no written contract; each check names the consumer or convention that needs it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from fsboundary.modes import seeded
from fsboundary.testing.suite import NO_EXPECTED_FAILURES, Suite

TARGET = 1
_TOLERANCE = 1e-4
"""Rows of a batch and single rows may differ by the rounding of float32 sums, not more."""


@final
class SmallClassifier(nn.Module):
    """Images (B,1,6,6) to logits (B,3), with a ReLU, a linear head and an extra argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(16, 8)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return logits (B,3); `gain` is a number, or one per row (B,)."""
        if isinstance(gain, Tensor):
            gain = gain.view(-1, 1, 1, 1)
        hidden = self.relu(self.conv(images * gain)).flatten(1)
        out: Tensor = self.head(self.relu2(self.fc(hidden)))
        return out


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A method under test.

    Attributes
    ----------
    factory : callable
        Function from a classifier to the method: ``factory(model)``.
    options : mapping
        Further arguments of every call of ``attribute``.
    """

    factory: Callable[[SmallClassifier], Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[SmallClassifier, Any, Tensor]:
        """Return a classifier, the method made from it, and images (3,1,6,6)."""
        generator = torch.Generator().manual_seed(0)
        model = SmallClassifier().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        images = torch.rand(3, 1, 6, 6, generator=generator)
        return model, self.factory(model), images

    def call(self, method: Any, inputs: Any, **changes: Any) -> Any:
        """Return ``method.attribute(inputs, ...)``; Captum's own hints are not errors."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks")
            return method.attribute(inputs, **{"target": TARGET, **self.options, **changes})


def is_an_attribution(case: Case) -> None:
    """Users distinguish methods by their classes and names."""
    from captum.attr import Attribution  # here: a plugin's tests need no Captum

    _, method, _ = case.make()
    assert isinstance(method, Attribution)
    assert method.get_name()
    assert isinstance(method.has_convergence_delta(), bool)
    assert isinstance(method.multiplies_by_inputs, bool)


def attribute_is_wrapped(case: Case) -> None:
    """NoiseTunnel and TCAV call ``attribute.__wrapped__(method, inputs, ...)``."""
    _, method, _ = case.make()
    inner = method.attribute.__wrapped__
    names = list(inspect.signature(inner).parameters)
    assert names[:2] == ["self", "inputs"], names
    assert "target" in names, names


def shape_is_that_of_the_inputs(case: Case) -> None:
    """Infidelity multiplies attributions and perturbations; a layer's have one entry per row."""
    _, method, images = case.make()
    out = case.call(method, images)
    assert isinstance(out, Tensor)
    if _of_layer(method):
        assert len(out) == len(images)
    else:
        assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert bool(torch.isfinite(out).all())


def tuple_in_tuple_out(case: Case) -> None:
    """``sensitivity_max`` passes tuples and compares the results part by part."""
    _, method, images = case.make()
    plain, out = case.call(method, images), case.call(method, (images,))
    if _of_layer(method):  # as many parts as the layer has outputs
        _close(out, plain)
        return
    assert isinstance(out, tuple)
    assert len(out) == 1
    _close(out[0], plain)


def rows_are_independent(case: Case) -> None:
    """Consumers expand, split and repeat batches."""
    _, method, images = case.make()
    whole = case.call(method, images)
    for row in range(len(images)):
        _close(case.call(method, images[row : row + 1]), whole[row : row + 1])
    _close(case.call(method, images.repeat_interleave(2, dim=0)), whole.repeat_interleave(2, dim=0))


def targets_in_every_form(case: Case) -> None:
    """Captum's consumers expand ints, lists and tensors, which mean the same."""
    _, method, images = case.make()
    one = case.call(method, images, target=TARGET)
    _close(case.call(method, images, target=[TARGET] * len(images)), one)
    _close(case.call(method, images, target=torch.full((len(images),), TARGET)), one)
    _close(case.call(method, images, target=torch.tensor(TARGET)), one)
    mixed = case.call(method, images, target=[0, 1, 2])
    for row in range(len(images)):
        _close(mixed[row : row + 1], case.call(method, images[row : row + 1], target=row))


def additional_arguments_arrive(case: Case) -> None:
    """``additional_forward_args`` reach the model, single or in a tuple, aligned by row."""
    _, method, images = case.make()
    gain = torch.tensor([0.5, 1.0, 2.0])
    out = case.call(method, images, additional_forward_args=gain)
    _close(case.call(method, images, additional_forward_args=(gain,)), out)
    for row, value in enumerate(gain.tolist()):
        single = case.call(method, images[row : row + 1], additional_forward_args=(value,))
        _close(single, out[row : row + 1])
    assert not torch.allclose(out, case.call(method, images)), "the argument changed nothing"


def works_without_gradients(case: Case) -> None:
    """NoiseTunnel and ``sensitivity_max`` call under ``no_grad``."""
    _, method, images = case.make()
    plain = case.call(method, images)
    with torch.no_grad():
        _close(case.call(method, images.clone().requires_grad_()), plain)


def leaves_no_trace(case: Case) -> None:
    """Inputs, weights, modes and hooks stay unchanged."""
    model, method, images = case.make()
    before, hooks = images.clone(), _hooks(model)
    weights = [p.clone() for p in model.parameters()]
    case.call(method, images)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None
    assert not model.training
    assert _hooks(model) == hooks
    for p, old in zip(model.parameters(), weights, strict=True):
        assert torch.equal(p, old)
        assert p.grad is None
        assert p.requires_grad


def noise_tunnel_runs(case: Case) -> None:
    """NoiseTunnel accepts the method for all three of its types."""
    from captum.attr import NoiseTunnel

    _, method, images = case.make()
    shape = case.call(method, images).shape
    for kind in ("smoothgrad", "smoothgrad_sq", "vargrad"):
        with seeded(0):
            out = case.call(NoiseTunnel(method), images, nt_type=kind, nt_samples=2, stdevs=0.01)
        assert out.shape == shape
        assert bool(torch.isfinite(out).all())


def metrics_run(case: Case) -> None:
    """``infidelity`` and ``sensitivity_max`` accept the method; layer methods have no metric."""
    from captum.metrics import infidelity, sensitivity_max

    model, method, images = case.make()
    if _of_layer(method):
        return

    def perturb(inputs: Any) -> tuple[Tensor, Tensor]:
        x = inputs[0] if isinstance(inputs, tuple) else inputs
        return torch.full_like(x, 0.01), x - 0.01

    out = case.call(method, images)
    assert infidelity(model, perturb, images, out, target=TARGET).shape == (len(images),)

    def explain(inputs: Any, **kwargs: Any) -> Any:
        return case.call(method, inputs, **kwargs)

    with seeded(0):
        result = sensitivity_max(explain, images, n_perturb_samples=2, target=TARGET)
    assert result.shape == (len(images),)
    assert bool(torch.isfinite(result).all())


def delta_is_one_a_row(case: Case) -> None:
    """NoiseTunnel requests the delta, one per row, of methods that declare one."""
    _, method, images = case.make()
    if not method.has_convergence_delta():
        return
    out, delta = case.call(method, images, return_convergence_delta=True)
    _close(out, case.call(method, images))
    assert delta.shape == (len(images),)


def layer_input_can_be_asked_for(case: Case) -> None:
    """TCAV passes ``attribute_to_layer_input`` to layer methods."""
    _, method, images = case.make()
    if _of_layer(method):
        out = case.call(method, images, attribute_to_layer_input=True)
        assert len(out) == len(images)


CHECKS: dict[str, Callable[[Case], None]] = {
    check.__name__: check
    for check in (
        is_an_attribution,
        attribute_is_wrapped,
        shape_is_that_of_the_inputs,
        tuple_in_tuple_out,
        rows_are_independent,
        targets_in_every_form,
        additional_arguments_arrive,
        works_without_gradients,
        leaves_no_trace,
        noise_tunnel_runs,
        metrics_run,
        delta_is_one_a_row,
        layer_input_can_be_asked_for,
    )
}
"""Every check by its name, which does not change."""


def captum_attribution_tests(
    factory: Callable[[SmallClassifier], Any],
    expected_failures: Mapping[str, str] = NO_EXPECTED_FAILURES,
    **options: Any,
) -> Callable[[str], None]:
    """Return a pytest function that checks an attribution method against Captum's contract.

    One line in a test file::

        test_saliency = fsboundary.testing.captum_attribution_tests(captum.attr.Saliency)

    It is parametrised by the names in :data:`CHECKS`. The method must be a function of its
    arguments: a method that draws random numbers must seed its own generator.

    Parameters
    ----------
    factory : callable
        Function from a classifier to the method, ``factory(model)``. The classifier maps images
        (B,1,6,6) to three logits; it has the layers ``conv``, ``relu``, ``fc``, ``relu2`` and
        ``head`` and an optional second argument. Layer methods are recognised.
    expected_failures : mapping of str to str
        As in :func:`hull_solver_tests`.
    **options : object
        Further arguments of every call of ``attribute``.

    Returns
    -------
    callable
        Name it ``test_...``.

    Raises
    ------
    ArgumentError
        ``expected_failures`` names an unknown check.

    Examples
    --------
    >>> import fsboundary as fsb
    >>> from fsboundary.testing import captum_attribution_tests
    >>> test_mine = captum_attribution_tests(fsb.attr.BoundaryDirection)
    """
    case = Case(factory=factory, options=options)
    return Suite(CHECKS.values(), lambda: case, expected_failures).pytest_function()


def _of_layer(method: Any) -> bool:
    from captum.attr import LayerAttribution

    return isinstance(method, LayerAttribution)


def _close(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=_TOLERANCE, atol=_TOLERANCE)


def _hooks(model: nn.Module) -> list[int]:
    """Return how many hooks each module has."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [sum(len(getattr(m, kind)) for kind in kinds) for m in model.modules()]
