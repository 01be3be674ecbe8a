"""Captum's contract: our methods and Captum's own keep it, and methods that break it are caught."""

from __future__ import annotations

from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor

import fsboundary as fsb
from fsboundary.testing import captum_attribution_tests
from fsboundary.testing.checks.captum import CHECKS, Case, SmallClassifier


def brighter(images: Tensor, target: Tensor) -> Tensor:
    """Stand in for a search: a nearby image that depends on the row and the target only."""
    return images + 0.1 * (1 + target.view(-1, 1, 1, 1)) * (1 + images)


def integrated(model: SmallClassifier) -> Any:
    return fsb.attr.BoundaryDirection(model, "integrated", brighter)


def flip_image(model: SmallClassifier) -> Any:
    return fsb.attr.FlipImageAttribution(model, brighter)


def of_layer(model: SmallClassifier) -> Any:
    return fsb.attr.LayerBoundaryDirection(model, model.relu)


def distance_saliency(model: SmallClassifier) -> Any:
    return captum.attr.Saliency(
        fsb.attr.BoundaryDistance(model),
    )


def grad_cam(model: SmallClassifier) -> Any:
    return captum.attr.LayerGradCam(model, model.conv)


test_boundary_direction = captum_attribution_tests(fsb.attr.BoundaryDirection)
test_boundary_direction_integrated = captum_attribution_tests(integrated, n_steps=8)
test_flip_image_attribution = captum_attribution_tests(flip_image)
test_layer_boundary_direction = captum_attribution_tests(of_layer)
test_saliency_of_boundary_distance = captum_attribution_tests(distance_saliency)
test_captums_saliency = captum_attribution_tests(captum.attr.Saliency)
test_captums_integrated_gradients = captum_attribution_tests(
    captum.attr.IntegratedGradients, n_steps=8
)
test_captums_occlusion = captum_attribution_tests(
    captum.attr.Occlusion, sliding_window_shapes=(1, 2, 2), strides=(1, 2, 2)
)
test_captums_grad_cam = captum_attribution_tests(grad_cam)


class Broken(captum.attr.Saliency):  # type: ignore[misc]  # Captum has no types
    """Saliency with one fault, by name."""

    fault = ""

    def attribute(
        self, inputs: Any, target: Any = None, additional_forward_args: Any = None
    ) -> Any:
        if self.fault == "leaves_no_trace":
            self.forward_func.train()
        if self.fault == "works_without_gradients":
            assert torch.is_grad_enabled()
        if self.fault == "targets_in_every_form" and isinstance(target, list):
            target = target[0]
        if self.fault == "additional_arguments_arrive":
            additional_forward_args = None
        out = captum.attr.Saliency.attribute.__wrapped__(
            self, inputs, target, True, additional_forward_args
        )
        if self.fault == "tuple_in_tuple_out" and isinstance(out, tuple):
            return out[0]
        if self.fault == "shape_is_that_of_the_inputs":
            return out.flatten(1)
        if self.fault == "rows_are_independent":
            return out / out.max()
        return out


@pytest.mark.parametrize(
    "fault",
    [
        "attribute_is_wrapped",
        "shape_is_that_of_the_inputs",
        "tuple_in_tuple_out",
        "rows_are_independent",
        "targets_in_every_form",
        "additional_arguments_arrive",
        "works_without_gradients",
        "leaves_no_trace",
        "noise_tunnel_runs",
    ],
)
def test_a_fault_fails_its_own_check(fault: str) -> None:
    def factory(model: SmallClassifier) -> Broken:
        method = Broken(model)
        method.fault = fault
        return method

    with pytest.raises((AssertionError, AttributeError, TypeError)):
        CHECKS[fault](Case(factory=factory))
