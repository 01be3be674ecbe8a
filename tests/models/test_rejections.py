"""Models without a usable head are rejected with reason and advice, and stay unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fsboundary as fsb
from support.models.nets import CLASSES, WIDTH, Last, Net, images
from support.models.untouched import state_of


def check_rejected(model: nn.Module, *parts: str, x: Tensor | None = None) -> None:
    """Check that extraction raises HeadError with `parts` in its message, model unchanged."""
    before = state_of(model)
    with pytest.raises(fsb.HeadError) as caught:
        fsb.FeatureSpace(model).extract(images() if x is None else x)
    for part in parts:
        assert re.search(part, str(caught.value)), str(caught.value)
    assert state_of(model) == before


def test_training_mode_names_the_first_module() -> None:
    model = Net()
    model.body[1].train()
    check_rejected(
        model, r"training mode .*'body.1' \(Linear\)", r"Call \.eval\(\)", "never changes"
    )
    check_rejected(Net().train(), r"training mode \(Net\)")


def test_training_mode_is_rejected_after_the_head_was_found_too() -> None:
    space = fsb.FeatureSpace(Net())
    space.extract(images())
    space.model.train()
    with pytest.raises(fsb.HeadError, match="training mode"):
        space.features(images())


def squeeze_net() -> nn.Module:
    head = nn.Conv2d(3, CLASSES, 1)
    return Last(nn.ReLU(), nn.Sequential(head, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


AFTER = "non-affine operation '{}' follows its last linear map, layer '{}'"


def written(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Return a function that changes its argument in place and returns it."""

    def change(y: Tensor) -> Tensor:
        function(y)
        return y

    return change


NO_HEAD = {
    "an inactive clamp of a view": (
        Net(written(lambda y: y[:, :1].clamp_(-900, 900))),
        "written to in place, through another view",
    ),
    "a column that is set": (Net(written(lambda y: y.__setitem__((0, 0), 5.0))), "in place"),
    "changed behind autograd": (Net(written(lambda y: y.data.clamp_(-900, 900))), "in place"),
    "changed through detach": (Net(written(lambda y: y.detach().clamp_(-900, 900))), "in place"),
    "changed, then used": (
        Net(lambda y: written(lambda v: v[:, :1].clamp_(-900, 900))(y) + 0.0),
        "'overwritten' follows its last linear map|encoder without",
    ),
    "an inactive clamp in place": (
        Net(written(lambda y: y.clamp_(-900, 900))),
        AFTER.format("clamp", "fc"),
    ),
    "no layer": (Last(nn.Flatten(), nn.ReLU()), "encoder without a classifier"),
    "pooled features": (Last(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "num_classes=0"),
    "activation": (Net(torch.tanh), AFTER.format("tanh", "fc")),
    "inactive clamp": (Net(lambda y: y.clamp(-900, 900)), AFTER.format("clamp", "fc")),
    "inactive gate": (Net(lambda y: y + 0 * y.tanh()), "'tanh' is applied to the output of its"),
    "normalised": (Net(F.normalize), AFTER.format("div", "fc")),
    "sorted": (Net(lambda y: y.sort(1).values), AFTER.format("sort", "fc")),
    "sorted by index": (Net(lambda y: y.gather(1, y.argsort(1))), "chosen by the values"),
    "ReLU before pooling": (squeeze_net(), AFTER.format("relu", "head.0")),
    "largest over space": (
        Last(nn.Identity(), nn.Conv2d(3, CLASSES, 1), lambda y: y.amax((2, 3))),
        AFTER.format("amax", "head"),
    ),
    "other rows": (Net(lambda y: y - y.mean(0)), "rows share features"),
    "independent of the input": (Net(lambda y: torch.ones(5, 4)), "does not depend on its inputs"),
    "through NumPy": (
        Net(lambda y: torch.from_numpy(y.detach().numpy().copy())),
        "does not depend on its inputs by operations of torch",
    ),
    "masked classes": (
        Net(lambda y: y.masked_fill(torch.tensor([False, True, False, False]), -torch.inf)),
        r"classes \[1\] are -inf in every row",
    ),
}


@pytest.mark.parametrize(("model", "message"), NO_HEAD.values(), ids=NO_HEAD.keys())
def test_no_linear_head(model: nn.Module, message: str) -> None:
    check_rejected(model, message)


def test_the_last_operations_are_listed_with_layers_and_shapes() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), *[nn.Tanh() for _ in range(4)])
    with pytest.raises(fsb.HeadError) as caught:
        fsb.FeatureSpace(Last(body, nn.ReLU())).extract(images())
    listed = str(caught.value).partition("The last operations were ")[2].splitlines()[0].split("; ")
    assert listed == ["addmm (body.1) -> (5, 6)", *["tanh -> (5, 6)"] * 4, "relu -> (5, 6)"]


