"""The section on pixels: against direct calls, its words, and models that methods fail on."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, Occlusion, Saliency
from torch import Tensor, nn

import fsboundary as fsb
from fsboundary.core.status import Status
from fsboundary.report.clock import Clock
from fsboundary.report.measurements import measure
from fsboundary.report.page import Study
from fsboundary.report.sections.attribution import measure as attribution_measure
from fsboundary.report.sections.attribution.measure import choose_images, measure_attributions
from fsboundary.report.sections.attribution.methods import (
    MAX_ERROR_LENGTH,
    try_run,
    window_and_stride,
)
from fsboundary.report.sections.attribution.section import (
    BANDS,
    SIDE,
    agreement_band,
    compare_interval,
    heat_map,
)
from support.report import Page, read, tiny_images, tiny_page, tiny_subject

NAMES = ["boundary", "integrated_gradients", "saliency", "occlusion", "gradient_shap"]


def small_page(**changes: Any) -> Page:
    """Return the page of a few images, without training images and so without hulls."""
    fields = {"images": tiny_images(8), "train_images": None, "train_labels": None}
    return tiny_page("attribution", "extremes", **fields | changes)


@pytest.fixture(scope="module")
def a(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.numbers["attribution"]
    return found


@pytest.fixture(scope="module")
def direct(a: dict[str, Any]) -> fsb.Comparison:
    """Return what the public functions say of the same sample."""
    subject = tiny_subject()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(40, generator=generator)[: a["images"]].sort().values
    window, stride = a["settings"]["window"], a["settings"]["stride"]
    methods = {
        "integrated_gradients": IntegratedGradients,
        "saliency": Saliency,
        "occlusion": Occlusion,
    }
    options = {
        "integrated_gradients": {"n_steps": a["settings"]["num_samples"]},
        "saliency": {"abs": False},
        "occlusion": {"sliding_window_shapes": (1, *window), "strides": (1, *stride)},
    }
    steps = a["comparison"]["curves"]["steps"]
    return fsb.attr.compare_methods(
        subject.space, subject.images[sample], methods, options=options, steps=steps
    )


def test_matrix(a: dict[str, Any], direct: fsb.Comparison) -> None:
    assert (a["images"], a["available"]) == (16, 40)
    lost = direct.mean.new_tensor([method["num_missing"] for method in a["methods"][:4]])
    assert torch.equal(lost, (direct.status == Status.DEGENERATE).double().sum(dim=1))
    compared = a["comparison"]
    assert compared["names"] == NAMES
    shown = direct.metrics.index("spearman")
    for i in range(4):
        for j in range(4):
            cell = compared["matrix"][i][j]
            for key in ("mean", "ci_low", "ci_high"):
                expected = float(getattr(direct, key)[shown, i, j])
                assert cell[key] == pytest.approx(expected, abs=1e-4)
            assert cell["ci_low"] - 1e-9 <= cell["mean"] <= cell["ci_high"] + 1e-9
    pairs = {
        frozenset((NAMES[i], NAMES[j])): compared["matrix"][i][j]["mean"]
        for i in range(5)
        for j in range(i)
    }
    for name, best in (("closest", max), ("farthest", min)):
        pair = compared["pairs"][name]
        assert (
            pair["mean"]
            == best(pairs.values())
            == pairs[frozenset((pair["first"], pair["second"]))]
        )


def test_every_metric_against_the_boundary_direction(
    a: dict[str, Any], direct: fsb.Comparison
) -> None:
    entries = a["comparison"]["versus_boundary"]
    assert [entry["name"] for entry in entries] == NAMES[1:]
    for k, entry in enumerate(entries[:3], start=1):
        for q, metric in enumerate(direct.metrics):
            expected = float(direct.mean[q, 0, k])
            assert entry["metrics"][metric]["mean"] == pytest.approx(expected, abs=1e-3)
        assert entry["agreement"] == agreement_band(
            float(direct.mean[direct.metrics.index("spearman"), 0, k])
        )


def test_curves(a: dict[str, Any], direct: fsb.Comparison) -> None:
    curves = a["comparison"]["curves"]
    for k, name in enumerate(direct.methods):
        line = curves["lines"][name]
        mean = direct.deletion[k].clamp(0, 1).nanmean(dim=0)
        assert line["deletion"] == pytest.approx(mean.tolist(), abs=1e-4)
        assert line["mean_margin"] == pytest.approx(float(mean.mean()), abs=1e-4)
        crossing = direct.crossing[k]
        assert line["num_crossed"] == int(crossing.isfinite().sum())
        assert line["num_known"] == int((~crossing.isnan()).sum())
        middle = crossing.nanquantile(0.5).item()
        assert line["beyond_range"] == math.isinf(middle)
        if not line["beyond_range"]:
            assert line["median_crossing"] == pytest.approx(middle, abs=1e-2)
    kept = direct.deletion.clamp(0, 1).mean(dim=2)
    for k, entry in enumerate(a["comparison"]["versus_boundary"][:3], start=1):
        difference = (kept[k] - kept[0]).nanmean()
        assert entry["mean_margin"]["mean"] == pytest.approx(float(difference), abs=1e-4)
        for key, middle in (("mean_margin", 0.0), ("nearer", 0.5)):
            found = entry[key]
            assert found["ci_low"] <= found["mean"] <= found["ci_high"]
            assert found["verdict"] == compare_interval(found["ci_low"], found["ci_high"], middle)


def test_chosen_images(page: Page, a: dict[str, Any]) -> None:
    facts = page.numbers["extremes"]["all"]
    order = sorted(facts, key=lambda image: float(image["distance"]))
    right = [image for image in order if image["label"] == image["predicted"]]
    wrong = [image for image in order if image["label"] != image["predicted"]]
    expected = dict.fromkeys(
        image["row"] for image in (right[0], wrong[-1], order[len(order) // 2], order[-1])
    )
    rows = [entry["row"] for entry in a["examples"]]
    assert rows == list(expected)
    pictures = page.study.pictures["attribution"]
    assert set(pictures) == {f"{name}-{row}" for name in ["image", *NAMES] for row in rows}
    for entry in a["examples"]:
        assert entry["correlation"]["boundary"] == pytest.approx(1.0)
        assert entry["title"] in page.text["attribution"]


def test_words(page: Page, a: dict[str, Any]) -> None:
    text = page.text["attribution"]
    for words in ("Agreement.", "Effect on the model.", "thresholds", "drawn at random"):
        assert words in text
    for method in a["methods"]:
        assert method["title"] in text
        assert method["error"] is None
    assert "failed" not in text
    paths = {path for path, _, _ in page.data}
    assert {f"attribution.comparison.agreement_thresholds.{name}" for name in BANDS} <= paths


def test_words_follow_the_numbers(page: Page) -> None:
    numbers = copy.deepcopy(page.numbers)
    against = numbers["attribution"]["comparison"]["versus_boundary"]
    for entry, name in zip(against, ("close", "partial", "opposite", None), strict=True):
        entry["agreement"] = name
        entry["mean_margin"]["verdict"] = "more" if name == "close" else "unclear"
        entry["nearer"]["verdict"] = "more" if name == "partial" else "less"
    text = read(Study(numbers=numbers, pictures=page.study.pictures)).text["attribution"]
    assert "Integrated Gradients agrees closely with the boundary direction" in text
    assert "Saliency agrees in part with the boundary direction" in text
    assert "Occlusion disagrees with the boundary direction" in text
    assert "GradientShap cannot be compared." in text
    assert "more slowly for Integrated Gradients; no clear difference for Saliency, " in text
    assert "farther along Integrated Gradients, Occlusion and GradientShap; closer along" in text


@pytest.mark.parametrize(
    ("mean", "name"),
    [
        (1.0, "close"),
        (0.7, "close"),
        (0.69, "partial"),
        (0.1, "weak"),
        (0.0, "none"),
        (-0.2, "opposite"),
    ],
)
def test_bands(mean: float, name: str) -> None:
    assert agreement_band(mean) == name
    assert agreement_band(math.nan) is None


def test_sides() -> None:
    assert compare_interval(0.1, 0.2, 0.0) == "more"
    assert compare_interval(-0.2, -0.1, 0.0) == "less"
    assert (
        compare_interval(-0.1, 0.1, 0.0) == compare_interval(math.nan, math.nan, 0.0) == "unclear"
    )


class NoGradient(nn.Module):
    """A classifier that lets no gradient through."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("inner", torch.randn(36, 7, generator=generator) / 6)
        self.head = nn.Linear(7, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = (images.flatten(1).detach() @ self.get_buffer("inner")).relu()
        out: Tensor = self.head(features)
        return out


def test_model_without_gradients() -> None:
    page = small_page(model=NoGradient().requires_grad_(False))
    a = page.numbers["attribution"]
    errors = {method["name"]: method["error"] for method in a["methods"]}
    assert [name for name in NAMES if errors[name] is None] == ["occlusion"]
    assert "Boundary direction failed on this model" in page.text["attribution"]
    assert "There is no boundary direction to compare with" in page.text["attribution"]
    assert a["comparison"]["names"] == ["occlusion"]
    assert a["comparison"]["versus_boundary"] is None
    assert a["curves_error"] is None
    assert "Effect of following the attributions" in page.text["attribution"]
    assert "Occlusion of" in page.html


def test_curves_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no <such> way")

    monkeypatch.setattr("fsboundary.attr.comparison.compare.reach_curves", raising)
    page = small_page()
    assert page.numbers["attribution"]["curves_error"] == "RuntimeError: no <such> way"
    assert (
        "No curves, because the model raised: RuntimeError: no <such> way"
        in (page.text["attribution"])
    )
    assert page.numbers["attribution"]["comparison"]["curves"] is None


def test_one_method_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def attribute(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no <such> layer")

    monkeypatch.setattr(Saliency, "attribute", attribute)
    page = small_page()
    a = page.numbers["attribution"]
    assert a["methods"][2]["error"] == "RuntimeError: no <such> layer"
    assert (
        "Saliency failed on this model: RuntimeError: no <such> layer" in page.text["attribution"]
    )
    assert "<such>" not in page.html
    assert a["comparison"]["names"] == [name for name in NAMES if name != "saliency"]
    assert len(a["comparison"]["versus_boundary"]) == 3


def test_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution_measure, "run_method", lambda *_: "ValueError: no")
    page = small_page()
    assert page.numbers["attribution"]["comparison"] is None
    assert "None of the methods ran on this model." in page.text["attribution"]


def test_only_ours_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = attribution_measure.run_method
    monkeypatch.setattr(
        attribution_measure,
        "run_method",
        lambda subject, method, *rest: (
            run(subject, method, *rest) if method.name == "boundary" else "ValueError: no"
        ),
    )
    text = small_page().text["attribution"]
    assert "Only the boundary direction ran on this model" in text


def test_errors_are_one_short_line() -> None:
    def fail() -> None:
        raise ValueError("two\nlines " + 500 * "x")

    found = try_run(fail)
    assert isinstance(found, str)
    assert found.startswith("ValueError: two lines xxx")
    assert len(found) == MAX_ERROR_LENGTH


def test_without_labels_and_training_images() -> None:
    page = small_page(labels=None)
    a = page.numbers["attribution"]
    titles = [entry["title"] for entry in a["examples"]]
    expected = [
        "The least robust image",
        "An image with median robustness",
        "The most robust image",
    ]
    assert titles == expected
    assert a["settings"]["from_training_images"] is False
    assert "of the images" in page.text["attribution"]


def test_rows_that_are_not_numbers_are_left_out() -> None:
    images = tiny_images(6)
    images[[0, 3]] = torch.nan
    page = small_page(images=images)
    a = page.numbers["attribution"]
    assert (a["images"], a["available"]) == (4, 4)
    assert not {0, 3} & {entry["row"] for entry in a["examples"]}
    assert "drawn at random" not in page.text["attribution"]


def test_no_image_of_use() -> None:
    # the head is found elsewhere
    page = tiny_page("attribution", images=torch.full((3, 1, 6, 6), torch.nan))
    assert page.numbers["attribution"] == {"images": 0}
    assert "there is nothing to explain" in page.text["attribution"]


def test_flat_model_has_no_attributions() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 5))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(1.0)
    page = small_page(model=model)
    a = page.numbers["attribution"]
    lost = {method["name"]: method["num_missing"] for method in a["methods"]}
    assert [lost[name] for name in NAMES if name != "occlusion"] == [8] * 4
    assert all(entry["agreement"] is None for entry in a["comparison"]["versus_boundary"])
    assert "cannot be compared" in page.text["attribution"]
    assert "has no value for" in page.text["attribution"]


