"""Every public function on a pretend device: no operation mixes devices, and answers are the CPU's.

Nothing here is measured on a GPU: where a GPU's kernels round otherwise is not known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor

import fsboundary as fsb
from fsboundary import attr, pixels
from fsboundary.plugins.grading import calls as grading
from support.devices import (
    DEVICE,
    PretendDevice,
    PretendTensor,
    to_cpu,
    to_pretend,
)
from support.modes import num_threads
from support.public_calls import CALLS, Call, parts, require_same, world

ROWS = ("images", "train", "train_labels", "labels", "z", "far", "flips", "batch")
"""Inputs in rows; all other inputs are models, and what is made once from a model or a bank."""

PLACES = {
    "everything on the device": (True, True),
    "rows on the device, the rest on the CPU": (True, False),
    "rows on the CPU, the rest on the device": (False, True),
}


@functools.cache
def placed(place: str) -> SimpleNamespace:
    """Return the inputs of all calls where `place` says; `other_...` are on the other device."""
    rows, rest = PLACES.get(place, (False, False))
    w = dict(vars(world()))
    other = {"labels": w["labels"], "z": w["z"] + 0.1, "flips": w["flips"], "box": w["box"]}
    if not rows and rest:
        moved = ("labels", "z", "flips")
        other |= {name: to_pretend(other[name]) for name in moved}
    if rows:
        w |= {name: to_pretend(w[name]) for name in ROWS}
    if rest:
        w |= {name: to_pretend(w[name]) for name in ("model", "nonlinear")}
        space, weight, bias = fsb.FeatureSpace(w["model"]), w["head"].weight, w["head"].bias
        space.extract(w["images"])
        head = fsb.LinearHead(to_pretend(weight), to_pretend(bias), w["head"].domain)
        bank = fsb.FeatureBank(to_pretend(w["bank"].features), to_pretend(w["bank"].labels))
        w |= {
            "space": space,
            "head": head,
            "labels_head": fsb.MultiLabelHead(head.weight, head.bias, head.domain),
            "bank": bank,
            "balls": fsb.guaranteed_hulls(head, bank),
            "box": fsb.Domain.box(torch.zeros(6, device=DEVICE), torch.full((6,), 2.0).to(DEVICE)),
        }
    return SimpleNamespace(**w, **{f"other_{name}": value for name, value in other.items()})


# arguments that number classes or rows, and second inputs, may be on any device
MORE: dict[str, Call] = {
    "ambiguity, reference": lambda w: fsb.ambiguity(w.head, w.z, 2, w.other_z),
    "class_path, end": lambda w: fsb.class_path(w.head, w.z, w.other_z.flip(0)),
    "coverage, labels": lambda w: fsb.coverage(w.head, w.bank, w.z, w.other_labels),
    "flip_points, targets": lambda w: fsb.flip_points(w.head, w.z, w.other_labels),
    "flip_points, box": lambda w: fsb.flip_points(_boxed(w), w.z.clamp(0, 2), "all"),
    "guaranteed_boxes, box": lambda w: fsb.guaranteed_boxes(_boxed(w), w.z.clamp(0, 2)),
    "region_distances, targets": lambda w: fsb.region_distances(w.head, w.z, w.other_labels),
    "tie_points, classes": lambda w: fsb.tie_points(w.head, w.z, w.other_labels[:3]),
    "label_flips, label": lambda w: fsb.label_flips(w.labels_head, w.z, w.other_labels),
    "logistic_head, classes": lambda w: fsb.logistic_head(w.z, w.other_labels, 3),
    "partition, pairs": lambda w: fsb.partition(w.head, w.box, pairs=w.other_labels[None, :2]),
    "hull_projection, labels and leave_out": lambda w: fsb.hull_projection(
        w.bank, w.far, labels=w.other_labels, leave_out=w.other_labels
    ),
    "leave_one_out_distances, sample": lambda w: fsb.leave_one_out_distances(
        w.bank, w.other_labels
    ),
    "hull_separation, classes": lambda w: fsb.hull_separation(
        w.bank, w.other_labels[:1], w.other_labels[1:2]
    ),
    "FeatureBank, labels": lambda w: fsb.FeatureBank(w.z, w.other_labels),
    "FeatureBank.price, exclude": lambda w: w.bank.price(w.far, 3, w.other_labels),
    "FeatureBank.subset, labels": lambda w: w.bank.subset(labels=w.other_labels[:2]),
    "FeatureBank.select, indices": lambda w: w.bank.select(w.other_labels),
    "LinearHead.logits": lambda w: (w.head.logits(w.z), w.head.predict(w.z), w.head.margins(w.z)),
    "FeatureSpace.bank, labels": lambda w: w.space.bank([(w.images, w.other_labels)]),
    "flip_images, targets": lambda w: pixels.flip_images(
        w.model, w.images, w.other_labels, finder="ddn", max_steps=4
    ),
    "crossed_images, flips": lambda w: pixels.crossed_images(w.space, w.other_flips, margin=0.01),
    "amplification, flips": lambda w: pixels.amplification(
        w.space, w.images, radius=0.5, directions=2, max_steps=2, flips=w.other_flips.images
    ),
    "morph, class": lambda w: pixels.morph(
        w.space, w.images[:2], w.other_labels[:2], steps=3, via="flip_point", max_steps=4
    ),
    "inverse_images, start": lambda w: pixels.inverse_images(
        w.space, w.z, w.other_flips.images.nan_to_num(), max_steps=4
    ),
    "BoundaryDirection, target": lambda w: attr.BoundaryDirection(w.space).attribute(
        w.images, target=w.other_labels
    ),
    "BoundaryDirection, integrated": lambda w: attr.BoundaryDirection(
        w.space, "integrated", finder=lambda images, target: w.flips.images[:2]
    ).attribute(w.images[:2], n_steps=3),
    "HullInfluence, labels": lambda w: attr.HullInfluence(w.space, w.bank).influence(
        w.images, labels=w.other_labels
    ),
    "attribute_methods, target": lambda w: attr.attribute_methods(
        w.space, w.images, {"saliency": Saliency}, target=w.other_labels
    ),
    "compare, attributions": lambda w: attr.compare(
        w.images,
        {"one": w.other_flips.images.nan_to_num(), "other": w.images.flip(0)},
        space=w.space,
        flips=w.flips,
        steps=2,
        resamples=5,
    ),
}


def _boxed(w: SimpleNamespace) -> fsb.LinearHead:
    return fsb.LinearHead(w.head.weight, w.head.bias, w.other_box)


ON_CPU = {
    "affine_rank": "about a bank, which may be on disk; the same for the next three",
    "hull_separation": "",
    "hull_vertices": "",
    "leave_one_out_distances": "",
    "FeatureBank.moments": "numbers of a bank, found once; the same for the next",
    "FeatureBank.digests": "",
    "FeatureBank.from_npy": "an array is on the CPU",
    "HullClassifier": "Captum's interface of classifiers has no device",
    "film_strip": "an image file's array",
}
"""Calls whose answer is on the CPU, and the reason; each says so."""

LIKE_THE_REST = {
    "guaranteed_hulls", "GuaranteedHulls.inflated", "normal_angles", "partition", "region_faces",
    "region_fractions", "FeatureBank.range", "FeatureBank.subset", "FeatureBank.select",
    "FeatureBank.append", "FeatureBank.merge",
    "LayerBoundaryDirection",  # attributions of what a layer of the model computes
}  # fmt: skip
"""Calls whose answer is about a head, a bank or a model, and is on its device."""

LIKE_OTHER = {"crossed_images, flips": "the flip images are its rows"}


def wanted_device(name: str, place: str) -> torch.device:
    """Return the device on which docs/design.md promises the answer of a call."""
    rows, rest = PLACES[place]
    call = name.partition(",")[0]
    if call in ON_CPU:
        return torch.device("cpu")
    here = rows
    if call in LIKE_THE_REST or name == "logistic_head":  # it takes the features of the bank
        here = rest
    elif name in LIKE_OTHER:
        here = not rows and rest
    return DEVICE if here else torch.device("cpu")


@functools.cache
def on_cpu(name: str) -> Any:
    with num_threads(1):
        return (CALLS | MORE)[name](placed("CPU"))


@pytest.fixture(autouse=True)
def accept_pretend_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    # grading refuses subclasses of tensors, which could compare as they like
    monkeypatch.setattr(grading, "_PLAIN", (*grading._PLAIN, PretendTensor))


pytestmark = [
    pytest.mark.filterwarnings("ignore:columns.*cannot be targets"),  # of distance modules
    pytest.mark.filterwarnings("ignore:no certified distance|inside or outside|.*distance 0"),
]


CASES = [
    (name, place)
    for name in CALLS | MORE
    for place in PLACES
    # calls the other functions, and takes as long as fifty of them
    if name != "two_spaces" or place != "everything on the device"
]


def tolerance_of(name: str) -> float:
    if name.startswith("certify"):
        # radii are interpolated between bounds, and the last digit of a product of matrices may
        # depend on where they are in memory
        return 1e-14
    # cvxpy's second call starts from the solution of the first
    return 1e-9 if "cvxpy" in name else 0.0


@pytest.mark.parametrize(("name", "place"), CASES)
def test_the_answer_is_that_of_the_cpu(name: str, place: str) -> None:
    wanted = on_cpu(name)
    with PretendDevice(), num_threads(1):
        got = (CALLS | MORE)[name](placed(place))
        found = dict(parts(got))
    devices = {value.device for value in found.values() if isinstance(value, Tensor)}
    assert devices <= {wanted_device(name, place)}
    require_same(to_cpu(found), dict(parts(wanted)), tolerance_of(name))


def test_exceptions_are_calls() -> None:
    assert {*ON_CPU, *LIKE_THE_REST} <= set(CALLS)
    assert set(LIKE_OTHER) <= set(MORE)


def test_a_bank_on_disk_answers_rows_of_the_device(tmp_path: Path) -> None:
    w, on_device = world(), placed("everything on the device")
    wanted = fsb.hull_projection(w.bank, w.far, labels=w.labels, leave_out=w.labels)
    with PretendDevice(), num_threads(1):
        on_device.bank.save(tmp_path / "bank")
        bank = fsb.FeatureBank.open(tmp_path / "bank")
        labels = on_device.labels
        got = fsb.hull_projection(bank, on_device.far, labels=labels, leave_out=labels)
        assert {t.device for t in got.to_dict().values()} == {DEVICE}
        assert bank.select(labels).features.tolist() == w.bank.select(w.labels).features.tolist()
        space = on_device.space.bank(
            torch.utils.data.DataLoader([(on_device.images[0], 1)]), path=tmp_path / "streamed"
        )
        assert space.labels is not None
        assert space.labels.tolist() == [1]
    require_same(to_cpu(dict(parts(got))), dict(parts(wanted)), 0.0)


REFUSED: dict[str, Callable[[SimpleNamespace], object]] = {
    "features": lambda w: fsb.guaranteed_balls(w.head, to_pretend(w.z)),
    "features of a bank": lambda w: fsb.FeatureBank(to_pretend(w.z)),
    "weight": lambda w: fsb.LinearHead(to_pretend(w.z[:3]), None),
    "images": lambda w: pixels.flip_images(w.model, to_pretend(w.images)),
    "lower": lambda w: fsb.Domain.box(to_pretend(w.z[0]), w.z[0]),
    "model": lambda w: fsb.FeatureSpace(to_pretend(w.model)).extract(w.images),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_device_without_float64_is_refused(name: str) -> None:
    w = world()
    argument = name.partition(" ")[0]
    with (
        PretendDevice(float64=False),
        pytest.raises(fsb.ArgumentError, match=rf"{argument}: .*without float64.*\.cpu\(\)"),
    ):
        REFUSED[name](w)
