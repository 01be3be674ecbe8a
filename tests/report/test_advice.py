"""What to do now: warnings about the report's own basis, and the first steps."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsboundary.demo import load_demo
from fsboundary.report.sections.summary.advice import alerts
from fsboundary.report.sections.summary.input_statistics import InputStatistics, input_statistics
from fsboundary.space import FeatureSpace
from support.report import Page, tiny_images, tiny_page, tiny_subject

MEAN, DEVIATION = 0.45, 0.225
"""About those of ImageNet."""


class Normalised(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images - MEAN) / DEVIATION


def colour_images(n: int, seed: int = 0) -> Tensor:
    """Return smooth images (N, 3, 16, 16) with the mean and deviation above."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 6, 6, generator=draw) + torch.randn(n, 1, 6, 6, generator=draw)
    smooth = nn.functional.interpolate(coarse, 16, mode="bilinear")
    return (MEAN + DEVIATION * (smooth / smooth.std())).clamp(0, 1)


def trained(*before: nn.Module, images: Tensor | None = None, norm: bool = True) -> nn.Sequential:
    """Return a network whose batch normalisation has seen `images` through `before`.

    Its first filters are differences of colours and of pixels, as those of trained networks are.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Conv2d(3, 12, 3)
        with torch.no_grad():
            first.weight -= first.weight.mean(dim=(1, 2, 3), keepdim=True)
        layers = [first, nn.BatchNorm2d(12, momentum=None)] if norm else [first]
        model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        model.append(nn.Linear(48, 5))
    with torch.no_grad():
        model.train()(
            nn.Sequential(*before)(colour_images(64, seed=7) if images is None else images)
        )
    return model.eval()


def look(model: nn.Module, images: Tensor, preprocess: nn.Module | None = None) -> Any:
    space = FeatureSpace(model, preprocess=preprocess)
    space.extract(images[:2])
    return input_statistics(space, images)


def test_preprocessing_left_out_is_noticed() -> None:
    found = look(trained(Normalised()), colour_images(40))
    assert isinstance(found, InputStatistics)
    assert found.verdict == "smaller"
    assert found.layer == "1"
    # the deviation of the pixels is missing from the scale
    assert found.spread == pytest.approx(DEVIATION, rel=0.15)


@pytest.mark.parametrize("scale", [255.0, 2.0])
def test_other_scales_are_noticed(scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * scale

    assert look(trained(Scaled()), colour_images(40)).verdict == "smaller"
    assert look(trained(), colour_images(40), Scaled()).verdict == "larger"


def test_a_shift_of_plain_pixels_is_noticed() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(768, 5))
    model.train()(colour_images(64, seed=7) - 0.5)
    assert look(model.eval(), colour_images(40)).verdict == "shifted"


@pytest.mark.parametrize("grey", [False, True])
def test_right_preprocessing_raises_no_alarm(grey: bool) -> None:
    images = colour_images(40)
    if grey:  # to a network for colours: its filters that respond to colour are constant
        images = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    assert look(trained(Normalised()), images, Normalised()).verdict == "as expected"


def test_a_model_trained_without_normalisation_raises_no_alarm() -> None:
    assert look(trained(), colour_images(40)).verdict == "as expected"


def test_the_demo_raises_an_alarm_only_without_its_preprocessing() -> None:
    demo = load_demo()
    right = look(demo.model, demo.test_images, demo.preprocess)
    assert right.verdict == "as expected"
    assert right.spread == pytest.approx(1, abs=0.1)
    assert look(demo.model, demo.test_images).verdict == "smaller"
    for k in range(10):  # images of one class differ from all
        one = demo.test_images[demo.test_labels == k]
        assert look(demo.model, one, demo.preprocess).verdict == "as expected"


def test_nothing_is_said_without_evidence() -> None:
    assert look(trained(norm=False), colour_images(40)) is None
    assert look(trained(), colour_images(15)) is None
    fresh = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 5)).eval()
    assert look(fresh, colour_images(40)) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("batch_size", [128, 7])
def test_other_precisions_and_batches_say_the_same(dtype: torch.dtype, batch_size: int) -> None:
    images = colour_images(40)
    images[3] = torch.nan  # does not count
    space = FeatureSpace(trained(Normalised()).to(dtype))
    found = input_statistics(space, images.to(dtype), batch_size)
    assert found is not None
    assert found.verdict == "smaller"
    assert found.spread == pytest.approx(DEVIATION, rel=0.15)


def test_the_statistics_are_those_of_all_pixels() -> None:
    images = colour_images(40)
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(768, 5))
    model.train()(images)
    found = look(model.eval(), images)
    # a few of the 40 images pass twice, and count twice
    assert found.spread == pytest.approx(1, abs=0.02)
    assert found.shift == pytest.approx(0, abs=0.05)


def test_the_model_and_the_notes_are_left_as_they_were() -> None:
    model = trained(Normalised())
    space = FeatureSpace(model, preprocess=Normalised())
    space.extract(colour_images(40), batch_size=7)
    notes, hooks = space.notes(), [len(m._forward_pre_hooks) for m in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    input_statistics(space, colour_images(40))
    assert space.notes() == notes
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def advice(**changes: Any) -> Page:
    return tiny_page("advice", **changes)


def predicted(**changes: Any) -> Tensor:
    subject = tiny_subject(**changes)
    return subject.space.extract(subject.images).predicted


def test_near_chance_is_on_top() -> None:
    page = advice()
    assert page.numbers["advice"]["near_chance"]["accuracy"] < 0.25
    assert page.text["advice"].startswith("What to do now Near chance. Only of labelled images")
    assert [text[:5] for text in alerts(page.numbers["advice"])] == ["only "]
    assert "Check the labels" not in page.text["advice"]


def test_the_order_of_the_classes_is_suspected_if_another_one_fits() -> None:
    labels = (predicted() + 1) % 5
    page = advice(labels=labels)
    near = page.numbers["advice"]["near_chance"]
    assert near["accuracy"] == 0
    assert near["renamed"] == 1
    assert "their order is probably not the model’s" in page.text["advice"]
    assert "--class-names" in alerts(page.numbers["advice"])[0]


def test_right_labels_and_no_labels_raise_no_alarm() -> None:
    for labels in (predicted(), None):
        page = advice(labels=labels)
        assert page.numbers["advice"]["near_chance"] is None
        assert alerts(page.numbers["advice"]) == []
        assert "alert" not in page.html[page.html.index("<body") :]
        assert ("Add labels" in page.text["advice"]) == (labels is None)


def test_missing_preprocessing_is_on_top_and_on_the_terminal() -> None:
    page = advice(
        model=trained(Normalised()), images=colour_images(40), labels=None, train_images=None
    )
    assert page.text["advice"].startswith("What to do now Preprocessing left out?")
    assert "--preprocess" in alerts(page.numbers["advice"])[0]
    assert "Add training images" in page.text["advice"]


def test_the_first_steps_name_the_images() -> None:
    labels = predicted().clone()
    distance = torch.tensor(
        [d or 0 for d in (e["distance"] for e in tiny_page("extremes").numbers["extremes"]["all"])]
    )
    sure = int(distance.argmax())
    labels[sure] = (labels[sure] + 1) % 5
    names = tuple(f"shelf/{k:02}.png" for k in range(40))
    page = advice(labels=labels, file_names=names)
    found = page.numbers["advice"]
    order = distance.argsort()[:5].tolist()
    assert [entry["row"] for entry in found["fragile"]] == order
    assert all(names[row] in page.text["advice"] for row in order)
    assert [entry["row"] for entry in found["doubtful_labels"]["images"]] == [sure]
    assert f"{names[sure]}: " in page.text["advice"]
    assert "Check the labels of these." in page.text["advice"]


def test_images_without_a_file_are_named_by_row() -> None:
    page = advice(images=tiny_images(40))
    assert "image :" in page.text["advice"]  # the row itself is a number of the JSON
    assert ("advice.fragile.0.row") in [path for path, _, _ in page.data]


def test_uncertified_images_are_counted() -> None:
    images = tiny_images(40)
    images[3] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = advice(images=images)
    assert page.numbers["advice"]["failed"] == 1
    assert "Do not rely on image without a certified distance" in page.text["advice"]
