"""Checks of the arguments of a feature space."""

from __future__ import annotations

from typing import Any

from torch import nn

from fsboundary.core.checks import check_instance, describe
from fsboundary.core.domain import Domain
from fsboundary.core.errors import ArgumentError


def check_arguments(model: object, head: object, output: object, preprocess: object) -> None:
    """Raise ArgumentError unless all are of the types that :class:`FeatureSpace` takes."""
    fix = "pass the model itself, in eval mode"
    check_instance("model", model, nn.Module, "a torch nn.Module", fix)
    fix, optional = "leave it out: it is found", type(None)
    check_instance("head", head, (nn.Module, str, optional), "a layer or its dotted name", fix)
    wanted = "a key, an attribute or a position"
    check_instance("output", output, (str, int, optional), wanted, "leave it out")
    wanted, fix = "a module or a function of inputs", "pass a differentiable nn.Module"
    if not (preprocess is None or callable(preprocess)):
        raise ArgumentError("preprocess", describe(preprocess), wanted, fix)


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
        wanted = "'auto', 'unbounded', 'nonnegative' or a Domain"
        raise ArgumentError("domain", describe(domain), wanted, fix)
    named = {"unbounded": Domain.unbounded, "nonnegative": Domain.nonnegative}
    return named[domain]() if domain in named else None