def test_three_channels_and_an_oblong() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 10, 7), nn.ReLU(), nn.Linear(7, 5))
    images = torch.rand(9, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    page = small_page(model=model, images=images)
    a = page.numbers["attribution"]
    assert [method["error"] for method in a["methods"]] == [None] * 5
    assert a["settings"]["window"] == [2, 2]
    row = a["examples"][0]["row"]
    assert page.study.pictures["attribution"][f"saliency-{row}"].shape == (3, 8, 10)


def test_large_images_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution_measure, "MAX_ENTRIES", 8 * 36)
    assert len(attribution_measure.sample_images(measure(tiny_subject(), Clock()))) == 8
    monkeypatch.setattr(attribution_measure, "MAX_ENTRIES", 0)
    measured = measure(tiny_subject(), Clock())
    assert len(attribution_measure.sample_images(measured)) == attribution_measure.MIN_IMAGES
    assert window_and_stride(torch.zeros(1, 3, 224, 200)) == ([32, 29], [23, 20])


def test_the_same_again_and_no_global_numbers_used() -> None:
    measured = measure(tiny_subject(images=tiny_images(5)), Clock())
    state = torch.random.get_rng_state()
    one, two = measure_attributions(measured), measure_attributions(measured)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one is not None
    assert two is not None
    assert one.examples == choose_images(measured)
    for name in NAMES:
        assert torch.equal(one.maps[name], two.maps[name])


def test_heat_map_colours() -> None:
    values = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]).expand(3, 2, 2)
    red, _, blue = heat_map(values)
    assert blue[0, 0] > red[0, 0]
    assert red[1, 0] > blue[1, 0]
    assert heat_map(values)[:, :, 1].min() > 0.95
    assert torch.equal(heat_map(torch.zeros(1, 2, 2)), heat_map(values)[:, :, 1:].expand(3, 2, 2))
    assert heat_map(torch.ones(3, 100, 200)).shape == (3, SIDE // 2, SIDE)
