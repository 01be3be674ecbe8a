"""Spaces and modules that were pickled or copied: they work, and verify their model again."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.core.errors import HeadError, HeadMismatchError

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def make_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
        return nn.Sequential(*layers).eval()


def with_torch(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "protocol 2": lambda thing: pickle.loads(pickle.dumps(thing, protocol=2)),
    "torch.save": with_torch,
    "deepcopy": copy.deepcopy,
}
SPACES: dict[str, Callable[[], fsb.FeatureSpace]] = {
    "plain": lambda: fsb.FeatureSpace(make_net()),
    "named head": lambda: fsb.FeatureSpace(make_net(), head="3", domain="nonnegative"),
    "head module": lambda: (net := make_net()) and fsb.FeatureSpace(net, head=net[3]),
    "preprocess": lambda: fsb.FeatureSpace(make_net(), preprocess=nn.Threshold(0.5, 0.1)),
    "box": lambda: fsb.FeatureSpace(
        make_net(), domain=fsb.Domain.box(torch.zeros(12), 9 * torch.ones(12))
    ),
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", SPACES)
def test_a_space_loads_and_gives_the_same_features(name: str, way: str, used: bool) -> None:
    space = SPACES[name]()
    if used:
        space.extract(X)
    again = COPIES[way](space)
    got, want = again.extract(X), space.extract(X)
    for field in ("features", "logits", "predicted", "status", "fingerprint"):
        one, other = getattr(got, field), getattr(want, field)
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert again.notes() == space.notes()
    assert again.model is not space.model


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_holds_nothing_that_was_verified(way: str) -> None:
    space = SPACES["plain"]()
    space.extract(X)
    again = COPIES[way](space)
    with pytest.raises(HeadError, match="not known yet"):
        _ = again.head
    assert space.head is not None  # the original keeps its own


def test_a_pickle_does_not_vouch_for_a_model_that_changed() -> None:
    space = SPACES["plain"]()
    before = space.extract(X)
    changed = pickle.loads(pickle.dumps(space))
    with torch.no_grad():
        changed.model[3].weight.mul_(1e3)
    after = changed.extract(X)
    assert after.fingerprint != before.fingerprint
    torch.testing.assert_close(changed.head.weight, changed.model[3].weight.double())
    # and the body may no longer prove the domain
    changed = pickle.loads(pickle.dumps(space))
    changed.model[2] = nn.LeakyReLU().eval()
    assert changed.extract(X).features.min() < 0
    assert changed.domain.kind == "unbounded"
    # or compute rows together
    changed = pickle.loads(pickle.dumps(space))
    changed.model[2] = nn.BatchNorm1d(12, track_running_stats=False).eval()
    with pytest.raises(HeadError, match="depend on the other examples"):
        changed.extract(X)
    # while a space in use notices a change of the head
    with torch.no_grad():
        space.model[3].weight.mul_(2)
    with pytest.raises(HeadMismatchError):
        space.extract(X)


def modules(space: fsb.FeatureSpace, bank: fsb.FeatureBank) -> dict[str, Any]:
    attr = fsb.attr
    return {
        "BoundaryDistance": attr.BoundaryDistance(space),
        "BoundaryDistance from 1": attr.BoundaryDistance(space, source=1),
        "HullDistance": attr.HullDistance(space, bank),
        "ClassHullDistance": attr.ClassHullDistance(space, bank),
        "BoundaryDirection": attr.BoundaryDirection(space),
        "FeatureBank": bank,
        "LinearHead": space.head,
    }


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(
    "name",
    ["BoundaryDistance", "BoundaryDistance from 1", "HullDistance", "ClassHullDistance",
     "BoundaryDirection", "FeatureBank", "LinearHead"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:columns .* are NaN:UserWarning")  # of the class of source=
def test_modules_methods_banks_and_heads(name: str, way: str) -> None:
    space = SPACES["plain"]()
    features = space.extract(X).features
    thing = modules(space, fsb.FeatureBank(features, [0, 0, 1, 1, 2, 2]))[name]
    again = COPIES[way](thing)
    if isinstance(thing, nn.Module):
        torch.testing.assert_close(again(X[:2]), thing(X[:2]), rtol=0, atol=0, equal_nan=True)
        assert again.model is again.space.model
    elif name == "BoundaryDirection":
        assert torch.equal(again.attribute(X[:2]), thing.attribute(X[:2]))
    elif name == "FeatureBank":
        assert torch.equal(again.take(torch.arange(6)), thing.take(torch.arange(6)))
        assert torch.equal(again.labels, thing.labels)
    else:
        assert torch.equal(again.weight, thing.weight)
        assert again.fingerprint == thing.fingerprint


def test_a_space_is_sent_to_a_new_process(tmp_path: Path) -> None:
    space = SPACES["plain"]()
    want = space.extract(X)
    (tmp_path / "space.pickle").write_bytes(pickle.dumps((space, X)))
    code = (
        "import pickle, sys\n"
        "space, images = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(space.extract(images).fingerprint)"
    )
    printed = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "space.pickle"], text=True
    )
    assert printed.strip() == want.fingerprint


COMPILED = """
import torch, fsboundary as fsb
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
for used in (False, True):
    space = fsb.FeatureSpace(net)
    if used:
        space.extract(torch.rand(2, 1, 4, 4))
    distance = fsb.attr.BoundaryDistance(space)
    for plain in (
        distance,
        lambda v: space.logits(v).sum(),
        lambda v: space.features(v + 1) * 2,
        lambda v: space.extract(v).features + v.flatten(1).sum(1, keepdim=True),
    ):
        compiled = torch.compile(plain, backend="eager")
        for rows in (5, 3):
            x, y = (torch.ones(rows, 1, 4, 4, requires_grad=True) for _ in range(2))
            one, other = compiled(x), plain(y)
            assert torch.equal(one, other)
            one.sum().backward()
            other.sum().backward()
            torch.testing.assert_close(x.grad, y.grad)
print("equal")
"""


def test_compiled_code_calls_a_space_as_plain_python() -> None:
    # in a process of its own, where the compiler's own warnings are no errors
    printed = subprocess.check_output([sys.executable, "-c", COMPILED], text=True)
    assert printed == "equal\n"


def test_nothing_of_the_compiler_is_imported_without_it() -> None:
    code = (
        "import sys, torch, fsboundary as fsb\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()\n"
        "fsb.attr.BoundaryDistance(net)(torch.rand(2, 4))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
