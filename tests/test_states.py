"""Answers depend on nothing that was written to a tensor which the user can reach.

Norms, fingerprints, copies, clearances and the states of solvers are derived from heads, banks and
domains once. They would be stale, and certificates false, if these objects could be changed, or if
they shared memory with an argument or a result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fsboundary as fsb
from support.state_hunt import Sequence
from support.states import CALLS, HANDLES, WRITES, World, answers, differences, snapshot, wreck

QUICK = [
    "fingerprints", "head", "domain", "bank", "price", "subset", "flip_points all", "tie_points",
    "region_distances", "guaranteed_balls", "GuaranteedHulls.check", "hull_projection",
    "hull_projection labels", "hull_projection leave_out", "hull_vertices", "affine_residuals",
]  # fmt: skip


@pytest.mark.parametrize("handle", HANDLES)
def test_writing_to_what_an_object_gives_leaves_the_object_as_it_was(handle: str) -> None:
    world = World(sum(map(ord, handle)) % 3)
    before = answers(world, QUICK)
    for write in WRITES.values():
        write(HANDLES[handle](world))
    for name, after in answers(world, QUICK).items():
        assert differences(after, before[name]) == [], f"{name} of world {world.seed}"


@pytest.mark.parametrize("name", CALLS)
def test_results_share_no_memory_with_arguments_or_objects(name: str) -> None:
    # a model without a body in float64: features are the images' own numbers, nothing is converted
    world = World(5)
    given = world.inputs()
    answer = CALLS[name](world, given)
    right = snapshot(answer)
    arguments = snapshot(given)
    assert right, "the answer contains no tensor: nothing is tested"
    wreck(given)
    assert differences(snapshot(answer), right) == [], "the answer shares memory with arguments"
    given = world.inputs()
    answer = CALLS[name](world, given)
    wreck(answer)
    assert differences(snapshot(given), arguments) == [], (
        "an argument shares memory with the answer"
    )
    assert differences(snapshot(CALLS[name](world, world.inputs())), right) == []


@pytest.mark.filterwarnings("ignore")  # rows inside a hull or on a boundary warn of gradients
def test_answers_after_a_random_past_are_those_of_fresh_objects() -> None:
    # the script tests/benchmarks/hunt_states.py continues from here
    right: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for seed in range(4):
        sequence = Sequence(seed, right)
        sequence.run(4)
        assert sequence.counts["answers"] > 0
        assert sequence.faults == [], f"seed {seed}"


def test_every_public_function_is_among_the_calls() -> None:
    named = {name.split()[0].split(".")[0] for name in CALLS}
    functions = {n for n in fsb.__all__ if inspect.isfunction(getattr(fsb, n))}
    # two take a linear layer and return one, two write files, and one calls another function for
    # some rows after others; no state is derived from these
    assert functions - named == {
        "export_certificates",
        "logistic_head",
        "map_rows",
        "two_class_head",
        "write_verifier",
    }


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("head.weight", torch.zeros(4, 5)),
        ("head.bias", torch.zeros(4)),
        ("head.domain", fsb.Domain.unbounded()),
        ("domain.kind", "unbounded"),
        ("bank.features", torch.zeros(24, 5)),
        ("bank.labels", None),
        ("hulls.clearance", torch.ones(4)),
        ("hulls.head", None),
        ("hulls.generators", ()),
        ("space.model", nn.Linear(16, 4)),
        ("space.head", None),
        ("batch.fingerprint", ""),
    ],
)
def test_attributes_cannot_be_replaced(attribute: str, value: Any) -> None:
    name, field = attribute.split(".")
    with pytest.raises(AttributeError):
        setattr(getattr(World(0), name), field, value)


def test_a_distance_checks_arguments_that_were_set_later() -> None:
    world = World(0)
    module = fsb.attr.ClassHullDistance(world.space, world.bank, [0, 1])
    module(world.images)
    module.classes = (0, 99)
    with pytest.raises(fsb.ArgumentError, match="99"):
        module(world.images)
    module.classes, module.bank = (0, 1), world.bank.subset(labels=0)
    with pytest.raises(fsb.ArgumentError, match=r"got \[1\], which no row has"):
        module(world.images)
    boundary = fsb.attr.BoundaryDistance(world.space)
    boundary(world.images)
    boundary.source = -1
    with pytest.raises(fsb.ArgumentError, match="source"):
        boundary(world.images)


@pytest.mark.parametrize("seed", [1, 3])  # models in float64: the value needs no conversion
def test_writing_to_a_distance_leaves_its_derivatives_as_they_are(seed: int) -> None:
    world = World(seed)

    def second_derivative(change: Callable[[torch.Tensor], object]) -> torch.Tensor:
        leaf = world.images.clone().requires_grad_()
        value = world.boundary(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        change(value.detach())
        (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
        return second

    right = second_derivative(lambda value: None)
    assert bool((right != 0).any())
    torch.testing.assert_close(second_derivative(lambda value: value.mul_(3)), right)


def test_a_head_of_a_model_that_was_trained_on_is_refused() -> None:
    world = World(0)
    with torch.no_grad():
        world.model[-1].weight.mul_(1.5)
    for use in (lambda: world.space.head, lambda: world.space.fingerprint, world.space.notes):
        with pytest.raises(fsb.HeadMismatchError, match="changed since it was found"):
            use()
    fresh = fsb.FeatureSpace(world.model)
    fresh.extract(world.images)
    torch.testing.assert_close(fresh.head.weight, 1.5 * world.head.weight, rtol=1e-6, atol=0)


def test_a_proof_does_not_outlive_the_modules_that_it_is_about() -> None:
    world = World(0)
    assert world.head.domain.kind == "nonnegative"
    world.model[2] = nn.Identity().eval()  # instead of the ReLU
    positive = world.images * 0
    with torch.no_grad():
        world.model[1].bias.fill_(1.0)  # so that no feature shows that the proof is void
    with pytest.raises(fsb.HeadMismatchError, match=r"modules of the model changed.*Make a new"):
        world.space.extract(positive)
    fresh = fsb.FeatureSpace(world.model)
    fresh.extract(positive)
    assert fresh.domain.kind == "unbounded"


def test_a_head_that_was_removed_is_named() -> None:
    world = World(0)
    world.model.append(world.model.pop(3))
    del world.model[-1]
    with pytest.raises(fsb.HeadMismatchError, match=r"'3' \(Linear\), is no longer in the model"):
        world.space.extract(world.images)
