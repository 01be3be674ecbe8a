from __future__ import annotations

import pytest
import torch

from fsboundary import ArgumentError, LinearHead


def test_logits_margins_and_prediction() -> None:
    head = LinearHead(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0, -1]))
    z = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    assert head.logits(z).dtype == torch.float64
    assert head.logits(z).tolist() == [[2.0, 1.0, 2.0], [1.0, 1.0, 1.0]]
    # the lowest index wins a tie
    assert head.predict(z).tolist() == [0, 0]
    assert head.margins(z).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_the_head_is_a_copy_and_differentiable_in_z() -> None:
    weight = torch.eye(2, dtype=torch.float64)
    head = LinearHead(weight, None)
    weight += 1
    z = torch.ones(1, 2, requires_grad=True)
    head.logits(z)[0, 0].backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[1.0, 0.0]]


def test_fingerprint_tells_heads_apart() -> None:
    a, b = torch.eye(2), torch.eye(2) * 2
    assert LinearHead(a, None).fingerprint == LinearHead(a.double(), torch.zeros(2)).fingerprint
    assert LinearHead(a, None).fingerprint != LinearHead(b, None).fingerprint
    assert LinearHead(a, None).fingerprint != LinearHead(a, torch.ones(2)).fingerprint


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (torch.zeros(3), None, r"shape \(3,\); wanted shape \(K, d\)"),
        (torch.zeros(1, 3), None, "two_class_head"),
        (torch.zeros(2, 0), None, "d >= 1"),
        (torch.zeros(2, 3), torch.zeros(3), r"bias: got shape \(3,\)"),
        (torch.tensor([[0.0], [torch.nan]]), None, r"class rows \[1\]"),
        (torch.zeros(2, 1), torch.tensor([torch.inf, 0.0]), r"class rows \[0\]"),
    ],
)
def test_malformed_heads(weight: torch.Tensor, bias: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        LinearHead(weight, bias)