def test_one_probability_per_label() -> None:
    check_rejected(Net(torch.sigmoid), "sigmoid of layer 'fc'", "labels", "return the logits")
    check_rejected(Net(lambda y: (y / 9).sigmoid()), "sigmoid of layer 'fc'")


def test_a_single_logit_points_to_the_two_class_head() -> None:
    binary = Last(Net().body, nn.Linear(WIDTH, 1))
    advice = r"two_class_head\(model\.fc\)"
    check_rejected(binary, r"single logit per example \(shape \(5, 1\)\)", advice)
    check_rejected(
        Last(Net().body, nn.Linear(WIDTH, 1), lambda y: y.squeeze(1)), "single logit", advice
    )


def test_outputs_per_token() -> None:
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(4, WIDTH))
    head = nn.Linear(WIDTH, CLASSES)
    check_rejected(Last(tokens, head), r"returned shape \(5, 3, 4\) for 5 examples", "pools them")


SHAPES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a map": (lambda y: y[:, :, None, None].expand(-1, -1, 2, 2), r"returned shape \(5, 4, 2, 2\)"),
    "crops": (lambda y: y.repeat(2, 1), r"returned shape \(10, 4\) for 5 examples"),
    "a number": (lambda y: y.sum(), "the model returned a Tensor"),
    "nothing": (lambda y: None, "the model returned a NoneType"),
    "a mapping of words": (lambda y: {"scores": "a"}, r"a dict with keys \['scores'\]"),
    "class numbers": (lambda y: y.argmax(1), "class numbers"),
    "a tuple of words": (lambda y: ("a", "b"), r"a tuple of \['str', 'str'\]"),
}


@pytest.mark.parametrize(("output", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_outputs_that_are_no_logits(output: Callable[[Tensor], Any], message: str) -> None:
    check_rejected(Net(output), message)


class Failing(Net):
    """A model that raises in the middle of its forward pass if `error` is set."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error: BaseException | None = error

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(self.body(x))
        if self.error is not None:
            raise self.error
        return logits


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=repr)
def test_an_exception_in_the_model_leaves_no_hook_and_no_mode(error: BaseException) -> None:
    model = Failing(error)
    space = fsb.FeatureSpace(model)
    before = state_of(model)
    for head_is_known in (False, True):
        with pytest.raises(type(error)):
            space.extract(images())
        assert state_of(model) == before
        assert torch.is_grad_enabled()
        assert not torch.utils._python_dispatch._get_current_dispatch_mode()
        if not head_is_known:
            model.error = None
            space.extract(images())
            model.error = error


def test_an_error_that_a_wrong_dtype_causes_gets_a_hint() -> None:
    with pytest.raises(RuntimeError) as caught:
        fsb.FeatureSpace(Net()).extract(images().double())
    assert "pass inputs.to(torch.float32)" in caught.value.__notes__[0]


def test_the_head_is_not_known_before_the_first_batch() -> None:
    space = fsb.FeatureSpace(Net())
    for read in (lambda: space.head, lambda: space.domain, lambda: space.fingerprint, space.notes):
        with pytest.raises(fsb.HeadError, match=r"Call extract\(inputs\) first.*example=inputs"):
            read()
    assert fsb.FeatureSpace(Net(), domain="nonnegative").domain == fsb.Domain.nonnegative()
