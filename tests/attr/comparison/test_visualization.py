"""Pictures of attributions do not depend on their scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fsboundary.attr.comparison.visualization import draw_attributions
from fsboundary.report.sections.attribution.section import heat_map
from fsboundary.report.sections.pixels.section import diverging

SCALES = [2.0**-16, 2.0**-40, 2.0**-90, 2.0**60]


def attribution() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def drawn(values: Tensor, sign: str) -> np.ndarray:
    figure = draw_attributions(torch.rand(1, 3, 8, 8), {"it": values}, sign=sign)  # type: ignore[arg-type]  # a parameter of the test
    (image,) = figure.axes[1].get_images()
    return np.asarray(image.get_array())


@pytest.mark.parametrize("sign", ["all", "positive", "absolute_value"])
@pytest.mark.parametrize("scale", SCALES)
def test_tiny_attributions_are_drawn_without_a_warning(scale: float, sign: str) -> None:
    """Those of 16-bit images are far below what Captum takes for 0; warnings are errors here."""
    plain = drawn(attribution(), sign)
    assert np.ptp(plain) > 0.5
    np.testing.assert_allclose(drawn(attribution() * scale, sign), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_pictures_of_a_report_do_not_depend_on_the_scale(scale: float) -> None:
    values = attribution()[0]
    for picture in (heat_map, diverging):
        torch.testing.assert_close(picture(values * scale), picture(values), rtol=0, atol=1e-6)
