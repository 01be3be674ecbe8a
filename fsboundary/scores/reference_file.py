"""One file with everything that a reference consists of: tensors of safetensors, and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fsboundary.core.errors import DataError
from fsboundary.core.files import write_file

FORMAT = "fsboundary reference 1"
"""Name and version of the format, in the metadata of the file."""


def digest_of(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all tensors, with their names, types and shapes, and of the facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def write_reference(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a reference to `path`, beside it first, so that no half of a file is left there."""
    metadata = {
        "format": FORMAT,
        "facts": json.dumps(facts, sort_keys=True),
        "digest": digest_of(tensors, facts),
    }
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    write_file(path, save(contiguous, metadata=metadata))


def read_reference(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the facts of a reference.

    Raises
    ------
    DataError
        No reference, one of another version, or one whose content is not that of its digest.
    """
    again = "Fit it again with Reference.fit(space, loader, path=...), or restore a copy"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no readable reference ({error}). {again}") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise DataError(f"{path}: its format is {found!r}; wanted {FORMAT!r}. {again}")
    try:
        facts = json.loads(metadata["facts"])
        same = digest_of(tensors, facts) == metadata["digest"]
    except (KeyError, ValueError):
        facts, same = {}, False
    if not same:
        raise DataError(f"{path}: a damaged reference: its digest is another. {again}")
    return tensors, facts
