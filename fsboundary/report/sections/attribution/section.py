"""Which pixels keep an image in its class, and whether Captum's methods say the same."""

from __future__ import annotations

from typing import Any, final

from fsboundary.report.figures import thumbnail
from fsboundary.report.formatting import plain
from fsboundary.report.measurements import Measurements
from fsboundary.report.sections.attribution.figures import SIDE, curves, heat_map, key_of
from fsboundary.report.sections.attribution.measure import Attributions, measure_attributions
from fsboundary.report.sections.attribution.methods import DRAWS, window_and_stride
from fsboundary.report.sections.attribution.numbers import compared_numbers
from fsboundary.report.sections.base import Content, Section
from fsboundary.report.sections.extremes import image_facts


@final
class Attribution(Section):
    """Heat maps, agreement of the methods, and what the model does along each."""

    name = "attribution"
    title = "What the pixels say"
    menu = "Attributions"

    def compute(self, measured: Measurements) -> Content:
        """Return the numbers and the heat maps; little without an image of use."""
        found = measure_attributions(measured)
        if found is None:
            return Content(numbers={"images": 0})
        window, stride = window_and_stride(measured.subject.images)
        numbers = {
            "images": len(found.sample),
            "of": int(measured.batch.ok.sum()),
            "settings": {
                "draws": DRAWS,
                "window": window,
                "stride": stride,
                "background": found.background,
                "trained": measured.subject.train_images is not None,
            },
            "methods": [_method(found, place) for place in range(len(found.methods))],
            "chosen": [
                {"title": title, **image_facts(measured, row), "near": _near(found, place)}
                for place, (title, row) in enumerate(found.chosen.items())
            ],
            "curves_error": found.curves_error,
            "compared": None if found.compared is None else compared_numbers(found.compared),
        }
        images = measured.subject.images
        pictures = {f"image-{r}": thumbnail(images[r], 2 * SIDE) for r in found.chosen.values()}
        for name, maps in found.maps.items():
            for row, values in zip(found.chosen.values(), maps, strict=True):
                pictures[f"{name}-{row}"] = heat_map(values)
        return Content(numbers=plain(numbers), pictures=pictures)

    def draw(self, numbers: dict[str, Any], names: list[str]) -> dict[str, str]:
        """Draw the curves, a line for each method."""
        compared = numbers.get("compared")
        if compared is None or not compared["curves"]:
            return {}
        drawn, made = compared["curves"], numbers["methods"]
        lines = {
            kind: [drawn["lines"].get(m["name"], {}).get(kind) for m in made]
            for kind in ("deletion", "reach")
        }
        moved = [100 * share for share in drawn["moved"]]
        return {
            "deletion": curves(moved, lines["deletion"], "pixels moved to black", " %"),
            "reach": curves(drawn["travelled"], lines["reach"], "distances of the flip image", ""),
        }


def _method(found: Attributions, place: int) -> dict[str, Any]:
    method, compared = found.methods[place], found.compared
    lost = None
    if compared is not None and method.name in compared.methods:
        known = compared.per_image[0, :, compared.methods.index(method.name)].isfinite()
        lost = int((~known.any(dim=1)).sum())
    return {
        "name": method.name,
        "title": method.title,
        "error": found.errors.get(method.name),
        "without": lost,
        "key": key_of(place),
    }


def _near(found: Attributions, place: int) -> dict[str, Any]:
    """Return the rank correlation of each method's map with the boundary direction's."""
    near = found.near
    if near is None or not near.reference:
        return {}
    values = near.per_image[0, place, near.methods.index(near.reference)]
    return dict(zip(near.methods, values.tolist(), strict=True))
