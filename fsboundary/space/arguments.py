"""Checks of the arguments of a feature space."""

from __future__ import annotations

from typing import Any

from torch import nn

from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError


def check_arguments(model: object, head: object, output: object, preprocess: object) -> None:
    """Raise ArgumentError unless all are of the types that :class:`FeatureSpace` takes."""
    if not isinstance(model, nn.Module):
        raise wrong("model", model, "a torch nn.Module", "pass the model itself, in eval mode")
    if not isinstance(head, nn.Module | str | None):
        raise wrong("head", head, "a layer or its dotted name", "leave it out: it is found")
    if not (preprocess is None or callable(preprocess)):
        fix = "pass a differentiable nn.Module"
        raise wrong("preprocess", preprocess, "a module or a function of inputs", fix)
    if not isinstance(output, str | int | None) or isinstance(output, bool):
        raise wrong("output", output, "a key, an attribute or a position", "leave it out")


def extractor_options(head: object, output: str | int | None) -> dict[str, Any]:
    """Return the options of the extractor that follow from `head` and `output`."""
    options: dict[str, Any] = {} if output is None else {"output": output}
    if isinstance(head, str) and head == "multi_label":
        options["multi_label"] = True
    elif head is not None:
        options["head"] = head
    return options


def chosen_domain(domain: object) -> Domain | None:
    """Return the domain that the user chose; None for "auto"."""
    if isinstance(domain, Domain):
        return domain
    if not isinstance(domain, str) or domain not in ("auto", "unbounded", "nonnegative"):
        fix = "pass one of these, or a box: Domain.box(lower, upper)"
        got = repr(domain) if isinstance(domain, str) else f"a {type(domain).__name__}"
        raise ArgumentError("domain", got, "'auto', 'unbounded', 'nonnegative' or a Domain", fix)
    named = {"unbounded": Domain.unbounded, "nonnegative": Domain.nonnegative}
    return named[domain]() if domain in named else None


def wrong(name: str, got: object, wanted: str, fix: str) -> ArgumentError:
    """Return the error for an argument `name` of another type."""
    return ArgumentError(name, f"a {type(got).__name__}", wanted, fix)
