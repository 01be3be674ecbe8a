"""Answers of every odd type and form, from plugins of every kind."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.core.errors import PluginError
from support.pixels.models import Linear
from support.plugins.hostile import (
    IMAGES,
    KINDS,
    Change,
    Extractor,
    Features,
    Given,
    Kind,
    every_kind,
    honest,
    replaced,
    require_honest,
)


@every_kind
def test_an_honest_plugin_of_each_kind_is_accepted(kind: Kind) -> None:
    given = Given()
    result = kind.call(given, kind.plugin())
    assert bool(result.ok.all())
    require_honest(kind, result)
    given.require_unchanged()


class Intercepting(Tensor):
    """A tensor that computes something else than torch in every operation."""

    @staticmethod
    def __new__(cls, value: Tensor) -> Tensor:
        return Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return torch.ones(1)


def nested(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        return torch.nested.nested_tensor(list(value.reshape(len(value), -1)))


ODD: dict[str, Change] = {
    "None": lambda v: None,
    "NumPy array": lambda v: v.detach().numpy(),
    "list": lambda v: v.tolist(),
    "number": lambda v: 3,
    "bool": lambda v: v.bool(),
    "complex": lambda v: v.to(torch.complex128),
    "sparse": lambda v: v.detach().to_sparse(),
    "nested": lambda v: nested(v.detach()),
    "no memory": lambda v: v.to("meta"),
    "tensor that intercepts": lambda v: Intercepting(v),
    "a row less": lambda v: v[:-1],
    "a dimension more": lambda v: v[..., None],
    "a scalar": lambda v: v.flatten()[0],
    "int32": lambda v: v.int(),
}
ODD_FLOATS = ODD | {"integers": lambda v: v.long()}
ODD_INTEGERS = ODD | {
    "float64": lambda v: v.double(),
    "NaN": lambda v: v.double() * torch.nan,
    "uint8": lambda v: v.to(torch.uint8),
}
odd_answers = pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param(kind, field, value, id=f"{name}-{field}-{what}")
        for name, kind in KINDS.items()
        for fields_, table in ((kind.floats, ODD_FLOATS), (kind.integers, ODD_INTEGERS))
        for field in fields_
        for what, value in table.items()
    ]
    + [
        pytest.param(kind, field, lambda v: v[..., :0], id=f"{name}-{field}-no slots")
        for name, kind in KINDS.items()
        for field in kind.ragged
    ]
    + [
        pytest.param(kind, "steps", lambda v: v - 10**18, id=f"{name}-negative steps")
        for name, kind in KINDS.items()
        if "steps" in kind.integers
    ],
)


@odd_answers
def test_an_odd_answer_is_an_error_that_names_plugin_and_field(
    kind: Kind, field: str, value: Change
) -> None:
    with pytest.raises(PluginError) as caught:
        kind.call(Given(), kind.plugin(replaced(field, value)))
    assert (kind.label if kind.plugin is not Extractor else "Extractor") in str(caught.value)
    assert field in str(caught.value)
    assert "wanted" in str(caught.value)


class Benign(Tensor):
    """A subclass without any behaviour of its own, as image libraries have."""


class Lying(Tensor):
    """A subclass of which every comparison is true."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ in ("le", "lt", "ge", "gt", "isfinite", "__le__", "__ge__"):
            with torch._C.DisableTorchFunctionSubclass():
                return torch.ones_like(function(*args, **(kwargs or {})))
        return super().__torch_function__(function, types, args, kwargs)


def expanded(value: Tensor) -> Tensor:
    """Return a view with two strides of 0 that holds the same numbers in the same shape."""
    return value.detach().expand(3, *value.shape)[1]


HARMLESS: dict[str, Change] = {
    "view of a larger tensor": lambda v: torch.stack([v.detach(), v.detach()], dim=-1)[..., 0],
    "transposed memory": lambda v: v.detach().mT.contiguous().mT if v.ndim > 1 else v,
    "expanded": expanded,
    "with a graph": lambda v: v.detach().requires_grad_() if v.is_floating_point() else v,
    "parameter": lambda v: nn.Parameter(v.detach(), requires_grad=False),
    "benign subclass": lambda v: v.detach().as_subclass(Benign),
    "lying subclass": lambda v: v.detach().as_subclass(Lying),
}


