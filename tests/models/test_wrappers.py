"""Compiled and parallel wrappers: the eager model inside runs, and nothing is changed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.models.calling import call
from support.models.nets import Last, Net, images
from support.models.untouched import state_of


def check_same_as_plain(model: nn.Module) -> fsb.FeatureSpace:
    """Extract features with `model`, a wrapped Net, and compare them with those of a plain Net."""
    space = fsb.FeatureSpace(model)
    plain = fsb.FeatureSpace(Net()).extract(images())
    for _ in range(2):  # first the head is searched, then it is known
        before = state_of(model)
        batch = space.extract(images())
        assert state_of(model) == before
        assert torch.equal(batch.features, plain.features)
        assert torch.equal(batch.logits, plain.logits)
    return space


def test_a_compiled_model() -> None:
    space = check_same_as_plain(torch.compile(Net(), backend="eager"))
    assert space.notes()["layer"] == "fc"
    assert space.fingerprint == fsb.FeatureSpace(Net()).extract(images()).fingerprint


def test_a_model_compiled_in_place() -> None:
    model = Net()
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    model(images())  # compiles it without hooks
    check_same_as_plain(model)
    assert model._compiled_call_impl is compiled


def test_a_compiled_part_that_holds_the_head() -> None:
    inner = torch.compile(Net(), backend="eager")
    model = Last(nn.Identity(), inner)
    model(images())
    space = fsb.FeatureSpace(model)
    assert torch.equal(space.extract(images()).logits, Net()(images()))
    assert space.notes()["layer"] == "head._orig_mod.fc"


def test_compiled_code_runs_compiled_again_afterwards() -> None:
    compilations = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        compilations.append(graph)
        return graph

    model = torch.compile(Net(), backend=backend)
    fsb.FeatureSpace(model).extract(images())
    assert not compilations
    model(images())
    assert len(compilations) == 1


def test_passes_of_two_threads_leave_the_setting_of_the_compiler_as_it_was() -> None:
    # the first one to begin is the first one to end
    import torch._dynamo
    from torch._dynamo import eval_frame

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.begun, self.may_end = threading.Event(), threading.Event()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(eval_frame._stance.stance)
            self.begun.set()
            assert self.may_end.wait(60)
            seen.append(eval_frame._stance.stance)
            return x

    seen: list[str] = []
    before = eval_frame._stance.stance
    models = Waits(), Waits()
    threads = [threading.Thread(target=call, args=(m, torch.zeros(1))) for m in models]
    for thread, model in zip(threads, models, strict=True):
        thread.start()
        assert model.begun.wait(60)
    for thread, model in zip(threads, models, strict=True):
        model.may_end.set()
        thread.join()
    assert seen == ["force_eager"] * 4
    assert eval_frame._stance.stance == before


def test_data_parallel() -> None:
    model = nn.DataParallel(Net())  # only the wrapper is in training mode, which has no effect
    assert model.training
    assert check_same_as_plain(model).notes()["layer"] == "fc"
    assert fsb.FeatureSpace(model, "module.fc").extract(images()).ok.all()
    assert fsb.FeatureSpace(model, "fc").extract(images()).ok.all()
    assert fsb.FeatureSpace(model, model.module.fc).extract(images()).ok.all()


def test_a_compiled_model_inside_data_parallel() -> None:
    check_same_as_plain(nn.DataParallel(torch.compile(Net(), backend="eager")))


@pytest.fixture
def one_process() -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"tcp://localhost:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel() -> None:
    check_same_as_plain(nn.parallel.DistributedDataParallel(Net()))


def test_one_extractor_serves_several_models_and_releases_them() -> None:
    from fsboundary.builtin.head_input import HeadInput

    extractor = HeadInput()
    first, second = Net(), Net()
    with torch.no_grad():
        second.fc.weight.mul_(2)
    spaces = [fsb.FeatureSpace(m, extractor=extractor) for m in (first, second)]
    for space in spaces:
        space.extract(images())
    assert torch.equal(spaces[1].head.weight, 2 * spaces[0].head.weight)
    assert len(extractor._known) == 2
    del first, second, spaces, space
    assert len(extractor._known) == 0
