"""Files of named tensors and facts in one safe format: safetensors, with a name and a digest.

Such a file contains numbers and text only, so opening it runs no code of others. The digest
recognises damage; who changes the numbers on purpose can compute another one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsboundary.core.errors import ArgumentError, DataError
from fsboundary.core.files import write_file

_ENTRY = "fsboundary"
"""Entry of the file's metadata."""


def digest_of(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all tensors, with their names, types and shapes, and of the facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_new(path: str | PathLike[str], fix: str) -> None:
    """Raise ArgumentError if `path` exists, or its folder does not."""
    if Path(path).exists():
        raise ArgumentError("path", f"{path}, which exists", "a new file", fix)
    if not Path(path).absolute().parent.is_dir():
        fix = f"create {Path(path).absolute().parent} first"
        raise ArgumentError("path", f"{path}", "a file in a folder that exists", fix)


def write_tensors(
    path: Path, file_format: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a file, beside `path` first, so that no half of a file is left there.

    Parameters
    ----------
    path : Path
    file_format : str
        Name and version of the format.
    tensors : mapping of Tensor
        Written from the CPU, each with its own memory.
    facts : mapping
        Anything that is valid JSON.
    """
    # by name, here and below: the geometry imports results and must not reach files of tensors
    format_module = importlib.import_module("safetensors.torch")
    known = {"format": file_format, "facts": facts, "digest": digest_of(tensors, facts)}
    # one entry, because the library writes several in any order: equal contents are equal files
    metadata = {_ENTRY: json.dumps(known, sort_keys=True)}
    own: dict[str, Tensor] = {}
    places = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        own[name] = value.clone() if place in places else value  # the format has no views
        places.add(place)
    write_file(path, format_module.save(own, metadata=metadata))


def read_tensors(
    path: Path, file_format: str, noun: str, fix: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, in memory of their own, and the facts of a file.

    Parameters
    ----------
    path : Path
    file_format : str
        Name and version of the format.
    noun, fix : str
        Content of the file, such as "reference", and an instruction, for messages.

    Raises
    ------
    DataError
        No such file, one of another format, or one whose content is not that of its digest.
    """
    safetensors = importlib.import_module("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            known = json.loads(metadata.get(_ENTRY, "{}"))
            if not isinstance(known, dict):
                raise TypeError("its facts are no mapping")
            # a copy: whoever writes to the file later must not change what was checked
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no dict
    # damage can make the library raise almost anything
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: no readable {noun} ({reason}). {fix}") from error
    if known.get("format") != file_format:
        found = known.get("format", "none")
        raise DataError(f"{path}: its format is {found!r}; wanted {file_format!r}. {fix}")
    facts = known.get("facts")
    if not isinstance(facts, dict) or digest_of(tensors, facts) != known.get("digest"):
        raise DataError(f"{path}: a damaged {noun}: its digest is another. {fix}")
    return tensors, facts
