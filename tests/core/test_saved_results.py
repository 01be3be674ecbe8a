"""Results that were saved load again: every class, every field, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fsboundary.core import results
from fsboundary.core.results import Result
from fsboundary.core.status import Status

CLASSES = [getattr(results, name) for name in results.__all__ if name != "Result"]

VALUES: list[tuple[str, Any]] = [
    ("Float64[", torch.tensor([[0.1, -0.0, torch.nan], [torch.inf, -torch.inf, 5e-324]]).double()),
    ("Float[", torch.tensor([[0.1, torch.nan], [torch.inf, 1e-45]])),
    ("Bool[", torch.tensor([True, False])),
    ("Int[", torch.tensor([0, 5, -1, 2**62])),
    ("Int64[", torch.tensor([0, 5, -1, 2**62])),
    ("Tensor", torch.tensor([1.5, torch.nan], dtype=torch.bfloat16)),
    ("tuple[str", ("a", "b")),
    ("tuple[int", (1, 2)),
    ("Status", Status.UNBOUNDED),
    ("Literal", "l2"),
    ("int", 3),
    ("str", "name"),
    ("float", 0.25),
]


def example(kind: type[Any]) -> Any:
    """Return a result whose fields have the annotated types; no field is left out."""
    fields = {}
    for field in dataclasses.fields(kind):
        text = str(field.type)
        fields[field.name] = next(value for start, value in VALUES if start in text)
    return kind(**fields)


def values(result: Any) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def assert_equal(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    for name, value in values(want).items():
        other = getattr(got, name)
        assert type(other) is type(value), name
        if isinstance(value, Tensor):
            assert other.dtype == value.dtype, name
            assert other.shape == value.shape, name
            assert other.view(torch.uint8).tolist() == value.view(torch.uint8).tolist(), name
        else:
            assert other == value, name


def saved(thing: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return file


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": lambda x: torch.load(saved(x), weights_only=False),
    "weights only": lambda x: torch.load(saved(x), weights_only=True),
    "dictionary": lambda x: type(x)(**torch.load(saved(values(x)), weights_only=True)),
}


def test_every_result_is_among_the_classes() -> None:
    # by name: a class with slots replaces one without, which may live on
    every = {kind.__name__ for kind in Result.__subclasses__()}
    assert every <= {kind.__name__ for kind in CLASSES}
    assert len(every) > 20


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_saved_result_loads_again(kind: type[Any], way: str) -> None:
    result = example(kind)
    again = COPIES[way](result)
    assert_equal(again, result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(again, dataclasses.fields(kind)[0].name, None)
    if isinstance(result, Result):
        assert torch.equal(again.ok, result.ok)


def test_a_result_loads_in_another_process(tmp_path: Path) -> None:
    torch.save([example(kind) for kind in CLASSES], tmp_path / "results.pt")
    code = (
        "import sys, torch, fsboundary.core.results\n"
        "print(*(type(x).__name__ for x in torch.load(sys.argv[1], weights_only=True)))"
    )
    names = subprocess.check_output(
        [sys.executable, "-c", code, tmp_path / "results.pt"], text=True
    )
    assert names.split() == [kind.__name__ for kind in CLASSES]
