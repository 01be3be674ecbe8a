from __future__ import annotations

import pytest
import torch

from fsboundary import ArgumentError, Domain, LinearHead, MultiLabelHead


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


def test_heads_of_labels() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    head = MultiLabelHead(weight, torch.tensor([0.0, 0.0, -3.0]), Domain.nonnegative())
    weight += 1
    z = torch.tensor([[2.0, 1.0], [0.0, 4.0]])
    assert head.logits(z).tolist() == [[2.0, 1.0, 0.0], [0.0, 4.0, 1.0]]
    # a logit of 0, a sigmoid of one half, does not assign the label
    assert head.predict(z).tolist() == [[True, True, False], [False, True, True]]
    assert (head.num_labels, head.num_features, head.device.type) == (3, 2, "cpu")
    assert head.to(torch.device("cpu")) is head
    assert repr(head) == "MultiLabelHead(L=3, d=2, domain=Domain.nonnegative())"
    assert head.domain == Domain.nonnegative()
    for k in range(3):
        two = head.label_head(k)
        assert two.domain == head.domain
        assert torch.equal(two.predict(z).bool(), head.predict(z)[:, k])
    head.weight.zero_()
    head.bias.zero_()
    assert head.logits(z)[0].tolist() == [2.0, 1.0, 0.0]
    same = MultiLabelHead(head.weight, head.bias)
    assert same.fingerprint == head.fingerprint != LinearHead(head.weight, head.bias).fingerprint
    assert MultiLabelHead(torch.ones(1, 2), None).bias.tolist() == [0.0]
    for name in ("weight", "bias", "domain"):
        with pytest.raises(AttributeError):
            setattr(head, name, None)


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (torch.zeros(3), None, r"shape \(3,\).*one row per label"),
        (torch.zeros(0, 3), None, "no rows; wanted at least one label"),
        (torch.zeros(1, 0), None, "d >= 1"),
        (torch.zeros(2, 3), torch.zeros(3), "one number per label"),
        (torch.tensor([[0.0], [torch.nan]]), None, r"label rows \[1\]"),
    ],
)
def test_malformed_heads_of_labels(
    weight: torch.Tensor, bias: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        MultiLabelHead(weight, bias)


@pytest.mark.parametrize("k", [-1, 2, True, 0.0])
def test_labels_that_a_head_does_not_have(k: int) -> None:
    with pytest.raises(ArgumentError, match="an integer from 0 to 1"):
        MultiLabelHead(torch.eye(2), None).label_head(k)
