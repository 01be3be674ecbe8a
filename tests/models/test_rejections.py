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


NO_HEAD = {
    "no layer": (Last(nn.Flatten(), nn.ReLU()), "no linear head.*must be an nn.Linear"),
    "scaled": (Net(lambda y: 2 * y), "'fc', gave other numbers.*scale"),
    "shifted a little": (Net(lambda y: y + 1e-4), "'fc', gave other numbers"),
    "activation": (Net(torch.tanh), "'fc', gave other numbers.*activation"),
    "normalised": (Net(F.normalize), "'fc', gave other numbers"),
    "ReLU before pooling": (squeeze_net(), "other numbers.*activation.*head.1 .ReLU"),
    "largest over space": (
        Last(nn.Identity(), nn.Conv2d(3, CLASSES, 1), lambda y: y.amax((2, 3))),
        "'head', gave other numbers.*maximum",
    ),
    "strided": (Last(nn.ReLU(), nn.Conv2d(3, CLASSES, 1, 2), lambda y: y[..., 0, 0]), "no linear"),
    "padded": (
        Last(nn.ReLU(), nn.Conv2d(3, CLASSES, 1, padding=1), lambda y: y.mean((2, 3))),
        "no linear head",
    ),
    "grouped": (
        Last(nn.ReLU(), nn.Conv2d(3, 6, 1, groups=3), lambda y: y.mean((2, 3))),
        "no linear head",
    ),
    "functional": (
        Last(nn.Flatten(), nn.ReLU(), lambda y: y @ torch.ones(12, 3)),
        "no linear head",
    ),
}


@pytest.mark.parametrize(("model", "message"), NO_HEAD.values(), ids=NO_HEAD.keys())
def test_no_linear_head(model: nn.Module, message: str) -> None:
    check_rejected(model, message, r"(The last layers seen were|No layer was seen)")


def test_the_last_five_layers_are_listed_with_their_shapes() -> None:
    body = nn.Sequential(nn.Flatten(), *[nn.Tanh() for _ in range(6)])
    with pytest.raises(fsb.HeadError) as caught:
        fsb.FeatureSpace(Last(body, nn.ReLU())).extract(images())
    listed = str(caught.value).partition("The last layers seen were ")[2].split("; ")
    names = [f"body.{k} (Tanh) (5, 12) -> (5, 12)" for k in range(3, 7)]
    assert listed == [*names, "head (ReLU) (5, 12) -> (5, 12)"]


def test_probabilities_whose_logits_are_not_linear() -> None:
    check_rejected(Net(torch.sigmoid), "sigmoid of layer 'fc'", "labels", "return the logits")
    check_rejected(Net(lambda y: (3 * y).softmax(1)), "sum to 1 in every row", "return the logits")
    check_rejected(
        Net(lambda y: (y / 9).sigmoid()), "'fc', gave other numbers", r"\[0, 1\], as probabilities"
    )


def test_a_single_logit_points_to_the_two_class_head() -> None:
    binary = Last(Net().body, nn.Linear(WIDTH, 1))
    advice = r"two_class_head\(model\.fc\)"
    check_rejected(binary, r"single logit per image \(shape \(5, 1\)\)", advice)
    check_rejected(
        Last(Net().body, nn.Linear(WIDTH, 1), lambda y: y.squeeze(1)), "single logit", advice
    )


def test_token_features() -> None:
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(4, WIDTH))
    head = nn.Linear(WIDTH, CLASSES)
    words = (r"'head', took shape \(5, 3, 6\)", "token features", "Pool the tokens")
    check_rejected(Last(tokens, head, lambda y: y.mean(1)), *words)
    check_rejected(Last(tokens, head, lambda y: y[:, 0]), *words)
    check_rejected(Last(tokens, head), r"returned shape \(5, 3, 4\) for 5 images", "pools them")
    with pytest.raises(fsb.HeadError, match=r"head='head' took shape \(5, 3, 6\)"):
        fsb.FeatureSpace(Last(tokens, head, lambda y: y.mean(1)), "head").extract(images())


SHAPES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a map": (lambda y: y[:, :, None, None].expand(-1, -1, 2, 2), r"returned shape \(5, 4, 2, 2\)"),
    "crops": (lambda y: y.repeat(2, 1), r"returned shape \(10, 4\) for 5 images"),
    "a number": (lambda y: y.sum(), "the model returned a Tensor"),
    "nothing": (lambda y: None, "the model returned a NoneType"),
    "a mapping without logits": (lambda y: {"scores": y}, r"a dict with keys \['scores'\]"),
    "a tuple of words": (lambda y: ("a", "b"), r"a tuple of \['str', 'str'\]"),
}


@pytest.mark.parametrize(("output", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_outputs_that_are_no_logits(output: Callable[[Tensor], Any], message: str) -> None:
    check_rejected(Net(output), message)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, and rejected here
def test_torch_script() -> None:
    model = torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval(), images())
    with pytest.raises(fsb.HeadError, match=r"TorchScript.*Pass the nn.Module"):
        fsb.FeatureSpace(model).extract(images())


class CustomLinear(nn.Linear):
    """A subclass of Linear that computes cosine logits."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


def test_a_linear_layer_that_computes_something_else() -> None:
    model = Last(Net().body, CustomLinear(WIDTH, CLASSES))
    before = state_of(model)
    with pytest.raises(fsb.HeadMismatchError) as caught:
        fsb.FeatureSpace(model).extract(images())
    number = r"\d\.\d{3}e[+-]\d\d"
    message = (
        rf"layer 'head' \(CustomLinear\): W z \+ b differs .* by {number} at row \d, class \d; "
        rf"the tolerance there is {number} \(torch.float32\)"
    )
    assert re.search(message, str(caught.value)), str(caught.value)
    assert state_of(model) == before


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
