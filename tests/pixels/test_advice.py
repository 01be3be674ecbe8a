"""Advice of the results of `fsboundary.pixels`: every argument that it names exists."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable

import pytest
import torch

import fsboundary as fsb
from fsboundary import Status
from fsboundary.core.results import (
    Amplification,
    CertifiedPixels,
    CrossedImages,
    FlipImages,
    InverseImages,
    Morph,
    SegmentClasses,
    SmoothedClasses,
    SmoothedDistances,
)
from fsboundary.core.results.base import Result

FUNCTIONS: dict[type[Result], Callable[..., Result]] = {
    Amplification: fsb.pixels.amplification,
    CertifiedPixels: fsb.pixels.certify,
    CrossedImages: fsb.pixels.crossed_images,
    FlipImages: fsb.pixels.flip_images,
    InverseImages: fsb.pixels.inverse_images,
    Morph: fsb.pixels.morph,
    SegmentClasses: fsb.pixels.segment_classes,
    SmoothedClasses: fsb.pixels.smoothed,
    SmoothedDistances: fsb.pixels.smoothed_distances,
}

COMMON = {Status.NOT_FINITE, Status.OUTSIDE_DOMAIN, Status.MAX_STEPS, Status.INACCURATE}
"""Statuses that a row without a final answer may have in each of these."""

POSSIBLE = {
    Amplification: COMMON | {Status.INFEASIBLE},
    CertifiedPixels: COMMON - {Status.OUTSIDE_DOMAIN} | {Status.UNDECIDED},
    CrossedImages: COMMON - {Status.OUTSIDE_DOMAIN} | {Status.TARGET_IS_SOURCE, Status.UNDECIDED},
    FlipImages: COMMON - {Status.OUTSIDE_DOMAIN} | {Status.TARGET_IS_SOURCE, Status.UNDECIDED},
    InverseImages: COMMON,
    Morph: COMMON | {Status.INFEASIBLE, Status.TARGET_IS_SOURCE},
    SegmentClasses: COMMON - {Status.OUTSIDE_DOMAIN} | {Status.UNDECIDED},
    SmoothedClasses: {Status.NOT_FINITE, Status.UNDECIDED},
    SmoothedDistances: {Status.NOT_FINITE, Status.UNDECIDED},
}


def test_every_result_of_pixels_is_checked() -> None:
    returned = {
        inspect.signature(f, eval_str=True).return_annotation
        for f in (getattr(fsb.pixels, name) for name in fsb.pixels.__all__)
        if inspect.isfunction(f)
    }
    results = {r for r in returned if inspect.isclass(r) and issubclass(r, Result)}
    assert results == set(FUNCTIONS)


@pytest.mark.parametrize(("result", "status"), [(r, s) for r, m in POSSIBLE.items() for s in m])
def test_advice_names_arguments_and_fields_that_exist(result: type[Result], status: Status) -> None:
    advice = result.advice(status)
    known = set(inspect.signature(FUNCTIONS[result]).parameters)
    named = set(re.findall(r"(\w+)=", advice))
    if "FeatureSpace" in advice:
        named -= set(inspect.signature(fsb.FeatureSpace).parameters)
    assert named <= known, advice
    # names that are no words: of arguments, of fields, or of another function to call
    known |= {field.name for field in dataclasses.fields(result)}  # type: ignore[arg-type]  # results are dataclasses
    names = set(re.findall(r"\b[a-z]+_\w+\b(?!=)", advice)) | set(re.findall("tolerance", advice))
    assert names <= known | set(fsb.__all__) | set(fsb.pixels.__all__), advice


def test_errors_carry_the_advice_of_the_result() -> None:
    demo = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    flips = fsb.pixels.flip_images(demo, torch.rand(1, 1, 2, 2), torch.tensor([-1]))
    with pytest.raises(fsb.StatusError, match=r"UNDECIDED.*targets= is -1"):
        flips.raise_for_status()