@every_kind
@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_a_harmless_form_of_the_right_numbers_changes_nothing(kind: Kind, value: Change) -> None:
    for field in kind.floats + kind.integers:
        require_honest(kind, kind.call(Given(), kind.plugin(replaced(field, value))))


@pytest.mark.parametrize("name", ["finder", "solver"])
def test_a_lying_tensor_is_not_believed(name: str) -> None:
    kind = KINDS[name]

    def lie(answer: Any) -> Any:
        for field in kind.floats:
            wrong = (getattr(answer, field) + 1).as_subclass(Lying)
            answer = replaced(field, lambda _, wrong=wrong: wrong)(answer)
        return answer

    result, truth = kind.call(Given(), kind.plugin(lie)), honest(kind.label)
    converged = result.status == fsb.Status.CONVERGED
    near = (result.distance - truth["distance"]).abs() <= 1e-5 * truth["distance"]
    assert bool((near | ~converged).all())
    assert bool((result.lower_bound <= truth["distance"] * (1 + 1e-9)).all())


class Partial:
    """An answer whose fields raise."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("the file of results is gone")


def without_fields(answer: Any) -> Any:
    return object.__new__(type(answer))


CONTAINERS: dict[str, Change] = {
    "None": lambda a: None,
    "dict": lambda a: {f.name: getattr(a, f.name) for f in fields(a)},
    "generator": lambda a: (x for x in [a]),
    "list": lambda a: [a],
    "class": lambda a: type(a),
    "another result": lambda a: honest("boundary finder Finder"),
}


@every_kind
@pytest.mark.parametrize("change", CONTAINERS.values(), ids=CONTAINERS)
def test_another_container_is_an_error_that_names_the_plugin(kind: Kind, change: Change) -> None:
    with pytest.raises(PluginError, match=f"{kind.label} returned .*; wanted "):
        kind.call(Given(), kind.plugin(change))


@pytest.mark.parametrize("name", ["finder", "finder of any head", "solver", "image finder"])
def test_fields_that_cannot_be_read_are_named(name: str) -> None:
    kind = KINDS[name]
    first = (kind.integers + kind.floats)[0] if name != "image finder" else "images"
    with pytest.raises(PluginError, match=f"{kind.label}: {first} cannot be read .AttributeError"):
        kind.call(Given(), kind.plugin(without_fields))

    def spoof(answer: Any) -> Any:
        return type("Spoof", (Partial,), {"__class__": type(answer)})()

    with pytest.raises(PluginError, match=f"{kind.label}: {first} cannot be read .OSError"):
        kind.call(Given(), kind.plugin(spoof))


@every_kind
def test_an_answer_that_is_written_to_later_counts_as_it_was_returned(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Tensor] = []

    def keep(answer: Any) -> Any:
        for field in kind.floats + kind.integers:
            own = getattr(answer, field).detach().clone()
            answer = replaced(field, lambda _, own=own: own)(answer)
            kept.append(own)
        return answer

    module, name = kind.grade
    original = getattr(module, name)

    def grade(*arguments: Any, **options: Any) -> Any:
        for tensor in kept:
            tensor.fill_(-1)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, grade)
    result = kind.call(Given(), kind.plugin(keep))
    assert kept
    assert all(bool((tensor == -1).all()) for tensor in kept)
    require_honest(kind, result)


def test_an_extractor_may_reuse_its_buffers() -> None:
    class Reusing(Extractor):
        buffers: Features | None = None

        def features(self, model, images, *additional):
            features, logits = super().features(model, images)
            if self.buffers is None:
                self.buffers = Features(features.clone(), logits.clone())
            self.buffers.features.copy_(features)
            self.buffers.logits.copy_(logits)
            return self.buffers.features, self.buffers.logits

    found = fsb.FeatureSpace(Linear(), extractor=Reusing()).extract(IMAGES, batch_size=2)
    want = fsb.FeatureSpace(Linear(), extractor=Extractor()).extract(IMAGES)
    torch.testing.assert_close(found.features, want.features)
    torch.testing.assert_close(found.logits, want.logits)
