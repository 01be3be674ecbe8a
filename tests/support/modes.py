"""Settings of the process that a block of a test changes and puts back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


@contextmanager
def _changed(read: Callable[[], Any], write: Callable[[Any], object], value: Any) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return a block with another default dtype."""
    return _changed(torch.get_default_dtype, torch.set_default_dtype, dtype)


def num_threads(count: int) -> AbstractContextManager[None]:
    """Return a block with another number of torch's threads."""
    return _changed(torch.get_num_threads, torch.set_num_threads, count)


def matmul_precision(name: str) -> AbstractContextManager[None]:
    """Return a block with another precision of float32 products."""
    return _changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, name)
