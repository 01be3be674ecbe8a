"""The pretend device of test_devices.py raises where CUDA does, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.devices import DEVICE, MixedDevicesError, PretendDevice, PretendTensor, to_pretend

CPU = torch.arange(12.0).reshape(3, 4)
ROW = torch.tensor([2, 0])
MASK = CPU > 5
ONE = torch.tensor(2.0)


def gpu(tensor: Tensor = CPU) -> Tensor:
    return to_pretend(tensor)


RAISES: dict[str, Callable[[], object]] = {
    "sum": lambda: gpu() + CPU,
    "sum, the CPU first": lambda: CPU + gpu(),
    "0-dim of the device with the CPU's": lambda: CPU + gpu(ONE),
    "in place": lambda: CPU.clone().add_(gpu()),
    "in place on a number": lambda: ONE.clone().add_(gpu(ONE)),
    "matrix product": lambda: gpu() @ CPU.T,
    "linear layer": lambda: nn.functional.linear(gpu(), CPU),
    "cat": lambda: torch.cat([gpu(), CPU]),
    "stack of numbers": lambda: torch.stack([gpu(ONE), ONE]),
    "factory without device=": lambda: gpu() * torch.ones(4),
    "arange without device=": lambda: gpu().gather(1, torch.arange(3)[:, None]),
    "where, a condition of the CPU": lambda: torch.where(MASK, gpu(), 0.0),
    "maximum": lambda: torch.maximum(gpu(), CPU),
    "clamp by a number": lambda: gpu().clamp(ONE, 2 * ONE),
    "equal": lambda: torch.equal(gpu(), CPU),
    "isin": lambda: torch.isin(gpu(), CPU),
    "searchsorted": lambda: torch.searchsorted(gpu(), CPU),
    "index_select": lambda: gpu().index_select(0, ROW),
    "index_add": lambda: gpu().index_add(0, ROW, gpu()[:2]),
    "scatter": lambda: gpu().scatter(0, ROW[None], 0.0),
    "repeat_interleave": lambda: gpu()[0].repeat_interleave(torch.arange(4)),
    "an index of the device into the CPU": lambda: CPU[gpu(ROW)],
    "a mask of the device into the CPU": lambda: CPU[gpu(MASK)],
    "values of the CPU at an index": lambda: gpu().__setitem__(ROW, CPU[:2]),
    "values of the CPU at a mask": lambda: gpu().__setitem__(MASK, CPU[MASK]),
    "a mask of the CPU to fill": lambda: gpu().masked_fill(MASK, 0.0),
    "loss": lambda: nn.functional.cross_entropy(gpu(), torch.tensor([0, 1, 2])),
    "a generator of the CPU": lambda: torch.rand(
        3, device=DEVICE, generator=torch.Generator().manual_seed(0)
    ),
}

RETURNS: dict[str, Callable[[], Tensor]] = {
    "sum": lambda: gpu() + gpu(),
    "a number of the CPU": lambda: gpu() + ONE,
    "a number of the CPU first": lambda: ONE * gpu(),
    "a number of Python": lambda: gpu() > 1,
    "where, a number of the CPU": lambda: torch.where(gpu(MASK), gpu(), ONE),
    "fill with a number of the CPU": lambda: gpu().masked_fill(gpu(MASK), ONE),
    "an index of the CPU": lambda: gpu()[ROW],
    "a list": lambda: gpu()[[2, 0]],
    "a mask of the CPU": lambda: gpu()[MASK],
    "a number of the CPU at an index": lambda: _written(lambda t: t.__setitem__(ROW, ONE)),
    "a number of the device at an index": lambda: _written(lambda t: t.__setitem__(ROW, gpu(ONE))),
    "a row of the CPU": lambda: _written(lambda t: t.__setitem__(0, CPU[1])),
    "copy": lambda: _written(lambda t: t.copy_(CPU.flip(0))),
    "zeros": lambda: torch.zeros(3, device=DEVICE),
    "zeros_like": lambda: torch.zeros_like(gpu()),
    "new_tensor": lambda: gpu().new_tensor([1.0, 2.0]),
    "tensor": lambda: torch.tensor([1, 2], device=DEVICE),
    "as_tensor": lambda: torch.as_tensor(np.ones(3), device=DEVICE),
    "to": lambda: CPU.to(DEVICE, torch.float64),
    "view": lambda: _written(lambda t: t.view(-1)[3].fill_(9.0)),
    "squeeze in place": lambda: gpu(CPU[:1]).squeeze_(),
    "sort": lambda: gpu().sort(dim=1).values,
    "cholesky": lambda: torch.linalg.cholesky(gpu(torch.eye(3) + 1)),
    "gradient": lambda: _gradient(lambda leaf: leaf.square().sum()),
    "gradient through a copy": lambda: _gradient(lambda leaf: leaf.cpu().square().sum()),
    "gradient of an index": lambda: _gradient(lambda leaf: leaf[ROW].square().sum()),
}


def _written(write: Callable[[Tensor], object]) -> Tensor:
    tensor = gpu()
    write(tensor)
    return tensor


def _gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = gpu().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@pytest.mark.parametrize("name", RAISES)
def test_tensors_of_two_devices_raise(name: str) -> None:
    with PretendDevice(), pytest.raises(MixedDevicesError, match="device"):
        RAISES[name]()


@pytest.mark.parametrize("name", RETURNS)
def test_what_cuda_takes_is_computed_as_on_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PretendDevice():
        found = RETURNS[name]()
    assert isinstance(found, PretendTensor)
    assert found.device == DEVICE
    monkeypatch.setitem(globals(), "gpu", lambda tensor=CPU: tensor.clone())
    monkeypatch.setitem(globals(), "DEVICE", torch.device("cpu"))
    right = RETURNS[name]()
    assert found.shape == right.shape
    assert torch.equal(found.cpu(), right)


def test_results_of_the_cpu_stay_there() -> None:
    with PretendDevice():
        for tensor in (CPU + 1, torch.zeros(3), gpu().cpu(), CPU.clone().copy_(gpu())):
            assert tensor.device.type == "cpu"
            assert not isinstance(tensor, PretendTensor)


def test_arrays_need_a_copy_on_the_cpu() -> None:
    with PretendDevice():
        for read in (lambda t: t.numpy(), np.asarray):
            with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\)"):
                read(gpu())
        assert gpu().cpu().numpy().shape == CPU.shape


def test_reads_by_the_host_are_counted_and_allowed() -> None:
    with PretendDevice() as mode:
        tensor = gpu()
        assert mode.waits.total() == 0
        assert tensor[1, 1].item() == 5
        assert bool(tensor[0, 1] > 0)
        assert tensor[0].tolist() == [0, 1, 2, 3]
        assert torch.tensor([tensor[0, 1], tensor[0, 2]]).tolist() == [1, 2]
        assert mode.waits["_local_scalar_dense"] == 4
        tensor[tensor > 3].nonzero()
        assert {name: mode.waits[name] for name in ("_to_copy", "index", "nonzero")} == {
            "_to_copy": 1,
            "index": 1,
            "nonzero": 1,
        }
        before = mode.waits.total()
        (tensor + 1)[ROW].to(torch.float64)
        assert mode.waits.total() == before


def test_modules_move_and_the_original_stays() -> None:
    layer = nn.Linear(4, 2)
    moved = to_pretend(layer)
    assert layer.weight.device.type == "cpu"
    with PretendDevice():
        found = moved(gpu())
        with pytest.raises(MixedDevicesError):
            moved(CPU)
        copied = copy.deepcopy(moved)
    assert torch.equal(found.cpu(), layer(CPU))
    assert copied.weight.device == DEVICE


def test_a_device_without_float64_refuses_it() -> None:
    with PretendDevice(float64=False):
        assert gpu().sum().device == DEVICE
        for convert in (lambda: gpu().double(), lambda: CPU.double().to(DEVICE)):
            with pytest.raises(TypeError, match="float64"):
                convert()


def test_no_tensor_of_torchs_own_device_is_taken() -> None:
    stray = torch.ones(3, 4, device=DEVICE)
    with PretendDevice(), pytest.raises(AssertionError, match="not made in the mode"):
        gpu() + stray
